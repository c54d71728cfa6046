"""challenge(): somebody's adversarial images, checked against a model's record."""

import hashlib
import pathlib

import keras
import numpy as np

from robust_zoo.attacks.norms import get_norm
from robust_zoo.copies import in_float32
from robust_zoo.datasets import Examples
from robust_zoo.evaluation.verification import check_recorded_data, recorded_data
from robust_zoo.inference import predict
from robust_zoo.npz import read_npz
from robust_zoo.record import Curve, CurvePoint, External, RobustnessRecord, WorstCase
from robust_zoo.sentences import one_line

_SLACK = (1e-5, 1e-7)  # of epsilon, and beyond: the rounding of float32 images


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
    these images leave, on the same sample, and so does the curve in balls as large and larger.

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
        ValueError: a model without a record of attacks, a file that cannot be read, images of another shape, none of
            which is in the ball, numbers that are no examples of the split, or data that the model was not measured on.
    """
    record: RobustnessRecord | None = getattr(model, "robustness", None)
    if record is None or record.worst_case is None or record.threat_model is None:
        raise ValueError(
            f"model {model.name!r} has no record of attacks with a budget to challenge: evaluate it first."
        )
    if not (source.strip() and source.isprintable()):
        raise ValueError(f"source must be a line of text, got {one_line(source)!r}.")
    seed = record.attacks[0].seed
    data = recorded_data(record) if data is None else data
    check_recorded_data(record, data, seed)
    images, numbers = _read(path, model, len(data))
    n = record.worst_case.n_examples
    # Of the whole split, the places of the sample's examples.
    chosen = np.random.default_rng(seed).permutation(len(data))[:n]
    place = np.full(len(data), -1)
    place[numbers] = np.arange(len(numbers))
    given = np.flatnonzero(place[chosen] >= 0)
    sample = data.sample(n, seed).take(slice(None))
    x, y = sample.images, sample.labels
    x_adv = x.copy()
    x_adv[given] = images[place[chosen[given]]]
    distance = get_norm(record.threat_model.norm).distance(x_adv, x)
    allowed = record.threat_model.epsilon * (1 + _SLACK[0]) + _SLACK[1]
    pixels = x_adv.reshape(n, -1)
    inside = (distance <= allowed) & (pixels.min(axis=1) >= 0) & (pixels.max(axis=1) <= 1)
    if len(given) and not inside[given].any():
        raise ValueError(
            f"{str(path)!r} must have images within {record.threat_model.norm} distance "
            f"{record.threat_model.epsilon:g} of the split's, but the nearest is {distance[given].min():g} away: are they "
            "in the order of the split, with channels last?"
        )
    x_adv[~inside] = x[~inside]
    measured = in_float32(model)
    right = predict(measured, x, batch_size).argmax(1) == y
    held = right & (predict(measured, x_adv, batch_size).argmax(1) == y)
    found = External.count(
        int(held.sum()),
        n,
        source=source,
        sha256=hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest(),
        images=len(given),
        outside=int((~inside).sum()),
        max_distance=float(distance[inside].max(initial=0.0)),
    )
    return _lowered(record, found)


def _read(path: str | pathlib.Path, model: keras.Model, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Images as float32, and which examples of the split they are of; ValueError for what does not fit."""
    try:
        arrays = read_npz(path)
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


def _lowered(record: RobustnessRecord, found: External) -> RobustnessRecord:
    """The record with one more entry, and with a worst case and a curve that are not above it."""
    worst, threat = record.worst_case, record.threat_model
    assert worst is not None  # or there is nothing to challenge
    assert threat is not None  # nor this
    left = min(worst.correct, found.correct)
    lower = WorstCase.count(left, worst.n_examples, attacks=worst.attacks)
    curve = record.curve
    if curve is not None:
        points = [
            CurvePoint.count(
                min(point.correct, left + max(0, point.n_examples - worst.n_examples)),
                point.n_examples,
                epsilon=point.epsilon,
            )
            if point.epsilon >= threat.epsilon
            else point
            for point in curve.points
        ]
        curve = Curve(name=curve.name, config=curve.config, seed=curve.seed, points=tuple(points))
    told = {name: getattr(record, name) for name in type(record).model_fields}
    told |= {"worst_case": lower, "curve": curve, "external": (*record.external, found)}
    return RobustnessRecord(**told)
