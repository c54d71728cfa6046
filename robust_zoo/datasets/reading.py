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
        sides = tf.maximum(sides, 1)  # of tiny pictures
        first = (tf.shape(image)[:2] - sides) // 2
        part = image[first[0] : first[0] + sides[0], first[1] : first[1] + sides[1]]
        return resize(part)

    return cropped


def cut(image: Tensor, part: Tensor, size: Sequence[int]) -> Tensor:
    """A part of an image, as `RandomResizedCrop.drawn` describes it, resized to (height, width)."""
    import tensorflow as tf

    share, ratio, down, right = tf.unstack(tf.cast(part, "float32"))
    sides = tf.cast(tf.shape(image)[:2], "float32")
    lengths = tf.sqrt(share * tf.reduce_prod(sides) * tf.stack([1 / ratio, ratio]))
    lengths = tf.clip_by_value(tf.round(lengths), 1, sides)
    first = tf.cast(tf.round(tf.stack([down, right]) * (sides - lengths)), "int32")
    end = first + tf.cast(lengths, "int32")
    found = image[first[0] : end[0], first[1] : end[1]]
    return keras.layers.Resizing(*size, dtype="float32")(found)


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

    content = tf.io.read_file(path)
    is_bmp = tf.strings.substr(content, 0, 2) == b"BM"

    def bits() -> Tensor:
        return tf.cast(tf.io.decode_raw(tf.strings.substr(content, 28, 2), tf.uint16)[0], "int32")

    # TensorFlow takes the numbers of a palette's colours for colours.
    colours = tf.cond(is_bmp, bits, lambda: 24)
    checked = tf.debugging.Assert(colours >= 24, ["BMP with a palette"])
    with tf.control_dependencies([checked] if checked is not None else []):
        content = tf.identity(content)

    def decode(channels: int) -> Tensor:
        image = tf.io.decode_image(content, channels=channels, expand_animations=False)
        image.set_shape((None, None, channels))
        return image

    def in_colour() -> Tensor:
        return decode(3)

    def opaque() -> Tensor:
        image = decode(3)
        return tf.concat([image, tf.ones_like(image[..., :1]) * 255], axis=2)

    if channels == 3:
        return in_colour()
    # Not all kinds of pictures can be decoded to 1 or 4 channels.
    is_png = tf.strings.substr(content, 0, 4) == b"\x89PNG"
    if channels == 4:
        return tf.cond(is_png, lambda: decode(4), opaque)
    return tf.cond(is_png, lambda: decode(1), lambda: tf.image.rgb_to_grayscale(in_colour()))


def decoded(
    decode: Callable[..., Any], *values: Sequence[Any] | np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """What `decode` makes of values one by one, on all cores: images in [0, 1] and labels. None is left out."""
    import tensorflow as tf

    given = tuple(list(each) for each in values if each is not None)
    stream = tf.data.Dataset.from_tensor_slices(given)
    stream = stream.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    images, labels = stream.batch(len(given[0])).get_single_element()
    # Bilinear resizing may leave the range by a rounding error.
    return np.clip(images.numpy(), 0, 1), labels.numpy()
