"""Pictures of records."""

import hashlib
import pathlib
from collections.abc import Sequence

from robust_zoo.describe import describe_attack
from robust_zoo.files import replacing
from robust_zoo.record import RobustnessRecord

FORMATS = ("png", "pdf", "svg")
_DRAWING = "1"  # to be raised when pictures look different, so that they are drawn again
_BROKEN = 0.02  # accuracy at which a curve has reached the ground


def picture_format(path: str | pathlib.Path) -> str:
    """The format that the ending of `path` asks for; ValueError for an ending that is none."""
    ending = pathlib.Path(path).suffix.removeprefix(".").lower()
    if ending not in FORMATS:
        raise ValueError(f"a picture's file must end in one of {FORMATS}, got {str(path)!r}.")
    return ending


def accuracy_against_epsilon(
    records: Sequence[RobustnessRecord], path: str | pathlib.Path
) -> pathlib.Path:
    """Draws accuracy under each attack against epsilon, with 95% intervals; clean accuracy at epsilon 0.

    One record with a curve is drawn as that curve, and its attacks as single points; several are joined.

    Args:
        records: of one model under threat models of one norm, with the same attacks in the same order.
        path: picture to write; the ending chooses the format (.png, .pdf, .svg). A .png carries the digest of
            the records (see `is_picture_of`).

    Raises:
        ValueError: no records, or records without attacks, of several norms, models or lists of attacks.
    """
    import matplotlib.figure  # imported here: it takes a while

    norms = {record.threat_model.norm for record in records if record.threat_model}
    names = {record.name for record in records}
    if len(norms) != 1 or len(names) != 1 or not all(record.threat_model for record in records):
        raise ValueError(
            f"records must be of one model under attacks of one norm, got models {sorted(names)} and "
            f"norms {sorted(norms)}."
        )
    lists = {tuple(outcome.name for outcome in record.attacks) for record in records}
    if len(lists) != 1:
        raise ValueError(
            f"records must have the same attacks in the same order, got {sorted(lists)}."
        )
    clean, curve = records[0].clean, records[0].curve
    ordered = sorted(records, key=lambda record: record.threat_model.epsilon)
    epsilons = [record.threat_model.epsilon for record in ordered]
    origin = [(0.0, clean)]
    curves = []
    if curve is not None and len(records) == 1:
        # What follows after the model is broken would only squeeze the rest.
        standing = sum(point.accuracy > _BROKEN for point in curve.points)
        points = [*origin, *((point.epsilon, point) for point in curve.points[: standing + 1])]
        curves.append((describe_attack(curve), points))
        origin = []
    for outcomes in zip(*(record.attacks for record in ordered), strict=True):
        # Where the number of steps follows from epsilon, it is no part of the curve's name.
        labels = {describe_attack(outcome) for outcome in outcomes}
        label = labels.pop() if len(labels) == 1 else outcomes[0].name
        curves.append((label, [*origin, *zip(epsilons, outcomes, strict=True)]))

    figure = matplotlib.figure.Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for label, points in curves:
        places = [epsilon for epsilon, _ in points]
        accuracies = [part.accuracy for _, part in points]
        below = [part.accuracy - part.ci95[0] for _, part in points]
        above = [part.ci95[1] - part.accuracy for _, part in points]
        axes.errorbar(places, accuracies, [below, above], marker="o", capsize=3, label=label)
    axes.set(
        title=names.pop(),
        xlabel=f"epsilon ({norms.pop()}, pixels in [0, 1])",
        ylabel="accuracy",
        ylim=(-0.02, 1.02),
    )
    axes.grid(alpha=0.3)
    axes.legend()
    form = picture_format(path)
    # No date and no version of matplotlib: the same records make the same picture.
    metadata = {"Software": None, "Description": _digest(records)} if form == "png" else None
    with replacing(path) as partial:
        figure.savefig(partial, dpi=100, format=form, metadata=metadata)
    return pathlib.Path(path)


def is_picture_of(records: Sequence[RobustnessRecord], path: str | pathlib.Path) -> bool:
    """Whether the .png at `path` is there and was drawn from exactly these records."""
    import PIL.Image

    try:
        with PIL.Image.open(path) as picture:
            return picture.info.get("Description") == _digest(records)
    except OSError:
        return False


def _digest(records: Sequence[RobustnessRecord]) -> str:
    texts = (_DRAWING, *(record.to_json() for record in records))
    return hashlib.sha256("".join(texts).encode()).hexdigest()
