"""Arrays and streams that are at hand, as datasets."""

import itertools
from typing import Any

import keras
import numpy as np

from robust_zoo.datasets.dataset import Dataset, DatasetError


def arrays_dataset(images: np.ndarray, labels: np.ndarray, classes: int, name: str) -> Dataset:
    """Arrays as a `Dataset` of one split, "test", whose classes are named by their numbers.

    Args:
        images: floating (n, height, width, channels) in [0, 1].
        labels: integer (n,), in 0..classes - 1.
        classes: number of classes.
        name: of the dataset.

    Raises:
        TypeError, ValueError: images or labels that `robust_zoo.contract` refuses.
    """
    return Dataset(name, "", "test", images, labels, tuple(map(str, range(classes))))


def collect(stream: Any, n: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The first `n` examples of a stream as arrays; all of them if it is None.

    Args:
        stream: a `PyDataset` or a tf.data.Dataset, of (images, labels) in batches or one by one.
        n: how many, None for all; fewer if the stream ends earlier.

    Returns:
        Images (n, height, width, channels) and labels, as the stream has them.

    Raises:
        DatasetError: elements that are not (images, labels), an infinite stream with `n` None, or an empty stream.
    """
    if isinstance(stream, keras.utils.PyDataset):
        if n is None and stream.num_batches is None:
            raise DatasetError("n is needed: the stream has no end.")
        endless = (stream[index] for index in itertools.count())
        batches = itertools.islice(endless, stream.num_batches)
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
