"""A model's weights as a file: written the same way every time, so that its hash names them."""

import hashlib
import io
import pathlib
import zipfile
from typing import TYPE_CHECKING

import keras
import numpy as np

from robust_zoo.record import Weights

if TYPE_CHECKING:
    import h5py

FILE = "model.weights.h5"
_MOST_ITEMS = 20_000  # of a file, of which a layer has about four
_KERAS_FILES = ("config.json", "metadata.json", FILE)


def sha256(path: str | pathlib.Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_files(model: keras.Model) -> tuple[dict[str, bytes], Weights]:
    """The files of a model in Keras's format, made in memory, and the description of its weights.

    The same weights make the same bytes: names and the state of optimizers are left out. Float32 weights
    are stored as float16 if every value is exactly representable in it (see `round_to_float16`), so that
    nothing is lost.

    Returns:
        config.json, metadata.json and model.weights.h5 by their names, and the hash, size and dtype of the last.
    """
    import h5py  # imported here: Keras, too, only needs it for files
    from keras.src.saving import saving_lib

    whole, narrow = io.BytesIO(), _fits_float16(model)
    saving_lib.save_model(model, whole)
    with zipfile.ZipFile(whole) as archive:
        files = {name: archive.read(name) for name in _KERAS_FILES}
    with (
        h5py.File(io.BytesIO(files[FILE]), "r") as source,
        # In memory; the same bytes as a file would have.
        h5py.File(FILE, "w", driver="core", backing_store=False) as target,
    ):
        _copy(source, target, narrow)
        target.flush()
        files[FILE] = target.id.get_file_image()
    digest = hashlib.sha256(files[FILE]).hexdigest()
    return files, Weights(
        sha256=digest, bytes=len(files[FILE]), dtype="float16" if narrow else "float32"
    )


def describe_weights(model: keras.Model) -> Weights:
    """The hash, size and dtype of the weights file of a model."""
    return model_files(model)[1]


def variables_sha256(model: keras.Model) -> str:
    """Hexadecimal SHA-256 of the values of all of a model's variables, in their order."""
    digest = hashlib.sha256()
    for variable in model.variables:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).tobytes())
    return digest.hexdigest()


def check_layout(path: str | pathlib.Path) -> int:
    """Refuses a weights file that reaches out of itself, or claims more than it holds.

    HDF5 has links to other files, values that lie in other files, and shapes whose values were never
    stored; reading them would leak somebody's files into a model, or fill the memory.

    Returns:
        How many values it holds.

    Raises:
        ValueError: one of these; the message names it.
        OSError: not an HDF5 file.
    """
    import h5py

    seen, sizes = set(), []

    def check(group: h5py.Group) -> None:
        for name in group:
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise ValueError(f"{group.name}/{name} of the weights is a link to somewhere else.")
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                raise ValueError(f"{item.name} of the weights is there twice.")
            seen.add(address)
            if len(seen) > _MOST_ITEMS:
                raise ValueError(f"the weights are in more than {_MOST_ITEMS:,} groups and arrays")
            if isinstance(item, h5py.Group):
                check(item)
            elif item.external or item.is_virtual or item.id.get_storage_size() < item.nbytes:
                raise ValueError(f"{item.name} of the weights is not stored in the file.")
            else:
                sizes.append(item.size or 0)

    with h5py.File(path, "r") as file:
        seen.add(h5py.h5o.get_info(file.id).addr)
        check(file)
    return sum(sizes)


def stored_dtype(path: str | pathlib.Path) -> str:
    """The dtype of a weights file as its record has it: "float16" if any of its values is one, else "float32"."""
    import h5py

    found = set()
    with h5py.File(path, "r") as file:
        file.visititems(lambda name, item: found.add(str(getattr(item, "dtype", ""))))
    return "float16" if "float16" in found else "float32"


def round_to_float16(model: keras.Model) -> bool:
    """Rounds every float32 weight to the nearest float16, so that the weights file is half as large.

    Returns:
        Whether it was done: a model with a weight beyond float16's range, 65504, is left as it is.
    """
    values = [keras.ops.convert_to_numpy(variable) for variable in model.variables]
    if any(value.dtype == np.float32 and np.abs(value).max() > 65504 for value in values):
        return False
    for variable, value in zip(model.variables, values, strict=True):
        if value.dtype == np.float32:
            variable.assign(value.astype("float16").astype("float32"))
    return True


def _fits_float16(model: keras.Model) -> bool:
    values = [keras.ops.convert_to_numpy(variable) for variable in model.variables]
    floats = [value for value in values if value.dtype == np.float32]
    with np.errstate(over="ignore"):
        return bool(floats) and all((value.astype("float16") == value).all() for value in floats)


def _copy(source: "h5py.Group", target: "h5py.Group", narrow: bool) -> None:
    for name, item in source.items():
        if hasattr(item, "shape"):
            value = item[()]
            if narrow and value.dtype == np.float32:
                value = value.astype("float16")
            dataset = target.create_dataset(name, data=value)
            if "dtype" in item.attrs:  # how Keras marks bfloat16
                dataset.attrs["dtype"] = item.attrs["dtype"]
        elif name != "optimizer":
            _copy(item, target.create_group(name), narrow)
