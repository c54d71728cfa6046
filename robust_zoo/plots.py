"""Pictures of records."""

import pathlib
from collections.abc import Sequence

from robust_zoo.files import replacing
from robust_zoo.record import RobustnessRecord
from robust_zoo.zoo.card import describe_attack

FORMATS = ("png", "pdf", "svg")


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

    Args:
        records: of one model under threat models of one norm; their points of one attack are joined.
        path: picture to write; the ending chooses the format (.png, .pdf, .svg).

    Raises:
        ValueError: no records, or records without attacks, of several norms or of several models.
    """
    import matplotlib.figure  # imported here: it takes a while

    norms = {record.threat_model.norm for record in records if record.threat_model}
    names = {record.name for record in records}
    if len(norms) != 1 or len(names) != 1 or not all(record.threat_model for record in records):
        raise ValueError(
            f"records must be of one model under attacks of one norm, got models {sorted(names)} and "
            f"norms {sorted(norms)}."
        )
    clean = records[0].clean
    curves: dict[str, list] = {}
    for record in sorted(records, key=lambda record: record.threat_model.epsilon):
        for outcome in record.attacks:
            curve = curves.setdefault(describe_attack(outcome), [(0.0, clean)])
            curve.append((record.threat_model.epsilon, outcome))

    figure = matplotlib.figure.Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for label, curve in curves.items():
        epsilons = [epsilon for epsilon, _ in curve]
        accuracies = [part.accuracy for _, part in curve]
        below = [part.accuracy - part.ci95[0] for _, part in curve]
        above = [part.ci95[1] - part.accuracy for _, part in curve]
        axes.errorbar(epsilons, accuracies, [below, above], marker="o", capsize=3, label=label)
    axes.set(
        title=names.pop(),
        xlabel=f"epsilon ({norms.pop()}, pixels in [0, 1])",
        ylabel="accuracy",
        ylim=(-0.02, 1.02),
    )
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(path) as partial:
        figure.savefig(partial, dpi=150, format=picture_format(path))
    return pathlib.Path(path)
