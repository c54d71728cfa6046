"""Datasets in folders of images, a subfolder a class."""

import itertools
import pathlib
from typing import Any

import keras
import numpy as np

from robust_zoo.datasets.arrays import collect
from robust_zoo.datasets.dataset import SPLITS, Dataset, DatasetError, Source
from robust_zoo.sentences import one_line


def is_folder(name: str) -> bool:
    """Whether a dataset's name is a folder of images: a path, or one of subfolders in this directory."""
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
    """

    def __init__(
        self, path: str | pathlib.Path, image_shape: tuple[int | None, ...] | None = None
    ) -> None:
        super().__init__(path)
        self.path, self.image_shape = pathlib.Path(path), image_shape

    def load(self, split: str) -> Dataset:
        path, options = self.path, {"batch_size": 256, "shuffle": False}
        stream, classes = self._read(split, self.image_shape, **options)
        try:
            images, labels = collect(stream, None)
        except Exception as error:  # of whatever library reads that kind of picture
            for file in sorted(self._of_split(split).glob("*/*")):
                try:
                    keras.utils.load_img(file).close()
                except Exception as cause:
                    raise _no_picture(file, cause) from error
            raise DatasetError(f"{str(path)!r} cannot be read: {one_line(error)}.") from error
        # Bilinear resizing may leave the range by a rounding error.
        return Dataset(path.name, "", split, np.clip(images, 0, 1), labels, classes)

    def stream(
        self, split: str, *, image_size: tuple[int, int] | None, shuffle_seed: int | None
    ) -> Any:
        shape = None if image_size is None else (*image_size, None)
        options = {"shuffle": shuffle_seed is not None, "seed": shuffle_seed, "batch_size": None}
        return self._read(split, shape, **options)[0]

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

    def _read(
        self, split: str, image_shape: tuple[int | None, ...] | None, **options: Any
    ) -> tuple[Any, tuple[str, ...]]:
        """A tf.data stream of (float32 images in [0, 1], integer labels), and the classes' names."""
        path, directory = self.path, self._of_split(split)
        here = _subfolders(directory)
        # A class may be missing from one split; its number must not depend on that.
        splits = [path / name for name in SPLITS if (path / name).is_dir()]
        classes = sorted({*here, *(name for part in splits for name in _subfolders(part))})
        if len(classes) < 2:
            raise DatasetError(
                f"{str(directory)!r} must have a subfolder of images for each of at least two classes, it has {classes}."
            )
        height, width, channels = image_shape or (None, None, None)
        if None in (height, width, channels):
            first = next((file for file in sorted(directory.glob("*/*")) if file.is_file()), None)
            if first is None:
                raise DatasetError(f"{str(directory)!r} has no images in its subfolders.")
            try:
                found = keras.utils.img_to_array(
                    keras.utils.load_img(first, color_mode="rgb")
                ).shape
            except Exception as error:  # of whatever library reads that kind of picture
                raise _no_picture(first, error) from error
            height, width, channels = (
                given or own for given, own in zip((height, width, channels), found, strict=True)
            )
        modes = {1: "grayscale", 3: "rgb", 4: "rgba"}
        if channels not in modes:
            raise DatasetError(f"images of a folder have 1, 3 or 4 channels, got {channels}.")
        try:
            stream = keras.utils.image_dataset_from_directory(
                directory,
                image_size=(height, width),
                crop_to_aspect_ratio=True,
                color_mode=modes[channels],
                class_names=here,
                verbose=False,
                **options,
            )
        except ValueError as error:
            raise DatasetError(f"{str(directory)!r} cannot be read: {error}") from error
        stream = stream.map(lambda x, y: (x / 255, y))
        if here != classes:
            # Keras numbers the classes that are here; those that are not take the numbers behind these.
            absent = itertools.count(len(here))
            numbers = [here.index(name) if name in here else next(absent) for name in classes]
            place = keras.layers.IntegerLookup(vocabulary=numbers, num_oov_indices=0)
            stream = stream.map(lambda x, y: (x, place(y)))
        return stream, tuple(classes)


def _no_picture(file: pathlib.Path, error: Exception) -> DatasetError:
    return DatasetError(f"{str(file)!r} is no picture that can be read: {one_line(error)}.")


def _subfolders(directory: pathlib.Path) -> list[str]:
    """The classes that a folder has, by name; hidden ones are none."""
    return sorted(
        part.name for part in directory.iterdir() if part.is_dir() and not part.name.startswith(".")
    )
