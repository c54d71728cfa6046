"""Reading pictures by TensorFlow's tf.data, whatever backend computes: many at once, resized where sizes differ.

TensorFlow is imported where it is needed: other backends need it for nothing else.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from robust_zoo.typing import Tensor

LEFT_OUT = "that cannot be read left out"
_RECORDS = 16  # read in one go


def resizing(size: Sequence[int], central_crop: float = 1.0) -> Callable[[Tensor], Tensor]:
    """Resizes an image to (height, width): the largest part of that aspect ratio in its middle, or a share of its sides."""
    height, width = size
    resize = keras.layers.Resizing(height, width, crop_to_aspect_ratio=True, dtype="float32")
    if central_crop == 1:
        return resize

    def cropped(image: Tensor) -> Tensor:
        import tensorflow as tf

        found = tf.cast(tf.shape(image)[:2], "float32")
        scale = central_crop * tf.reduce_min(found / tf.constant([height, width], "float32"))
        sides = tf.cast(tf.round(scale * tf.constant([height, width], "float32")), "int32")
        first = (tf.shape(image)[:2] - sides) // 2
        part = image[first[0] : first[0] + sides[0], first[1] : first[1] + sides[1]]
        return resize(part)

    return cropped


def prepared(size: tuple[int | None, ...] | None, central_crop: float = 1.0) -> str:
    """What `resizing` did, for a record; "" for None."""
    if size is None:
        return ""
    share = "" if central_crop == 1 else f"the middle {central_crop!r} "
    return f"{share}resized to {size[0]} x {size[1]}, cropped to that aspect ratio"


def options_of(preparation: str) -> dict[str, Any]:
    """Of `open_dataset`, for what a record says of its images."""
    share = re.match(r"the middle (\S+) resized", preparation)
    return {
        "central_crop": float(share[1]) if share else 1.0,
        "skip_corrupt": LEFT_OUT in preparation,
    }


def picture(path: Tensor, channels: int) -> Tensor:
    """The picture in a file, (height, width, channels), of 0 to 255."""
    import tensorflow as tf

    image = tf.io.decode_image(tf.io.read_file(path), channels=channels, expand_animations=False)
    image.set_shape((None, None, channels))
    return image


def decoded(decode: Callable[..., Any], *values: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """What `decode` makes of values one by one, on all cores: images in [0, 1] and labels."""
    import tensorflow as tf

    stream = tf.data.Dataset.from_tensor_slices(tuple(map(list, values)))
    stream = stream.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    images, labels = stream.batch(len(values[0])).get_single_element()
    # Bilinear resizing may leave the range by a rounding error.
    return np.clip(images.numpy(), 0, 1), labels.numpy()


def in_order(values: Any, seed: int | None) -> Any:
    """A tf.data stream of (nested) values, all of which are shuffled, anew each epoch, if there is a seed."""
    import tensorflow as tf

    stream = tf.data.Dataset.from_tensor_slices(values)
    if seed is None:
        return stream
    return stream.shuffle(len(stream), seed=seed, reshuffle_each_iteration=True)


def records(numbers: Any, contents: Callable[[np.ndarray], list[bytes]]) -> Any:
    """A tf.data stream of the records that `contents` reads for a stream of numbers."""
    import tensorflow as tf

    def read(some: np.ndarray) -> np.ndarray:
        return np.array(contents(some), dtype=object)

    def strings(some: Tensor) -> Tensor:
        return tf.ensure_shape(tf.numpy_function(read, [some], tf.string), [None])

    return numbers.batch(_RECORDS).map(strings).unbatch()
