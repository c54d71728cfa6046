"""Datasets by name."""

import re

from robust_zoo.datasets.dataset import Dataset, Examples, Source, StoredDataset
from robust_zoo.datasets.digits import Digits
from robust_zoo.datasets.folder import Folder, is_folder
from robust_zoo.datasets.npz import NpzFile
from robust_zoo.datasets.reading import options_of
from robust_zoo.datasets.tfds import Tfds

_CLASSES = re.compile(r":(\d+(?:,\d+)*)$")  # behind a name: some of its classes


def load_dataset(
    name: str,
    split: str = "test",
    *,
    data_dir: str | None = None,
    image_shape: tuple[int | None, ...] | None = None,
) -> Dataset:
    """Loads one split into memory.

    Args:
        name: "digits", a TFDS image dataset ("mnist", "cifar10", ...), either with some of its classes behind
            it, which are then numbered anew ("mnist:7,3" has 7 as class 0), or a path ending in ".npz" that
            holds arrays "images" (floating in [0, 1], or uint8) and "labels" of a test split, or "train_images",
            "train_labels", "test_images", ... of several, and optionally "class_names"; or a folder of images, with
            a subfolder a class, or subfolders "train", "validation", "test" that have these (one split is "test").
        split: "train", "validation" or "test"; for TFDS also any split it understands.
        data_dir: where TFDS looks; by default $TFDS_DATA_DIR or ~/tensorflow_datasets.
        image_shape: (height, width, channels) for the images of a folder, which are resized and cropped to that
            aspect ratio; None (default), or a side of None, is that of the first image. Other datasets ignore it.

    Raises:
        DatasetError: unknown name or split, a dataset that is not prepared on this machine, or a TFDS dataset whose
            images have several sizes (use `open_dataset`).
        TypeError, ValueError: images or labels of an .npz file that `robust_zoo.contract` refuses.
    """
    if found := _CLASSES.search(str(name)):
        data = load_dataset(str(name)[: found.start()], split, data_dir=data_dir)
        return data.of_classes(tuple(map(int, found[1].split(","))))
    return source_of(name, data_dir=data_dir, image_shape=image_shape).load(split)


def open_dataset(
    name: str,
    split: str = "test",
    *,
    data_dir: str | None = None,
    image_shape: tuple[int | None, ...] | None = None,
    central_crop: float = 1.0,
    skip_corrupt: bool = False,
    in_memory: bool = True,
) -> Examples:
    """Opens one split: in memory if it is small, else to be read as it is needed.

    Small are images that take up to 1 GiB as float32, or 64 MiB where they have to be resized.

    Args:
        name: see `load_dataset`.
        split: see `load_dataset`.
        data_dir: see `load_dataset`.
        image_shape: (height, width, channels) that the images of a folder, or of a TFDS dataset of several sizes, get:
            resized, and cropped to that aspect ratio.
        central_crop: share of an image's sides that is kept of it, in the middle, before it is resized, in (0, 1]: 0.875
            is ImageNet's usual 224 of 256; default 1. For folders and TFDS datasets of several sizes.
        skip_corrupt: whether pictures of a folder that cannot be read are left out, with a warning that names them, and
            with their number in the record; by default (False) they are an error where they are met. All pictures are
            read once to find them.
        in_memory: whether a small split is loaded (default); False reads it as it is needed, too, so that
            `RandomResizedCrop` cuts parts of images in the size in which they are stored. For folders and TFDS datasets;
            others are in memory always.

    Raises:
        DatasetError: as `load_dataset`, or a picture that cannot be read.
        ValueError: a `central_crop` out of range.
    """
    if not 0 < central_crop <= 1:
        raise ValueError(f"central_crop must be above 0 and at most 1, got {central_crop!r}.")
    central_crop = float(central_crop)
    if _CLASSES.search(str(name)):
        if central_crop != 1 or skip_corrupt:
            raise ValueError(
                f"central_crop and skip_corrupt are for folders and TFDS datasets of several sizes, got {name!r}."
            )
        return load_dataset(name, split, data_dir=data_dir)
    source = source_of(
        name,
        data_dir=data_dir,
        image_shape=image_shape,
        central_crop=central_crop,
        skip_corrupt=skip_corrupt,
    )
    if skip_corrupt and not isinstance(source, Folder):
        raise ValueError(f"skip_corrupt is for folders of images, got the dataset {name!r}.")
    data = source.open(split, image_shape)
    if central_crop != 1 and options_of(data.preparation)["central_crop"] != central_crop:
        raise ValueError(
            f"central_crop is for folders and for TFDS datasets of several sizes, of which {name!r} is none."
        )
    return data.loaded_if_small() if in_memory and isinstance(data, StoredDataset) else data


def source_of(
    name: str,
    *,
    data_dir: str | None = None,
    image_shape: tuple[int | None, ...] | None = None,
    central_crop: float = 1.0,
    skip_corrupt: bool = False,
) -> Source:
    """Where the dataset of a name comes from; the arguments are those of `open_dataset`."""
    if name == "digits":
        return Digits()
    if str(name).endswith(".npz"):
        return NpzFile(name)
    if is_folder(name):
        return Folder(name, image_shape, central_crop=central_crop, skip_corrupt=skip_corrupt)
    return Tfds(name, data_dir, central_crop=central_crop)
