"""DeepDefense: training on the size of the perturbation that DeepFool needs."""

from collections.abc import Callable
from typing import Any, cast

import keras
from keras import ops

from robust_zoo.attacks import FixedBudgetAttack
from robust_zoo.attacks.deepfool_path import find_path, length, perturbation
from robust_zoo.defenses.batch import Batch, integer_labels
from robust_zoo.defenses.natural_training import NaturalTraining
from robust_zoo.defenses.tools import Mean, check_count, check_number, reading
from robust_zoo.inference import logits_of
from robust_zoo.layers import layers_of, split
from robust_zoo.typing import Tensor


class PathBatch(Batch, total=False):
    """A batch and, besides, what DeepFool starts from, which of it is classified right, bool (batch,), and its path."""

    begin: Tensor
    correct: Tensor
    path: Any


@keras.saving.register_keras_serializable("robust_zoo")
class DeepDefense(NaturalTraining):
    """Loss at clean images plus a penalty on small DeepFool perturbations (Yan et al., arXiv:1803.00404).

    With r = ||perturbation||_2 / ||x||_2 of each example, the penalty (equation 4) is the mean over the
    batch of strength * exp(-c * r) where the example is classified correctly and strength * exp(d * r)
    where it is not; there the perturbation is the one that reaches the true class. The gradient flows
    through all iterations of DeepFool, second derivatives included. Unlike in the paper, r above 1 counts as 1
    in the growing term: where the gradient all but vanishes, DeepFool's steps have no bound.

    The classifier is seen in inference mode there.

    Args:
        classifier: see `Defense`.
        strength: lambda, weight of the penalty, >= 0; default 15 (MNIST and CIFAR-10), 5 on ImageNet.
        c: decay rate of the penalty on correctly classified examples, >= 0; larger gives examples far from a boundary
            less weight. Default 25; 500 on ImageNet.
        d: growth rate of the penalty on misclassified examples, >= 0; default 5.
        steps: iterations of DeepFool, >= 1; default 5.
        overshoot: >= 0, default 0.02; the perturbation is (1 + overshoot) times the sum of all steps, and each
            iteration tests that point for whether the boundary is crossed. Nothing is clipped to [0, 1].
        candidates: DeepFool looks at so many classes, the likeliest ones and the true one, >= 2: its time and memory grow
            with them. None (default) for all.
        behind: name of a layer of the classifier, such as a fixed whitening, behind which the perturbation and x are
            taken; None (default) for pixels. Weights up to there get no gradient of the penalty.
        layers: names of the classifier's layers whose weights get the penalty's gradient (the paper's layer-wise
            study); None (default) for all.
        attack: see `NaturalTraining`.
        seed: see `Defense`.
    """

    def __init__(
        self,
        classifier: keras.Model,
        *,
        strength: float = 15.0,
        c: float = 25.0,
        d: float = 5.0,
        steps: int = 5,
        overshoot: float = 0.02,
        candidates: int | None = None,
        behind: str | None = None,
        layers: tuple[str, ...] | None = None,
        attack: FixedBudgetAttack | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(classifier, attack=attack, **kwargs)
        self.strength = check_number("strength", strength, least=0)
        self.c, self.d = check_number("c", c, least=0), check_number("d", d, least=0)
        self.steps = check_count("steps", steps, least=1)
        self.overshoot = check_number("overshoot", overshoot, least=0)
        self.candidates = candidates
        if candidates is not None:
            classes = self.classifier.output_shape[1]
            self.candidates = check_count("candidates", candidates, least=2)
            if self.candidates > classes:
                raise ValueError(
                    f"candidates must be at most {classes}, the classifier's classes, got {candidates!r}."
                )
        self.behind = behind
        self._front, self._logits = _halves(self.classifier, behind)
        names = [
            layer.name
            for layer in layers_of(classifier)
            if layer.trainable_variables and not isinstance(layer, keras.Model)
        ]
        if layers is not None and (not layers or set(layers) - set(names)):
            raise ValueError(f"layers must be some of {names}, got {list(layers)!r}.")
        self.layer_names = None if layers is None else tuple(layers)
        self._mean = Mean()

    def prepare(self, data: Any, training: bool) -> tuple[PathBatch, Any, Any]:
        batch, y, sample_weight = super().prepare(data, training)
        labels = integer_labels(y)
        begin = self._front(batch["clean"])
        correct, path = find_path(
            self._logits,
            begin,
            labels,
            steps=self.steps,
            overshoot=self.overshoot,
            candidates=self.candidates,
        )
        with_path: PathBatch = {**batch, "begin": begin, "correct": correct, "path": path}
        return with_path, y, sample_weight

    def objective(
        self, x: Batch, y: Tensor, y_pred: dict[str, Tensor], sample_weight: Tensor | None
    ) -> Tensor:
        loss = super().objective(x, y, y_pred, sample_weight)
        batch = cast(PathBatch, x)
        with reading(self.classifier.variables, self._masked):
            change = perturbation(
                self._logits, batch["begin"], batch["path"], overshoot=self.overshoot
            )
            size = length(change)
        ratio = size / length(batch["begin"])
        growing = ops.exp(self.d * ops.minimum(ratio, 1.0))
        penalty = ops.where(batch["correct"], ops.exp(-self.c * ratio), growing)
        return loss + self.strength * self._mean(penalty, sample_weight)

    def _masked(self, variable: keras.Variable, value: Tensor) -> Tensor:
        if self.layer_names is None or any(
            variable is own
            for layer in layers_of(self.classifier)
            if layer.name in self.layer_names
            for own in layer.trainable_variables
        ):
            return value
        return ops.stop_gradient(value)

    def get_config(self) -> dict[str, Any]:
        names = ("strength", "c", "d", "steps", "overshoot", "behind")
        config = {**super().get_config(), **{name: getattr(self, name) for name in names}}
        return {**config, "layers": self.layer_names}


def _halves(
    classifier: keras.Model, behind: str | None
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """From images to what stands behind a layer, and from there to logits, in inference mode."""
    if behind is None:
        return lambda x: x, lambda x: logits_of(classifier, x)
    front, back = split(classifier, behind)
    return lambda x: ops.stop_gradient(front(x, training=False)), lambda x: logits_of(back, x)
