"""Dataset: one split in memory; Source: where splits come from."""

import hashlib
import pathlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from robust_zoo.contract import check_images, check_labels

SPLITS = ("train", "validation", "test")
_HELD_OUT = {"cifar10": 1000}  # validation examples, where not 5,000


class DatasetError(ValueError):
    """A dataset that cannot be loaded; the message says why and what to do."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """One split in memory.

    Attributes:
        name: as given to `load_dataset`.
        version: of the source.
        split: "train", "validation", "test" or a TFDS split.
        images: float32 (n, height, width, channels) in [0, 1].
        labels: int32 (n,).
        class_names: a name a class.
    """

    name: str
    version: str
    split: str
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        images = check_images(self.images)
        labels = check_labels(self.labels, len(self.class_names), len(images))
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels)

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return (
            f"Dataset({self.name!r}, version={self.version!r}, split={self.split!r}, n={len(self)}, "
            f"shape={self.images.shape[1:]}, classes={len(self.class_names)})"
        )

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the images and labels, in their order."""
        digest = hashlib.sha256(str(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).tobytes())
        digest.update(np.ascontiguousarray(self.labels).tobytes())
        return digest.hexdigest()

    def sample(self, n: int | None, seed: int) -> "Dataset":
        """The first `n` examples of the order that `seed` shuffles them into; all by default.

        A smaller sample of the same seed is a part of a larger one.
        """
        n = len(self) if n is None else n
        if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= len(self):
            raise ValueError(
                f"n must be an integer in 1..{len(self)}, the examples of {self.name!r} {self.split!r}, "
                f"got {n!r}."
            )
        chosen = np.random.default_rng(seed).permutation(len(self))[:n]
        return replace(self, images=self.images[chosen], labels=self.labels[chosen])

    def of_classes(self, classes: tuple[int, ...]) -> "Dataset":
        """The examples of some classes, numbered anew in the order given; its name ends in ":7,3", say.

        Raises:
            DatasetError: fewer than two classes, one twice, or one that is not there.
        """
        known = range(len(self.class_names))
        if len(classes) < 2 or len(set(classes)) < len(classes) or not set(classes) <= set(known):
            raise DatasetError(
                f"classes of {self.name!r} must be at least two different ones of 0..{known[-1]}, got "
                f"{list(classes)}."
            )
        number = np.full(len(known), -1)
        number[list(classes)] = np.arange(len(classes))
        labels = number[self.labels]
        kept = labels >= 0
        return replace(
            self,
            name=f"{self.name}:{','.join(map(str, classes))}",
            images=self.images[kept],
            labels=labels[kept].astype("int32"),
            class_names=tuple(self.class_names[label] for label in classes),
        )


class Source:
    """Where a dataset comes from.

    Where it has no validation split, the last tenth of its training split (at most 5,000 examples, 1,000 of CIFAR-10)
    is held out as "validation" and is not part of "train"; no split ever shares an example with "test".

    Args:
        name: as given to `load_dataset`.
    """

    def __init__(self, name: str | pathlib.Path) -> None:
        self.name = str(name)

    def load(self, split: str) -> Dataset:
        """One split in memory; DatasetError if there is none of that name."""
        raise NotImplementedError

    def stream(
        self, split: str, *, image_size: tuple[int, int] | None, shuffle_seed: int | None
    ) -> Any:
        """A split as a tf.data stream of single examples (float32 image in [0, 1], int label)."""
        raise DatasetError(
            f"{self.name!r} is small: use load_dataset; streams are for TFDS datasets and folders."
        )

    def check_split(self, split: str) -> None:
        """Raises DatasetError unless the split is one of `SPLITS`."""
        if split not in SPLITS:
            raise DatasetError(f"split of {self.name!r} must be one of {SPLITS}, got {split!r}.")


def held_out(n: int, name: str = "") -> int:
    """How many of `n` training examples of a dataset are for validation."""
    return min(n // 10, _HELD_OUT.get(name, 5000))
