import keras
import pytest

from robust_zoo import architectures
from robust_zoo.datasets import load_dataset


@pytest.fixture(scope="package")
def trained():
    """A small network trained on digits, shared by the tests of this folder: none may change it."""
    keras.utils.set_random_seed(0)
    model = architectures.mlp((8, 8, 1), hidden=(32,))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss=loss)
    data = load_dataset("digits", "train")
    model.fit(data.images, data.labels, epochs=15, verbose=0)
    return model
