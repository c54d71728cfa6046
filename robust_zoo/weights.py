"""A model's weights as a file: written the same way every time, so that its hash names them."""

import hashlib
import os
import pathlib
import tempfile

import keras
import numpy as np

from robust_zoo.record import Weights

FILE = "model.weights.h5"


def sha256(path: str | pathlib.Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_weights(model: keras.Model, path: str | pathlib.Path) -> Weights:
    """Writes the weights in Keras's format to `path`, which must end in ".weights.h5".

    They are stored as float16 if every value is exactly representable in it (see `round_to_float16`),
    else as float32: nothing is lost either way. The same weights make the same bytes.
    """
    import h5py  # imported here: Keras, too, only needs it for files

    path = pathlib.Path(path)
    model.save_weights(path)
    dtype = "float32"
    if _fits_float16(model):
        dtype = "float16"
        narrow = path.with_name("narrow." + path.name)
        with h5py.File(path, "r") as source, h5py.File(narrow, "w") as target:
            _copy_as_float16(source, target)
        os.replace(narrow, path)
    return Weights(sha256=sha256(path), bytes=path.stat().st_size, dtype=dtype)


def describe_weights(model: keras.Model) -> Weights:
    """What `write_weights` would write: its hash, size and dtype."""
    with tempfile.TemporaryDirectory() as directory:
        return write_weights(model, pathlib.Path(directory) / FILE)


def round_to_float16(model: keras.Model) -> None:
    """Rounds every weight to the nearest float16, so that its file is half as large."""
    for variable in model.variables:
        value = keras.ops.convert_to_numpy(variable)
        if value.dtype == np.float32:
            variable.assign(value.astype("float16").astype("float32"))


def _fits_float16(model: keras.Model) -> bool:
    values = [keras.ops.convert_to_numpy(variable) for variable in model.variables]
    with np.errstate(over="ignore"):
        return bool(values) and all(
            value.dtype == np.float32 and (value.astype("float16") == value).all()
            for value in values
        )


def _copy_as_float16(source, target) -> None:
    for key, value in source.attrs.items():
        target.attrs[key] = value
    for name, item in source.items():
        if hasattr(item, "shape"):
            dataset = target.create_dataset(name, data=item[()].astype("float16"))
            for key, value in item.attrs.items():
                dataset.attrs[key] = value
        else:
            _copy_as_float16(item, target.create_group(name))
