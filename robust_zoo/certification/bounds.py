"""Bounds of a network's margins over a box of images: intervals, and linear bounds by one backward pass."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
from keras import ops

from robust_zoo import backend
from robust_zoo.certification.graph import Call, Graph
from robust_zoo.certification.rules import RULES, Affine, Monotone, Part, parts_of
from robust_zoo.typing import Tensor


class Interval(NamedTuple):
    """Elementwise bounds of a tensor, both in its shape."""

    lower: Tensor
    upper: Tensor

    @property
    def centre(self) -> Tensor:
        return (self.lower + self.upper) / 2

    @property
    def radius(self) -> Tensor:
        return (self.upper - self.lower) / 2


class Stage(NamedTuple):
    """A part of a layer, and what it was given.

    Attributes:
        part: see `rules`.
        sources: numbers of the tensors that it was given.
        target: number of the tensor that it made.
    """

    part: Part
    sources: tuple[int, ...]
    target: int


class Propagated(NamedTuple):
    """Intervals through a network.

    Attributes:
        stages: in the order in which they were computed.
        intervals: of each tensor, by its number.
        source: number of the images.
        target: number of the logits.
    """

    stages: list[Stage]
    intervals: dict[int, Interval]
    source: int
    target: int


def box(x: Tensor, epsilon: Tensor | float) -> Interval:
    """The linf ball of radius epsilon around images, cut to [0, 1]."""
    return Interval(ops.maximum(x - epsilon, 0.0), ops.minimum(x + epsilon, 1.0))


def propagate(
    graph: Graph,
    images: Interval,
    statistics: Callable[[Call], tuple[Tensor, Tensor]] | None = None,
) -> Propagated:
    """Interval bound propagation (Gowal et al., arXiv:1810.12715).

    Args:
        graph: of the model.
        images: bounds of a batch of images.
        statistics: mean and variance that a call of BatchNormalization normalises with; by default its moving ones.

    Raises:
        NoRuleError: a layer without an interval rule.
    """
    numbers = {graph.source: 0}
    intervals, stages = {0: images}, []
    for call in graph.calls:
        if statistics is not None and type(call.layer) is keras.layers.BatchNormalization:
            parts = RULES[keras.layers.BatchNormalization](call.layer, *statistics(call))
        else:
            parts = parts_of(call.layer)
        sources = tuple(numbers[number] for number in call.sources)
        for part in parts:
            target = len(intervals)
            made = _through(part, [intervals[number] for number in sources])
            # A layer may compute in bfloat16.
            intervals[target] = Interval(*(ops.cast(end, images.lower.dtype) for end in made))
            stages.append(Stage(part, sources, target))
            sources = (target,)
        numbers[call.target] = sources[0]
    return Propagated(stages, intervals, 0, numbers[graph.target])


def _through(part: Part, given: Sequence[Interval]) -> Interval:
    if isinstance(part, Affine):
        centre = part.apply(*(each.centre for each in given))
        radius = part.spread(*(each.radius for each in given))
        return Interval(centre - radius, centre + radius)
    if isinstance(part, Monotone):
        return Interval(
            part.apply(*(each.lower for each in given)), part.apply(*(each.upper for each in given))
        )
    (only,) = given
    lowest = part.apply(ops.clip(ops.full_like(only.lower, part.place), only.lower, only.upper))
    return Interval(lowest, ops.maximum(part.apply(only.lower), part.apply(only.upper)))


def margins(found: Propagated, y: Tensor, classes: int, slope: str | None = None) -> Tensor:
    """Lower bounds of z_y - z_k over the box, for each class k.

    Args:
        found: of `propagate`.
        y: integer labels (n,).
        classes: number of logits.
        slope: None (default) bounds them by intervals, with the last affine layers merged into the margin (elision).
            Otherwise by one backward pass of linear bounds (CROWN-IBP, Zhang et al., arXiv:1906.06316), whose lower
            slope at a ReLU that the box leaves open is 0 or 1: "adaptive", whichever is closer to it, or "zero".

    Returns:
        float32 (n, classes), 0 in the true class's column.
    """
    rows = ops.one_hot(y, classes)[:, None] - ops.eye(classes)[None]
    coefficients = {found.target: ops.cast(rows, found.intervals[0].lower.dtype)}
    offset: Tensor = 0.0
    for stage in reversed(found.stages):
        if stage.target not in coefficients:
            continue  # nothing that leads to the logits
        if slope is None and not isinstance(stage.part, Affine):
            continue
        outgoing, part = coefficients.pop(stage.target), stage.part
        given = [found.intervals[number] for number in stage.sources]
        if isinstance(part, Affine):
            back, constant = _through_affine(part, given, outgoing)
        elif slope is not None and isinstance(part, Monotone) and part.slope is not None:
            back, constant = _through_relu(part.slope, given[0], outgoing, zero=slope == "zero")
        else:
            back, constant = [], _least(outgoing, found.intervals[stage.target])
        offset = offset + constant
        for number, each in zip(stage.sources, back, strict=False):
            coefficients[number] = coefficients[number] + each if number in coefficients else each
    for number, left in coefficients.items():
        offset = offset + _least(left, found.intervals[number])
    return offset


def _least(coefficients: Tensor, bounds: Interval) -> Tensor:
    """The least value (n, rows) of linear functions over a box: coefficients (n, rows, ...)."""
    axes = tuple(range(2, len(coefficients.shape)))
    least = coefficients * bounds.centre[:, None] - ops.abs(coefficients) * bounds.radius[:, None]
    return ops.sum(least, axis=axes)


def _through_affine(
    part: Affine, given: Sequence[Interval], outgoing: Tensor
) -> tuple[list[Tensor], Tensor]:
    """Coefficients of what an affine map was given, and the constant (n, rows), for those of what it made."""
    rows = outgoing.shape[1]
    inner = [ops.shape(each.lower)[1:] for each in given]
    flat = ops.reshape(outgoing, (-1, *outgoing.shape[2:]))
    count = ops.shape(flat)[0]
    zeros = [ops.zeros((count, *shape), dtype=outgoing.dtype) for shape in inner]
    axes = tuple(range(1, len(flat.shape)))
    back, constant = [], None
    for place, zero in enumerate(zeros):

        def value(given: Tensor, place: int = place) -> Tensor:
            made = part.apply(*zeros[:place], given, *zeros[place + 1 :])
            return ops.sum(flat * ops.cast(made, flat.dtype), axis=axes)

        at_zero, gradient = backend.value_and_input_gradient(value, zero, cleaned=False)
        constant = at_zero if constant is None else constant
        back.append(ops.reshape(gradient, (-1, rows, *inner[place])))
    return back, ops.reshape(constant, (-1, rows))


def _through_relu(
    below: float, bounds: Interval, outgoing: Tensor, *, zero: bool
) -> tuple[list[Tensor], Tensor]:
    """The same through a (leaky) ReLU, between a line above it and one below, elementwise."""
    low = ops.minimum(bounds.lower, 0.0)
    high = ops.maximum(ops.maximum(bounds.upper, 0.0), low + 1e-8)
    steep = (high - below * low) / (high - low)
    constant = (below - 1) * low * high / (high - low)
    closer = bounds.lower >= 0 if zero else high > -low
    flat = ops.stop_gradient(ops.where(closer, 1.0, below))
    positive, negative = ops.maximum(outgoing, 0.0), ops.minimum(outgoing, 0.0)
    axes = tuple(range(2, len(outgoing.shape)))
    back = positive * flat[:, None] + negative * steep[:, None]
    return [back], ops.sum(negative * constant[:, None], axis=axes)
