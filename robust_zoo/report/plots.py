"""Pictures of records and of the papers' metrics."""

import hashlib
import io
import itertools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np

from robust_zoo.describe import describe_attack, describe_certified
from robust_zoo.evaluation import (
    FoolingImages,
    Landscape,
    RobustnessCurve,
    RollOff,
    RubbishTest,
    TopK,
    TransferMatrices,
)
from robust_zoo.files import replacing
from robust_zoo.record import Accuracy, RobustnessRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "pdf", "svg")
_DRAWING = "7"  # to be raised when pictures look different, so that they are drawn again
_STYLES = ("solid", "dashed", "dashdot", "dotted")  # so that lines on top of each other are seen
_MOST_EXAMPLES = 20
_BROKEN = 0.02  # accuracy at which a curve has reached the ground
_Lines = Iterable[tuple[str, Sequence[tuple[float, Accuracy]]]]  # labels, and points of each


def picture_format(path: str | pathlib.Path) -> str:
    """The format that the ending of `path` asks for; ValueError for an ending that is none."""
    ending = pathlib.Path(path).suffix.removeprefix(".").lower()
    if ending not in FORMATS:
        raise ValueError(f"a picture's file must end in one of {FORMATS}, got {str(path)!r}.")
    return ending


def accuracy_against_epsilon(
    records: Sequence[RobustnessRecord], path: str | pathlib.Path
) -> pathlib.Path:
    """Draws accuracy under each attack against epsilon, and what is certified, with 95% intervals; clean accuracy at 0.

    One record with a curve is drawn as that curve, and its attacks as single points; several are joined.

    Args:
        records: of one model under threat models of one norm, with the same attacks in the same order.
        path: picture to write; the ending chooses the format (.png, .pdf, .svg). A .png carries the digest of
            the records (see `is_picture_of`).

    Raises:
        ValueError: no records, or records without attacks, of several norms, models or lists of attacks.
    """
    threats = [record.threat_model for record in records if record.threat_model]
    norms = {threat.norm for threat in threats}
    names = {record.name for record in records}
    if len(norms) != 1 or len(names) != 1 or len(threats) < len(records):
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
    budgets = zip((threat.epsilon for threat in threats), records, strict=True)
    rising = sorted(budgets, key=lambda budget: budget[0])
    epsilons = [epsilon for epsilon, _ in rising]
    origin = [(0.0, clean)]
    curves: list[tuple[str, Sequence[tuple[float, Accuracy]]]] = []
    if curve is not None and len(records) == 1:
        curves.append((f"worst case with {describe_attack(curve)}", _points(records[0])))
        origin = []
    for outcomes in zip(*(record.attacks for _, record in rising), strict=True):
        # Where the number of steps follows from epsilon, it is no part of the curve's name.
        labels = {describe_attack(outcome) for outcome in outcomes}
        label = labels.pop() if len(labels) == 1 else outcomes[0].name
        curves.append((label, [*origin, *zip(epsilons, outcomes, strict=True)]))

    proofs = [
        (epsilon, record.certificate)
        for epsilon, record in rising
        if record.certificate is not None
    ]
    if proofs:
        curves.append((describe_certified(proofs[0][1]), proofs))
    figure, _ = _curves(curves, names.pop(), norms.pop())
    return _save(figure, path, _digest(records))


def certified_radii(
    records: Sequence[RobustnessRecord], path: str | pathlib.Path, *, title: str = ""
) -> pathlib.Path:
    """Draws certified accuracy against L2 radius, a line a smoothed classifier (Cohen et al., arXiv:1902.02918, figure 6).

    Args:
        records: with certificates by smoothing, of models measured on one dataset.
        path: see `accuracy_against_epsilon`.
        title: of the picture.

    Raises:
        ValueError: no records, records without certificates by smoothing, or of several datasets.
    """
    datasets = {record.dataset.name for record in records}
    without = [record.name for record in records if not record.smoothed]
    if len(datasets) != 1 or without:
        raise ValueError(
            f"records must have certificates by smoothing on one dataset, got {sorted(datasets)}, and none of {without}."
        )
    curves = []
    for record in records:
        how = record.smoothed[0].smoothing
        assert how is not None  # since these are by smoothing
        label = f"{record.name}, sigma {how.sigma:g}"
        curves.append((label, [(proof.epsilon, proof) for proof in record.smoothed]))
    figure, ((axes,),) = _figure(1)
    _lines(axes, curves, title, "radius (l2, pixels in [0, 1])")
    axes.set_ylabel("certified accuracy")
    _legend(figure, axes)
    return _save(figure, path, _digest(records))


def corruptions(
    record: RobustnessRecord, path: str | pathlib.Path, *, title: str = ""
) -> pathlib.Path:
    """Draws accuracy under common corruptions as a heat map: a row a kind, a column a severity.

    Args:
        record: with corruptions.
        path: see `accuracy_against_epsilon`.
        title: of the picture; by default the model's name.

    Raises:
        ValueError: a record without corruptions.
    """
    found = record.corruptions
    if found is None:
        raise ValueError(f"record must have corruptions, that of {record.name!r} has none.")
    values = np.array(list(found.correct.values())) / found.n_examples
    figure, ((axes,),) = _figure(1)
    figure.set_size_inches(2 + len(found.severities), 1.5 + 0.35 * len(values))
    axes.imshow(values, vmin=0, vmax=1, aspect="auto", cmap="viridis")
    for row, column in np.ndindex(*values.shape):
        dark = values[row, column] < 0.6
        text = f"{100 * values[row, column]:.0f}"
        axes.text(column, row, text, ha="center", va="center", color="white" if dark else "black")
    axes.set_xticks(range(len(found.severities)), map(str, found.severities))
    axes.set_yticks(range(len(values)), [name.replace("_", " ") for name in found.correct])
    axes.set(title=title or record.name, xlabel="severity")
    return _save(figure, path, _digest([record]))


def compare_models(
    records: Sequence[RobustnessRecord], path: str | pathlib.Path, *, title: str = ""
) -> pathlib.Path:
    """Draws the curve of accuracy against epsilon of each of several models, with 95% intervals.

    A cross is what AutoAttack left at the epsilon of the model's threat model; a star behind a name is a failed
    check.

    Args:
        records: with curves, of models measured on one dataset under threat models of one norm.
        path: see `accuracy_against_epsilon`.
        title: of the picture.

    Raises:
        ValueError: no records, or records without curves, of several datasets or norms.
    """
    from matplotlib.font_manager import FontProperties  # imported here: it takes a while

    kinds = {
        (
            record.dataset.name,
            record.threat_model.norm if record.threat_model and record.curve else "no curve",
        )
        for record in records
    }
    if len(kinds) != 1 or not all(record.curve for record in records):
        raise ValueError(
            f"records must have curves on one dataset in one norm, got {sorted(kinds)}."
        )
    curves = [
        (record.name + "*" * bool(record.failed_checks), _points(record)) for record in records
    ]
    figure, axes = _curves(curves, title, kinds.pop()[1])
    small = FontProperties(size="small")
    figure.legends[0].set_title("cross: AutoAttack; *: a check failed", small)
    for record, line in zip(records, list(axes.containers), strict=True):
        for outcome in record.attacks:
            if outcome.name == "AutoAttack":
                place = (outcome.config["epsilon"], outcome.accuracy)
                axes.plot(*place, "x", markersize=12, markeredgewidth=2, color=line[0].get_color())
    return _save(figure, path, _digest(records))


def _points(record: RobustnessRecord) -> list[tuple[float, Accuracy]]:
    """Of the record's curve, from clean accuracy on; what follows after the model is broken is left out."""
    assert record.curve is not None  # the callers looked
    points = record.curve.points
    standing = sum(point.accuracy > _BROKEN for point in points)
    return [(0.0, record.clean), *((point.epsilon, point) for point in points[: standing + 1])]


def landscapes(
    found: Mapping[str, Landscape], path: str | pathlib.Path, *, title: str = ""
) -> pathlib.Path:
    """Draws what PGD finds from several starts, one column a model (Madry et al., figures 1 and 2, appendix).

    The rows are the loss against PGD's steps, a line a restart, the final losses, and the angles between the final
    perturbations.

    Args:
        found: by model, what `evaluation.loss_landscape` gave.
        path: see `accuracy_against_epsilon`.
        title: of the picture.

    Raises:
        ValueError: no landscapes, or a `path` that does not end in .png, .pdf or .svg.
    """
    if not found:
        raise ValueError("found must be at least one landscape, got none.")
    figure, rows = _figure(len(found), 3)
    for (along, final, angles), (name, landscape) in zip(rows.T, found.items(), strict=True):
        along.plot(landscape.losses.T, linewidth=0.8, alpha=0.7)
        pairs = np.triu_indices(len(landscape.losses), 1)
        apart = landscape.distances[pairs].mean()
        facts = f"spread {landscape.spread:.2g}, apart {apart:.2g} ({landscape.random_distance:.2g} at random)"
        along.set(title=f"{name}\n{facts}", xlabel="step", ylabel="loss")
        final.hist(landscape.final_losses, bins=20)
        final.set(xlabel="final loss", ylabel="restarts")
        angles.hist(landscape.angles[pairs], bins=np.linspace(0, 180, 37))
        angles.set(xlabel="angle between final perturbations, degrees", ylabel="pairs")
        for axes in (along, final, angles):
            axes.grid(alpha=0.3)
    figure.suptitle(title)
    return _save(figure, path)


def transfer(
    matrices: TransferMatrices, path: str | pathlib.Path, *, title: str = ""
) -> pathlib.Path:
    """Draws transfer and error rates from each source (rows, with the images counted) to each target (columns).

    Args:
        matrices: from `evaluation.transfer_matrices`.
        path: see `accuracy_against_epsilon`.
        title: of the picture.
    """
    size = len(matrices.names)
    figure, (panels,) = _figure(2)
    figure.set_size_inches(6 + 1.6 * size, 3 + 0.5 * size)
    kept = [f"{name} ({n})" for name, n in zip(matrices.names, matrices.kept, strict=True)]
    sources = [f"{name} ({matrices.n_examples})" for name in matrices.names]
    parts = (
        ("transfer rate", matrices.transfer_rate, kept),
        ("error rate", matrices.error_rate, sources),
    )
    for axes, (name, rates, names) in zip(panels, parts, strict=True):
        axes.imshow(rates, vmin=0, vmax=1, cmap="viridis", aspect="auto")
        for row, column in np.ndindex(rates.shape):
            rate = rates[row, column]
            color = "black" if rate > 0.6 else "white"  # viridis is bright at its upper end
            axes.text(column, row, f"{rate:.2f}", ha="center", va="center", color=color)
        axes.set_xticks(range(size), matrices.names, rotation=45, ha="right")
        axes.set_yticks(range(size), names)
        axes.set(title=name, xlabel="target", ylabel="source (images)")
    figure.suptitle(title)
    return _save(figure, path)


def roll_offs(
    curves: Mapping[str, RollOff], path: str | pathlib.Path, *, title: str = "", magnitude: str
) -> pathlib.Path:
    """Draws accuracy over the whole range of an attack's magnitude, a line a model with its area.

    Args:
        curves: by model, what `evaluation.roll_off` gave.
        path: see `accuracy_against_epsilon`.
        title: of the picture.
        magnitude: what the attack's magnitude is, such as "changed values".

    Raises:
        ValueError: no curves, or a `path` that does not end in .png, .pdf or .svg.
    """
    if not curves:
        raise ValueError("curves must be at least one, got none.")
    figure, ((axes,),) = _figure(1)
    drawn = [
        (f"{name}, area {curve.area:.3f}", list(zip(curve.epsilons, curve.accuracies, strict=True)))
        for name, curve in curves.items()
    ]
    _lines(axes, drawn, title, magnitude)
    _legend(figure, axes)
    return _save(figure, path)


def top_k(
    found: Mapping[str, Sequence[TopK]], path: str | pathlib.Path, *, title: str = ""
) -> pathlib.Path:
    """Draws top-k accuracy, and its ratio to that on clean images, against epsilon, a line a model and k.

    Figures 1 and 4 of Kurakin et al.; a ratio above 1 is label leaking.

    Args:
        found: by model, what `evaluation.top_k` gave.
        path: see `accuracy_against_epsilon`.
        title: of the picture.

    Raises:
        ValueError: nothing found, or a `path` that does not end in .png, .pdf or .svg.
    """
    if not found:
        raise ValueError("found must be at least one model's accuracies, got none.")
    figure, ((accuracies, ratios),) = _figure(2)
    lines = {
        f"{name}, top {k}": [part for part in parts if part.k == k]
        for name, parts in found.items()
        for k in sorted({part.k for part in parts})
    }
    curves = [
        (label, [(part.epsilon, part.accuracy) for part in parts]) for label, parts in lines.items()
    ]
    _lines(accuracies, curves, "", "epsilon")
    _legend(figure, accuracies)
    for parts, style in zip(lines.values(), itertools.cycle(_STYLES)):
        points = ([part.epsilon for part in parts], [part.ratio for part in parts])
        ratios.plot(*points, marker="o", linestyle=style)
    ratios.axhline(1, color="black", linewidth=1, linestyle="dotted")
    ratios.set(xlabel="epsilon", ylabel="ratio to clean accuracy")
    ratios.grid(alpha=0.3)
    figure.suptitle(title)
    return _save(figure, path)


def examples(
    model: keras.Model,
    x: np.ndarray,
    x_adv: np.ndarray,
    path: str | pathlib.Path,
    *,
    y: np.ndarray | None = None,
    class_names: Sequence[str] = (),
    title: str = "",
) -> pathlib.Path:
    """Draws images, what an attack made of them, and the difference, with what the model says to each.

    A column an image. Above the clean and the adversarial one stands the predicted class with its probability, and the
    label, if it is given and another one. The difference is divided by the largest of its image, which is written above.

    Args:
        model: classifier, images in [0, 1] to logits.
        x: float array (n, height, width, channels) in [0, 1], n from 1 to 20.
        x_adv: the same shape.
        path: see `accuracy_against_epsilon`.
        y: integer array (n,), the labels; by default they are not shown.
        class_names: name of each class; by default their numbers.
        title: of the picture.

    Raises:
        TypeError, ValueError: what `robust_zoo.contract` refuses, arrays of different shapes, no images or more than 20,
            names of another number than the model's classes, or a `path` that does not end in .png, .pdf or .svg.
    """
    from robust_zoo.contract import check_classifier, check_images, check_labels
    from robust_zoo.copies import in_float32
    from robust_zoo.defenses.log_examples import magnified
    from robust_zoo.inference import predict

    picture_format(path)
    model = in_float32(check_classifier(model))
    x, x_adv = check_images(x, model), check_images(x_adv, model)
    if x.shape != x_adv.shape or not 1 <= len(x) <= _MOST_EXAMPLES:
        raise ValueError(
            f"x and x_adv must have the same shape, of 1 to {_MOST_EXAMPLES} images, got {x.shape} and {x_adv.shape}."
        )
    classes = model.output_shape[1]
    if len(class_names) not in (0, classes):
        raise ValueError(
            f"class_names must be {classes}, the model's classes, got {len(class_names)}."
        )
    labels = None if y is None else check_labels(y, classes, len(x))
    names = list(class_names) or [str(number) for number in range(classes)]
    figure, rows = _figure(len(x), 3)
    figure.set_size_inches(1.2 + 1.7 * len(x), 6.2)
    largest = np.abs(x_adv - x).reshape(len(x), -1).max(axis=1)
    parts = (("clean", x), ("adversarial", x_adv), ("difference", magnified(x, x_adv)))
    for panels, (what, images) in zip(rows, parts, strict=True):
        logits = None if what == "difference" else predict(model, images, len(images))
        for number, (axes, image) in enumerate(zip(panels, images, strict=True)):
            shown = image[..., 0] if image.shape[-1] == 1 else image[..., :3]
            axes.imshow(shown, vmin=0, vmax=1, cmap="gray")
            axes.set(xticks=(), yticks=())
            if logits is None:
                axes.set_title(f"largest {largest[number]:.3g}", fontsize=8)
                continue
            shares = np.exp(logits[number] - logits[number].max())
            said = int(logits[number].argmax())
            text = f"{names[said]}: {shares[said] / shares.sum():.0%}"
            if labels is not None and labels[number] != said:
                text += f"\nnot {names[labels[number]]}"
            axes.set_title(text, fontsize=8)
        panels[0].set_ylabel(what)
    figure.suptitle(title)
    return _save(figure, path, palette=False)


def fooling(
    found: Mapping[str, RubbishTest], path: str | pathlib.Path, *, title: str = ""
) -> pathlib.Path:
    """Draws how often one step turns noise into a class, and the margin (Galloway et al., figure 9).

    Args:
        found: by model, what `evaluation.rubbish_test` gave.
        path: see `accuracy_against_epsilon`.
        title: of the picture.

    Raises:
        ValueError: nothing found, or a `path` that does not end in .png, .pdf or .svg.
    """
    if not found:
        raise ValueError("found must be at least one model's test, got none.")
    figure, (panels,) = _figure(2)
    for axes, part in zip(panels, ("success_rate", "margin"), strict=True):
        for name, test in found.items():
            axes.plot(test.epsilons, getattr(test, part), marker="o", label=name)
        axes.set(xlabel="epsilon (linf)", ylabel=part.replace("_", " "), ylim=(-0.02, 1.02))
        axes.grid(alpha=0.3)
    panels[0].legend()
    figure.suptitle(title)
    return _save(figure, path)


def fooling_images(
    found: Mapping[str, FoolingImages], path: str | pathlib.Path, *, title: str = ""
) -> pathlib.Path:
    """Shows the image made for each class, with its probability, a row a model (Galloway et al., figure 8).

    Args:
        found: by model, what `evaluation.fooling_images` gave, of as many classes.
        path: see `accuracy_against_epsilon`.
        title: of the picture.

    Raises:
        ValueError: nothing found, models of different numbers of classes, or a `path` that does not end in .png, .pdf
            or .svg.
    """
    classes = {len(part.images) for part in found.values()}
    if len(classes) != 1:
        raise ValueError(
            f"found must be the images of at least one model, all of as many classes, got {sorted(classes)}."
        )
    (columns,) = classes
    figure, rows = _figure(columns, len(found))
    figure.set_size_inches(2 + 1.2 * columns, 0.6 + 1.5 * len(found))
    for panels, (name, part) in zip(rows, found.items(), strict=True):
        for label, axes in enumerate(panels):
            image = part.images[label]
            image = image[..., 0] if image.shape[-1] == 1 else image
            axes.imshow(image, vmin=0, vmax=1, cmap="gray")
            axes.set_title(f"{label}: {part.confidence[label]:.2f}", fontsize=9)
            axes.set(xticks=(), yticks=())
        panels[0].set_ylabel(name, rotation=0, ha="right", va="center")
    figure.suptitle(title)
    return _save(figure, path)


def robustness_curves(
    curves: Mapping[str, RobustnessCurve],
    path: str | pathlib.Path,
    *,
    title: str = "",
    distance: str,
) -> pathlib.Path:
    """Draws clean accuracy against distance to adversarial examples, a line a method; the outer one is better.

    Args:
        curves: by method, what `evaluation.robustness_curve` gave.
        path: see `accuracy_against_epsilon`.
        title: of the picture.
        distance: what was measured, such as "mean L2 distance, CarliniWagner".

    Raises:
        ValueError: no curves, or a `path` that does not end in .png, .pdf or .svg.
    """
    if not curves:
        raise ValueError("curves must be at least one, got none.")
    figure, ((axes,),) = _figure(1)
    for name, curve in curves.items():
        axes.plot(curve.distances, curve.accuracies, marker="o", label=name)
    axes.set(title=title, xlabel=distance, ylabel="clean accuracy")
    axes.grid(alpha=0.3)
    axes.legend()
    return _save(figure, path)


def capacity(
    found: Mapping[str, Mapping[int, tuple[Mapping[str, Accuracy], float]]],
    path: str | pathlib.Path,
    *,
    title: str = "",
) -> pathlib.Path:
    """Draws accuracies and training loss against the width of a network (Madry et al., figure 4).

    Args:
        found: by kind of training, by scale: accuracies by attack, and the loss under the attack that was
            trained against.
        path: see `accuracy_against_epsilon`.
        title: of the picture.

    Raises:
        ValueError: nothing found, or a `path` that does not end in .png, .pdf or .svg.
    """
    if not found:
        raise ValueError("found must be at least one kind of training, got none.")
    figure, ((*panels, losses),) = _figure(len(found) + 1)
    for axes, (kind, scales) in zip(panels, found.items(), strict=True):
        attacks = next(iter(scales.values()))[0]
        curves = [
            (attack, [(scale, parts[attack]) for scale, (parts, _) in scales.items()])
            for attack in attacks
        ]
        _lines(axes, curves, f"{kind} training", "scale")
        losses.plot(list(scales), [loss for _, loss in scales.values()], marker="o", label=kind)
    _legend(figure, panels[0])
    losses.set(title="loss against own attack", xlabel="scale", ylabel="nats", yscale="log")
    losses.grid(alpha=0.3)
    losses.legend()
    ticks = sorted({scale for scales in found.values() for scale in scales})
    for axes in (*panels, losses):
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, map(str, ticks))
    figure.suptitle(title)
    return _save(figure, path)


def training(
    histories: Mapping[str, Sequence[Mapping[str, float]]],
    path: str | pathlib.Path,
    *,
    title: str = "",
) -> pathlib.Path:
    """Draws how trainings went: loss, accuracy and, where there are any, robust and certified accuracy by epoch.

    Solid is what was trained on, in the mean of each epoch; dashed the validation split after it.

    Args:
        histories: by model, what `robust_zoo.load_history` gave.
        path: see `accuracy_against_epsilon`.
        title: of the picture.

    Raises:
        ValueError: no histories, or a `path` that does not end in .png, .pdf or .svg.
    """
    if not histories:
        raise ValueError("histories must be at least one, got none.")
    logged = {name for rows in histories.values() for row in rows for name in row}
    metrics = ("loss", "accuracy", "robust_accuracy", "certified_accuracy")
    panels = [metric for metric in metrics if {metric, f"val_{metric}"} & logged]
    figure, (row,) = _figure(max(len(panels), 1))
    for axes, metric in zip(row, panels, strict=False):
        for number, (name, rows) in enumerate(histories.items()):
            for key, style in ((metric, "solid"), (f"val_{metric}", "dashed")):
                points = [(part["epoch"], part[key]) for part in rows if key in part]
                label = name if key == metric or metric not in rows[0] else None
                if points:
                    epochs, values = zip(*points, strict=True)
                    axes.plot(epochs, values, linestyle=style, label=label, color=f"C{number % 10}")
        watched = " (dashed: validation)" if f"val_{metric}" in logged else ""
        axes.set(title=metric.replace("_", " "), xlabel=f"epoch{watched}")
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if metric != "loss":
            axes.set_ylim(-0.02, 1.02)
    _legend(figure, row[0])
    figure.suptitle(title)
    return _save(figure, path)


def _figure(columns: int, rows: int = 1) -> tuple["Figure", np.ndarray]:
    """A figure, and its axes in an array (rows, columns)."""
    import matplotlib.figure  # imported here: it takes a while

    size = (2 + 4 * columns, 1 + 3 * rows)
    figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _lines(axes: "Axes", curves: _Lines, title: str, magnitude: str) -> None:
    """Accuracies with their intervals, a line of (magnitude, Accuracy) a label."""
    for (label, points), style in zip(curves, itertools.cycle(_STYLES)):
        places = [epsilon for epsilon, _ in points]
        accuracies = [part.accuracy for _, part in points]
        below = [part.accuracy - part.ci95[0] for _, part in points]
        above = [part.ci95[1] - part.accuracy for _, part in points]
        axes.errorbar(
            places, accuracies, [below, above], marker="o", capsize=3, linestyle=style, label=label
        )
    axes.set(title=title, xlabel=magnitude, ylabel="accuracy", ylim=(-0.02, 1.02))
    axes.grid(alpha=0.3)


def _legend(figure: "Figure", axes: "Axes") -> None:
    """What the lines of `axes` are, below all panels, in as many columns as fit: 13 letters an inch."""
    handles, labels = axes.get_legend_handles_labels()
    columns = int(13 * figure.get_figwidth() // (6 + max(map(len, labels))))
    figure.legend(handles, labels, loc="outside lower center", ncols=max(1, columns))


def _curves(curves: _Lines, title: str, norm: str) -> tuple["Figure", "Axes"]:
    """A figure of accuracies against epsilon, and its axes."""
    figure, ((axes,),) = _figure(1)
    _lines(axes, curves, title, f"epsilon ({norm}, pixels in [0, 1])")
    _legend(figure, axes)
    return figure, axes


def _save(
    figure: "Figure",
    path: str | pathlib.Path,
    digest: str | None = None,
    *,
    palette: bool = True,
) -> pathlib.Path:
    """Writes a figure; a .png with few colours, but for pictures of photographs."""
    import matplotlib.text

    for text in figure.findobj(matplotlib.text.Text):
        if text.get_text():  # not those of ticks, which matplotlib makes itself while it draws
            text.set_parse_math(False)
    form = picture_format(path)
    with replacing(path) as partial:
        if form == "png" and palette:
            _save_palette(figure, partial, digest)
        else:
            figure.savefig(partial, dpi=100, format=form)
    return pathlib.Path(path)


def _save_palette(figure: "Figure", path: pathlib.Path, digest: str | None) -> None:
    """A third of the size that all colours take; without a date, so that equal figures are equal files."""
    import PIL.Image
    import PIL.PngImagePlugin

    information = PIL.PngImagePlugin.PngInfo()
    if digest:
        information.add_text("Description", digest)
    with io.BytesIO() as drawn:
        figure.savefig(drawn, dpi=100, format="png")
        # An octree keeps lines apart that the default, median cut, gives one colour.
        octree = PIL.Image.Quantize.FASTOCTREE
        picture = PIL.Image.open(drawn).convert("RGB").quantize(64, octree)
        picture.save(path, "png", optimize=True, pnginfo=information)


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
