"""The papers' tables beside ours, measured on checkpoints; the papers' numbers are data, in papers.json."""

import json
import pathlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import keras
import pydantic

from robust_zoo import attacks
from robust_zoo.attacks import (
    FGSM,
    PGD,
    BasicIterative,
    CWMargin,
    ExtremeWeights,
    FixedBudgetAttack,
)
from robust_zoo.datasets import Dataset, load_dataset
from robust_zoo.evaluation import (
    accuracy_columns,
    adversarial_loss,
    clean_accuracy,
    deepdefense_metrics,
    label_leaking,
    top_k,
    transfer_accuracy,
)
from robust_zoo.record import Accuracy
from robust_zoo.weights import describe_weights
from robust_zoo.zoo import UnknownModelError, load_model

_PAPERS = pathlib.Path(__file__).with_name("papers.json")

Models = dict[str, keras.Model]
Rows = dict[str, tuple[Accuracy | float | None, ...]]


class Comparison(pydantic.BaseModel):
    """A table of a paper and ours; None where there is no number.

    Attributes:
        title: of the experiment.
        source: of the paper's numbers.
        note: on what ours are.
        columns: what is measured.
        rows: by model or attack, the paper's numbers, accuracies in percent, and ours.
        weights: SHA-256 of the weights of each model that was measured.
        missing: models that the zoo does not have.
        n_examples: that ours were measured on, of the test split.
        seed: of the sample and the attacks.
    """

    model_config = pydantic.ConfigDict(frozen=True)

    title: str
    source: str
    note: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[tuple[float | None, ...], tuple[Accuracy | float | None, ...]]]
    weights: dict[str, str]
    missing: tuple[str, ...]
    n_examples: int
    seed: int


def reproduce(name: str, *, n: int | None = None, seed: int = 0) -> Comparison:
    """Measures the models of a paper's table.

    Args:
        name: one of `names()`.
        n: test examples, drawn with `seed`; None is what the experiment can afford: all, or 1,000 where there
            are attacks with restarts.
        seed: of the sample and the attacks.

    Raises:
        ValueError: an unknown name, or an `n` that does not fit.
        DatasetError: data that is not there.
    """
    if name not in _EXPERIMENTS:
        raise ValueError(f"name must be one of {names()}, got {name!r}.")
    paper = json.loads(_PAPERS.read_text())[name]
    experiment = _EXPERIMENTS[name]
    test = load_dataset(experiment.dataset, "test")
    n = experiment.n if n is None else n
    test = test if n is None else test.sample(n, seed)
    models, missing = {}, []
    for model in paper["models"]:
        try:
            models[model] = load_model(model)
        except UnknownModelError:
            missing.append(model)
    nothing = [None] * len(paper["columns"])
    return Comparison(
        title=paper["title"],
        source=paper["source"],
        note=paper["note"],
        columns=paper["columns"],
        rows={
            row: (paper["rows"].get(row, nothing), ours)
            for row, ours in experiment.measure(models, test, seed).items()
        },
        weights={name: describe_weights(model).sha256 for name, model in models.items()},
        missing=missing,
        n_examples=len(test),
        seed=seed,
    )


def table(found: Comparison) -> list[tuple[str, ...]]:
    """A comparison in words: its header, then what is measured, "paper" or "ours", and a cell a column.

    A single column is split: what is measured, the paper's number, ours.
    """
    rows = [("", "paper", "ours") if len(found.columns) == 1 else ("", "", *found.columns)]
    for name, (paper, ours) in found.rows.items():
        theirs = tuple("" if value is None else f"{value:g}" for value in paper)
        cells = tuple(map(_cell, ours))
        if len(found.columns) == 1:
            rows.append((name, *theirs, *cells))
            continue
        if any(theirs):
            rows.append((name, "paper", *theirs))
        rows.append((name, "ours", *cells))
    return rows


def footnote(found: Comparison) -> str:
    """Where the numbers of a comparison come from."""
    missing = f" Not in the zoo: {', '.join(found.missing)}." if found.missing else ""
    return (
        f"Paper: {found.source}. Ours: {found.n_examples} test examples, seed {found.seed}; accuracies in percent "
        f"with 95% intervals. {found.note}{missing}"
    )


def markdown(found: Comparison) -> str:
    """A comparison as a page, with the hashes of the weights that it was measured on."""
    header, *rows = table(found)
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(
        [
            f"# {found.title}",
            "",
            *(f"| {' | '.join(line)} |" for line in lines),
            "",
            footnote(found),
            "",
            "Measured on these weights:",
            "",
            *(f"- {name}: sha256 {digest}" for name, digest in found.weights.items()),
            "",
        ]
    )


def _cell(value: Accuracy | float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    low, high = value.ci95
    return f"{100 * value.accuracy:.2f} ({100 * low:.1f}-{100 * high:.1f})"


def names() -> tuple[str, ...]:
    """The experiments that `reproduce` knows."""
    return tuple(_EXPERIMENTS)


_40_STEPS = {"epsilon": 0.3, "steps": 40, "step_size": 0.01}
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


def _madry_table1(models: Models, test: Dataset, seed: int) -> Rows:
    target = models.get("madry_cnn.pgd_mnist")
    if target is None:
        return {}
    x, y = test.images, test.labels
    rows = {"natural": (clean_accuracy(target, x, y),)}
    for name, attack in _WHITE_BOX.items():
        rows[f"A, {name}"] = (_white_box(attack, target, test, seed),)
    for source, (letter, kinds) in _BLACK_BOX.items():
        for name in kinds if source in models else ():
            found = transfer_accuracy(_WHITE_BOX[name], models[source], target, x, y, seed=seed)
            rows[f"{letter}, {name}"] = (found,)
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


def _madry_capacity(models: Models, test: Dataset, seed: int) -> Rows:
    train = load_dataset("mnist", "train")
    train = train.sample(min(len(test), len(train)), seed)
    rows = {}
    for name, model in models.items():
        rows[name] = (
            clean_accuracy(model, test.images, test.labels),
            _white_box(FGSM(epsilon=0.3), model, test, seed),
            _white_box(PGD(**_40_STEPS), model, test, seed),
            adversarial_loss(_trained_against(model), model, train.images, train.labels, seed=seed),
        )
    return rows


def by_scale(found: Comparison) -> dict[str, dict[int, tuple[dict[str, Accuracy], float]]]:
    """The rows of madry-capacity by kind of training and scale: accuracies by column, and the loss.

    Raises:
        ValueError: the rows of another table.
    """
    kinds: dict[str, dict] = {}
    for name, (_, (*accuracies, loss)) in found.rows.items():
        if not isinstance(loss, float) or not all(
            isinstance(part, Accuracy) for part in accuracies
        ):
            raise ValueError(
                f"found must be of madry-capacity, accuracies and a loss a row, got columns {found.columns}."
            )
        scale = int(name.partition(".")[0].partition("_scale")[2] or 16)
        named = dict(zip(found.columns, accuracies, strict=False))
        kinds.setdefault(_kind(name), {})[scale] = (named, loss)
    return kinds


def _kind(name: str) -> str:
    """Of training: the "pgd" of "madry_cnn_scale2.pgd_mnist"."""
    return name.partition(".")[2].partition("_")[0]


def _kurakin(models: Models, test: Dataset, seed: int) -> Rows:
    step_ll = partial(FGSM, labels="least_likely", targeted=True)
    iterative_ll = BasicIterative(epsilon=0.3, labels="least_likely", targeted=True)
    without_labels = (FGSM(epsilon=0.3, labels="predicted"), step_ll(epsilon=0.3))
    rows = {}
    for name, model in models.items():
        data = (model, test.images, test.labels)
        one_step = []
        for make_attack in (FGSM, step_ll):
            _, moved = top_k(make_attack, *data, epsilons=[0.3], k=[1], seed=seed)
            one_step += [moved.accuracy, moved.ratio]
        leaks = [
            label_leaking(FGSM(epsilon=0.3), other, *data, seed=seed) for other in without_labels
        ]
        rows[name] = (
            clean_accuracy(*data),
            *one_step,
            *(
                transfer_accuracy(attack, model, *data, seed=seed)
                for attack in (BasicIterative(epsilon=0.3), iterative_ll)
            ),
            *(float(found.leaked) for found in leaks),
        )
    return rows


def _deepdefense(models: Models, test: Dataset, seed: int) -> Rows:
    """epsilon_ref is the epsilon_50 of the DeepDefense model of the same architecture; epsilon_50 each model's."""
    mean = load_dataset("mnist", "train").images.mean(axis=0)
    x, y = test.images, test.labels
    metrics = {name: deepdefense_metrics(model, x, y, mean=mean) for name, model in models.items()}
    found = {}
    for name, model in models.items():
        own = metrics[name]
        reference = metrics.get(f"{name.partition('.')[0]}.deepdefense_mnist")
        parts = (None,) * 3
        if reference is not None and reference.epsilon_50 is not None:
            parts = accuracy_columns(model, x, y, reference.epsilon_50)
        found[name] = (own.clean, own.rho_2, own.rho_inf, *parts, 255 * own.size_2, own.epsilon_50)
    return found


def _galloway(models: Models, test: Dataset, seed: int) -> Rows:
    made_by = [FGSM(epsilon=0.25), *(ExtremeWeights(epsilon=pixels) for pixels in (10, 20, 40, 98))]
    found = {}
    for name, model in models.items():
        # On the images that the attack ends with; what is wrong to begin with may become right.
        found[name] = (
            clean_accuracy(model, test.images, test.labels),
            *(
                transfer_accuracy(attack, model, model, test.images, test.labels, seed=seed)
                for attack in made_by
            ),
        )
    return found


class _Experiment(NamedTuple):
    """How a table is measured.

    Attributes:
        dataset: name for `load_dataset`.
        n: test examples unless asked otherwise; None is all.
        measure: models by name, test examples and a seed to rows.
    """

    dataset: str
    n: int | None
    measure: Callable[[Models, Dataset, int], Rows]


_EXPERIMENTS = {
    "deepdefense-table1": _Experiment("mnist", None, _deepdefense),
    "galloway-logistic": _Experiment("mnist:7,3", None, _galloway),
    "kurakin-leaking": _Experiment("mnist", None, _kurakin),
    "madry-capacity": _Experiment("mnist", None, _madry_capacity),
    "madry-table1": _Experiment("mnist", 1_000, _madry_table1),
}
