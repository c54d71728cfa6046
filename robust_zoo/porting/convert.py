"""From a file of PyTorch's to a model of the zoo's architectures, with proof that it is the same network."""

import importlib.util
import inspect
import math
import pathlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from robust_zoo import architectures
from robust_zoo.inference import predict
from robust_zoo.porting.download import local_file
from robust_zoo.porting.layouts import LAYOUTS, Layout
from robust_zoo.porting.sizes import check_size
from robust_zoo.porting.tensors import PortError, read_file
from robust_zoo.record import Terms
from robust_zoo.sentences import one_line
from robust_zoo.typing import LICENSE_FORM
from robust_zoo.weights import sha256

_SHOWN = 50  # names in an error, at most
_ALLOWED = 1e-3  # difference of the logits, over the largest
_ANY_SIDE = 96  # of the images they are of, where the network takes any
_KINDS = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}  # what PyTorch calls a layer's variables


@dataclass(frozen=True)
class Report:
    """What became of a file's tensors.

    Attributes:
        layout: whose names the file has.
        used: how many tensors are weights of the model.
        dropped: how many the network does not use.
        entry: of a PyTorch file with several dictionaries of tensors, the one that was read; else "".
        copies: second copies of the weights in the file, which were not read.
        sha256: of the file.
        difference: of the logits from those of the network in PyTorch, the largest, over the largest logit; None where
            PyTorch is not installed.
    """

    layout: str
    used: int
    dropped: int
    entry: str
    copies: tuple[str, ...]
    sha256: str
    difference: float | None


def port(
    file: str | pathlib.Path,
    architecture: str,
    *,
    entry: str = "",
    license: str = "unknown",
    origin: str = "",
    **options: Any,
) -> tuple[keras.Model, Report]:
    """A model of the zoo's architecture with the weights of a file of PyTorch's.

    Where PyTorch is installed, the network is made there too, and must have the same logits within 1e-3 of the largest.
    What no tensor tells, such as the normalisation of images, is the same in both and must be given as it was trained:
    measure the clean accuracy.

    Args:
        file: see `read_file`; or "hf://owner/repository:file" on the Hugging Face hub, which is downloaded.
        architecture: a function of `robust_zoo.architectures` that has layouts: "wide_resnet", "preact_resnet", "resnet",
            "vnn_resnet", "alexnet", "inception_v3", "efficientnet_lite0", "small_cnn", "lenet" or "strided_cnn".
        entry: see `read_file`.
        license: of the weights, an SPDX identifier such as "MIT"; by default "unknown". `evaluate` writes it, and a notice,
            into the model's record.
        origin: whose weights they are, and where they are from, for that notice; by default the file's place.
        **options: of the architecture, such as depth=28, width=10, activation="silu", mean=..., deviation=....

    Returns:
        The model, and what became of the tensors.

    Raises:
        PortError: a file that cannot be read, or whose tensors are not those of the network: left over, missing, or of
            other shapes; or logits that are not finite, or other ones than in PyTorch.
        FileNotFoundError, ImportError: see `read_file`.
        ValueError: an architecture or options that there are not, or a license that is no SPDX identifier.
    """
    if architecture not in LAYOUTS:
        raise ValueError(f"architecture must be one of {', '.join(LAYOUTS)}, got {architecture!r}.")
    build = getattr(architectures, architecture)
    unknown = set(options) - set(inspect.signature(build).parameters)
    if unknown:
        raise ValueError(f"{architecture} has no {', '.join(sorted(unknown))}.")
    if not re.fullmatch(LICENSE_FORM, license):
        raise ValueError(f"license must be an SPDX identifier such as MIT, got {license!r}.")
    path = local_file(file)
    if not origin and str(file).startswith("hf://"):
        origin = str(file)
    try:
        model = build(**options)
    except Exception as error:  # of Keras, given other kinds of values than it expects
        told = ", ".join(f"{name}={value!r}" for name, value in options.items())
        kind = "an option is of the wrong type, " if isinstance(error, TypeError) else ""
        raise ValueError(
            f"there is no {architecture}({told}): {kind}{one_line(error, 200)}"
        ) from error
    tensors, entry, copies, unused = read_file(path, entry=entry)
    layout, names = _layout(model, architecture, tensors)
    given = {name: part.default for name, part in inspect.signature(build).parameters.items()}
    given |= options
    check_size(architecture, layout.name, given)
    for option, value in layout.implied.items():
        if given[option] != value:
            raise PortError(
                f"{option} must be {value!r}, which is what every {architecture} in {layout.name}'s names has, got "
                f"{given[option]!r}."
            )
    if "mean" in given:
        _check_normalisation(tensors, given)
    assign(model, tensors, names)
    digest = sha256(path)
    model.terms = Terms(
        license,
        f"These weights were not trained by whoever made this checkpoint: they are those of {one_line(origin)}"
        f"{', ' if origin else ''}the file {one_line(path.name)} with sha256 {digest}, in another layout. Their license is {license}.",
    )
    images = _probes(model)
    try:
        logits = predict(model, images, len(images))
    except ValueError as error:
        raise PortError(f"{str(path)!r} is not a network of this kind: {error}") from None
    used = sum(map(len, names.values()))
    difference = None
    if importlib.util.find_spec("torch") is not None:
        expected = _expected(images, architecture, layout, given, tensors)
        difference = float(np.abs(logits - expected).max() / max(np.abs(expected).max(), 1e-30))
        if not difference <= _ALLOWED:
            raise PortError(
                f"the logits of this {architecture} differ by {difference:.2g} of the largest from those of the network "
                f"in PyTorch, by more than {_ALLOWED:g}."
            )
    dropped = len(tensors) - used + unused
    return model, Report(layout.name, used, dropped, entry, copies, digest, difference)


def _check_normalisation(tensors: Mapping[str, np.ndarray], given: Mapping[str, Any]) -> None:
    """Refuses a mean or deviation other than the one that is in the file."""
    for option, name in (("mean", "mean"), ("deviation", "std")):
        if name not in tensors:
            continue
        found = np.unique(np.round(tensors[name].astype("float64"), 7)).tolist()
        told = given[option]
        if told is None or not np.allclose(
            tensors[name].ravel(), np.asarray(told, "float32"), rtol=0, atol=1e-6
        ):
            raise PortError(
                f"{option} must be that of the file, whose tensor {name!r} has the values {found}, got {told!r}."
            )


def _probes(model: keras.Model) -> np.ndarray:
    """Random, black and white images."""
    shape = [side or _ANY_SIDE for side in model.input_shape[1:]]
    noise = np.random.default_rng(0).random((4, *shape), dtype="float32")
    return np.concatenate([noise, np.zeros((1, *shape)), np.ones((1, *shape))]).astype("float32")


def _expected(
    images: np.ndarray,
    architecture: str,
    layout: Layout,
    options: dict[str, Any],
    tensors: Mapping[str, np.ndarray],
) -> np.ndarray:
    """The logits of the network in PyTorch, which gets a file's tensors by the names that they have there."""
    from robust_zoo.porting.reference import Reference

    reference = Reference(architecture, options, layout.name)
    reference.load({name: value for name, value in tensors.items() if not layout.drops(name)})
    return reference.logits(images)


def expected_names(model: keras.Model, layout: Layout) -> dict[str, tuple[str, ...]] | None:
    """The tensors of each layer with weights, in the order of its weights; None if the layout lacks a layer."""
    found = {}
    for layer in model.layers:
        if not layer.weights:
            continue
        module = layout.module(layer.name)
        if module is None:
            return None
        found[layer.name] = tuple(f"{module}.{_KINDS[part.name]}" for part in layer.weights)
    return found


def _layout(
    model: keras.Model, architecture: str, tensors: Mapping[str, np.ndarray]
) -> tuple[Layout, dict[str, tuple[str, ...]]]:
    """The layout that has exactly the file's tensors."""
    nearest: tuple[int, Layout, list[str], list[str]] | None = None
    for layout in LAYOUTS[architecture]:
        names = expected_names(model, layout)
        if names is None:
            continue
        expected = {name for part in names.values() for name in part}
        kept = {name for name in tensors if not layout.drops(name)}
        missing, left = sorted(expected - kept), sorted(kept - expected)
        if not missing and not left:
            return layout, names
        if nearest is None or len(missing) + len(left) < nearest[0]:
            nearest = len(missing) + len(left), layout, missing, left
    if nearest is None:
        raise ValueError(f"no files are known of a {architecture} with these options.")
    _, layout, missing, left = nearest
    error = PortError(
        f"the file's tensors are not those of this {architecture} in {layout.name}'s names: {_told('missing', missing)}; "
        f"{_told('left over', left)}. {_advice(tensors)}"
    )
    error.missing, error.left_over, error.fits = tuple(missing), tuple(left), _fits(tensors)
    raise error


def _fits(tensors: Mapping[str, np.ndarray]) -> tuple[tuple[str, dict[str, Any]], ...]:
    """The architectures and options that have exactly a file's tensors, names and shapes."""
    return tuple(
        (architecture, options)
        for architecture, layouts in LAYOUTS.items()
        for layout in layouts
        if (guessed := guess(architecture, layout, tensors)) is not None
        and _has(architecture, layout, options := {**guessed, **layout.implied}, tensors)
    )


def _has(
    architecture: str,
    layout: Layout,
    options: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
) -> bool:
    """Whether a network, which is built for it, has exactly these tensors."""
    try:
        model = getattr(architectures, architecture)(**options)
    except Exception:  # of Keras, given what is guessed of odd shapes
        return False
    names = expected_names(model, layout) or {}
    kept = {name: value.shape for name, value in tensors.items() if not layout.drops(name)}
    shapes = {
        name: _in_the_file(variable, model.get_layer(layer))
        for layer, found in names.items()
        for name, variable in zip(found, model.get_layer(layer).weights, strict=True)
    }
    return shapes == kept


def _advice(tensors: Mapping[str, np.ndarray]) -> str:
    """What to port a file as, or what it is most like."""
    fits = [call_of(*fit) for fit in _fits(tensors)]
    if fits:
        return f"Its tensors look like those of {' or '.join(fits)}."
    known = {
        (architecture, layout.name): {name for name in tensors if layout.knows(name)}
        for architecture, layouts in LAYOUTS.items()
        for layout in layouts
    }
    (architecture, writer), names = max(known.items(), key=lambda item: len(item[1]))
    others = sorted(set(tensors) - names)
    if 2 * len(names) < len(tensors):
        return "It is of no architecture that can be ported."
    return (
        f"It is most like a {architecture} in {writer}'s names, which {len(names)} of its {len(tensors)} tensors have"
        + (f", but not {', '.join(others[:_SHOWN])}." if others else ".")
    )


def call_of(architecture: str, options: Mapping[str, Any]) -> str:
    """As Python writes it: "wide_resnet(depth=28, width=10)"."""
    return f"{architecture}({', '.join(f'{name}={value!r}' for name, value in options.items())})"


def guess(
    architecture: str, layout: Layout, tensors: Mapping[str, np.ndarray]
) -> dict[str, Any] | None:
    """Depth, width and classes of the network that has a file's tensors; None if it is none of this layout."""
    if architecture == "efficientnet_lite0":
        return _guess_efficientnet(layout, tensors)
    if not layout.block:
        wanted = {f"{module}.weight" for module in layout.parts.values()}
        logits = tensors.get(f"{layout.parts['logits']}.weight")
        if not wanted <= set(tensors) or logits is None:
            return None
        if architecture != "inception_v3":
            return {"num_classes": len(logits)}
        width = tensors[f"{layout.parts['conv_1a']}.weight"].shape[0] / 32
        return {
            "width": width,
            "scale": True,
            "pool_border": "counted",
            "num_classes": len(logits),
        }
    stem, logits = (tensors.get(f"{layout.parts[part]}.weight") for part in ("stem", "logits"))
    if stem is None or logits is None or stem.ndim != 4 or logits.ndim != 2:
        return None

    def has(layer: str) -> bool:
        return f"{layout.module(layer)}.weight" in tensors

    blocks: list[int] = []
    while has(f"stage{len(blocks)}_block0_conv0"):
        count = 1
        while has(f"stage{len(blocks)}_block{count}_conv0"):
            count += 1
        blocks.append(count)
    classes = {"num_classes": logits.shape[0]}
    if architecture == "wide_resnet":
        if len(blocks) != 3 or logits.shape[1] % 64:
            return None
        return {"depth": 6 * blocks[0] + 4, "width": logits.shape[1] // 64, **classes}
    if architecture == "vnn_resnet":
        return (
            {"width": stem.shape[0], "blocks": blocks[0], **classes} if len(blocks) == 1 else None
        )
    if architecture == "resnet" and blocks in ([3] * 3, [5] * 3, [7] * 3, [9] * 3):
        return {"depth": 6 * blocks[0] + 2, "width": stem.shape[0], **classes}
    if blocks not in ([2, 2, 2, 2], [3, 4, 6, 3]):
        return None
    # Both call what is in a block alike; one has batch normalisation behind the stem, too.
    after_the_stem = "bn1.weight" in tensors
    if after_the_stem != (architecture == "resnet"):
        return None
    depth = 18 if blocks[0] == 2 else 50 if has("stage0_block0_conv2") else 34
    options = {"depth": depth, "width": stem.shape[0], **classes}
    if architecture == "resnet":
        return {**options, "stem": "large" if stem.shape[2] == 7 else "small"}
    shortcut = tensors.get(f"{layout.module('stage1_block0_shortcut')}.weight")
    if shortcut is None or shortcut.ndim != 4:
        return None
    if shortcut.shape[2] == 3:
        options["shortcut"] = "raw 3x3"
    return options if has("norm") else {**options, "final_norm": False}


def _guess_efficientnet(layout: Layout, tensors: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    """Lite0, 1 or 2, by how many blocks there are and how wide they are."""
    head, logits = (tensors.get(f"{layout.parts[part]}.weight") for part in ("head", "logits"))
    blocks = 0
    while f"{layout.module(f'block{blocks}_project')}.weight" in tensors:
        blocks += 1
    if head is None or logits is None or blocks not in (16, 21):
        return None
    classes = {"num_classes": logits.shape[0]}
    if blocks == 16:
        return classes
    wide = tensors[f"{layout.module('block4_project')}.weight"].shape[0] > 40
    return {**({"width": 1.1, "depth": 1.2} if wide else {"depth": 1.1}), **classes}


def _told(what: str, names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"{len(names)} {what}" + (f" ({shown})" if names else "")


def _dense(weight: np.ndarray, layer: keras.layers.Layer) -> np.ndarray:
    """The kernel (inputs, units) of a dense layer; behind a flatten, PyTorch's inputs have the channels first."""
    source = layer.input._keras_history.operation
    flat = isinstance(source, keras.layers.Flatten)
    places: tuple[int, ...] = tuple(source.input.shape[1:]) if flat else ()
    if len(places) == 3 and weight.shape[1] == math.prod(places):
        height, width, channels = places
        first = weight.reshape(-1, channels, height, width)
        weight = first.transpose(0, 2, 3, 1).reshape(len(weight), -1)
    return weight.T


def assign(
    model: keras.Model,
    tensors: Mapping[str, np.ndarray],
    names: Mapping[str, tuple[str, ...]],
) -> None:
    """Writes tensors in PyTorch's layout to the layers of a model.

    Raises:
        PortError: shapes that differ, or a running variance below 0.
    """
    differ = []
    for layer_name, found in names.items():
        layer = model.get_layer(layer_name)
        values = [tensors[name] for name in found]
        if values[0].ndim == 4:
            one_to_one = isinstance(layer, keras.layers.DepthwiseConv2D)
            values[0] = values[0].transpose((2, 3, 0, 1) if one_to_one else (2, 3, 1, 0))
        elif values[0].ndim == 2:
            values[0] = _dense(values[0], layer)
        for name, value, variable in zip(found, values, layer.weights, strict=True):
            if value.shape != tuple(variable.shape):
                differ.append(f"{name} {tensors[name].shape}, here {_in_the_file(variable, layer)}")
            elif name.endswith("running_var") and not (value >= 0).all():
                raise PortError(f"tensor {name!r} must not be below 0: it is a variance.")
        if not differ:
            layer.set_weights(values)
    if differ:
        error = PortError(
            f"{len(differ)} tensors have other shapes than the network's ({'; '.join(differ[:_SHOWN])}). {_advice(tensors)}"
        )
        error.fits = _fits(tensors)
        raise error


def _in_the_file(variable: keras.Variable, layer: keras.layers.Layer) -> tuple[int, ...]:
    """The shape that PyTorch has for a layer's variable."""
    shape = tuple(variable.shape)
    if len(shape) == 4 and isinstance(layer, keras.layers.DepthwiseConv2D):
        return (shape[2], shape[3], *shape[:2])
    return (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]
