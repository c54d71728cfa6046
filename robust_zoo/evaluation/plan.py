"""What is to be measured, and on what: refused here, before anything runs, if it does not fit."""

import pathlib
from collections.abc import Sequence
from numbers import Integral
from typing import Any, cast

import keras
import numpy as np

from robust_zoo.attacks import Attack, FixedBudgetAttack
from robust_zoo.contract import check_images, check_labels
from robust_zoo.datasets import Dataset, arrays_dataset, collect, is_folder, load_dataset
from robust_zoo.record import Norm, ThreatModel
from robust_zoo.sentences import one_line


def threat_model(attacks: tuple[Attack, ...]) -> ThreatModel | None:
    for attack in attacks:
        if not isinstance(attack, Attack):
            raise TypeError(f"attacks must be robust_zoo attacks, got {attack!r}.")
        if attack.reaches_given_labels:
            raise ValueError(
                f"attacks must not aim at the labels given, which are the true ones here, got {attack!r}: "
                "a targeted attack needs labels 'least_likely' or 'random'."
            )
    fixed = [attack for attack in attacks if isinstance(attack, FixedBudgetAttack)]
    budgets = sorted({(attack.norm, attack.epsilon) for attack in fixed})
    if len(budgets) > 1:
        raise ValueError(
            f"attacks must share one norm and epsilon, the threat model, got {budgets}: evaluate each "
            "threat model by itself."
        )
    if not budgets:
        return None
    norm, epsilon = budgets[0]
    return ThreatModel(norm=cast(Norm, norm), epsilon=epsilon)


def check_rising(threats: Sequence[ThreatModel | None]) -> None:
    known = [threat for threat in threats if threat is not None]
    if len(known) < len(threats) or len({threat.norm for threat in known}) > 1:
        raise ValueError(
            f"plans must each have attacks with a budget, all of one norm, got {threats}."
        )
    radii = [threat.epsilon for threat in known]
    if radii != sorted(set(radii)):
        raise ValueError(f"plans must have rising epsilons, got {radii}.")


def as_dataset(
    data: Any, model: keras.Model, name: str | None, n: int | Sequence[int | None] | None
) -> Dataset:
    if name is not None and isinstance(data, (Dataset, str)):
        raise ValueError(
            f"dataset names arrays and streams, but the data have a name already, got {name!r}."
        )
    if isinstance(data, Dataset):
        return data
    shape, classes = model.input_shape[1:], model.output_shape[1]
    if isinstance(data, str):
        loaded = load_dataset(data, image_shape=shape)
        names = loaded.class_names
        if is_folder(data) and len(names) != classes:
            raise ValueError(
                f"data must have a subfolder for each of the model's {classes} classes, {data!r} has {len(names)}: "
                f"{one_line(', '.join(names))}. An empty one keeps the place of a class."
            )
        return loaded
    if isinstance(data, (tuple, list)) and len(data) == 2:
        images = check_images(data[0], model)
        labels = check_labels(data[1], classes, len(images))
        return arrays_dataset(images, labels, classes, name or "arrays")
    if isinstance(data, keras.utils.PyDataset) or hasattr(data, "element_spec"):
        most = (
            None
            if n is None or (isinstance(n, Sequence) and None in n)
            else int(np.max(cast("int | Sequence[int]", n)))
        )
        images, labels = collect(data, most)
        labels = check_labels(labels, classes, len(images))
        return arrays_dataset(check_images(images, model), labels, classes, name or "stream")
    raise TypeError(
        "data must be a Dataset, a name, (images, labels), a tf.data.Dataset or a PyDataset, got "
        f"{type(data).__name__}."
    )


def sample_sizes(n: int | Sequence[int | None] | None, attacks: int, available: int) -> list[int]:
    if not isinstance(n, Sequence):
        sizes = [n] * max(attacks, 1)
    else:
        sizes = list(n)
        if len(sizes) != max(attacks, 1):
            raise ValueError(
                f"n must be one number or one for each of {attacks} attacks, got {n!r}."
            )
    numbers = [available if size is None else size for size in sizes]
    for size in numbers:
        whole = isinstance(size, Integral) and not isinstance(size, bool)
        if not (whole and 1 <= size <= available):
            raise ValueError(f"n must be integers in 1..{available}, the examples, got {n!r}.")
    return [int(size) for size in numbers]


def state_files(
    directory: str | pathlib.Path | None, attacks: tuple[Attack, ...]
) -> list[pathlib.Path | None]:
    """One file for each attack, by its place and name."""
    if directory is None:
        return [None] * len(attacks)
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    return [
        directory / f"{number}_{type(attack).__name__}.npz" for number, attack in enumerate(attacks)
    ]
