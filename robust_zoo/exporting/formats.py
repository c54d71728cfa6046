"""A model as a file that other runtimes run: what Keras's `export` makes."""

import pathlib
from typing import Any

import keras

from robust_zoo import backend
from robust_zoo.contract import check_classifier
from robust_zoo.copies import in_float32, probe_images
from robust_zoo.files import atomic_directory, replacing

# What a file of each format ends with, and the backends that write it.
FORMATS: dict[str, tuple[str, tuple[str, ...]]] = {
    "onnx": (".onnx", ("tensorflow",)),
    "litert": (".tflite", ("tensorflow",)),
    "tf_saved_model": ("", ("tensorflow",)),
    "torch": (".pt2", ("torch",)),
}
_SAVED_MODEL = "saved_model.pb"  # in its directory
_LARGEST_BATCH = 4096  # that a program of PyTorch's takes


def export(
    model: keras.Model, path: str | pathlib.Path, *, to: str, quantized: bool = False
) -> pathlib.Path:
    """Writes a classifier for another runtime, atomically: float32 images in [0, 1] as in Keras in, logits out.

    Args:
        model: functional `keras.Model`.
        path: file that ends as its format does, ".onnx", ".tflite" or ".pt2", or the directory of a SavedModel. A
            file or a SavedModel that is there is replaced.
        to: "onnx" (extra `export`), "litert" (formerly TensorFlow Lite), "tf_saved_model" or "torch" (`torch.export`).
        quantized: of "litert", whether weights are stored in 8 bits; default False. That changes logits, and may mask
            gradients: measure the file with `measure_export`.

    Returns:
        The path.

    Raises:
        ValueError: another format, a path that does not end as it does, a backend that does not write it, or quantized with
            another than "litert".
        ImportError: the library that writes the format is not installed.
        FileExistsError: a directory where a file is to be, or the other way round; a directory of something else.
        FileNotFoundError: no directory to write into.
    """
    check_export(path, to, quantized=quantized)
    path = pathlib.Path(path)
    plain = in_float32(check_classifier(model))
    plain(probe_images(plain), training=False)  # Keras exports what was called
    options: dict[str, Any] = {"format": to, "verbose": False}
    if quantized:
        import tensorflow as tf

        options["optimizations"] = [tf.lite.Optimize.DEFAULT]
    if to == "torch":
        import torch

        options["dynamic_shapes"] = {0: torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)}
    if to == "tf_saved_model":
        with atomic_directory(path) as partial:
            plain.export(partial, **options)
        return path
    with replacing(path) as partial:
        try:
            plain.export(partial, **options)
        except ImportError as error:
            raise ImportError(
                f"{to} files need a library that is not installed: pip install 'robust-zoo[export]' ({error})."
            ) from error
    return path


def check_export(path: str | pathlib.Path, to: str, *, quantized: bool) -> None:
    """What can be refused before a model is loaded."""
    if to not in FORMATS:
        raise ValueError(f"to must be one of {', '.join(FORMATS)}, got {to!r}.")
    path, (ending, backends) = pathlib.Path(path), FORMATS[to]
    if ending and path.suffix != ending:
        raise ValueError(f"path must end in {ending} for {to!r}, got {str(path)!r}.")
    if backend.name not in backends:
        raise ValueError(
            f"to must be a format that the backend {backend.name!r} writes: for {to!r} set KERAS_BACKEND to "
            f"{' or '.join(backends)}."
        )
    if quantized and to != "litert":
        raise ValueError(f"quantized is for 'litert', got {to!r}.")
    if path.exists() and path.is_dir() == bool(ending):
        there = "directory" if ending else "file"
        raise FileExistsError(f"path must not be a {there} for {to!r}, got {str(path)!r}.")
    if path.is_dir() and any(path.iterdir()) and not (path / _SAVED_MODEL).is_file():
        raise FileExistsError(
            f"path must be a new directory or a SavedModel, which is replaced, got {str(path)!r}."
        )
    if not path.resolve().parent.is_dir():
        raise FileNotFoundError(f"path must be in a directory that exists, got {str(path)!r}.")
