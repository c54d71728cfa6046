"""Random changes of training images."""

import math
from typing import Any, Literal

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
    flipped = mirrored(images, rng.random(len(images)) < 0.5)
    padded = np.pad(flipped, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode=border)
    rows, columns = rng.integers(0, 2 * pad + 1, (2, len(images), 1, 1))
    rows = rows + np.arange(images.shape[1])[None, :, None]
    columns = columns + np.arange(images.shape[2])[None, None, :]
    return padded[np.arange(len(images))[:, None, None], rows, columns]


class RandomResizedCrop:
    """A random part of each image, resized to the size of all, and a horizontal flip (probability 1/2).

    What Inception networks are trained with on ImageNet (Szegedy et al., arXiv:1409.4842, section 6), without changes of
    colour. Images that are read as they are needed are cut in the size in which they are stored, and then resized.

    Args:
        area: least and largest share of the image's area, in (0, 1]; default 8% to all.
        ratio: least and largest width over height of the part, > 0, of a logarithm that is uniform; default 3/4 to 4/3.
            A part that would be longer than a side of the image is as long as that.

    Raises:
        ValueError: an `area` or `ratio` out of range.
    """

    def __init__(
        self, area: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)
    ) -> None:
        if not 0 < area[0] <= area[1] <= 1:
            raise ValueError(
                f"area must be two shares in (0, 1], the least one first, got {area!r}."
            )
        if not 0 < ratio[0] <= ratio[1]:
            raise ValueError(
                f"ratio must be two numbers above 0, the least one first, got {ratio!r}."
            )
        self.area, self.ratio = tuple(area), tuple(ratio)

    def get_config(self) -> dict[str, Any]:
        return {"area": self.area, "ratio": self.ratio}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "RandomResizedCrop":
        return cls(**config)

    def drawn(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Parts of `n` images, whatever their sizes, and which are flipped.

        Returns:
            float64 (n, 4): share of the area, width over height, and where the part lies in what its height and its
            width leave of the image, in [0, 1]; bool (n,).
        """
        shares = rng.uniform(self.area[0], self.area[1], n)
        ratios = np.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1]), n))
        return np.stack([shares, ratios, *rng.random((2, n))], axis=1), rng.random(n) < 0.5

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Of images of one size.

        Args:
            images: float32 (n, height, width, channels).
            rng: random generator for all choices.

        Returns:
            Images of the same shape, resized bilinearly.
        """
        parts, flipped = self.drawn(len(images), rng)
        height, width = images.shape[1:3]
        shares, ratios, down, right = parts.T
        tall = np.minimum(np.sqrt(shares * height * width / ratios), height)
        wide = np.minimum(np.sqrt(shares * height * width * ratios), width)
        made = _interpolated(images, down * (height - tall), tall, axis=1)
        made = _interpolated(made, right * (width - wide), wide, axis=2)
        return mirrored(made, flipped)


def mirrored(images: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Images (n, height, width, channels), some of which (n,) are flipped horizontally."""
    return np.where(which[:, None, None, None], images[:, :, ::-1], images)


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
