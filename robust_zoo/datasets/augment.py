"""Random changes of training images."""

from typing import Literal

import numpy as np


def flip_and_crop(
    images: np.ndarray,
    rng: np.random.Generator,
    *,
    pad: int,
    border: Literal["constant", "reflect"] = "constant",
) -> np.ndarray:
    """Random horizontal flips (probability 1/2) and shifts of up to `pad` pixels in each direction, image by image.

    Args:
        images: float32 (n, height, width, channels).
        rng: random generator for all choices.
        pad: largest shift in pixels, an integer >= 0.
        border: what fills the border: "constant" (default), black, or "reflect", the image's own reflection.

    Returns:
        Images of the same shape.
    """
    mirrored = np.where(
        rng.random(len(images))[:, None, None, None] < 0.5, images[:, :, ::-1], images
    )
    padded = np.pad(mirrored, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode=border)
    rows, columns = rng.integers(0, 2 * pad + 1, (2, len(images), 1, 1))
    rows = rows + np.arange(images.shape[1])[None, :, None]
    columns = columns + np.arange(images.shape[2])[None, None, :]
    return padded[np.arange(len(images))[:, None, None], rows, columns]


def random_resized_crop(
    images: np.ndarray,
    rng: np.random.Generator,
    *,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> np.ndarray:
    """A random part of each image, resized to its size bilinearly, and a horizontal flip (probability 1/2).

    What Inception networks are trained with on ImageNet (Szegedy et al., arXiv:1409.4842, section 6), without changes of
    colour.

    Args:
        images: float32 (n, height, width, channels).
        rng: random generator for all choices.
        area: least and largest share of the image's area, in (0, 1]; default 8% to all.
        ratio: least and largest width over height of the part, of a logarithm that is uniform; default 3/4 to 4/3.

    Returns:
        Images of the same shape.
    """
    n, height, width = images.shape[:3]
    shares = rng.uniform(area[0], area[1], n) * height * width
    ratios = np.exp(rng.uniform(np.log(ratio[0]), np.log(ratio[1]), n))
    # A part that is too long is as long as the image.
    tall = np.minimum(np.sqrt(shares / ratios), height)
    wide = np.minimum(np.sqrt(shares * ratios), width)
    top, left = rng.random(n) * (height - tall), rng.random(n) * (width - wide)
    flipped = rng.random((n, 1, 1, 1)) < 0.5
    made = _interpolated(images, top, tall, axis=1)
    made = _interpolated(made, left, wide, axis=2)
    return np.where(flipped, made[:, :, ::-1], made)


def _interpolated(
    images: np.ndarray, first: np.ndarray, length: np.ndarray, *, axis: int
) -> np.ndarray:
    """A part of each image along an axis, from `first` and of `length` in pixels, resized to the whole axis."""
    size = images.shape[axis]
    places = first[:, None] + (np.arange(size) + 0.5) * length[:, None] / size - 0.5
    places = np.clip(places, 0, size - 1)
    before = np.floor(places).astype(int)
    after = np.minimum(before + 1, size - 1)
    shape = [len(images), 1, 1, 1]
    shape[axis] = size
    share = (places - before).astype(images.dtype).reshape(shape)

    def at(found: np.ndarray) -> np.ndarray:
        return np.take_along_axis(images, found.reshape(shape), axis=axis)

    return at(before) * (1 - share) + at(after) * share
