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
