"""Losses that attacks ascend, one value an example.

Each is called with float32 logits (batch, classes), the reference labels (batch,), in a targeted attack
the targets (batch,) and, where `needs_clean` says so, the clean images' logits; it returns (batch,)
values that grow as the attack comes closer.
"""

import math
from dataclasses import asdict, dataclass
from typing import ClassVar

from keras import ops

from robust_zoo.typing import Tensor

LOWEST = -3e38  # of float32, nearly


def at(values: Tensor, labels: Tensor) -> Tensor:
    """What belongs to each example's labelled class, (batch, ...), of (batch, classes, ...)."""
    # A sum with zeros is exact, and with its gradient a quarter of the operations of take_along_axis.
    chosen = ops.reshape(
        _labelled(values, labels), (-1, values.shape[1]) + (1,) * (len(values.shape) - 2)
    )
    return ops.sum(ops.where(chosen, values, 0.0), axis=1)


def _others(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits with the labelled class at minus infinity (the lowest finite number: 0 * inf is NaN)."""
    return ops.where(_labelled(logits, labels), LOWEST, logits)


def _labelled(values: Tensor, labels: Tensor) -> Tensor:
    return ops.one_hot(labels, values.shape[1], dtype="bool")


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Base of the losses that attacks ascend. Parameters of a subclass are dataclass fields.

    Attributes:
        name: the loss's name, as in `PGD(loss=...)`.
        min_classes: fewest classes that the untargeted loss is defined for; 2 by default.
        min_classes_targeted: fewest classes that the targeted loss is defined for; 2 by default.
        needs_clean: whether it is called with the clean images' logits; False by default.
    """

    name: ClassVar[str]
    min_classes: ClassVar[int] = 2
    min_classes_targeted: ClassVar[int] = 2
    needs_clean: ClassVar[bool] = False

    def zero_in_autoattack(self, *, targeted: bool) -> float:
        """This loss where the one of the authors' AutoAttack is zero, which it compares the first step with."""
        return 0.0

    def __call__(
        self,
        logits: Tensor,
        labels: Tensor,
        targets: Tensor | None = None,
        clean: Tensor | None = None,
    ) -> Tensor:
        raise NotImplementedError

    def check_classes(self, num_classes: int, *, targeted: bool) -> None:
        """Raises ValueError if the loss is not defined for so few classes."""
        needed = self.min_classes_targeted if targeted else self.min_classes
        if num_classes < needed:
            raise ValueError(
                f"loss {self.name!r}{' with targets' if targeted else ''} needs a model of at least {needed} "
                f"classes, got {num_classes}."
            )

    def get_config(self) -> dict:
        return {"name": self.name, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(Loss):
    """Cross-entropy of the label, through its log-odds.

    With m = log(sum_{j != y} exp(z_j)) - z_y, cross-entropy is softplus(m). This is m: it rises where
    cross-entropy rises and its gradient has the same direction for every example, but does not vanish
    in float32 where the model is sure of itself. Attacks normalise gradients, so the steps are those of
    cross-entropy where that has a gradient at all.

    Args:
        scale: factor of the logits, > 0.
    """

    name: ClassVar[str] = "cross_entropy"
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not (self.scale > 0 and math.isfinite(self.scale)):
            raise ValueError(f"scale must be > 0 and finite, got {self.scale!r}.")

    def get_config(self) -> dict:
        return {"name": self.name} if self.scale == 1 else super().get_config()

    def zero_in_autoattack(self, *, targeted: bool) -> float:
        # Cross-entropy is never zero: always above it, and negated, for a target, always below.
        return math.inf if targeted else -math.inf

    def __call__(
        self,
        logits: Tensor,
        labels: Tensor,
        targets: Tensor | None = None,
        clean: Tensor | None = None,
    ) -> Tensor:
        labels, sign = (labels, 1.0) if targets is None else (targets, -1.0)
        logits = logits * self.scale
        rest = ops.logsumexp(_others(logits, labels), axis=1)
        return sign * (rest - at(logits, labels))


_USUAL_SPANS = (0.1, 1000.0)  # of an image's logits
_MASKED = 1e4  # times the upper half's span
_SPAN = 10.0  # what others are brought to, nearly


def span_of(logits: Tensor) -> Tensor:
    """Largest minus least logit of each example, (batch,), without classes that are masked.

    Where the least lies so far below that most of the span is a mask of -1e9, say, it is largest minus median.
    """
    ordered = ops.sort(logits, axis=1)
    whole = ordered[:, -1] - ordered[:, 0]
    upper = ordered[:, -1] - ordered[:, logits.shape[1] // 2]
    masked = ops.logical_and(whole > _USUAL_SPANS[1], whole > _MASKED * upper)
    return ops.where(ops.logical_and(masked, upper > 0), upper, whole)


def unit_of(logits: Tensor) -> Tensor:
    """For each example, (batch,), the power of ten that makes its logits span about 10; 1 from 0.1 to 1000."""
    span = span_of(logits)
    low, high = _USUAL_SPANS
    usual = ops.logical_or(span == 0, ops.logical_and(span >= low, span <= high))
    power = ops.round(ops.log10(ops.where(usual, _SPAN, span) / _SPAN))
    return ops.power(10.0, -power)


@dataclass(frozen=True, kw_only=True)
class CWMargin(Loss):
    """Margin loss of Carlini and Wagner as Madry et al. ascend it: -max(z_y - max_{j != y} z_j, -kappa).

    Equal to -relu(z_y - max_{j != y} z_j + kappa) up to the constant kappa (arXiv:1706.06083, section 5
    and its code). Targeted, the margin is that of the best other class over the target.

    Args:
        confidence: kappa >= 0; the loss stops growing once the example is misclassified by that margin.
            Madry's CW is 0, CW+ is 50.
    """

    name: ClassVar[str] = "cw_margin"
    confidence: float = 0.0

    def __post_init__(self) -> None:
        if not self.confidence >= 0:
            raise ValueError(f"confidence must be >= 0, got {self.confidence!r}.")

    def __call__(
        self,
        logits: Tensor,
        labels: Tensor,
        targets: Tensor | None = None,
        clean: Tensor | None = None,
    ) -> Tensor:
        if targets is None:
            margin = at(logits, labels) - ops.max(_others(logits, labels), axis=1)
        else:
            margin = ops.max(_others(logits, targets), axis=1) - at(logits, targets)
        return -ops.maximum(margin, -self.confidence)


@dataclass(frozen=True, kw_only=True)
class DLR(Loss):
    """Difference of logits ratio of Croce and Hein (arXiv:2003.01690, equations 6 and 7).

    Untargeted -(z_y - max_{j != y} z_j) / (z_1 - z_3), targeted -(z_y - z_t) / (z_1 - (z_3 + z_4) / 2),
    with z_1 >= z_2 >= ... the sorted logits. Needs 3 classes, 4 if targeted.
    """

    name: ClassVar[str] = "dlr"
    min_classes: ClassVar[int] = 3
    min_classes_targeted: ClassVar[int] = 4

    def __call__(
        self,
        logits: Tensor,
        labels: Tensor,
        targets: Tensor | None = None,
        clean: Tensor | None = None,
    ) -> Tensor:
        count = 3 if targets is None else 4
        ordered, _ = ops.top_k(logits, count)
        if targets is None:
            gap = at(logits, labels) - ops.max(_others(logits, labels), axis=1)
            spread = ordered[:, 0] - ordered[:, 2]
        else:
            gap = at(logits, labels) - at(logits, targets)
            spread = ordered[:, 0] - 0.5 * (ordered[:, 2] + ordered[:, 3])
        return -gap / (spread + 1e-12)


@dataclass(frozen=True, kw_only=True)
class Entropy(Loss):
    """Entropy of the predicted probabilities, whatever the label (Kurakin et al., arXiv:1611.01236)."""

    name: ClassVar[str] = "entropy"

    def __call__(
        self,
        logits: Tensor,
        labels: Tensor,
        targets: Tensor | None = None,
        clean: Tensor | None = None,
    ) -> Tensor:
        log_p = ops.log_softmax(logits, axis=1)
        return -ops.sum(ops.exp(log_p) * log_p, axis=1)


@dataclass(frozen=True, kw_only=True)
class KLDivergence(Loss):
    """KL(p(clean) || p(adversarial)), which TRADES ascends (Zhang et al., arXiv:1901.08573).

    Its gradient is zero at the clean image: it needs a random start.
    """

    name: ClassVar[str] = "kl_divergence"
    needs_clean: ClassVar[bool] = True

    def __call__(
        self,
        logits: Tensor,
        labels: Tensor,
        targets: Tensor | None = None,
        clean: Tensor | None = None,
    ) -> Tensor:
        before = ops.log_softmax(clean, axis=1)
        return ops.sum(ops.exp(before) * (before - ops.log_softmax(logits, axis=1)), axis=1)


@dataclass(frozen=True, kw_only=True)
class ProbabilityMargin(Loss):
    """Margin of the probabilities, max_{j != y} p_j - p_y (arXiv:2411.15210); targeted p_t - max_{j != t} p_j.

    In float32 its gradient vanishes where the model is sure of itself, as that of cross-entropy on probabilities does.
    """

    name: ClassVar[str] = "probability_margin"

    def __call__(
        self,
        logits: Tensor,
        labels: Tensor,
        targets: Tensor | None = None,
        clean: Tensor | None = None,
    ) -> Tensor:
        labels, sign = (labels, 1.0) if targets is None else (targets, -1.0)
        p = ops.softmax(logits, axis=1)
        return sign * (ops.max(_others(p, labels), axis=1) - at(p, labels))


LOSSES = {
    loss.name: loss
    for loss in (CrossEntropy, CWMargin, DLR, Entropy, KLDivergence, ProbabilityMargin)
}


def get_loss(loss: "Loss | str | dict") -> Loss:
    """A loss from itself, its name, or its `get_config`; ValueError for an unknown name."""
    if isinstance(loss, Loss):
        return loss
    config = dict(loss) if isinstance(loss, dict) else {"name": loss}
    name = config.pop("name", None)
    if name not in LOSSES:
        raise ValueError(f"loss must be a Loss or one of {tuple(LOSSES)}, got {name!r}.")
    return LOSSES[name](**config)
