"""The tensors of other people's files, read without running code from them."""

import pathlib
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from robust_zoo.npz import read_npz
from robust_zoo.sentences import one_line

_TORCH = (".pt", ".pth", ".th", ".tar", ".ckpt", ".bin")
KINDS = (".safetensors", *_TORCH, ".npz", ".npy", ".onnx")
_DEEPEST = 8  # dictionaries in each other
# Of batch normalisation, of averaged weights, and of what counts operations.
_COUNTERS = re.compile(r"(.+\.)?(num_batches_tracked|n_averaged|total_ops|total_params)")
# Of a training state, whose tensors are no weights.
_TRAINING = re.compile(
    r"(^|[._])(optim|optims|optimizers?|scheds?|schedulers?|scaler|rng|random|criterion|queue)([._]|$)",
    re.IGNORECASE,
)
# A second copy of the weights: averaged where the first are not, or the other way round.
_COPY = re.compile(r"(^|[._])(ema|swa|averaged|unaveraged)([._]|$)", re.IGNORECASE)
_NORMALISATION = re.compile(r"(?:.+\.)?(?:new_)?(mean|std|mu|sigma)")


class PortError(ValueError):
    """A file that cannot be ported: what is wrong with it, and what would help.

    Attributes:
        missing: names of all tensors that the network needs and the file has not.
        left_over: names of all tensors of the file that the network has no place for.
        fits: architectures and options that the file looks like.
    """

    missing: tuple[str, ...] = ()
    left_over: tuple[str, ...] = ()
    fits: tuple[tuple[str, dict[str, Any]], ...] = ()


class Tensors(NamedTuple):
    """What is in a file.

    Attributes:
        values: by name, float32.
        entry: of a PyTorch file with dictionaries, the one that was read; else "".
        copies: entries and prefixes of second copies of the weights, which were left out.
        unused: how many counters, and tensors of training states among the weights, were left out.
    """

    values: dict[str, np.ndarray]
    entry: str
    copies: tuple[str, ...]
    unused: int


def read_file(path: str | pathlib.Path, *, entry: str = "") -> Tensors:
    """The floating-point tensors of a file, without what belongs to no network.

    Left out by rule are counters (of batch normalisation, averaged weights and operations), training states (of optimizers, schedules and random
    numbers), second copies of the weights (entries or names that begin with "ema", "swa", "averaged" or "unaveraged",
    where there is one that does not, and "attacker.", which must be equal), and the part of the names that all have in
    common ("module.", "model.", "0."). The normalisation of images, in whatever wrapper, is called "mean" and "std".

    Args:
        path: a .safetensors, .npz or .onnx file, an .npy file of a structured array, or one of PyTorch (.pt, .pth, .th, .tar, .ckpt, .bin), which is read
            with `weights_only=True` and nothing else.
        entry: of a PyTorch file with several dictionaries of tensors, the one that is meant, such as "state_dict" or
            "ema"; by default the only one, copies left out.

    Raises:
        FileNotFoundError: no such file.
        PortError: a file of another kind, one that is truncated or needs code to load, an entry that it does not have
            or that is needed, or tensors that are not finite, not floating-point, or all zero.
        ImportError: the library that reads such files is not installed, or too old to do it safely.
    """
    told, path = str(path), pathlib.Path(path)
    if re.match(r"https?:", told):
        raise PortError(f"file must be on this machine, got {told!r}: download it first.")
    if other := _of_tensorflow(path):
        raise PortError(f"{str(path)!r} is {other}.")
    if not path.is_file():
        raise FileNotFoundError(f"file must be one that is there, got {str(path)!r}.")
    kind = path.suffix.lower()
    if kind not in KINDS:
        raise PortError(f"file must be one of {', '.join(KINDS)}, got {str(path)!r}.")
    if other := _other_kind(path, kind):
        raise PortError(f"{str(path)!r} is {other}.")
    if entry and kind not in _TORCH:
        raise PortError(f"entry is of PyTorch's files, {kind} has none: got {entry!r}.")
    copies: tuple[str, ...] = ()
    try:
        if kind in _TORCH:
            entry, found, copies = _entry(_read_torch(path), entry, path)
        else:
            found = _READERS[kind](path)
        tensors, unused = _weights(found, path)
    except (PortError, ImportError):
        raise
    except Exception as error:  # of whatever library stumbles over a file that is not what it says
        reason = one_line(error, 200) or type(error).__name__
        raise PortError(f"{str(path)!r} cannot be read: {reason.rstrip('.')}.") from None
    tensors, more = _without_copies(tensors, path)
    return Tensors(_renamed(tensors), entry, (*copies, *more), unused)


def _of_tensorflow(path: pathlib.Path) -> str:
    """What a place is that TensorFlow or Keras wrote; "" if it may be something else."""
    if path.suffix.lower() in (".h5", ".hdf5", ".keras"):
        return (
            "Keras's: load it with keras.saving.load_model, or its weights with model.load_weights"
        )
    if (path / "saved_model.pb").is_file():
        return "a SavedModel of TensorFlow's, not a file of weights: load it with keras.layers.TFSMLayer"
    if path.suffix == ".index" or path.with_name(f"{path.name}.index").is_file():
        return "a checkpoint of TensorFlow's: load it with the program that wrote it"
    if path.is_dir():
        return "a directory, not a file of weights"
    return ""


def _other_kind(path: pathlib.Path, kind: str) -> str:
    """What a file is that no suffix can make a checkpoint of PyTorch's, ONNX's or NumPy's; "" if it may be one."""
    with path.open("rb") as opened:
        start = opened.read(64)
    if not start:
        return "empty"
    if start.startswith(b"<"):
        return "a web page, not a checkpoint: the download was refused. Fetch it in a browser"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the file itself: fetch it with git lfs pull"
    if start.startswith(b"\x89HDF"):
        return "an HDF5 file, as Keras saves weights: load it with Keras"
    names = []
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except zipfile.BadZipFile:
            return ""
    if "model.weights.h5" in names:
        return "a model that Keras saved: load it with keras.saving.load_model"
    if any("/code/" in name or name.endswith("constants.pkl") for name in names):
        return "a program (TorchScript): save the state_dict of the model alone"
    # MessagePack begins with a map, of up to 15 entries or of a 16-bit number, and a string as its first key.
    key = start[1:2] if start[0] & 0xF0 == 0x80 else start[3:4] if start[0] == 0xDE else b""
    if kind in _TORCH and key and (key[0] & 0xE0 == 0xA0 or key[0] == 0xD9):
        return "a file of Flax's (MessagePack), not PyTorch's: write its arrays by name, as .npz or .safetensors"
    return ""


def _weights(
    found: Mapping[str, np.ndarray], path: pathlib.Path
) -> tuple[dict[str, np.ndarray], int]:
    """As float32, without counters and training states, and how many these are."""
    kept = {
        name: value
        for name, value in found.items()
        if not _COUNTERS.fullmatch(name) and not _TRAINING.match(name)
    }
    kept = kept or dict(found)  # of a network that is called so
    tensors = {}
    for name, value in kept.items():
        if not keras.backend.is_float_dtype(value.dtype.name):
            if value.ndim < 2:  # no quantised weight: left over, if the network has no place for it
                tensors[name] = value
                continue
            raise PortError(
                f"tensor {one_line(name)!r} of {str(path)!r} must be floating-point, got {value.dtype.name}: quantised "
                "weights cannot be ported."
            )
        tensors[name] = value.astype("float32")
        if not np.isfinite(tensors[name]).all():
            raise PortError(
                f"tensor {one_line(name)!r} of {str(path)!r} has values that are not finite."
            )
    if not tensors:
        raise PortError(f"{str(path)!r} has no floating-point tensors.")
    if not any(value.any() for value in tensors.values()):
        raise PortError(f"{str(path)!r} has no value that is not 0.")
    return tensors, len(found) - len(kept)


def _without_copies(
    tensors: dict[str, np.ndarray], path: pathlib.Path
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Without second copies, by their names, and what these begin with."""
    tensors = _without_common_part(tensors)
    views = {name: value for name, value in tensors.items() if name.startswith("attacker.")}
    own = {name: value for name, value in tensors.items() if name not in views}
    for name, value in views.items():
        other = own.get(name.removeprefix("attacker."))
        if other is not None and not np.array_equal(other, value):
            raise PortError(
                f"{str(path)!r} has two networks: {one_line(name)!r} differs from the tensor without 'attacker.'."
            )
    copies = {name for name in own if _COPY.search(name.partition(".")[0])}
    if len(copies) == len(own):  # then they are all there is
        copies = set()
    kept = {name: value for name, value in own.items() if name not in copies}
    left_out = {name.partition(".")[0] for name in (*views, *copies)}
    return kept, tuple(sorted(left_out))


def _renamed(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without what all names have in common, and with the normalisation of images as "mean" and "std"."""
    normalisation = {}
    others = {}
    for name, value in tensors.items():
        found = _NORMALISATION.fullmatch(name)
        if found is not None and value.size in (1, 3):
            normalisation[{"mu": "mean", "sigma": "std"}.get(found[1], found[1])] = value
        else:
            others[name] = value
    return {**_without_common_part(others), **normalisation}


def _without_common_part(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without the first parts of their names, as long as all have the same."""
    while len(tensors) > 1 and len({name.partition(".")[0] for name in tensors}) == 1:
        shorter = {name.partition(".")[2]: value for name, value in tensors.items()}
        if "" in shorter or {"weight", "bias"} & set(shorter):
            break
        tensors = shorter
    return tensors


def _read_torch(path: pathlib.Path) -> Any:
    try:
        import torch
    except ImportError:
        raise ImportError(
            f"{path.suffix} files need PyTorch, which is not installed: pip install 'robust-zoo[port]'."
        ) from None
    version = tuple(map(int, re.findall(r"\d+", torch.__version__)[:2]))
    if version < (2, 6):
        raise ImportError(
            f"{path.suffix} files need PyTorch 2.6 or newer, whose weights_only=True is safe (CVE-2025-32434), got "
            f"{torch.__version__}: pip install 'robust-zoo[port]'."
        )
    _check_zip(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UserWarning
            )  # of pickle protocols that it does not know
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error)) or _called(path)
        if named is None:
            raise PortError(f"{str(path)!r} is damaged, or not PyTorch's.") from None
        raise PortError(
            f"{str(path)!r} holds more than tensors, and would run code to load {named[1]}; it is not read. Save its "
            "state_dict alone."
        ) from None
    except Exception as error:  # of whatever in it is not as it should be
        reason = one_line(error, 200) or type(error).__name__
        raise PortError(
            f"{str(path)!r} is truncated, or not PyTorch's: {reason.rstrip('.')}."
        ) from None


def _check_zip(path: pathlib.Path) -> None:
    """Refuses a zip file, as PyTorch writes, of which a part differs from its checksum."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # of whatever in it is not as it should be
        raise PortError(f"{str(path)!r} is damaged: {one_line(error, 200)}.") from None
    if damaged is not None:
        raise PortError(
            f"{str(path)!r} is damaged: {one_line(damaged)!r} in it differs from its checksum."
        )


def _called(path: pathlib.Path) -> tuple[str, str] | None:
    """What a bare pickle would call, as a match has it, without loading it; None if it is none or calls nothing."""
    texts: list[str] = []
    try:
        with path.open("rb") as opened:
            for operation, argument, _ in pickletools.genops(opened):
                if operation.name == "GLOBAL":
                    return "", str(argument).replace(" ", ".")
                if operation.name == "STACK_GLOBAL":
                    return "", ".".join(texts[-2:])
                if isinstance(argument, str):
                    texts.append(argument)
    except Exception:  # of what is no pickle
        return None
    return None


def _entry(
    loaded: Any, entry: str, path: pathlib.Path
) -> tuple[str, dict[str, np.ndarray], tuple[str, ...]]:
    """The dictionary of tensors in what a PyTorch file holds, by its place, and those of its copies."""
    found = dict(_dictionaries(loaded, "", 0))
    if entry and entry not in found:
        others = sorted(filter(None, found))
        raise PortError(
            f"entry must be one of {others} in {str(path)!r}, got {entry!r}."
            if others
            else f"entry must not be given: {str(path)!r} holds one dictionary of tensors, got {entry!r}."
        )
    plain = [place for place in found if not _COPY.search(place)]
    chosen = entry if entry else plain[0] if len(plain) == 1 else None
    if chosen is None and len(found) == 1:
        (chosen,) = found
    if chosen is None:
        raise PortError(
            f"{str(path)!r} holds {len(found)} dictionaries of tensors: say with entry (--entry) which of "
            f"{sorted(found)} is meant."
            if found
            else f"{str(path)!r} holds no dictionary of tensors."
        )
    values = {
        name: _array(name, value) for name, value in found[chosen].items() if _is_tensor(value)
    }
    return (
        chosen,
        values,
        tuple(place for place in found if place != chosen and _COPY.search(place)),
    )


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "detach")


def _dictionaries(value: Any, place: str, depth: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Mappings that hold weights, by their places, "state_dict" or "ema.state_dict"."""
    if not isinstance(value, Mapping) or depth > _DEEPEST:
        return
    names = {str(name): inner for name, inner in value.items()}
    if any(_is_tensor(inner) and inner.ndim > 1 for inner in names.values()):
        yield place, names
        return
    for name, inner in names.items():
        if not _TRAINING.search(name):
            yield from _dictionaries(inner, f"{place}.{name}".strip("."), depth + 1)


def _array(name: str, tensor: Any) -> np.ndarray:
    try:
        tensor = tensor.detach().cpu()
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    except Exception as error:  # sparse, quantised, or without a value
        kind = one_line(error, 100)
        raise PortError(f"tensor {one_line(name)!r} must be an ordinary one: {kind}.") from None


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        from safetensors.numpy import load_file
    except ImportError:
        raise ImportError(
            ".safetensors files need the library of that name: pip install 'robust-zoo[port]'."
        ) from None
    return load_file(path)


def _read_onnx(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Initialisers, and constants in the graph."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise ImportError(
            ".onnx files need the library of that name: pip install 'robust-zoo[port]'."
        ) from None
    graph = onnx.load(path, load_external_data=False).graph
    constants = [
        (node.output[0], part.t)
        for node in graph.node
        if node.op_type == "Constant"
        for part in node.attribute
        if part.name == "value"
    ]
    parts = [*((part.name, part) for part in graph.initializer), *constants]
    found: dict[str, np.ndarray] = {}
    for name, part in parts:
        if part.data_location == onnx.TensorProto.EXTERNAL:
            raise PortError(
                f"{str(path)!r} keeps tensor {one_line(name)!r} in another file: save it with all tensors inside."
            )
        if name in found:
            raise PortError(f"{str(path)!r} has two tensors of the name {one_line(name)!r}.")
        found[name] = numpy_helper.to_array(part)
    weights = {part.name for part in graph.initializer}

    # Among them are shapes, axes and bounds, which the graph needs and no layer has as weights.
    def is_weight(name: str, value: np.ndarray) -> bool:
        is_float = keras.backend.is_float_dtype(value.dtype.name)
        return value.ndim > 0 and (is_float or (value.ndim > 1 and name in weights))

    return {name: value for name, value in found.items() if is_weight(name, value)}


def _read_npy(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The fields of a structured array."""
    try:
        array = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise PortError(
            f"{str(path)!r} is damaged, or holds objects that only code can load ({one_line(error, 100).rstrip('.')}): save "
            "the tensors by name, as .npz or .safetensors."
        ) from None
    if array.dtype.names is None or array.size != 1:
        raise PortError(
            f"{str(path)!r} holds one array without names, not a structured one: save the tensors by name, as .npz or "
            ".safetensors."
        )
    fields = array.reshape(())
    return {name: np.asarray(fields[name]) for name in array.dtype.names}


_READERS: dict[str, Callable[[pathlib.Path], dict[str, np.ndarray]]] = {
    ".safetensors": _read_safetensors,
    ".npz": read_npz,
    ".npy": _read_npy,
    ".onnx": _read_onnx,
}
