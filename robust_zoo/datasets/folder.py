"""Datasets in folders of images, a subfolder a class."""

import os
import pathlib
import re
import warnings
from collections.abc import Sequence

import numpy as np

from robust_zoo.datasets.dataset import (
    SPLITS,
    Dataset,
    DatasetError,
    Source,
    StoredDataset,
)
from robust_zoo.datasets.reading import LEFT_OUT, cut, decoded, picture, prepared, resizing
from robust_zoo.sentences import one_line
from robust_zoo.typing import Tensor

_NAMED = 5  # of the pictures that cannot be read, in a sentence
_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
_OTHER_SUFFIXES = (".avif", ".heic", ".jp2", ".ppm", ".tif", ".tiff", ".webp")  # of pictures


class PictureError(DatasetError):
    """A file that is no picture."""


def is_folder(name: str) -> bool:
    """Whether `name` is an existing directory of images: its name contains "/", or it has subdirectories."""
    path = pathlib.Path(name)
    try:
        if not str(name) or not path.is_dir():
            return False
        return "/" in str(name) or any(part.is_dir() for part in path.iterdir())
    except (OSError, ValueError):  # what cannot be the name of a folder, or may not be read
        return False


class Folder(Source):
    """Images in subfolders "train", "validation" and "test", or of one split; see `load_dataset`.

    Args:
        path: the folder.
        image_shape: (height, width, channels) that all images get; a side or None is taken from the first one.
        central_crop: see `open_dataset`.
        skip_corrupt: see `open_dataset`.
    """

    def __init__(
        self,
        path: str | pathlib.Path,
        image_shape: tuple[int | None, ...] | None = None,
        *,
        central_crop: float = 1.0,
        skip_corrupt: bool = False,
    ) -> None:
        super().__init__(path)
        self.path, self.image_shape = pathlib.Path(path), image_shape
        self.central_crop, self.skip_corrupt = central_crop, skip_corrupt

    def load(self, split: str) -> Dataset:
        return self.open(split, None).take(slice(None))

    def open(self, split: str, image_shape: tuple[int | None, ...] | None) -> StoredDataset:
        reader, classes = self._reader(split, image_shape or self.image_shape)
        numbers = np.arange(len(reader.paths))
        preparation = prepared(reader.image_shape[:2], self.central_crop)
        if self.skip_corrupt and (corrupt := reader.corrupt(numbers)):
            numbers = np.setdiff1d(numbers, list(corrupt))
            warnings.warn(f"{_told(reader, corrupt)}; left out.", stacklevel=3)
            preparation += f"; {len(corrupt)} {LEFT_OUT}"
        if not len(numbers):
            raise DatasetError(f"{str(self.path)!r} has no picture that can be read.")
        return StoredDataset(self.path.name, "", split, reader, numbers, classes, preparation)

    def _of_split(self, split: str) -> pathlib.Path:
        path = self.path
        self.check_split(split)
        parts = [part for part in SPLITS if (path / part).is_dir()]
        if not parts:
            if split != "test":
                raise DatasetError(
                    f"{str(path)!r} holds one split, which is 'test', got split {split!r}: make subfolders 'train', "
                    "'validation' and 'test', each with a subfolder a class, to hold several."
                )
            return path
        if split not in parts:
            raise DatasetError(
                f"split of {str(path)!r} must be one of {tuple(parts)}, got {split!r}."
            )
        return path / split

    def _reader(
        self, split: str, image_shape: tuple[int | None, ...] | None
    ) -> tuple["FolderReader", tuple[str, ...]]:
        """The pictures of a split, and the classes' names."""
        path, directory = self.path, self._of_split(split)
        # A class may be missing from one split; its number must not depend on that.
        splits = [path / name for name in SPLITS if (path / name).is_dir()]
        parts = [directory, *splits]
        classes = tuple(sorted({name for part in parts for name in _subfolders(part)}))
        if len(classes) < 2:
            raise DatasetError(
                f"{str(directory)!r} must have a subfolder of images for each of at least two classes, it has "
                f"{list(classes)}."
            )
        files = [
            (str(file), number)
            for number, name in enumerate(classes)
            for file in sorted((directory / name).rglob("*"))
            if file.suffix.lower() in _SUFFIXES
        ]
        if not files:
            raise DatasetError(
                f"{str(directory)!r} has no images in its subfolders: they must end in {', '.join(_SUFFIXES)}."
            )
        others = {
            file.suffix.lower()
            for name in classes
            for file in (directory / name).rglob("*")
            if file.suffix.lower() in _OTHER_SUFFIXES
        }
        if others:
            warnings.warn(
                f"{str(directory)!r} has pictures in formats that are not read, {', '.join(sorted(others))}, which are "
                "left out.",
                stacklevel=4,
            )
        filled = {number for _, number in files}
        if empty := [name for number, name in enumerate(classes) if number not in filled]:
            warnings.warn(
                f"{str(directory)!r} has no pictures of the classes {one_line(', '.join(empty))}, which keep their numbers.",
                stacklevel=4,
            )
        shape = self._shape(image_shape or (None, None, None), [file for file, _ in files])
        paths, labels = zip(*files, strict=True)
        return FolderReader(paths, labels, shape, self.central_crop), classes

    def _shape(self, asked: tuple[int | None, ...], files: list[str]) -> tuple[int, ...]:
        """What is asked for, with the sides of the first picture where it says None."""
        for file in files:
            try:
                return _whole(asked, file)
            except PictureError as error:
                if not self.skip_corrupt:
                    raise _refusal(FolderReader(files, [0] * len(files), (1, 1, 3))) from error
        raise DatasetError(f"{str(self.path)!r} has no picture that can be read.")


class FolderReader:
    """Reads pictures.

    Args:
        paths: of the files.
        labels: of each.
        image_shape: (height, width, channels) that all get.
        central_crop: see `open_dataset`.
    """

    def __init__(
        self,
        paths: Sequence[str],
        labels: Sequence[int],
        image_shape: tuple[int, ...],
        central_crop: float = 1.0,
    ) -> None:
        self.paths, self.labels, self.image_shape = list(paths), list(labels), image_shape
        self.central_crop = central_crop

    def read(
        self, numbers: np.ndarray, parts: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        paths, labels = ([values[i] for i in numbers] for values in (self.paths, self.labels))
        try:
            return decoded(self.decode, paths, labels, parts)
        except Exception as error:  # of whatever library reads that kind of picture
            if not self.corrupt(numbers):
                raise
            raise _refusal(self) from error

    def corrupt(self, numbers: np.ndarray) -> dict[int, str]:
        """Those that cannot be read, each with the reason."""
        found = {}
        for number in numbers:
            try:
                picture(self.paths[number], self.image_shape[2])
            except Exception as error:  # of whatever library reads that kind of picture
                path = self.paths[number]
                if not os.path.exists(path):
                    found[int(number)] = "no such file, or a link to none"
                elif not os.access(path, os.R_OK):  # no fault of the picture
                    raise DatasetError(
                        f"{path!r} must be readable, but may not be opened."
                    ) from error
                else:
                    found[int(number)] = _reason(error)
        return found

    def decode(
        self, path: Tensor, label: Tensor, part: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """A float32 image in [0, 1], or a part of it, and its label, by TensorFlow operations."""
        image, size = picture(path, self.image_shape[2]), self.image_shape[:2]
        resized = (
            resizing(size, self.central_crop)(image) if part is None else cut(image, part, size)
        )
        return resized / 255, label


def _whole(shape: tuple[int | None, ...], path: str) -> tuple[int, ...]:
    """A shape with the sides of a picture where it says None."""
    if None in shape:
        try:
            found = tuple(picture(path, 3).shape)
        except Exception as error:  # of whatever library reads that kind of picture
            raise PictureError(
                f"{path!r} ({_reason(error)}) is no picture that can be read."
            ) from error
        shape = tuple(given or own for given, own in zip(shape, found, strict=True))
    if shape[2] not in (1, 3, 4):
        raise DatasetError(f"images of a folder have 1, 3 or 4 channels, got {shape[2]}.")
    return tuple(int(side) for side in shape if side is not None)


def _reason(error: Exception) -> str:
    """Without the names that TensorFlow gives to its operations."""
    return one_line(re.sub(r"\{\{function_node.*?\}\}|\[Op:\w+\].*", "", str(error)))


def _told(reader: FolderReader, corrupt: dict[int, str]) -> str:
    """Which pictures cannot be read, the first ones by name."""
    named = [f"{reader.paths[number]!r} ({corrupt[number]})" for number in list(corrupt)[:_NAMED]]
    others = f" and {len(corrupt) - _NAMED} others" if len(corrupt) > _NAMED else ""
    return (
        f"{len(corrupt)} of {len(reader.paths)} pictures cannot be read: {', '.join(named)}{others}"
    )


def _refusal(reader: FolderReader) -> DatasetError:
    """Of all of its pictures that cannot be read."""
    corrupt = reader.corrupt(np.arange(len(reader.paths)))
    return DatasetError(
        f"{_told(reader, corrupt)}: open_dataset(skip_corrupt=True), or --skip-corrupt of evaluate, plan, port and "
        "export, leaves out what cannot be read."
    )


def _subfolders(directory: pathlib.Path) -> list[str]:
    """The classes that a folder has, by name; hidden ones are none."""
    return sorted(
        part.name for part in directory.iterdir() if part.is_dir() and not part.name.startswith(".")
    )
