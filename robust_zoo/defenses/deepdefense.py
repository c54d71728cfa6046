"""DeepDefense: training on the size of the perturbation that DeepFool needs."""

import keras
import numpy as np
from keras import ops

from robust_zoo import backend
from robust_zoo.attacks import FixedBudgetAttack
from robust_zoo.attacks.losses import at
from robust_zoo.defenses.base import Mean, check_count, check_number, reading
from robust_zoo.defenses.natural_training import NaturalTraining


@keras.saving.register_keras_serializable("robust_zoo")
class DeepDefense(NaturalTraining):
    """Loss at clean images plus a penalty on small DeepFool perturbations (Yan et al., arXiv:1803.00404).

    With r = ||perturbation||_2 / ||x||_2 of each example, the penalty (equation 4) is the mean over the
    batch of strength * exp(-c * r) where the example is classified correctly and strength * exp(d * r)
    where it is not; there the perturbation is the one that reaches the true class. The gradient flows
    through all iterations of DeepFool, second derivatives included. Unlike in the paper, r above 1 counts as 1
    in the growing term: where the gradient all but vanishes, DeepFool's steps have no bound.

    The iterations are computed twice: once without a record, to find which boundary is the nearest in
    each (a constant of the gradient, as is whether an example has crossed already), and once with one,
    where a single input gradient an iteration is enough. The result is that of recording everything.
    The classifier is seen in inference mode there.

    Args:
        classifier: see `Defense`.
        strength: lambda, >= 0; 15 on MNIST and CIFAR-10, 5 on ImageNet.
        c: >= 0, larger for less weight on examples that are far from a boundary; 25, and 500 on ImageNet.
        d: >= 0.
        steps: iterations of DeepFool.
        overshoot: >= 0; the perturbation is (1 + overshoot) times the sum of all steps, and so is where an
            iteration looks whether the boundary is crossed. Nothing is clipped to [0, 1].
        layers: names of the classifier's layers whose weights get the penalty's gradient (the paper's
            layer-wise study); None for all.
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
        layers: tuple[str, ...] | None = None,
        attack: FixedBudgetAttack | None = None,
        **kwargs,
    ):
        super().__init__(classifier, attack=attack, **kwargs)
        self.strength = check_number("strength", strength, least=0)
        self.c, self.d = check_number("c", c, least=0), check_number("d", d, least=0)
        self.steps = check_count("steps", steps, least=1)
        self.overshoot = check_number("overshoot", overshoot, least=0)
        names = [
            layer.name
            for layer in classifier._flatten_layers()
            if layer.trainable_variables and not isinstance(layer, keras.Model)
        ]
        unknown = set(layers or ()) - set(names)
        if unknown or (layers is not None and not layers):
            raise ValueError(f"layers must be some of {names}, got {list(layers)!r}.")
        self.layer_names = None if layers is None else tuple(layers)
        self._mean = Mean()

    def prepare(self, data, training):
        batch, y, sample_weight = super().prepare(data, training)
        labels = ops.cast(ops.reshape(y, (-1,)), "int32")
        batch["correct"], batch["path"] = self.find_path(batch["clean"], labels)
        return batch, y, sample_weight

    def objective(self, x, y, y_pred, sample_weight):
        loss = super().objective(x, y, y_pred, sample_weight)
        with reading(self.classifier.variables, self._masked):
            size = _length(self.perturbation(x["clean"], x["path"]))
        ratio = size / _length(x["clean"])
        growing = ops.exp(self.d * ops.minimum(ratio, 1.0))
        penalty = ops.where(x["correct"], ops.exp(-self.c * ratio), growing)
        return loss + self.strength * self._mean(penalty, sample_weight)

    def find_path(self, x, y):
        """Which of the examples are correct, (batch,), and DeepFool's choices in each iteration.

        A choice is the class to leave, the class to reach, int32 (batch,), and whether the example still
        moves, bool (batch,).
        """
        change, path = ops.zeros_like(x), []
        moves = ops.ones((ops.shape(x)[0],), "bool")
        correct = None
        for number in range(self.steps):
            logits, jacobian = backend.input_jacobian(self._logits, x + change)
            predicted = _argmax(logits)
            correct = predicted == y if correct is None else correct
            base = ops.where(correct, y, predicted)
            rows = ops.reshape(jacobian, (ops.shape(x)[0], logits.shape[1], -1))
            gaps = logits - at(logits, base)[:, None]
            sizes = _size(rows - ops.take_along_axis(rows, base[:, None, None], axis=1))
            distances = ops.abs(gaps) / sizes
            distances = ops.where(
                ops.one_hot(base, logits.shape[1], dtype="bool"), np.inf, distances
            )
            target = ops.where(correct, ops.cast(ops.argmin(distances, axis=1), "int32"), y)
            path.append((base, target, moves))
            if number < self.steps - 1:
                normal = ops.take_along_axis(rows, target[:, None, None], axis=1)
                normal = normal - ops.take_along_axis(rows, base[:, None, None], axis=1)
                step = _step(at(gaps, target), ops.reshape(normal, ops.shape(x)))
                change = change + ops.where(_spatial(moves, x), step, 0.0)
                now = _argmax(self._logits(x + (1 + self.overshoot) * change))
                crossed = ops.where(correct, now != y, now == y)
                moves = ops.logical_and(moves, ops.logical_not(crossed))
        return correct, path

    def perturbation(self, x, path):
        """The perturbations (batch, height, width, channels) along a path, differentiable by the weights."""
        change = ops.zeros_like(x)
        for base, target, moves in path:

            def gap(x_adv, base=base, target=target):
                logits = self._logits(x_adv)
                return at(logits, target) - at(logits, base)

            value, normal = backend.value_and_input_gradient(gap, x + change)
            change = change + ops.where(_spatial(moves, x), _step(value, normal), 0.0)
        return (1 + self.overshoot) * change

    def _logits(self, x):
        return ops.cast(self.classifier(x, training=False), "float32")

    def _masked(self, variable, value):
        if self.layer_names is None or any(
            variable is own
            for layer in self.classifier._flatten_layers()
            if layer.name in self.layer_names
            for own in layer.trainable_variables
        ):
            return value
        return ops.stop_gradient(value)

    def get_config(self):
        names = ("strength", "c", "d", "steps", "overshoot")
        config = {**super().get_config(), **{name: getattr(self, name) for name in names}}
        return {**config, "layers": self.layer_names}


def _argmax(logits):
    return ops.cast(ops.argmax(logits, axis=1), "int32")


def _spatial(values, x):
    return ops.reshape(values, (-1,) + (1,) * (len(x.shape) - 1))


def _length(x):
    """L2 norm of each example, (batch,), differentiable at zero."""
    squares = ops.sum(ops.square(x), axis=tuple(range(1, len(x.shape))))
    return ops.sqrt(ops.maximum(squares, 1e-12))


def _size(normal):
    """L2 norm along the last axis as the authors' code takes it on MNIST: 5e-6 is added to each entry."""
    return ops.sqrt(ops.maximum(ops.sum(ops.square(normal + 5e-6), axis=-1), 1e-24))


def _step(gap, normal):
    """The step to a linearised boundary: |gap| / ||normal|| along the normal over its length."""
    size = _size(ops.reshape(normal, (ops.shape(normal)[0], -1)))
    return _spatial(ops.abs(gap) / ops.square(size), normal) * normal
