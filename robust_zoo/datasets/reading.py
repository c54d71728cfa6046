"""Reading single images: many at once, resized where their sizes differ."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np


def resizing(size: Sequence[int]) -> keras.layers.Layer:
    """Resizes an image to (height, width), cropped to that aspect ratio."""
    height, width = size
    return keras.layers.Resizing(height, width, crop_to_aspect_ratio=True, dtype="float32")


def prepared(size: tuple[int | None, ...] | None) -> str:
    """What `resizing` did, for a record; "" for None."""
    if size is None:
        return ""
    return f"resized to {size[0]} x {size[1]}, cropped to that aspect ratio"


def decoded(decode: Callable[..., Any], *values: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """What `decode`, of TensorFlow operations, makes of values one by one, on all cores: images in [0, 1] and labels."""
    import tensorflow as tf  # imported here: other backends need it for this alone

    stream = tf.data.Dataset.from_tensor_slices(tuple(map(list, values)))
    stream = stream.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    images, labels = stream.batch(len(values[0])).get_single_element()
    # Bilinear resizing may leave the range by a rounding error.
    return np.clip(images.numpy(), 0, 1), labels.numpy()
