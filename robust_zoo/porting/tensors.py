"""The tensors of other people's files, read without running code from them."""

import pathlib
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np

from robust_zoo.sentences import one_line

_TORCH = (".pt", ".pth", ".th", ".tar", ".ckpt", ".bin")
KINDS = (".safetensors", *_TORCH, ".npz", ".onnx")
_PREFIXES = ("module.", "model.", "_orig_mod.")  # of wrappers; each goes if all names have it
_COUNTERS = "num_batches_tracked"


class PortError(ValueError):
    """A file that cannot be ported: what is wrong with it, and what would help."""


def read_tensors(path: str | pathlib.Path, *, entry: str = "") -> dict[str, np.ndarray]:
    """The floating-point tensors of a file by their names, as float32 and in the file's layout.

    Counters of batch normalisation are dropped, as are the names of wrappers ("module.", "model.", "_orig_mod.") that
    all tensors are in.

    Args:
        path: a .safetensors, .npz or .onnx file, or one of PyTorch (.pt, .pth, .th, .tar, .ckpt, .bin), which is read
            with `weights_only=True` and nothing else.
        entry: of a PyTorch file with several dictionaries of tensors, the one that is meant, such as "state_dict"; by
            default the only one.

    Raises:
        FileNotFoundError: no such file.
        PortError: a file of another kind, one that is truncated or needs code to load, an entry that it does not have
            or that is needed, or tensors that are not finite.
        ImportError: the library that reads such files is not installed.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"file must be one that is there, got {str(path)!r}.")
    kind = path.suffix.lower()
    if kind not in KINDS:
        raise PortError(f"file must be one of {', '.join(KINDS)}, got {str(path)!r}.")
    with path.open("rb") as opened:
        if opened.read(1) == b"<":
            raise PortError(
                f"{str(path)!r} is a web page, not a checkpoint: the download was refused. Fetch it in a browser."
            )
    if kind in _TORCH:
        found = _entry(_read_torch(path), entry, path)
    elif entry:
        raise PortError(f"entry is of PyTorch's files, {kind} has none: got {entry!r}.")
    else:
        read = {".safetensors": _read_safetensors, ".npz": _read_npz, ".onnx": _read_onnx}[kind]
        found = read(path)
    tensors = {}
    for name, value in found.items():
        if name.endswith(_COUNTERS) or value.dtype.kind != "f":
            continue
        tensors[name] = value.astype("float32")
        if not np.isfinite(tensors[name]).all():
            raise PortError(
                f"tensor {one_line(name)!r} of {str(path)!r} has values that are not finite."
            )
    if not tensors:
        raise PortError(f"{str(path)!r} has no floating-point tensors.")
    return _without_prefixes(tensors)


def _without_prefixes(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for prefix in _PREFIXES * 2:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _read_torch(path: pathlib.Path) -> Any:
    try:
        import torch
    except ImportError:
        raise ImportError(
            f"{path.suffix} files need PyTorch, which is not installed: pip install 'robust-zoo[torch]'."
        ) from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise PortError(
            f"{str(path)!r} holds more than tensors, and would run code to load the rest; it is not read: "
            f"{one_line(error, 200)}. Save its state_dict alone."
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise PortError(
            f"{str(path)!r} is truncated, or not PyTorch's: {one_line(error, 200)}."
        ) from None


def _entry(loaded: Any, entry: str, path: pathlib.Path) -> dict[str, np.ndarray]:
    """The dictionary of tensors in what a PyTorch file holds."""
    found = dict(_dictionaries(loaded, ""))
    if entry:
        if entry not in found:
            raise PortError(
                f"entry must be one of {sorted(filter(None, found))} in {str(path)!r}, got {entry!r}."
            )
        chosen = found[entry]
    elif len(found) == 1:
        (chosen,) = found.values()
    elif "" in found:
        chosen = found[""]
    else:
        raise PortError(
            f"{str(path)!r} holds {len(found)} dictionaries of tensors: say with entry (--entry) which of "
            f"{sorted(found)} is meant."
            if found
            else f"{str(path)!r} holds no dictionary of tensors."
        )
    return {name: _array(value) for name, value in chosen.items() if hasattr(value, "detach")}


def _dictionaries(value: Any, place: str) -> Any:
    """Mappings that hold tensors, by their places, "state_dict" or "ema.state_dict"."""
    if not isinstance(value, Mapping):
        return
    names = {str(name): inner for name, inner in value.items()}
    if any(hasattr(inner, "detach") for inner in names.values()):
        yield place, names
    for name, inner in names.items():
        # Of an optimizer, whose tensors are no weights.
        if "optim" not in name:
            yield from _dictionaries(inner, f"{place}.{name}".strip("."))


def _array(tensor: Any) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError:
        raise ImportError(
            ".safetensors files need the library of that name: pip install 'robust-zoo[port]'."
        ) from None
    try:
        return load_file(path)
    except (SafetensorError, KeyError, ValueError) as error:
        raise PortError(f"{str(path)!r} cannot be read: {one_line(error, 200)}.") from None


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as opened:
            return {name: opened[name] for name in opened.files}
    except (ValueError, OSError, EOFError) as error:
        raise PortError(f"{str(path)!r} cannot be read: {one_line(error, 200)}.") from None


def _read_onnx(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        import onnx
        from google.protobuf.message import DecodeError
        from onnx import numpy_helper
    except ImportError:
        raise ImportError(
            ".onnx files need the library of that name: pip install 'robust-zoo[port]'."
        ) from None
    try:
        graph = onnx.load(path, load_external_data=False).graph
        return {part.name: numpy_helper.to_array(part) for part in graph.initializer}
    except (DecodeError, ValueError, OSError) as error:
        raise PortError(f"{str(path)!r} cannot be read: {one_line(error, 200)}.") from None
