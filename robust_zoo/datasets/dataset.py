"""Dataset: one split in memory; StoredDataset: one read as it is needed; Source: where splits come from."""

import hashlib
import math
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, TypeAlias

import numpy as np

from robust_zoo.contract import check_images, check_labels

SPLITS = ("train", "validation", "test")
_HELD_OUT = {"cifar10": 1000, "imagenet2012": 1000}  # validation examples, where not 5,000
_IN_MEMORY = 2**30  # bytes of float32 images, beyond which they are read as they are needed
_PICTURES_IN_MEMORY = (
    2**26
)  # the same of pictures that are resized, which take more while they are decoded
_READ_AT_ONCE = 256


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
        preparation: how images were resized, "" if they were not.
    """

    name: str
    version: str
    split: str
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    preparation: str = ""

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
        return _sha256(self.images.shape, iter([self]))

    def take(self, rows: slice | np.ndarray) -> "Dataset":
        """The examples at some places, in that order."""
        return replace(self, images=self.images[rows], labels=self.labels[rows])

    def sample(self, n: int | None, seed: int) -> "Dataset":
        """A random sample without replacement: the first `n` examples of a permutation drawn with `seed`.

        A smaller sample of the same seed is a prefix of a larger one.

        Args:
            n: examples, in 1..len(self); None is all, in the permutation's order.
            seed: integer seed of the permutation, >= 0.

        Raises:
            ValueError: `n` out of range.
        """
        return self.take(sample_places(self, n, seed))

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


class Reader(Protocol):
    """Reads single examples of a split, by their numbers in it; other processes can be sent one."""

    image_shape: tuple[int, ...]

    def read(
        self, numbers: np.ndarray, parts: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Float32 images (n, height, width, channels) in [0, 1] and integer labels (n,), in the order asked for.

        Args:
            numbers: of the examples.
            parts: of each image, what `RandomResizedCrop.drawn` makes; None is the whole, or the middle of it.
        """


@dataclass(frozen=True, eq=False)
class StoredDataset:
    """One split whose images are read as they are needed, and are never in memory together.

    Attributes:
        name: as given to `open_dataset`.
        version: of the source.
        split: "train", "validation", "test" or a TFDS split.
        reader: of the whole split.
        numbers: int64 (n,), the examples that belong to it, by their numbers in the split.
        class_names: a name a class.
        preparation: how images are resized, "" if they are not.
    """

    name: str
    version: str
    split: str
    reader: Reader
    numbers: np.ndarray
    class_names: tuple[str, ...]
    preparation: str = ""

    def __len__(self) -> int:
        return len(self.numbers)

    def __repr__(self) -> str:
        return (
            f"StoredDataset({self.name!r}, version={self.version!r}, split={self.split!r}, n={len(self)}, "
            f"shape={self.reader.image_shape}, classes={len(self.class_names)})"
        )

    @cached_property
    def sha256(self) -> str:
        """See `Dataset.sha256`; reads everything once."""
        return _sha256((len(self), *self.reader.image_shape), self._parts())

    def _parts(self) -> Iterator[Dataset]:
        """All examples, some at a time."""
        for first in range(0, len(self), _READ_AT_ONCE):
            yield self.take(slice(first, first + _READ_AT_ONCE))

    def take(self, rows: slice | np.ndarray, parts: np.ndarray | None = None) -> Dataset:
        """The examples at some places, in that order, in memory; parts of their images as `RandomResizedCrop` draws them."""
        images, labels = self.reader.read(self.numbers[rows], parts)
        about = (self.name, self.version, self.split)
        return Dataset(*about, images, labels, self.class_names, self.preparation)

    def loaded_if_small(self) -> "Dataset | StoredDataset":
        """In memory if the images take up to 1 GiB there, 64 MiB where they are resized, else as it is."""
        most = _PICTURES_IN_MEMORY if self.preparation else _IN_MEMORY
        small = 4 * len(self) * math.prod(self.reader.image_shape) <= most
        return self.take(slice(None)) if small else self

    def sample(self, n: int | None, seed: int) -> "StoredDataset":
        """See `Dataset.sample`; nothing is read."""
        return replace(self, numbers=self.numbers[sample_places(self, n, seed)])


Examples: TypeAlias = Dataset | StoredDataset
"""One split, in memory or read as it is needed."""


def _sha256(shape: tuple[int, ...], parts: Iterator[Dataset]) -> str:
    digest, labels = hashlib.sha256(str(shape).encode()), []
    for part in parts:
        digest.update(np.ascontiguousarray(part.images).tobytes())
        labels.append(part.labels)
    digest.update(np.concatenate(labels).tobytes())
    return digest.hexdigest()


def sample_places(data: Examples, n: int | None, seed: int) -> np.ndarray:
    """The places of the examples that a sample has, int64 (n,): see `Dataset.sample`."""
    n = len(data) if n is None else n
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= len(data):
        raise ValueError(
            f"n must be an integer in 1..{len(data)}, the examples of {data.name!r} {data.split!r}, "
            f"got {n!r}."
        )
    return np.random.default_rng(seed).permutation(len(data))[:n]


class Source:
    """Where a dataset comes from.

    Where it has no validation split, the last tenth of its training split (at most 5,000 examples, 1,000 of CIFAR-10
    and ImageNet) is held out as "validation" and is not part of "train"; no split ever shares an example with "test".
    Where only "train" and "validation" have labels, as of ImageNet, "test" is that validation split.

    Args:
        name: as given to `load_dataset`.
    """

    def __init__(self, name: str | pathlib.Path) -> None:
        self.name = str(name)

    def load(self, split: str) -> Dataset:
        """One split in memory; DatasetError if there is none of that name."""
        raise NotImplementedError

    def open(self, split: str, image_shape: tuple[int | None, ...] | None) -> Examples:
        """One split, to be read as it is needed if the source can do that; likewise images of other shapes are resized."""
        return self.load(split)

    def check_split(self, split: str) -> None:
        """Raises DatasetError unless the split is one of `SPLITS`."""
        if split not in SPLITS:
            raise DatasetError(f"split of {self.name!r} must be one of {SPLITS}, got {split!r}.")


def held_out(n: int, name: str = "") -> int:
    """How many of `n` training examples of a dataset are for validation."""
    return min(n // 10, _HELD_OUT.get(name, 5000))
