"""Datasets by name: "digits" (ships with scikit-learn), any TFDS image dataset, an .npz file or a folder.

Images are float32 in [0, 1], NHWC. Small sets come as arrays (`load_dataset`), large ones are read as they are needed
(`open_dataset`). `fit` trains on `Batches` of either.
"""

from robust_zoo.datasets.arrays import arrays_dataset, collect
from robust_zoo.datasets.augment import RandomResizedCrop, flip_and_crop
from robust_zoo.datasets.batches import Batches
from robust_zoo.datasets.dataset import (
    SPLITS,
    Dataset,
    DatasetError,
    Examples,
    StoredDataset,
    sample_places,
)
from robust_zoo.datasets.folder import is_folder
from robust_zoo.datasets.load import load_dataset, open_dataset
from robust_zoo.datasets.reading import options_of

__all__ = [
    "SPLITS",
    "Batches",
    "Dataset",
    "DatasetError",
    "Examples",
    "RandomResizedCrop",
    "StoredDataset",
    "arrays_dataset",
    "collect",
    "flip_and_crop",
    "is_folder",
    "load_dataset",
    "open_dataset",
    "options_of",
    "sample_places",
]
