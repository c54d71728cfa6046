"""The batches of a training: what `fit` is given, in any form that Keras takes, and what a step computes with."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypedDict

import keras
import numpy as np
from keras import ops

from robust_zoo.typing import Tensor


class Batch(TypedDict, total=False):
    """The images of one training step, which `Defense.prepare` makes.

    Attributes:
        clean: float32 (batch, height, width, channels), always there.
        adversarial: the same images attacked; absent where there is no attack.
        attacked: bool (batch,), which of "adversarial" were attacked; comes with it.
        share: scalar, of epsilon that a ramp has reached; of `IntervalBoundTraining`.
    """

    clean: Tensor
    adversarial: Tensor
    attacked: Tensor
    share: Tensor


def batch_sizes(x: Any, batch_size: int | None, kept: float, shards: int) -> list[int]:
    """The sizes of the batches that `fit` will make of `x`.

    Raises:
        ValueError: sizes that cannot be known, on several replicas: a batch that does not divide would be weighted
            wrongly on them.
    """
    if x is None:
        return []
    if hasattr(x, "__array__"):
        batch_size, count = 32 if batch_size is None else batch_size, int(len(x) * kept)
        return sorted({min(batch_size, count), count % batch_size or batch_size} - {0})
    if isinstance(x, keras.utils.PyDataset):
        number = x.num_batches
        ends = (0,) if number is None else {0, number - 1}
        return [len(keras.tree.flatten(x[index][0])[0]) for index in ends]
    size = None
    if hasattr(x, "element_spec"):
        size = keras.tree.flatten(x.element_spec)[0].shape[0]
    if size is None and shards > 1:
        raise ValueError(
            f"every batch must be divisible by the {shards} replicas, got {type(x).__name__} of batches of unknown "
            "size: leave out a last batch that is not full (batch(size, drop_remainder=True))."
        )
    return [] if size is None else [size]


def only_input(x: Any) -> Any:
    """Images out of a list of one, or a dictionary of one, which Keras takes by the names of a model's inputs."""
    if isinstance(x, (list, tuple, dict)) and len(x) == 1:
        (x,) = x.values() if isinstance(x, dict) else x
    return x


def only_labels(y: Any) -> Any:
    """Labels out of a list of one, which Keras takes for a model of one output."""
    one = isinstance(y, (list, tuple)) and len(y) == 1 and hasattr(y[0], "__array__")
    return y[0] if one and np.ndim(y[0]) else y


def integer_labels(y: Tensor) -> Tensor:
    """Labels int32 (batch,) of integer classes (batch,) or (batch, 1), or of rows (batch, classes)."""
    if len(y.shape) == 2 and y.shape[1] != 1:
        return ops.cast(ops.argmax(y, axis=1), "int32")
    return ops.cast(ops.reshape(y, (-1,)), "int32")


def first_batch(x: Any) -> tuple[Any, Any]:
    """The first batch of a stream, and what to read in its place: a generator gives its batches only once."""
    if isinstance(x, keras.utils.PyDataset):
        return x[0], x
    if hasattr(x, "element_spec"):  # tf.data
        return next(iter(x.take(1)), None) if hasattr(x, "take") else None, x
    if isinstance(x, Iterator):
        first = next(x, None)
        return first, (batch for batch in itertools.chain([first], x))
    return next(iter(x), None) if isinstance(x, Iterable) else None, x


class CheckedBatches(keras.utils.PyDataset):
    """Copies of a dataset's batches, the size of each checked before it is used.

    TensorFlow takes arrays from Python without copying and, under a strategy, computes in their memory: the data of
    which batches are views would change.
    """

    def __init__(self, data: keras.utils.PyDataset, check: Callable[[int], None]) -> None:
        super().__init__(data.workers, data.use_multiprocessing, data.max_queue_size)
        self.data, self.check = data, check

    @property
    def num_batches(self) -> int | None:
        return self.data.num_batches

    def __getitem__(self, index: int) -> Any:
        batch = self.data[index]
        self.check(len(keras.tree.flatten(batch[0])[0]))
        return keras.tree.map_structure(
            lambda part: np.array(part) if isinstance(part, np.ndarray) else part, batch
        )

    def on_epoch_begin(self) -> None:
        self.data.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self.data.on_epoch_end()
