"""Image datasets of TensorFlow Datasets that are prepared on this machine."""

import re
from typing import Any

import keras

from robust_zoo.datasets.dataset import SPLITS, Dataset, DatasetError, Source, held_out
from robust_zoo.sentences import one_line
from robust_zoo.typing import Tensor

_NAME = re.compile(r"\w+(/[\w.+-]+)?(:[\d*][\w.*]*)?")  # name/config:version


class Tfds(Source):
    """A dataset of TFDS, with any split that it understands.

    Args:
        name: "mnist", "cifar10:3.0.2" and so on.
        data_dir: where TFDS looks; by default $TFDS_DATA_DIR or ~/tensorflow_datasets.

    Raises:
        DatasetError: an unknown name, or a dataset that is not prepared here or is none of classified images.
    """

    def __init__(self, name: str, data_dir: str | None = None) -> None:
        super().__init__(name)
        self._builder = _builder(name, data_dir)

    def load(self, split: str) -> Dataset:
        builder, name = self._builder, self.name
        features = builder.info.features
        if None in features["image"].shape:
            raise DatasetError(
                f"the images of {name!r} have several sizes: use stream_dataset with image_size."
            )
        import tensorflow_datasets as tfds

        batch = self._read(split, batch_size=-1)
        images, labels = tfds.as_numpy(batch)
        images = images.astype("float32") / 255
        names = tuple(features["label"].names)
        return Dataset(name, str(builder.version), split, images, labels, names)

    def stream(
        self, split: str, *, image_size: tuple[int, int] | None, shuffle_seed: int | None
    ) -> Any:
        source = self._read(split)
        scale, resize = keras.layers.Rescaling(1 / 255, dtype="float32"), None
        if image_size is not None:
            resize = keras.layers.Resizing(*image_size, crop_to_aspect_ratio=True, dtype="float32")
        elif None in self._builder.info.features["image"].shape:
            raise DatasetError(
                f"image_size is needed: the images of {self.name!r} have several sizes."
            )

        def prepare(image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
            return scale(resize(image) if resize else image), label

        if shuffle_seed is not None:
            source = source.shuffle(10_000, seed=shuffle_seed, reshuffle_each_iteration=True)
        return source.map(prepare, num_parallel_calls=-1)

    def _read(self, split: str, **options: Any) -> Any:
        builder = self._builder
        wanted = self._split(split)
        try:
            if builder.info.splits[wanted].num_examples < 1:
                raise DatasetError(f"split {split!r} of {builder.name!r} has no examples.")
            return builder.as_dataset(
                split=wanted, as_supervised=True, shuffle_files=False, **options
            )
        except DatasetError:
            raise
        except (KeyError, ValueError, AssertionError) as error:
            available = tuple(builder.info.splits)
            raise DatasetError(
                f"split of {builder.name!r} must be one of {available}, got {one_line(split)!r}."
            ) from error

    def _split(self, split: str) -> str:
        """Our split in TFDS's words, the validation part cut off the training split where there is none."""
        builder = self._builder
        available = tuple(builder.info.splits)
        if (split in available and split != "train") or split not in SPLITS:
            return split
        if "train" not in available or split == "test":
            raise DatasetError(
                f"split of {builder.name!r} must be one of {available}, got {split!r}."
            )
        if "validation" in available:
            return "train"
        kept = builder.info.splits["train"].num_examples
        kept -= held_out(kept, builder.name)
        return f"train[:{kept}]" if split == "train" else f"train[{kept}:]"


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
