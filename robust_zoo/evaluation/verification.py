"""verify(): measures again what a record says, on the same examples and with the same attacks."""

import math
import pathlib
import re
from dataclasses import dataclass

import keras
import numpy as np

from robust_zoo.certification import Smoothing
from robust_zoo.datasets import Examples, open_dataset, options_of
from robust_zoo.describe import describe_attack, describe_ball, describe_certified
from robust_zoo.evaluation.measuring import evaluate
from robust_zoo.evaluation.outcomes import is_recorded
from robust_zoo.evaluation.plan import attack_of_record
from robust_zoo.record import (
    Accuracy,
    AttackOutcome,
    MinimumNorm,
    RobustnessRecord,
)
from robust_zoo.sentences import one_line

_CHANCE = 1e-3  # below which a smaller sample is said to disagree
_PUBLIC = re.compile(
    r"\w+(/\w[\w.+-]*)?(:\d+(,\d+)*)?"
)  # a dataset, its configuration, some classes
_ROUNDING = 0.005  # share of the same examples whose verdict another machine may turn


@dataclass(frozen=True)
class Agreement:
    """One number of a record, and the same measured again.

    Attributes:
        name: "clean", a human-readable label of the attack (minimum-norm attacks: the examples found), "worst case", or
            by what it is certified.
        recorded: how many, of how many examples.
        measured: the same, on the same examples or the first of them.
        agrees: whether another machine, or chance in the smaller sample, explains the difference.
    """

    name: str
    recorded: tuple[int, int]
    measured: tuple[int, int]
    agrees: bool


def verify(
    model: keras.Model,
    *,
    data: Examples | None = None,
    n: int | None = None,
    batch_size: int = 128,
    progress: bool = True,
    state_directory: str | pathlib.Path | None = None,
) -> tuple[Agreement, ...]:
    """Measures a model again as its record says it was measured: attacks, hyperparameters, seeds and sample.

    Args:
        model: with a record, from `load_model`.
        data: the split that it was measured on. By default that of the recorded name, if it is "digits" or of TFDS.
        n: at most so many of the recorded examples of each attack; by default all.
        batch_size: images in a batch, an integer >= 1; it changes no count, and distances only by rounding.
        progress: whether to show progress bars (on a terminal only).
        state_directory: see `evaluate`.

    Returns:
        An `Agreement` for clean accuracy, then for each attack, then for the worst case of the fixed-budget attacks
        (unless images of others lowered it), then for the attacks of further threat models and their union, then for what is certified.
        On all examples the counts may differ by half a percent (at least one), as they do between machines; on fewer,
        the difference must not be significant at the 0.1% level (hypergeometric test).

    Raises:
        ValueError: no record, a model that has changed since, an `n` below 1, an attack that cannot be made from the record, data that the model was
            not measured on, or data that cannot be opened (`DatasetError`).

    Example:
        >>> all(part.agrees for part in verify(load_model("mlp.natural_digits"), n=50))
        True
    """
    record = getattr(model, "robustness", None)
    if record is None:
        raise ValueError(
            f"model {model.name!r} has no record to verify: load it with robust_zoo.load_model."
        )
    if n is not None and n < 1:
        raise ValueError(f"n must be an integer >= 1, or None for all, got {n!r}.")
    check_recorded_model(record, model)
    parts = _parts(record)
    data = recorded_data(record) if data is None else data
    check_recorded_data(record, data, record.seed)
    sizes = [min(part.n_examples, n or part.n_examples) for part in parts]
    clean = min(record.clean.n_examples, n or record.clean.n_examples)
    proof = record.certificate
    again = evaluate(
        model,
        data,
        attacks=[attack_of_record(part.name, part.config) for part in parts],
        n=sizes or clean,
        seed=record.seed,
        batch_size=batch_size,
        precision=record.precision,
        checks=False,
        certify=proof.methods if proof else (),
        skip_certified=any(part.skipped for part in record.attacks),
        smoothing=_smoothing(record, n),
        threat_models=record.union.threat_models if record.union else (),
        progress=progress,
        state_directory=state_directory,
    )
    found = [("clean", _count(record.clean), _count(again.clean))]
    for old, new in zip(parts, _parts(again), strict=True):
        found.append((describe_attack(old), _count(old), _count(new)))
    # Others' images, which may have lowered it, are not at hand.
    if record.worst_case is not None and again.worst_case is not None and not record.external:
        found.append(("worst case", _count(record.worst_case), _count(again.worst_case)))
    if record.union is not None and again.union is not None:
        for one, other in zip(record.union.attacks, again.union.attacks, strict=True):
            name = f"{describe_attack(one)} ({describe_ball(one.threat_model)})"
            found.append((name, _count(one), _count(other)))
        found.append(("union", _count(record.union), _count(again.union)))
    for proven, anew in zip(record.certified, again.certified, strict=True):
        name = f"{describe_certified(proven)} at {proven.norm} {proven.epsilon:.4g}"
        found.append((name, _count(proven), _count(anew)))
    return tuple(Agreement(name, old, new, _agree(old, new)) for name, old, new in found)


def _smoothing(record: RobustnessRecord, n: int | None) -> Smoothing | None:
    """As the record has it, on at most so many images."""
    parts = record.smoothed
    if not parts:
        return None
    images = min(parts[0].n_examples, n or parts[0].n_examples)
    assert parts[0].smoothing is not None  # or it is none of them
    told = parts[0].smoothing.model_dump()
    return Smoothing(**told, images=images, radii=[part.epsilon for part in parts])


def _parts(record: RobustnessRecord) -> tuple[AttackOutcome | MinimumNorm, ...]:
    return (*record.attacks, *record.minimum_norm)


def check_recorded_model(record: RobustnessRecord, model: keras.Model) -> None:
    """Raises ValueError for a model whose weights or configuration are not those that the record was measured on."""
    if not is_recorded(model, record):
        raise ValueError(
            f"model must be the one of its record, but {model.name!r} has other weights or layers by now: evaluate it."
        )


def recorded_data(record: RobustnessRecord) -> Examples:
    """The split that the record names, which is untrusted: no file of this machine is opened for it."""
    name = record.dataset.name
    if not _PUBLIC.fullmatch(name):
        raise ValueError(
            f"data must be given: the record was measured on {one_line(name)!r}, which is not public by that name."
        )
    options = options_of(record.dataset.preparation)
    return open_dataset(name, record.dataset.split, image_shape=record.input.shape, **options)


def check_recorded_data(record: RobustnessRecord, data: Examples, seed: int) -> None:
    """Raises ValueError for another split than the one that the record was measured on."""
    if len(data) < record.clean.n_examples:
        raise ValueError(
            f"data must have the {record.clean.n_examples} examples that the record was measured on, got {len(data)}."
        )
    sample = data.sample(record.clean.n_examples, seed)
    if record.dataset.sha256 and sample.sha256 != record.dataset.sha256:
        raise ValueError(
            f"data must be what the record was measured on: the sha256 of its sample is {sample.sha256[:12]}, the "
            f"record's is {record.dataset.sha256[:12]}."
        )


def _count(part: Accuracy | MinimumNorm) -> tuple[int, int]:
    counted = part.found.n_examples if isinstance(part, MinimumNorm) else part.correct
    return counted, part.n_examples


def _agree(recorded: tuple[int, int], measured: tuple[int, int]) -> bool:
    from scipy.stats import hypergeom  # imported here: it takes a while

    (old, total), (new, n) = recorded, measured
    slack = max(1, math.ceil(_ROUNDING * total))
    if n == total:
        return abs(new - old) <= slack
    # As many of the examples as the smaller sample may have, give or take what machines differ by.
    counts = np.arange(max(0, old - slack), min(total, old + slack) + 1)
    below, above = hypergeom.cdf(new, total, counts, n), hypergeom.sf(new - 1, total, counts, n)
    return bool((np.minimum(below, above) > _CHANCE / 2).any())
