"""challenge(): somebody's adversarial images, checked against a model's record."""

import pathlib
from typing import Any

import keras
import numpy as np

from robust_zoo.attacks.expectation import share_right
from robust_zoo.attacks.norms import get_norm
from robust_zoo.copies import in_float32
from robust_zoo.datasets import Examples, sample_places
from robust_zoo.evaluation.checks import certificates_hold, reaches_chance
from robust_zoo.evaluation.verification import (
    check_recorded_data,
    check_recorded_model,
    recorded_data,
)
from robust_zoo.npz import read_npz
from robust_zoo.record import (
    LONGEST_NAME,
    Accuracy,
    Certified,
    CurvePoint,
    External,
    RobustnessRecord,
    Union,
    WorstCase,
    allowed_distance,
)
from robust_zoo.sentences import one_line
from robust_zoo.weights import sha256


def challenge(
    model: keras.Model,
    path: str | pathlib.Path,
    *,
    source: str,
    data: Examples | None = None,
    batch_size: int = 128,
) -> RobustnessRecord:
    """A model's record with somebody's adversarial images taken into account, as RobustBench's external evaluations.

    Each image is checked here: it must lie in [0, 1] and in the ball of the record's threat model, and fool the model.
    An image outside counts as robust. The worst case becomes the lower one of what the attacks left and of what
    these images leave, on the same sample; so do the union of threat models, and the curve in balls as large and larger.
    If an image breaks what is certified, the certificate falls, too, and a check says that it did not hold.

    Args:
        model: with a record, from `load_model`.
        path: file (.npz) with the array "images", floating in [0, 1] or uint8, and optionally "numbers", which examples of
            the split they are of; without it, all of the split in its order.
        source: who made them and where that is described, a line of text, for the record.
        data: the split that the model was measured on, by default that of the recorded name, see `verify`.
        batch_size: images in a batch, >= 1; default 128.

    Returns:
        The record with one more entry in `external`. `save_model` writes it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a model without a record of attacks, or that has changed since; a file that cannot be read, or is in the
            record already; images of another shape, of none of the record's examples, or none of which is in the ball;
            numbers that are no examples of the split; or data that the model was not measured on.
    """
    record: RobustnessRecord | None = getattr(model, "robustness", None)
    if record is None or record.worst_case is None or record.threat_model is None:
        raise ValueError(
            f"model {model.name!r} has no record of attacks with a budget to challenge: evaluate it first."
        )
    line = isinstance(source, str) and source.strip() and source.isprintable()
    if not line or len(source) > LONGEST_NAME:
        raise ValueError(
            f"source must be a line of text of at most {LONGEST_NAME} characters, got {one_line(repr(source))}."
        )
    check_recorded_model(record, model)
    data = recorded_data(record) if data is None else data
    check_recorded_data(record, data, record.seed)
    images, numbers = _read(path, model, len(data))
    file_sha256 = sha256(path)
    if any(part.sha256 == file_sha256 for part in record.external):
        raise ValueError(f"{str(path)!r} is in the record already.")
    n = record.worst_case.n_examples
    chosen = sample_places(data, n, record.seed)
    place = np.full(len(data), -1)
    place[numbers] = np.arange(len(numbers))
    given = np.flatnonzero(place[chosen] >= 0)
    if not len(given):
        raise ValueError(
            f"{str(path)!r} must have images of the record's {n} examples, but all of its own are of others."
        )
    on_curve = record.curve.points[0].n_examples if record.curve else 0
    sample = data.sample(max(n, on_curve), record.seed).take(slice(None))
    x, y = sample.images[:n], sample.labels[:n]
    x_adv = x.copy()
    x_adv[given] = images[place[chosen[given]]]
    distance = get_norm(record.threat_model.norm).distance(x_adv, x)
    pixels = x_adv.reshape(n, -1)
    inside = (
        (distance <= allowed_distance(record.threat_model.epsilon))
        & (pixels.min(axis=1) >= 0)
        & (pixels.max(axis=1) <= 1)
    )
    if not inside[given].any():
        raise ValueError(
            f"{str(path)!r} must have images within {record.threat_model.norm} distance "
            f"{record.threat_model.epsilon:g} of the split's, but the nearest is {distance[given].min():g} away: are they "
            "in the order of the split, with channels last?"
        )
    x_adv[~inside] = x[~inside]
    measured = in_float32(model)
    samples = max(int(part.config.get("samples", 1)) for part in record.attacks)
    right, under = (
        share_right(measured, images, y, samples=samples, seed=record.seed, batch_size=batch_size)
        for images in (x, x_adv)
    )
    held = (right >= 0.5) & (under >= 0.5)
    found = External.count(
        int(held.sum()),
        n,
        source=source,
        sha256=file_sha256,
        images=len(given),
        outside=int((~inside).sum()),
        max_distance=float(distance[inside].max(initial=0.0)),
    )
    return _lowered(record, found, sample.labels)


def _read(path: str | pathlib.Path, model: keras.Model, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Images as float32, and which examples of the split they are of; ValueError for what does not fit."""
    try:
        arrays = read_npz(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"no file {str(path)!r} with images.") from None
    except ValueError as error:
        raise ValueError(f"{str(path)!r} cannot be read: {one_line(error)}.") from None
    if "images" not in arrays:
        raise ValueError(
            f"{str(path)!r} must have an array 'images', got {one_line(', '.join(arrays)) or 'none'}."
        )
    images, shape = arrays["images"], model.input_shape[1:]
    if images.ndim != 4 or any(
        side not in (None, got) for side, got in zip(shape, images.shape[1:], strict=True)
    ):
        hint = ""
        if images.ndim == 4 and images.shape[1] == shape[2]:
            hint = " These have their channels first: transpose them, images.transpose(0, 2, 3, 1)."
        raise ValueError(
            f"{str(path)!r} must have images of shape (n, {', '.join(map(str, shape))}), got {images.shape}.{hint}"
        )
    if images.dtype == np.uint8:
        images = images.astype("float32") / 255
    elif images.dtype.kind != "f":
        raise ValueError(
            f"{str(path)!r} must have floating images in [0, 1], or uint8, got {images.dtype}."
        )
    images = np.nan_to_num(images.astype("float32"), nan=-1.0)  # outside, and told so
    if "numbers" not in arrays:
        if len(images) != n:
            raise ValueError(
                f"{str(path)!r} must have an image for each of the split's {n} examples, or 'numbers' that say of which "
                f"they are, got {len(images)} images."
            )
        return images, np.arange(n)
    numbers = arrays["numbers"]
    fits = numbers.dtype.kind in "iu" and numbers.shape == (len(images),)
    if (
        not fits
        or len(np.unique(numbers)) < len(numbers)
        or not ((numbers >= 0) & (numbers < n)).all()
    ):
        raise ValueError(
            f"numbers in {str(path)!r} must be {len(images)} different integers in 0..{n - 1}, the split's examples."
        )
    return images, numbers


def _lowered(record: RobustnessRecord, found: External, labels: np.ndarray) -> RobustnessRecord:
    """The record with one more entry, and with nothing that is said of the same ball or a larger one above it."""
    worst, threat = record.worst_case, record.threat_model
    assert worst is not None  # or there is nothing to challenge
    assert threat is not None  # nor this
    left = min(worst.correct, found.correct)

    def most(part: Accuracy) -> int:
        """How many may be left of the examples of another sample, of which the smaller is part of the larger."""
        return min(part.correct, left + max(0, part.n_examples - worst.n_examples))

    told: dict[str, Any] = {name: getattr(record, name) for name in type(record).model_fields}
    told["external"] = (*record.external, found)
    told["worst_case"] = WorstCase.count(left, worst.n_examples, attacks=worst.attacks)
    if record.union is not None:
        told["union"] = Union.count(
            most(record.union),
            record.union.n_examples,
            threat_models=record.union.threat_models,
            attacks=record.union.attacks,
        )
    checks = {check.name: check for check in record.checks}
    proof = record.certificate
    if proof is not None and most(proof) < proof.correct:
        rest = proof.model_dump(exclude={"accuracy", "ci95", "correct", "n_examples"})
        lower = Certified.count(most(proof), proof.n_examples, **rest)
        told["certified"] = (lower, *record.smoothed)
        told["attacks"] = tuple(
            part.model_copy(update={"skipped": min(part.skipped, lower.correct)})
            for part in record.attacks
        )
        hold = certificates_hold(proof.correct - lower.correct, proof.n_examples)
        checks[hold.name] = hold
    curve = record.curve
    if curve is not None:
        points = tuple(
            CurvePoint.count(most(point), point.n_examples, epsilon=point.epsilon)
            if point.epsilon >= threat.epsilon
            else point
            for point in curve.points
        )
        if points != curve.points:
            told["curve"] = curve = curve.model_copy(update={"points": points})
            chance = reaches_chance(curve, labels)
            checks[chance.name] = chance
            # What PGD alone leaves, which it compares the curve with, is in no record.
            checks.pop("curve_agrees_with_attacks", None)
    return RobustnessRecord(**{**told, "checks": tuple(checks.values())})
