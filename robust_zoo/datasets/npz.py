"""Datasets in .npz files."""

import pathlib

import numpy as np

from robust_zoo.contract import check_labels
from robust_zoo.datasets.dataset import SPLITS, Dataset, DatasetError, Source, held_out
from robust_zoo.npz import read_npz
from robust_zoo.sentences import one_line

_MOST_CLASSES = 100_000


class NpzFile(Source):
    """A file with arrays "images" and "labels", or those of several splits; see `load_dataset`."""

    def __init__(self, path: str | pathlib.Path) -> None:
        super().__init__(path)
        self.path = pathlib.Path(path)

    def load(self, split: str) -> Dataset:
        path = self.path
        self.check_split(split)
        try:
            arrays = read_npz(path)
        except FileNotFoundError:
            raise DatasetError(f"no dataset file {str(path)!r}.") from None
        except ValueError as error:
            raise DatasetError(
                f"{str(path)!r} is not a readable .npz file: {one_line(error)}."
            ) from error

        several = any(f"{part}_images" in arrays for part in SPLITS)
        if not several and split != "test":
            raise DatasetError(
                f"{str(path)!r} holds one split, which is 'test', got split {split!r}: name the arrays "
                "'train_images', 'train_labels', 'test_images', ... to hold several."
            )
        part = split
        if several and split == "validation" and "validation_images" not in arrays:
            part = "train"
        names = (f"{part}_images", f"{part}_labels") if several else ("images", "labels")
        if not all(name in arrays for name in names):
            raise DatasetError(
                f"{str(path)!r} must hold the arrays {names} for split {split!r}, it holds {sorted(arrays)}."
            )
        images, labels = (arrays[name] for name in names)
        if several and "validation_images" not in arrays and split != "test":
            kept = len(images) - held_out(len(images))
            chosen = slice(kept) if split == "train" else slice(kept, None)
            images, labels = images[chosen], labels[chosen]
        largest = max(
            (
                int(array.max())
                for key, array in arrays.items()
                if key.endswith("labels") and array.size and array.dtype.kind in "iu"
            ),
            default=0,
        )
        if largest >= _MOST_CLASSES:
            raise DatasetError(
                f"labels in {str(path)!r} must be below {_MOST_CLASSES:,}, got {largest:,}."
            )
        class_names = arrays.get("class_names", np.arange(largest + 1))
        if class_names.ndim != 1 or len(class_names) > _MOST_CLASSES:
            raise DatasetError(
                f"class_names in {str(path)!r} must be a list of at most {_MOST_CLASSES:,}, got shape {class_names.shape}."
            )
        check_labels(
            labels, len(class_names), len(images) if images.ndim else 0
        )  # before the larger array
        if images.dtype == np.uint8:
            images = images.astype("float32") / 255
        return Dataset(
            path.name, "", split, images, labels, tuple(str(name) for name in class_names)
        )
