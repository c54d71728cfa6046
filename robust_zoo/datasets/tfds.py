"""Image datasets of TensorFlow Datasets that are prepared on this machine."""

import contextlib
import re
import struct
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import keras
import numpy as np

from robust_zoo.datasets.dataset import (
    SPLITS,
    Dataset,
    DatasetError,
    Source,
    StoredDataset,
    held_out,
)
from robust_zoo.datasets.reading import cut, decoded, prepared, resizing
from robust_zoo.sentences import one_line
from robust_zoo.typing import Tensor

_UNLABELLED = ("imagenet2012",)  # whose TFDS split "test" has the label -1 throughout
_NAME = re.compile(r"\w+(/[\w.+-]+)?(:[\d*][\w.*]*)?")  # name/config:version


class Tfds(Source):
    """A dataset of TFDS, with any split that it understands.

    Args:
        name: "mnist", "cifar10:3.0.2" and so on.
        data_dir: where TFDS looks; by default $TFDS_DATA_DIR or ~/tensorflow_datasets.
        central_crop: see `open_dataset`; of images of one size nothing is cropped.

    Raises:
        DatasetError: an unknown name, or a dataset that is not prepared here or is none of classified images.
    """

    def __init__(
        self, name: str, data_dir: str | None = None, *, central_crop: float = 1.0
    ) -> None:
        super().__init__(name)
        self._builder, self._data_dir = _builder(name, data_dir), data_dir
        self._central_crop = central_crop

    def load(self, split: str) -> Dataset:
        if None in self._builder.info.features["image"].shape:
            raise DatasetError(
                f"the images of {self.name!r} have several sizes: use open_dataset with image_shape."
            )
        return self.open(split, None).take(slice(None))

    def open(self, split: str, image_shape: tuple[int | None, ...] | None) -> StoredDataset:
        several = None in self._builder.info.features["image"].shape
        reader = self._reader(split, image_shape[:2] if several and image_shape else None)
        names = tuple(self._builder.info.features["label"].names)
        about = (self.name, str(self._builder.version), split, reader, np.arange(reader.count))
        size = reader.image_shape[:2] if several else None
        return StoredDataset(*about, names, prepared(size, self._central_crop))

    def _reader(self, split: str, size: tuple[int | None, ...] | None) -> "TfdsReader":
        """Of a split, its images resized to `size` if that is not None."""
        shape = self._builder.info.features["image"].shape
        if None in (size or shape):
            raise DatasetError(
                f"image_shape is needed: the images of {self.name!r} have several sizes."
            )
        self._check_split(split)
        whole = (*(size or shape[:2]), shape[2])
        resized = size is not None
        origin = (self.name, self._data_dir, self._split(split))
        return TfdsReader(*origin, whole, resized, self._central_crop if resized else 1.0)

    def _check_split(self, split: str) -> None:
        builder = self._builder
        try:
            if builder.info.splits[self._split(split)].num_examples < 1:
                raise DatasetError(f"split {split!r} of {builder.name!r} has no examples.")
        except DatasetError:
            raise
        except (KeyError, ValueError, AssertionError) as error:
            available = tuple(builder.info.splits)
            raise DatasetError(
                f"split of {builder.name!r} must be one of {available}, got {one_line(split)!r}."
            ) from error

    def _split(self, split: str) -> str:
        """Our split in TFDS's words.

        The validation part is cut off the training split where there is none, or where it has to serve as the test
        split, whose labels nobody publishes.
        """
        builder = self._builder
        available = tuple(builder.info.splits)
        labelled = "test" in available and builder.name not in _UNLABELLED
        if not labelled and {"train", "validation"} <= set(available) and split in SPLITS:
            return "validation" if split == "test" else self._part_of_train(split)
        if (split in available and split != "train") or split not in SPLITS:
            return split
        if "train" not in available or split == "test":
            raise DatasetError(
                f"split of {builder.name!r} must be one of {available}, got {split!r}."
            )
        if "validation" in available:
            return "train"
        return self._part_of_train(split)

    def _part_of_train(self, split: str) -> str:
        builder = self._builder
        kept = builder.info.splits["train"].num_examples
        kept -= held_out(kept, builder.name)
        return f"train[:{kept}]" if split == "train" else f"train[{kept}:]"


class TfdsReader:
    """Reads single examples of a TFDS split, in the order of its files.

    Args:
        name: of the dataset.
        data_dir: where TFDS looks.
        split: in TFDS's words.
        image_shape: of what is read.
        resized: whether images must be resized to it.
        central_crop: see `open_dataset`.
    """

    def __init__(
        self,
        name: str,
        data_dir: str | None,
        split: str,
        image_shape: tuple[int, ...],
        resized: bool,
        central_crop: float = 1.0,
    ) -> None:
        self._origin = (name, data_dir, split)
        self.image_shape, self._resized = image_shape, resized
        self._central_crop = central_crop

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self._origin, self.image_shape, self._resized, self._central_crop)

    def read(
        self, numbers: np.ndarray, parts: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        try:
            return decoded(self.decode, self.contents(numbers), parts)
        except DatasetError:
            raise
        except Exception as error:  # of whatever reads or decodes it
            raise DatasetError(
                f"{self._origin[0]!r} in {self._builder.data_dir} cannot be read: {one_line(error)}. Prepare it again."
            ) from error

    def decode(self, record: Tensor, part: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """A float32 image in [0, 1], or a part of it, and its label, by TensorFlow operations."""
        example = self._builder.info.features.deserialize_example(record)
        image = example["image"]
        if part is not None:
            image = cut(image, part, self.image_shape[:2])
        elif self._resized:
            image = resizing(self.image_shape[:2], self._central_crop)(image)
        return keras.layers.Rescaling(1 / 255, dtype="float32")(image), example["label"]

    def contents(self, numbers: np.ndarray) -> list[bytes]:
        """The records of some examples, as they are in the files."""
        if self._arrays is not None:
            return self._arrays.__getitems__([int(number) for number in numbers])
        with contextlib.ExitStack() as opened:
            files: dict[str, Any] = {}
            found = []
            for path, first, length in (self._places[number] for number in numbers):
                if path not in files:
                    files[path] = opened.enter_context(open(path, "rb"))
                files[path].seek(first)
                found.append(files[path].read(length))
            return found

    @property
    def count(self) -> int:
        """The examples of the split."""
        return self._builder.info.splits[self._origin[2]].num_examples

    @cached_property
    def _builder(self) -> Any:
        name, data_dir, _ = self._origin
        return _builder(name, data_dir)

    @cached_property
    def _arrays(self) -> Any:
        """Records by their numbers, where the files can do that; None where they are TFRecords."""
        file_format = self._builder.info.file_format.value
        if file_format == "tfrecord":
            return None
        if file_format != "array_record":
            raise DatasetError(
                f"{self._origin[0]!r} must be stored as tfrecord or array_record, got {file_format}."
            )
        return self._builder.as_data_source(split=self._origin[2]).data_source

    @cached_property
    def _places(self) -> list[tuple[str, int, int]]:
        """The file of each example, where it begins there, and how many bytes it has."""
        found: list[tuple[str, int, int]] = []
        for part in self._builder.info.splits[self._origin[2]].file_instructions:
            records = list(_records(part.filename))[part.skip : part.skip + part.take]
            found += [(part.filename, *record) for record in records]
        return found


def _records(path: str) -> Iterator[tuple[int, int]]:
    """Where each record of a TFRecord file begins, and its bytes.

    A record is its length (uint64, little-endian), the length's checksum (4 bytes), its bytes and their checksum (4):
    https://www.tensorflow.org/tutorials/load_data/tfrecord.
    """
    with open(path, "rb") as file:
        while len(header := file.read(12)) == 12:
            (length,) = struct.unpack("<Q", header[:8])
            yield file.tell(), length
            file.seek(length + 4, 1)


def _builder(name: str, data_dir: str | None) -> Any:
    try:
        import tensorflow_datasets as tfds  # imported here: it takes seconds
    except ImportError as error:
        raise DatasetError(
            f"dataset {name!r} comes from TFDS, which needs TensorFlow: pip install 'robust-zoo[cpu]'."
        ) from error
    try:
        # Others ("huggingface:x", "gs://x") are made by asking the network.
        if not _NAME.fullmatch(str(name)):
            raise ValueError("no name of TFDS's own")
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.registered.DatasetNotFoundError, AssertionError, ValueError):
        raise DatasetError(
            f"unknown dataset {one_line(name)!r}: it must be 'digits', a path ending in '.npz', a folder of "
            "images, or a TFDS image dataset such as 'mnist', 'cifar10' or 'cifar100'."
        ) from None
    if not {"image", "label"} <= set(builder.info.features):
        raise DatasetError(f"{name!r} is not an image classification dataset.")
    if not builder.is_prepared():
        raise DatasetError(
            f"dataset {name!r} is not prepared in {builder.data_dir}: run "
            f"python -c \"import tensorflow_datasets as tfds; tfds.load('{name}')\" once, with a network."
        )
    return builder
