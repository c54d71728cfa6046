"""Datasets by name: "digits" (ships with scikit-learn), any TFDS image dataset, an .npz file or a folder.

Images are float32 in [0, 1], NHWC. Small sets come as arrays (`load_dataset`), large ones as a
tf.data stream (`stream_dataset`). Where a source has no validation split, the last tenth of its
training split (at most 5,000 examples, 1,000 of CIFAR-10) is held out as "validation" and is not part
of "train"; no split ever shares an example with "test".
"""

import hashlib
import itertools
import pathlib
import re
from dataclasses import dataclass, replace

import keras
import numpy as np

from robust_zoo.contract import check_images, check_labels
from robust_zoo.npz import read_npz
from robust_zoo.sentences import one_line

SPLITS = ("train", "validation", "test")

_HELD_OUT = {"cifar10": 1000}  # validation examples, where not 5,000
_MOST_CLASSES = 100_000  # of a file
_TFDS_NAME = re.compile(r"\w+(/[\w.+-]+)?(:[\d*][\w.*]*)?")  # name/config:version


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

    def __post_init__(self):
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


def arrays_dataset(images, labels, classes: int, name: str) -> Dataset:
    """Arrays as a `Dataset` of one split, "test", whose classes are named by their numbers."""
    return Dataset(name, "", "test", images, labels, tuple(map(str, range(classes))))


def collect(stream, n: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The first `n` examples of a stream as arrays; all of them if it is None.

    Args:
        stream: a `PyDataset` or a tf.data.Dataset, of (images, labels) in batches or one by one.
        n: how many; fewer come if the stream ends before.

    Raises:
        DatasetError: elements that are not (images, labels), a stream without end for `n` None, or an empty one.
    """
    if isinstance(stream, keras.utils.PyDataset):
        if n is None and stream.num_batches is None:
            raise DatasetError("n is needed: the stream has no end.")
        batches = (stream[index] for index in itertools.count())
        batches = itertools.islice(batches, stream.num_batches)
    else:
        if n is None and int(stream.cardinality()) == -1:  # tf.data.INFINITE_CARDINALITY
            raise DatasetError("n is needed: the stream has no end.")
        batches = iter(stream)
    images, labels, count = [], [], 0
    for batch in batches:
        if not isinstance(batch, (tuple, list)) or len(batch) < 2:
            raise DatasetError("a stream must give (images, labels).")
        x, y = (np.asarray(part) for part in batch[:2])
        x, y = (x[None], y[None]) if x.ndim == 3 else (x, y)
        images.append(x)
        labels.append(y)
        count += len(x)
        if n is not None and count >= n:
            break
    if not count:
        raise DatasetError("a stream must have examples, got an empty one.")
    return np.concatenate(images)[:n], np.concatenate(labels)[:n]


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
        image_shape: (height, width, channels) that the images of a folder get: resized, and cropped to that aspect
            ratio. By default that of the first image.

    Raises:
        DatasetError: unknown name, a dataset that is not prepared on this machine, unknown split, or
            images of several sizes.
    """
    whole, colon, classes = str(name).rpartition(":")
    if colon and re.fullmatch(r"\d+(,\d+)*", classes):
        data = load_dataset(whole, split, data_dir=data_dir)
        return data.of_classes(tuple(map(int, classes.split(","))))
    if name == "digits":
        return _load_digits(split)
    if str(name).endswith(".npz"):
        return _load_npz(pathlib.Path(name), split)
    if is_folder(name):
        return _load_folder(pathlib.Path(name), split, image_shape)
    return _load_tfds(name, split, data_dir)


def stream_dataset(
    name: str,
    split: str = "train",
    *,
    batch_size: int,
    image_size: tuple[int, int] | None = None,
    shuffle_seed: int | None = None,
    drop_remainder: bool = False,
    data_dir: str | None = None,
):
    """A split as a tf.data stream of batches that never holds the whole set in memory.

    Args:
        name: TFDS image dataset, or a folder of images as in `load_dataset`.
        split: as in `load_dataset`.
        batch_size: examples in a batch (the global batch under a strategy).
        image_size: (height, width) to resize to, cropping to the aspect ratio; needed where images differ.
        shuffle_seed: shuffles the examples, anew each epoch; by default they keep their order.
        drop_remainder: leaves out a last batch that is not full.
        data_dir: as in `load_dataset`.

    Returns:
        tf.data.Dataset of (float32 (batch, height, width, channels) in [0, 1], int (batch,)).
    """
    if name == "digits" or ":" in str(name) or str(name).endswith(".npz"):
        raise DatasetError(
            f"{name!r} is small: use load_dataset; streams are for TFDS datasets and folders."
        )
    if is_folder(name):
        shape = None if image_size is None else (*image_size, None)
        options = {"shuffle": shuffle_seed is not None, "seed": shuffle_seed, "batch_size": None}
        stream, _ = _stream_folder(pathlib.Path(name), split, shape, **options)
        return stream.batch(batch_size, drop_remainder=drop_remainder).prefetch(-1)
    builder = _tfds_builder(name, data_dir)
    source = _read_tfds(builder, split)
    scale = keras.layers.Rescaling(1 / 255, dtype="float32")
    resize = None
    if image_size is not None:
        resize = keras.layers.Resizing(*image_size, crop_to_aspect_ratio=True, dtype="float32")
    elif None in builder.info.features["image"].shape:
        raise DatasetError(f"image_size is needed: the images of {name!r} have several sizes.")

    def prepare(image, label):
        return scale(resize(image) if resize else image), label

    if shuffle_seed is not None:
        source = source.shuffle(10_000, seed=shuffle_seed, reshuffle_each_iteration=True)
    source = source.map(prepare, num_parallel_calls=-1)
    return source.batch(batch_size, drop_remainder=drop_remainder).prefetch(-1)


def flip_and_crop(
    images: np.ndarray, rng: np.random.Generator, *, pad: int, border: str = "constant"
) -> np.ndarray:
    """Each image mirrored left to right or not, and shifted by up to `pad` pixels.

    Args:
        images: float32 (n, height, width, channels).
        rng: of all choices.
        pad: >= 0.
        border: what comes in at the sides: "constant", black, or "reflect", the image's own reflection.
    """
    mirrored = np.where(
        rng.random(len(images))[:, None, None, None] < 0.5, images[:, :, ::-1], images
    )
    padded = np.pad(mirrored, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode=border)
    rows, columns = rng.integers(0, 2 * pad + 1, (2, len(images), 1, 1))
    rows = rows + np.arange(images.shape[1])[None, :, None]
    columns = columns + np.arange(images.shape[2])[None, None, :]
    return padded[np.arange(len(images))[:, None, None], rows, columns]


def _held_out(n: int, name: str = "") -> int:
    """How many of `n` training examples of a dataset are for validation."""
    return min(n // 10, _HELD_OUT.get(name, 5000))


def _check_split(name: str, split: str) -> None:
    if split not in SPLITS:
        raise DatasetError(f"split of {name!r} must be one of {SPLITS}, got {split!r}.")


def _load_digits(split: str) -> Dataset:
    _check_split("digits", split)
    import sklearn.datasets  # imported here: it takes a second

    digits = sklearn.datasets.load_digits()
    images = (digits.images[..., None] / 16).astype("float32")
    # The source has one split and an order by writer: a fixed shuffle makes three.
    order = np.random.default_rng(0).permutation(len(images))
    parts = {"train": order[:1137], "validation": order[1137:1297], "test": order[1297:]}
    chosen = parts[split]
    names = tuple(str(name) for name in digits.target_names)
    version = f"scikit-learn {sklearn.__version__}"
    return Dataset("digits", version, split, images[chosen], digits.target[chosen], names)


def _load_npz(path: pathlib.Path, split: str) -> Dataset:
    _check_split(str(path), split)
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
        kept = len(images) - _held_out(len(images))
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
    return Dataset(path.name, "", split, images, labels, tuple(str(name) for name in class_names))


def is_folder(name: str) -> bool:
    """Whether a dataset's name is a folder of images: a path, or one of subfolders in this directory."""
    path = pathlib.Path(name)
    try:
        if not str(name) or not path.is_dir():
            return False
        return "/" in str(name) or any(part.is_dir() for part in path.iterdir())
    except (OSError, ValueError):  # what cannot be the name of a folder, or may not be read
        return False


def _folder_of_split(path: pathlib.Path, split: str) -> pathlib.Path:
    _check_split(str(path), split)
    parts = [part for part in SPLITS if (path / part).is_dir()]
    if not parts:
        if split != "test":
            raise DatasetError(
                f"{str(path)!r} holds one split, which is 'test', got split {split!r}: make subfolders 'train', "
                "'validation' and 'test', each with a subfolder a class, to hold several."
            )
        return path
    if split not in parts:
        raise DatasetError(f"split of {str(path)!r} must be one of {tuple(parts)}, got {split!r}.")
    return path / split


def _stream_folder(path: pathlib.Path, split: str, image_shape, **options):
    """A tf.data stream of (float32 images in [0, 1], integer labels), and the classes' names."""
    directory = _folder_of_split(path, split)
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
            found = keras.utils.img_to_array(keras.utils.load_img(first, color_mode="rgb")).shape
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


def _load_folder(path: pathlib.Path, split: str, image_shape) -> Dataset:
    stream, classes = _stream_folder(path, split, image_shape, batch_size=256, shuffle=False)
    try:
        images, labels = collect(stream, None)
    except Exception as error:  # of whatever library reads that kind of picture
        for file in sorted(_folder_of_split(path, split).glob("*/*")):
            try:
                keras.utils.load_img(file).close()
            except Exception as cause:
                raise _no_picture(file, cause) from error
        raise DatasetError(f"{str(path)!r} cannot be read: {one_line(error)}.") from error
    # Bilinear resizing may leave the range by a rounding error.
    return Dataset(path.name, "", split, np.clip(images, 0, 1), labels, classes)


def _tfds_builder(name: str, data_dir: str | None):
    try:
        import tensorflow_datasets as tfds  # imported here: it takes seconds
    except ImportError as error:
        raise DatasetError(
            f"dataset {name!r} comes from TFDS, which needs TensorFlow: pip install 'robust-zoo[cpu]'."
        ) from error
    try:
        # Others ("huggingface:x", "gs://x") are made by asking the network.
        if not _TFDS_NAME.fullmatch(str(name)):
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


def _tfds_split(builder, split: str) -> str:
    """Our split in TFDS's words, the validation part cut off the training split where there is none."""
    available = tuple(builder.info.splits)
    if (split in available and split != "train") or split not in SPLITS:
        return split
    if "train" not in available or split == "test":
        raise DatasetError(f"split of {builder.name!r} must be one of {available}, got {split!r}.")
    if "validation" in available:
        return "train"
    kept = builder.info.splits["train"].num_examples
    kept -= _held_out(kept, builder.name)
    return f"train[:{kept}]" if split == "train" else f"train[{kept}:]"


def _read_tfds(builder, split: str, **options):
    wanted = _tfds_split(builder, split)
    try:
        if builder.info.splits[wanted].num_examples < 1:
            raise DatasetError(f"split {split!r} of {builder.name!r} has no examples.")
        return builder.as_dataset(split=wanted, as_supervised=True, shuffle_files=False, **options)
    except DatasetError:
        raise
    except (KeyError, ValueError, AssertionError) as error:
        available = tuple(builder.info.splits)
        raise DatasetError(
            f"split of {builder.name!r} must be one of {available}, got {one_line(split)!r}."
        ) from error


def _load_tfds(name: str, split: str, data_dir: str | None) -> Dataset:
    builder = _tfds_builder(name, data_dir)
    features = builder.info.features
    if None in features["image"].shape:
        raise DatasetError(
            f"the images of {name!r} have several sizes: use stream_dataset with image_size."
        )
    import tensorflow_datasets as tfds

    batch = _read_tfds(builder, split, batch_size=-1)
    images, labels = tfds.as_numpy(batch)
    images = images.astype("float32") / 255
    names = tuple(features["label"].names)
    return Dataset(name, str(builder.version), split, images, labels, names)
