"""Exported files in the runtimes that they are for."""

import importlib.util
import pathlib
from collections.abc import Callable

import numpy as np

Run = Callable[[np.ndarray], np.ndarray]


_RUNTIMES = {"onnx": "onnxruntime", "litert": "ai_edge_litert"}  # that not every backend brings


def check_runtime(to: str) -> None:
    """Raises ImportError if what runs files of a format is not installed."""
    needed = _RUNTIMES.get(to)
    if needed is not None and importlib.util.find_spec(needed) is None:
        raise ImportError(
            f"{needed} runs {to} files, and is not installed: pip install 'robust-zoo[export]'."
        )


def open_export(path: str | pathlib.Path) -> Run:
    """A function from images (n, height, width, channels), float32 in [0, 1], to logits (n, classes), of a file.

    Args:
        path: what `export` wrote: ".onnx" (run by ONNX Runtime), ".tflite" (LiteRT), ".pt2" (PyTorch), or the
            directory of a SavedModel (TensorFlow).

    Raises:
        FileNotFoundError: nothing there.
        ValueError: a file of another kind.
        ImportError: the runtime is not installed.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"path must be an exported file, got {str(path)!r}.")
    openers = {".onnx": _onnx, ".tflite": _litert, ".pt2": _torch}
    if path.is_dir():
        return _saved_model(path)
    if path.suffix not in openers:
        raise ValueError(f"path must end in one of {', '.join(openers)}, got {str(path)!r}.")
    return openers[path.suffix](path)


def _onnx(path: pathlib.Path) -> Run:
    check_runtime("onnx")
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def _litert(path: pathlib.Path) -> Run:
    check_runtime("litert")
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    place, output = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def run(images: np.ndarray) -> np.ndarray:
        interpreter.resize_tensor_input(place["index"], images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(place["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(output["index"])

    return run


def _saved_model(path: pathlib.Path) -> Run:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    return lambda images: loaded.serve(images).numpy()


def _torch(path: pathlib.Path) -> Run:
    import torch

    module = torch.export.load(path).module()

    def run(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(torch.from_numpy(images)).numpy()

    return run
