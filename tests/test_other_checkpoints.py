"""Other people's checkpoints, built by hand in Keras: measured as they were published. Skipped where they are absent."""

import collections
import math
import pathlib
import pickle

import keras
import numpy as np
import pytest
from keras import layers

from robust_zoo.attacks import AutoAttack
from robust_zoo.datasets import load_dataset
from robust_zoo.evaluation import evaluate

WEIGHTS = pathlib.Path(__file__).resolve().parents[2] / "shared" / "weights"
pytestmark = [
    pytest.mark.skipif(not WEIGHTS.is_dir(), reason="other people's checkpoints are not here"),
    pytest.mark.home,
]


class _Storage:
    """Where the values of tensors lie, filled in after the pickle."""

    values: np.ndarray


def _tensor(storage, offset, shape, stride, *_):
    return storage, offset, tuple(shape)


class _Unpickler(pickle.Unpickler):
    """Reads the state dictionaries of torch's format of before 1.6, and nothing that runs code."""

    def __init__(self, file):
        super().__init__(file, encoding="latin1")
        self.storages = {}

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if name in ("_rebuild_tensor_v2", "_rebuild_tensor"):
            return _tensor
        if name == "_rebuild_parameter":
            return lambda tensor, *_: tensor
        return (module, name)

    def persistent_load(self, identity):
        return self.storages.setdefault(identity[2], _Storage())


def tensors(name):
    """The arrays of a state dictionary that have more than a count in them, in their order."""
    with open(WEIGHTS / name, "rb") as file:
        for _ in range(3):  # a magic number, the version and the sizes of integers
            pickle.load(file)
        reader = _Unpickler(file)
        state = reader.load()
        for key in pickle.load(file):
            count = int(np.fromfile(file, "<i8", 1)[0])
            reader.storages[key].values = np.fromfile(file, "<f4", count)
    state = state.get("state_dict", state)
    state = state[0] if isinstance(state, list) else state
    return {
        key: storage.values[offset : offset + math.prod(shape)].reshape(shape)
        for key, (storage, offset, shape) in state.items()
        if shape
    }


def convolution(x, weights, key, strides=1, padding=0):
    """A torch convolution: channels first kernels, zeros on all sides."""
    kernel = weights[f"{key}.weight"].transpose(2, 3, 1, 0)
    bias = weights.get(f"{key}.bias")
    if padding:
        x = layers.ZeroPadding2D(padding)(x)
    layer = layers.Conv2D(kernel.shape[-1], kernel.shape[:2], strides, use_bias=bias is not None)
    x = layer(x)
    layer.set_weights([kernel] if bias is None else [kernel, bias])
    return x


def dense(x, weights, key):
    kernel, bias = weights[f"{key}.weight"].T, weights[f"{key}.bias"]
    layer = layers.Dense(len(bias))
    x = layer(x)
    layer.set_weights([kernel, bias])
    return x


def flat(x):
    """Flattened as torch does it, channels first."""
    return layers.Flatten()(layers.Permute((3, 1, 2))(x))


def trades_mnist():
    weights = tensors("trades_mnist.pt")
    names = [key.removesuffix(".weight") for key in weights if key.endswith(".weight")]
    x = inputs = keras.Input((28, 28, 1))
    for number, name in enumerate(names[:4]):
        x = layers.ReLU()(convolution(x, weights, name))
        if number in (1, 3):
            x = layers.MaxPooling2D(2)(x)
    x = flat(x)
    for name in names[4:-1]:
        x = layers.ReLU()(dense(x, weights, name))
    return keras.Model(inputs, dense(x, weights, names[-1]), name="trades_mnist")


def deeprobust_pgd():
    weights = tensors("deeprobust_pgd.pt")
    names = [key.removesuffix(".weight") for key in weights if key.endswith(".weight")]
    x = inputs = keras.Input((28, 28, 1))
    for name in names[:2]:
        x = layers.MaxPooling2D(2)(layers.ReLU()(convolution(x, weights, name)))
    x = layers.ReLU()(dense(flat(x), weights, names[2]))
    return keras.Model(inputs, dense(x, weights, names[3]), name="deeprobust_pgd")


def ca_mnist():
    weights = tensors("ca_mnist.pth")
    names = [key.removesuffix(".weight") for key in weights if key.endswith(".weight")]
    x = inputs = keras.Input((28, 28, 1))
    for name in names[:2]:
        x = layers.ReLU()(convolution(x, weights, name, 2, 1))
    x = layers.ReLU()(dense(flat(x), weights, names[2]))
    return keras.Model(inputs, dense(x, weights, names[3]), name="ca_mnist")


PUBLISHED = {trades_mnist: 0.9948, deeprobust_pgd: 0.9856, ca_mnist: 0.9820}


@pytest.mark.mnist
@pytest.mark.parametrize("make", PUBLISHED, ids=lambda make: make.__name__)
def test_clean_accuracy_is_the_published_one(make):
    record = evaluate(make(), "mnist", checks=False, progress=False)
    assert record.clean.n_examples == 10_000
    assert abs(record.clean.accuracy - PUBLISHED[make]) <= 0.001


@pytest.mark.mnist
def test_autoattack_agrees_with_the_published_number():
    """92.76% on 10,000 images for TRADES at 0.3 (auto-attack's README): inside our interval on 20."""
    data = load_dataset("mnist").sample(20, 0)
    record = evaluate(
        trades_mnist(), data, attacks=AutoAttack(epsilon=0.3), checks=False, progress=False
    )
    low, high = record.worst_case.ci95
    assert low <= 0.9276 <= high
