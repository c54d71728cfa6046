"""Other people's checkpoints, built by hand in Keras: measured as they were published. Skipped where they are absent."""

import collections
import io
import math
import pathlib
import pickle
import zipfile

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


def _tensor(storage, offset, shape, stride, *_):
    return storage, offset, tuple(shape)


class _Unpickler(pickle.Unpickler):
    """Reads torch's state dictionaries, and nothing that runs code."""

    def __init__(self, file):
        super().__init__(file, encoding="latin1")

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if name in ("_rebuild_tensor_v2", "_rebuild_tensor"):
            return _tensor
        if name == "_rebuild_parameter":
            return lambda tensor, *_: tensor
        return (module, name)

    def persistent_load(self, identity):
        return identity[2]


def tensors(name):
    """The arrays of a state dictionary that have more than a count in them, in their order."""
    path = WEIGHTS / name
    state, values = _read_archive(path) if zipfile.is_zipfile(path) else _read_stream(path)
    state = state.get("state_dict", state)
    state = state[0] if isinstance(state, list) else state
    return {
        key: values[storage][offset : offset + math.prod(shape)].reshape(shape)
        for key, (storage, offset, shape) in state.items()
        if shape
    }


def _read_stream(path):
    """The format of before 1.6: pickles, then the values of each tensor's storage."""
    with open(path, "rb") as file:
        for _ in range(3):  # a magic number, the version and the sizes of integers
            pickle.load(file)
        state = _Unpickler(file).load()
        values = {}
        for key in pickle.load(file):
            count = int(np.fromfile(file, "<i8", 1)[0])
            values[key] = np.fromfile(file, "<f4", count)
    return state, values


def _read_archive(path):
    """The format since 1.6: a zip archive with a file for each storage."""
    with zipfile.ZipFile(path) as archive:
        (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        folder = pickled.removesuffix(".pkl")
        state = _Unpickler(io.BytesIO(archive.read(pickled))).load()
        values = {
            name.rpartition("/")[2]: np.frombuffer(archive.read(name), "<f4")
            for name in archive.namelist()
            if name.startswith(f"{folder}/")
        }
    return state, values


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


def normalised(mean, deviation):
    """Images (32, 32, 3) and what a torch network is given of them."""
    inputs = keras.Input((32, 32, 3))
    mean, deviation = np.array(mean), np.array(deviation)
    return inputs, layers.Rescaling((1 / deviation).tolist(), (-mean / deviation).tolist())(inputs)


def resnet2b():
    weights = tensors("resnet2b.pth")
    inputs, x = normalised((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
    x = layers.ReLU()(convolution(x, weights, "conv1", 2, 1))
    for block, strides in (("layer1.0", 2), ("layer1.1", 1)):
        shortcut = x
        if strides == 2:
            shortcut = convolution(x, weights, f"{block}.shortcut.0", 2)
        y = layers.ReLU()(convolution(x, weights, f"{block}.conv1", strides, 1))
        y = convolution(y, weights, f"{block}.conv2", 1, 1)
        x = layers.ReLU()(layers.Add()([y, shortcut]))
    x = layers.ReLU()(dense(flat(x), weights, "linear1"))
    return keras.Model(inputs, dense(x, weights, "linear2"), name="resnet2b")


def normalisation(x, weights, key):
    """A torch batch normalisation."""
    parts = ("weight", "bias", "running_mean", "running_var")
    layer = layers.BatchNormalization(epsilon=1e-5)
    x = layer(x)
    layer.set_weights([weights[f"{key}.{part}"] for part in parts])
    return x


def resnet20_cifar10():
    weights = tensors("resnet20_cifar10.th")
    inputs, x = normalised((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    x = convolution(x, weights, "module.conv1", 1, 1)
    x = layers.ReLU()(normalisation(x, weights, "module.bn1"))
    for stage in (1, 2, 3):
        for number in range(3):
            block, strides = f"module.layer{stage}.{number}", 2 if stage > 1 and number == 0 else 1
            shortcut = x
            if strides == 2:  # every other pixel, with channels of zeros on both sides
                shortcut = layers.AveragePooling2D(1, 2)(x)
                shortcut = layers.Permute((3, 1, 2))(shortcut)
                shortcut = layers.ZeroPadding2D(
                    ((2 ** (stage + 1),) * 2, (0, 0)), data_format="channels_last"
                )(shortcut)
                shortcut = layers.Permute((2, 3, 1))(shortcut)
            y = convolution(x, weights, f"{block}.conv1", strides, 1)
            y = layers.ReLU()(normalisation(y, weights, f"{block}.bn1"))
            y = normalisation(
                convolution(y, weights, f"{block}.conv2", 1, 1), weights, f"{block}.bn2"
            )
            x = layers.ReLU()(layers.Add()([y, shortcut]))
    x = dense(layers.GlobalAveragePooling2D()(x), weights, "module.linear")
    return keras.Model(inputs, x, name="resnet20_cifar10")


PUBLISHED = {
    "mnist": {trades_mnist: 0.9948, deeprobust_pgd: 0.9856, ca_mnist: 0.9820},
    "cifar10": {resnet2b: 0.6925, resnet20_cifar10: 0.9173},
}


@pytest.mark.long
@pytest.mark.parametrize(
    ("dataset", "make", "published"),
    [
        pytest.param(dataset, make, accuracy, id=make.__name__, marks=getattr(pytest.mark, dataset))
        for dataset, models in PUBLISHED.items()
        for make, accuracy in models.items()
    ],
)
def test_clean_accuracy_is_the_published_one(dataset, make, published):
    record = evaluate(make(), dataset, checks=False, progress=False)
    assert record.clean.n_examples == 10_000
    assert abs(record.clean.accuracy - published) <= 0.001


@pytest.mark.long
@pytest.mark.mnist
def test_autoattack_agrees_with_the_published_number():
    """92.76% on 10,000 images for TRADES at 0.3 (auto-attack's README): inside our interval on 10."""
    data = load_dataset("mnist").sample(10, 0)
    record = evaluate(
        trades_mnist(), data, attacks=AutoAttack(epsilon=0.3), checks=False, progress=False
    )
    low, high = record.worst_case.ci95
    assert low <= 0.9276 <= high
