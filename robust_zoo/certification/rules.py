"""What each layer does to a box: an interval rule a layer class (Gowal et al., arXiv:1810.12715)."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import layers, ops

from robust_zoo.typing import Tensor


class Affine(NamedTuple):
    """An affine map of one or more tensors.

    Attributes:
        apply: the map.
        spread: the radius of its value, given the radii of what it maps: the map without its constant, and with the
            absolute value of each coefficient.
    """

    apply: Callable[..., Tensor]
    spread: Callable[..., Tensor]


class Monotone(NamedTuple):
    """A map that falls in none of its arguments, by element or not: its bounds are what it makes of the bounds.

    Attributes:
        apply: the map.
        slope: of negative values, if it is x above 0 and slope * x below, with slope in [0, 1); else None.
    """

    apply: Callable[..., Tensor]
    slope: float | None = None


class Valley(NamedTuple):
    """A function, by element, that falls up to a place and rises from there.

    Attributes:
        apply: the function.
        place: where it is lowest.
    """

    apply: Callable[[Tensor], Tensor]
    place: float


Part = Affine | Monotone | Valley
Rule = Callable[..., list[Part]]
RULES: dict[type, Rule] = {}


class NoRuleError(ValueError):
    """A layer that certification has no interval rule for; the message names it."""


def interval_rule(*kinds: type) -> Callable[[Rule], Rule]:
    """Registers a function as the interval rule of layer classes, also of a user's own.

    The function maps a layer to the parts that it is made of, in the order in which they are computed: `Affine`,
    `Monotone` or `Valley`. That of BatchNormalization is also given the mean and variance to normalise with.
    """

    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(kinds, rule))
        return rule

    return register


def parts_of(layer: keras.Operation) -> list[Part]:
    """The parts of a layer at inference.

    Raises:
        NoRuleError: no rule for exactly its class, or for its activation.
    """
    kind = type(layer)
    if kind in RULES and getattr(layer, "quantization_mode", None) is None:
        return RULES[kind](layer)
    # Of keras.ops on tensors of a functional model, which have no public classes.
    if kind.__module__.startswith("keras.src.ops.") and kind.__name__ in _OPERATIONS:
        return [_OPERATIONS[kind.__name__]]
    raise NoRuleError(
        f"model must have layers with an interval rule, but there is none for {layer.name!r} ({kind.__name__}). "
        "robust_zoo.certification.interval_rule registers one."
    )


_MONOTONE = (
    "celu", "elu", "exponential", "hard_sigmoid", "hard_tanh", "log_sigmoid", "relu6", "selu", "sigmoid", "softplus",
    "softsign", "squareplus", "tanh",
)  # fmt: skip
_VALLEYS = {
    "silu": -1.2784645,
    "gelu": -0.7517916,
    "mish": -1.1924312,
    "hard_silu": -1.5,
}


def activation_parts(activation: Any, name: str) -> list[Part]:
    """The parts of an activation, a function of `keras.activations` or a layer.

    Raises:
        NoRuleError: another one; `name` is that of the layer it belongs to.
    """
    if activation is None or activation is keras.activations.linear:
        return []
    if isinstance(activation, layers.Layer):
        return parts_of(activation)
    if activation is keras.activations.relu:
        return [Monotone(activation, slope=0.0)]
    if activation is keras.activations.leaky_relu:
        return [Monotone(activation, slope=0.2)]
    known = getattr(activation, "__name__", "")
    named: Any = getattr(keras.activations, known or "-", None)
    if named is activation:
        if known in _MONOTONE:
            return [Monotone(activation)]
        if known in _VALLEYS:
            return [Valley(activation, _VALLEYS[known])]
    raise NoRuleError(
        f"model must have activations with an interval rule, but there is none for {known or activation!r} of layer "
        f"{name!r}."
    )


def _with_bias(layer: Any, product: Callable[[Tensor, Tensor], Tensor]) -> list[Part]:
    """A layer with a kernel and maybe a bias along its channels, and the activation in it."""

    def apply(x: Tensor) -> Tensor:
        return _plus_bias(layer, product(x, layer.kernel))

    def spread(radius: Tensor) -> Tensor:
        return product(radius, ops.abs(layer.kernel))

    return [Affine(apply, spread), *activation_parts(layer.activation, layer.name)]


def _plus_bias(layer: Any, x: Tensor) -> Tensor:
    if not layer.use_bias:
        return x
    if getattr(layer, "data_format", "channels_last") == "channels_first":
        return x + ops.reshape(layer.bias, (-1, *(1,) * (len(x.shape) - 2)))
    return x + layer.bias


@interval_rule(layers.Dense)
def _dense(layer: Any) -> list[Part]:
    return _with_bias(layer, ops.matmul)


@interval_rule(layers.Conv1D, layers.Conv2D, layers.Conv3D)
def _convolution(layer: Any) -> list[Part]:
    if layer.padding != "causal":
        return _with_bias(layer, layer.convolution_op)
    if layer.data_format == "channels_first":
        raise NoRuleError(
            f"model must have channels last, but layer {layer.name!r} has them first."
        )

    def product(x: Tensor, kernel: Tensor) -> Tensor:
        before = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
        padded = ops.pad(x, [[0, 0], [before, 0], [0, 0]])
        return ops.conv(
            padded, kernel, layer.strides, "valid", "channels_last", layer.dilation_rate
        )

    return _with_bias(layer, product)


@interval_rule(layers.DepthwiseConv1D, layers.DepthwiseConv2D)
def _depthwise(layer: Any) -> list[Part]:
    if layer.padding == "causal":
        raise NoRuleError(f"model must have no causal padding, got it in layer {layer.name!r}.")

    def product(x: Tensor, kernel: Tensor) -> Tensor:
        return ops.depthwise_conv(
            x,
            kernel,
            strides=layer.strides,
            padding=layer.padding,
            dilation_rate=layer.dilation_rate,
            data_format=layer.data_format,
        )

    return _with_bias(layer, product)


@interval_rule(layers.BatchNormalization)
def _batch_normalization(
    layer: Any, mean: Tensor | None = None, variance: Tensor | None = None
) -> list[Part]:
    def along(x: Tensor, values: Tensor) -> Tensor:
        shape = [1] * len(x.shape)
        shape[layer.axis] = -1
        return ops.reshape(values, shape)

    def factor() -> Tensor:
        spread = layer.moving_variance if variance is None else variance
        found = ops.rsqrt(spread + layer.epsilon)
        return found * layer.gamma if layer.scale else found

    def apply(x: Tensor) -> Tensor:
        middle = layer.moving_mean if mean is None else mean
        made = (x - along(x, middle)) * along(x, factor())
        return made + along(x, layer.beta) if layer.center else made

    return [Affine(apply, lambda radius: radius * along(radius, ops.abs(factor())))]


@interval_rule(layers.Rescaling)
def _rescaling(layer: Any) -> list[Part]:
    def scale(x: Tensor) -> Tensor:
        return ops.convert_to_tensor(layer.scale, dtype=x.dtype)

    def apply(x: Tensor) -> Tensor:
        return x * scale(x) + ops.convert_to_tensor(layer.offset, dtype=x.dtype)

    return [Affine(apply, lambda radius: radius * ops.abs(scale(radius)))]


@interval_rule(layers.Normalization)
def _normalization(layer: Any) -> list[Part]:
    def spread(radius: Tensor) -> Tensor:
        return ops.abs(layer(radius) - layer(ops.zeros_like(radius)))

    return [Affine(lambda x: layer(x), spread)]


@interval_rule(layers.Activation)
def _activation(layer: Any) -> list[Part]:
    return activation_parts(layer.activation, layer.name)


@interval_rule(layers.ReLU)
def _relu(layer: Any) -> list[Part]:
    plain = layer.max_value is None and not layer.threshold and layer.negative_slope < 1
    return [Monotone(lambda x: layer(x), slope=float(layer.negative_slope) if plain else None)]


@interval_rule(layers.LeakyReLU)
def _leaky_relu(layer: Any) -> list[Part]:
    slope = float(layer.negative_slope)
    return [Monotone(lambda x: layer(x), slope=slope if slope < 1 else None)]


@interval_rule(layers.ELU)
def _elu(layer: Any) -> list[Part]:
    return [Monotone(lambda x: layer(x))]


@interval_rule(
    layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D, layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D,
)  # fmt: skip
def _maximum(layer: Any) -> list[Part]:
    return [Monotone(lambda x: layer(x))]


@interval_rule(layers.Maximum, layers.Minimum)
def _largest(layer: Any) -> list[Part]:
    return [Monotone(lambda *x: layer(list(x)))]


@interval_rule(
    layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D, layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D, layers.Flatten, layers.Reshape, layers.Permute,
    layers.RepeatVector, layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D, layers.Cropping1D,
    layers.Cropping2D, layers.Cropping3D, layers.UpSampling1D, layers.UpSampling3D,
)  # fmt: skip
def _average(layer: Any) -> list[Part]:
    """Sums of values with coefficients that are not negative."""
    return [Affine(lambda x: layer(x), lambda radius: layer(radius))]


@interval_rule(layers.Add, layers.Average, layers.Concatenate)
def _merged(layer: Any) -> list[Part]:
    return [Affine(lambda *x: layer(list(x)), lambda *radii: layer(list(radii)))]


@interval_rule(layers.Subtract)
def _difference(layer: Any) -> list[Part]:
    return [Affine(lambda *x: layer(list(x)), lambda *radii: functools.reduce(ops.add, radii))]


@interval_rule(
    layers.Identity, layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D,
    layers.GaussianDropout, layers.GaussianNoise, layers.ActivityRegularization,
)  # fmt: skip
def _nothing(layer: Any) -> list[Part]:
    """What does nothing at inference."""
    return []


_OPERATIONS: dict[str, Part] = {
    "Add": Affine(ops.add, ops.add),
    "Subtract": Affine(ops.subtract, ops.add),
    "Maximum": Monotone(ops.maximum),
    "Minimum": Monotone(ops.minimum),
    "Relu": Monotone(ops.relu, slope=0.0),
}
