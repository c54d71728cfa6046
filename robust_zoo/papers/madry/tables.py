"""Tables 1 and 2, white and black box, and the capacity study of section 4."""

import functools
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from robust_zoo import attacks
from robust_zoo.attacks import FGSM, PGD, CWMargin, FixedBudgetAttack
from robust_zoo.datasets import Dataset, load_dataset
from robust_zoo.evaluation import (
    adversarial_loss,
    clean_accuracy,
    gradient_correlation,
    transfer_accuracy,
)
from robust_zoo.papers.comparison import Comparison, Models
from robust_zoo.papers.table import Rows, Table
from robust_zoo.record import Accuracy

_CORRELATED = 1_000  # images, of those that a correlation is the mean of
_40_STEPS: dict[str, Any] = {"epsilon": 0.3, "steps": 40, "step_size": 0.01}
_WHITE_BOX = {
    "FGSM": FGSM(epsilon=0.3),
    "PGD-40": PGD(**_40_STEPS),
    "PGD-100": PGD(epsilon=0.3, steps=100, step_size=0.01),
    "PGD-40 x 20": PGD(restarts=20, **_40_STEPS),
    "PGD-100 x 20": PGD(epsilon=0.3, steps=100, step_size=0.01, restarts=20),
    "targeted": PGD(labels="random", targeted=True, **_40_STEPS),
    "CW": PGD(loss="cw_margin", **_40_STEPS),
    "CW+": PGD(loss=CWMargin(confidence=50.0), **_40_STEPS),
}
_BLACK_BOX = {
    "madry_cnn.pgd_copy_mnist": ("A'", ("FGSM", "PGD-40", "PGD-100 x 20", "CW", "CW+")),
    "madry_cnn.natural_mnist": ("A_nat", ("FGSM", "PGD-40")),
    "tramer_b.natural_mnist": ("B", ("FGSM", "PGD-40", "CW")),
}


_8: dict[str, Any] = {"epsilon": 8 / 255, "step_size": 2 / 255}
_WHITE_BOX_8 = {
    "FGSM": FGSM(epsilon=8 / 255),
    "PGD-7": PGD(steps=7, **_8),
    "PGD-20": PGD(steps=20, **_8),
    "CW-30": PGD(steps=30, loss="cw_margin", **_8),
}
_BLACK_BOX_8 = {
    "madry_resnet.pgd_copy_cifar10": ("A'", ("FGSM", "PGD-7", "CW-30")),
    "madry_resnet.natural_cifar10": ("A_nat", ("FGSM", "PGD-7")),
}


def _boxes(
    target: keras.Model | None,
    models: Models,
    test: Dataset,
    seed: int,
    white: Mapping[str, FixedBudgetAttack],
    black: Mapping[str, tuple[str, tuple[str, ...]]],
) -> Rows:
    """A robust model under attacks on itself, and under images that were made on others."""
    if target is None:
        return {}
    x, y = test.images, test.labels
    rows: Rows = {"natural": (clean_accuracy(target, x, y),)}
    for name, attack in white.items():
        rows[f"A, {name}"] = (_white_box(attack, target, test, seed),)
    for source, (letter, kinds) in black.items():
        for name in kinds if source in models else ():
            found = transfer_accuracy(white[name], models[source], target, x, y, seed=seed)
            rows[f"{letter}, {name}"] = (found,)
    return rows


def _table1(models: Models, test: Dataset, seed: int) -> Rows:
    target = models.get("madry_cnn.pgd_mnist")
    return _boxes(target, models, test, seed, _WHITE_BOX, _BLACK_BOX)


def _table2(models: Models, test: Dataset, seed: int) -> Rows:
    target = models.get("madry_resnet.pgd_cifar10")
    rows = _boxes(target, models, test, seed, _WHITE_BOX_8, _BLACK_BOX_8)
    some = {kind: _WHITE_BOX_8[kind] for kind in ("FGSM", "PGD-7")}
    for name, model in models.items():
        if model is target:
            own = rows  # which has them all
        elif _kind(name) != "pgd":
            own = _boxes(model, models, test, seed, some, {})
        else:
            continue
        rows |= {f"{name}, {kind}": own[f"A, {kind}"] for kind in some}
        rows[f"{name}, clean"] = own["natural"]
    return rows


def _white_box(attack: FixedBudgetAttack, model: keras.Model, test: Dataset, seed: int) -> Accuracy:
    """On what a one-step attack makes, which may be right where the clean image is not; else see the table's note."""
    if isinstance(attack, FGSM):
        return transfer_accuracy(attack, model, model, test.images, test.labels, seed=seed)
    fooled = attack.run(model, test.images, test.labels, seed=seed).success
    return Accuracy.count(int((~fooled).sum()), len(fooled))


def _trained_against(model: keras.Model) -> FixedBudgetAttack | None:
    """The attack that the record of a model says it was trained against; None after natural training."""
    defense = model.robustness.defense
    if defense is None:
        return None
    config = dict(defense.config["attack"])
    return getattr(attacks, config.pop("name")).from_config(config)


def _capacity(epsilon: float, models: Models, test: Dataset, seed: int) -> Rows:
    pgd = PGD(epsilon=epsilon, steps=40, step_size=0.01)
    some = test.take(slice(_CORRELATED))
    train = load_dataset("mnist", "train")
    train = train.sample(min(len(test), len(train)), seed)
    rows: Rows = {}
    for name, model in models.items():
        rows[name] = (
            clean_accuracy(model, test.images, test.labels),
            _white_box(FGSM(epsilon=epsilon), model, test, seed),
            _white_box(pgd, model, test, seed),
            adversarial_loss(_trained_against(model), model, train.images, train.labels, seed=seed),
            float(
                np.nanmean(gradient_correlation(pgd, model, some.images, some.labels, seed=seed))
            ),
        )
    return rows


def by_scale(found: Comparison) -> dict[str, dict[int, tuple[dict[str, Accuracy], float]]]:
    """The rows of a capacity study by kind of training and scale: accuracies by column, and the loss.

    Raises:
        ValueError: the rows of another table.
    """
    kinds: dict[str, dict] = {}
    for name, (_, ours) in found.rows.items():
        *accuracies, loss, _ = ours if len(ours) > 1 else (None, None)
        if not isinstance(loss, float) or not all(
            isinstance(part, Accuracy) for part in accuracies
        ):
            raise ValueError(
                f"found must be of a capacity study: accuracies, a loss and a correlation a row, got columns {found.columns}."
            )
        scale = int(name.partition(".")[0].partition("_scale")[2] or 16)
        named = dict(zip(found.columns, accuracies, strict=False))
        kinds.setdefault(_kind(name), {})[scale] = (named, loss)
    return kinds


def _kind(name: str) -> str:
    """Of training: the "pgd" of "madry_cnn_scale2.pgd_mnist"."""
    return name.partition(".")[2].partition("_")[0]


TABLES = {
    "madry-capacity": Table("mnist", None, functools.partial(_capacity, 0.3)),
    "madry-capacity-workshop": Table("mnist", None, functools.partial(_capacity, 0.1)),
    "madry-table1": Table("mnist", 1_000, _table1),
    "madry-table2": Table("cifar10", 1_000, _table2),
}
