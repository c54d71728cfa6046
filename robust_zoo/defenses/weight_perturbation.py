"""Adversarial weight perturbation, around any other defense."""

from typing import Any

import keras
from keras import ops

from robust_zoo import backend
from robust_zoo.defenses.batch import Batch
from robust_zoo.defenses.tools import check_number, finite, reading
from robust_zoo.defenses.trainer import Defense
from robust_zoo.typing import Tensor


@keras.saving.register_keras_serializable("robust_zoo")
class AdversarialWeightPerturbation(backend.UpdateSteps, Defense):
    """Trains another defense's objective at adversarially perturbed weights (Wu et al., arXiv:2004.05884).

    In each step every kernel w moves by gamma * ||w|| * g / ||g||, g being the gradient of the objective by
    w; the gradient there makes the optimizer's step, and the perturbation is taken back (algorithm 1, with
    one step). It costs one more gradient by the weights.

    Args:
        defense: any `Defense` whose update is Keras's own (not `FreeAdversarialTraining` or `PGN`); it makes the
            batches and states the objective. Its classifier is trained, and its attack, `attack_mode` and `seed` are
            used.
        gamma: size of the perturbation relative to each kernel's norm, > 0; default 5e-3, as in the paper.
    """

    trains_on_adversarial = False

    def __init__(self, defense: Defense, *, gamma: float = 5e-3, **kwargs: Any) -> None:
        if not isinstance(defense, Defense) or isinstance(defense, backend.UpdateSteps):
            raise TypeError(
                f"defense must be a Defense whose update is Keras's own, got {type(defense).__name__}."
            )
        kwargs |= {"attack_mode": defense.attack_mode, "seed": defense.seed}
        super().__init__(defense.classifier, attack=defense.attack, **kwargs)
        self.defense = defense
        self.gamma = check_number("gamma", gamma, above=0)
        self.trains_on_clean = defense.trains_on_clean
        self.trains_on_adversarial = defense.trains_on_adversarial

    def compile(
        self,
        optimizer: keras.optimizers.Optimizer | str = "rmsprop",
        loss: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """Keras's `compile`; the wrapped defense shares the optimizer and the loss."""
        optimizer = keras.optimizers.get(optimizer)
        self.defense.compile(optimizer=optimizer, loss=loss)
        super().compile(
            optimizer=optimizer,
            loss=loss,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            **kwargs,
        )

    def prepare(self, data: Any, training: bool) -> tuple[Batch, Any, Any]:
        return self.defense.prepare(data, training)

    def objective(
        self, x: Batch, y: Tensor, y_pred: dict[str, Tensor], sample_weight: Tensor | None
    ) -> Tensor:
        return self.defense.objective(x, y, y_pred, sample_weight)

    def after_update(self) -> list[tuple[keras.Variable, Tensor]]:
        return self.defense.after_update()

    def counted(self) -> list[tuple[keras.Variable, Tensor]]:
        return [*super().counted(), *self.defense.counted()]

    def update(self, data: Any) -> dict[str, Any]:
        batch, y, sample_weight = self.prepare(data, training=True)
        variables = self.variables + self.optimizer.variables
        weights = self.classifier.trainable_variables
        kernels = [variable for variable in weights if len(variable.shape) > 1]

        def loss() -> tuple[tuple[Tensor], tuple[Tensor, dict[str, Tensor]]]:
            y_pred = self(batch, training=True)
            loss = self.compute_loss(batch, y, y_pred, sample_weight)
            return (self.optimizer.scale_loss(loss),), (loss, y_pred)

        def loss_alone() -> tuple[tuple[Tensor], None]:
            with reading(self.variables):  # batch statistics count once
                return loss()[0], None

        _, _, (gradients,) = backend.gradients(loss_alone, [kernels], variables)
        changes = [
            finite(self.gamma * _length(kernel) * gradient / (_length(gradient) + 1e-12))
            for kernel, gradient in zip(kernels, backend.replica_sum(gradients), strict=True)
        ]
        for kernel, change in zip(kernels, changes, strict=True):
            kernel.assign(kernel + change)
        _, (loss, y_pred), (gradients,) = backend.gradients(loss, [weights], variables)
        self.optimizer.apply(gradients, weights)
        for kernel, change in zip(kernels, changes, strict=True):
            kernel.assign(kernel - change)
        for variable, value in self.after_update():
            variable.assign(value)
        self.record_loss(loss, ops.shape(y)[0])
        return self.compute_metrics(batch, y, y_pred, sample_weight)

    def get_config(self) -> dict[str, Any]:
        config = keras.Model.get_config(self)
        defense = keras.saving.serialize_keras_object(self.defense)
        return {**config, "defense": defense, "gamma": self.gamma}


def _length(tensor: Tensor) -> Tensor:
    return ops.sqrt(ops.sum(ops.square(tensor)))
