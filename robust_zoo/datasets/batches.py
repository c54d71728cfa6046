"""Batches: what Keras `fit` trains on, whether the images are in memory or not."""

import functools
from collections.abc import Callable

import keras
import numpy as np

from robust_zoo.datasets.augment import RandomResizedCrop, mirrored
from robust_zoo.datasets.dataset import Dataset, Examples, StoredDataset


class Batches(keras.utils.PyDataset):
    """Full batches of a split for `fit`, pass after pass, each in an order (and augmented in ways) that its number and
    the seed determine, whatever the backend and however many hosts read them.

    Of data that are read as they are needed, two batches are read ahead, and nothing else is in memory. Without `begin`
    every epoch is the first one:

        data = robust_zoo.datasets.open_dataset("imagenet2012", "train", image_shape=(224, 224, 3), in_memory=False)
        batches = Batches(data, 256, 0, RandomResizedCrop())
        begin = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: batches.begin(epoch))
        trainer.fit(batches, epochs=90, shuffle=False, callbacks=[begin])

    Args:
        data: what they are made of.
        batch_size: examples in each, >= 1 and at most all; a last batch that is not full is left out.
        seed: integer >= 0, of the order and the augmentation.
        augment: changes a batch of images, given them and a random generator; None (default) leaves them.
        rows: of each batch, those that this host trains on; all by default.
        steps: batches in an epoch, >= 1; the next epoch goes on where the last one ended. Default: one pass.

    Raises:
        ValueError: a `batch_size` out of range.
    """

    def __init__(
        self,
        data: Examples,
        batch_size: int,
        seed: int,
        augment: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None,
        rows: slice = slice(None),
        steps: int | None = None,
    ) -> None:
        if not 1 <= batch_size <= len(data):
            raise ValueError(
                f"batch_size must be in 1..{len(data)}, the examples of {data.name!r} {data.split!r}, got "
                f"{batch_size!r}."
            )
        ahead = {} if isinstance(data, Dataset) else {"workers": 2, "max_queue_size": 2}
        super().__init__(**ahead)
        self.data, self.batch_size, self.seed, self.augment = data, batch_size, seed, augment
        self.rows, self.in_a_pass = rows, len(data) // batch_size
        self.steps = self.in_a_pass if steps is None else steps
        # Two, since an epoch may begin in one pass and end in the next.
        self._order = functools.lru_cache(2)(self._drawn)
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """What is read from now on belongs to an epoch, of which the first is 0."""
        self.first = epoch * self.steps

    def _drawn(self, number: int) -> np.ndarray:
        return np.random.default_rng((self.seed, number)).permutation(len(self.data))

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        number, place = divmod(self.first + index, self.in_a_pass)
        rows = self._order(number)[place * self.batch_size : (place + 1) * self.batch_size]
        # Each image is changed as in the whole batch, of which others' images are read elsewhere.
        rng = np.random.default_rng((self.seed, number, place))
        if isinstance(self.augment, RandomResizedCrop) and isinstance(self.data, StoredDataset):
            parts, flipped = self.augment.drawn(len(rows), rng)
            mine = self.data.take(rows[self.rows], parts[self.rows])
            return mirrored(mine.images, flipped[self.rows]), mine.labels
        mine = self.data.take(rows[self.rows])
        if self.augment is None:
            return mine.images, mine.labels
        images = np.zeros((len(rows), *mine.images.shape[1:]), "float32")
        images[self.rows] = mine.images
        return self.augment(images, rng)[self.rows], mine.labels
