"""The digits that ship with scikit-learn: 1,797 images of 8 x 8 pixels."""

import numpy as np

from robust_zoo.datasets.dataset import Dataset, Source


class Digits(Source):
    """1,137 images to train on, 160 for validation and 500 to measure on, in a fixed order."""

    def __init__(self) -> None:
        super().__init__("digits")

    def load(self, split: str) -> Dataset:
        self.check_split(split)
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
