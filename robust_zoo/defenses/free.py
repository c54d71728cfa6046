"""Free adversarial training."""

from typing import Any

import keras
from keras import ops

from robust_zoo import backend
from robust_zoo.attacks import FixedBudgetAttack
from robust_zoo.defenses.batch import Batch
from robust_zoo.defenses.tools import check_count
from robust_zoo.defenses.trainer import Defense
from robust_zoo.typing import Tensor


@keras.saving.register_keras_serializable("robust_zoo")
class FreeAdversarialTraining(backend.UpdateSteps, Defense):
    """Adversarial training at the cost of natural training (Shafahi et al., arXiv:1904.12843, algorithm 1).

    Each batch is replayed several times. Every replay is one backward pass whose gradient by the weights
    updates them, and whose gradient by the image moves the perturbation by epsilon, ready for the next
    replay and kept for the next batch. Divide the number of epochs by `replays` for equal cost.

    Args:
        classifier: see `Defense`.
        attack: its norm and epsilon are those of the perturbation; robust accuracy is measured with it in
            `evaluate`, and at the perturbation of the last replay in training.
        batch_size: largest global batch size, >= 1; the stored perturbation has this many rows.
        replays: updates on each batch, >= 1; the paper's m. Default 8.
        seed: see `Defense`.
    """

    attack: FixedBudgetAttack

    def __init__(
        self,
        classifier: keras.Model,
        *,
        attack: FixedBudgetAttack,
        batch_size: int,
        replays: int = 8,
        **kwargs: Any,
    ) -> None:
        super().__init__(classifier, attack=attack, **kwargs)
        self.batch_size = check_count("batch_size", batch_size, least=1)
        self.replays = check_count("replays", replays, least=1)
        if None in classifier.input_shape[1:]:
            raise ValueError(
                f"classifier must have a fixed image shape, got {classifier.input_shape[1:]}."
            )
        self.perturbation = self.add_weight(
            shape=(batch_size, *classifier.input_shape[1:]),
            initializer="zeros",
            dtype="float32",
            trainable=False,
            aggregation="none",
            autocast=False,
            name="perturbation",
        )

    def check_batch(self, size: int, shards: int) -> None:
        super().check_batch(size, shards)
        if size > self.batch_size:
            raise ValueError(
                f"batches must have at most the defense's batch_size of {self.batch_size} examples, got {size}."
            )

    def adversarial_part(self, x: Tensor, y: Tensor, training: bool) -> Batch:
        if not training:
            return super().adversarial_part(x, y, training)
        return {"attacked": ops.ones((ops.shape(x)[0],), "bool")}

    def update(self, data: Any) -> dict[str, Any]:
        batch, y, sample_weight = self.prepare(data, training=True)
        for _ in range(self.replays):
            adversarial = self._replay(batch["clean"], y, sample_weight)
        clean = self.classifier(batch["clean"], training=False)
        y_pred = {"clean": clean, "adversarial": adversarial}
        return self.compute_metrics(batch, y, y_pred, sample_weight)

    def _replay(self, x: Tensor, y: Tensor, sample_weight: Tensor | None) -> Tensor:
        """One update of the weights and the perturbation; the logits before it."""
        weights = self.classifier.trainable_variables
        count = ops.shape(x)[0]
        rows = backend.replica_id() * count + ops.arange(count)  # of the global batch

        def loss() -> tuple[tuple[Tensor], tuple[Tensor, Tensor]]:
            change = ops.take(self.perturbation, rows, axis=0)
            # The image stays in [0, 1], and the gradient is that by the image.
            x_adv = change + ops.stop_gradient(ops.clip(x + change, 0.0, 1.0) - change)
            logits = self.classifier(x_adv, training=True)
            loss = self.compiled_loss(x, y, logits, sample_weight)
            return (self.optimizer.scale_loss(loss),), (loss, logits)

        _, (loss, logits), (gradients,) = backend.gradients(
            loss, [[*weights, self.perturbation]], self.variables + self.optimizer.variables
        )
        self.optimizer.apply(gradients[:-1], weights)
        geometry, epsilon = self.attack.geometry, self.attack.epsilon
        direction = geometry.direction(backend.finite_gradient(gradients[-1]))
        moved = geometry.shrink(self.perturbation + epsilon * direction, epsilon)
        # Every replica moves its own rows and learns of the others'.
        step = backend.replica_sum(moved - self.perturbation)
        self.perturbation.assign(self.perturbation + step)
        self.record_loss(loss, count)
        return logits

    def objective(
        self, x: Batch, y: Tensor, y_pred: dict[str, Tensor], sample_weight: Tensor | None
    ) -> Tensor:
        return self.compiled_loss(x["clean"], y, y_pred["adversarial"], sample_weight)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "batch_size": self.batch_size, "replays": self.replays}
