"""The parts of a record, from what attacks found and from what is known of the model."""

from typing import TYPE_CHECKING, Any, cast

import keras
import numpy as np

from robust_zoo import __version__, backend
from robust_zoo.attacks import Attack
from robust_zoo.classifier import describe_config
from robust_zoo.copies import in_float32
from robust_zoo.evaluation.curve import Evidence
from robust_zoo.record import (
    AttackOutcome,
    Certified,
    Configuration,
    DefenseInfo,
    Distances,
    MinimumNorm,
    Norm,
    RobustnessRecord,
    SmoothingConfig,
    Union,
    Weights,
    WorstCase,
)
from robust_zoo.typing import SMOOTHING
from robust_zoo.weights import describe_weights, variables_sha256

if TYPE_CHECKING:
    from robust_zoo.evaluation.plan import EvaluationPlan, PlannedAttack


def evidence_of(
    broken: np.ndarray, distance: np.ndarray, clean: np.ndarray, epsilon: float
) -> Evidence:
    """Adversarial distances of what an attack broke: at most its epsilon, 0 where the clean image is misclassified."""
    found = np.where(broken, np.minimum(distance, epsilon), np.inf)
    return Evidence(np.where(clean, found, 0.0))


def outcome_of(
    attack: "PlannedAttack",
    arrays: dict[str, np.ndarray],
    components: list[str],
    held: np.ndarray,
    seed: int,
    seconds: float,
    right: np.ndarray | None = None,
) -> AttackOutcome:
    """Of an attack with a budget; `held`, bool (n,): the images that it left.

    `right` (n,): of a random model, the share of its draws that are right on the clean images.
    """
    left = {}
    if components:
        broken_by = arrays["broken_by"]
        for place, name in enumerate(components):
            later = np.isin(broken_by, ["", *components[place + 1 :]])
            left[name] = float(later.mean())
    return AttackOutcome.count(
        int(held.sum()),
        len(held),
        name=attack.name,
        config=attack.config,
        seed=seed,
        max_distance=float(arrays["distance"].max()),
        seconds=round(seconds, 3),
        components=left,
        skipped=int(arrays["skipped"].sum()) if "skipped" in arrays else 0,
        expected=expected_of(right, arrays),
        **top5_of(arrays),
    )


def certified_by_bounds(
    plan: "EvaluationPlan", proven: np.ndarray, undecided: np.ndarray, seconds: float
) -> Certified:
    """Within the threat model; `proven` and `undecided`, bool (n,): the images of each kind."""
    assert plan.threat_model is not None  # or nothing is certified
    return Certified.count(
        int(proven.sum()),
        len(proven),
        methods=plan.certify,
        norm=plan.threat_model.norm,
        epsilon=plan.threat_model.epsilon,
        seed=plan.seed,
        undecided=int(undecided.sum()),
        seconds=round(seconds, 3),
    )


def certified_by_smoothing(
    plan: "EvaluationPlan", arrays: dict[str, np.ndarray], seconds: float
) -> list[Certified]:
    """An entry for each radius."""
    assert plan.smoothing is not None  # or nothing is smoothed
    return [
        Certified.count(
            int((arrays["right"] & (arrays["radius"] >= radius)).sum()),
            len(arrays["right"]),
            methods=(SMOOTHING,),
            norm="l2",
            epsilon=radius,
            smoothing=SmoothingConfig(**plan.smoothing.config),
            seed=plan.seed,
            undecided=int(arrays["abstained"].sum()),
            seconds=round(seconds, 3),
        )
        for radius in plan.smoothing.radii
    ]


def expected_of(
    right: np.ndarray | None, arrays: dict[str, np.ndarray] | None = None
) -> float | None:
    """Mean share of draws in which a random model is right, on clean images or under an attack; None of other models."""
    if right is None or (arrays is not None and "fooled_share" not in arrays):
        return None
    under = right if arrays is None else np.minimum(right, 1 - arrays["fooled_share"])
    return float(under.mean())


def top5_of(arrays: dict[str, np.ndarray]) -> dict[str, float]:
    """Of images on which the five most likely classes were looked at."""
    return {"top5": float(arrays["among_five"].mean())} if "among_five" in arrays else {}


def lengths(attack: Attack, x: np.ndarray) -> np.ndarray:
    """The norms of images (n, ...), in the attack's; of l0 the number of values."""
    if attack.norm == "l0":
        return np.full(len(x), float(x[0].size))
    return attack.geometry.distance(x, np.broadcast_to(np.float32(0), x.shape))


def minimum_norm(
    attack: "PlannedAttack",
    norm: str,
    arrays: dict[str, np.ndarray],
    clean: np.ndarray,
    seed: int,
    seconds: float,
) -> MinimumNorm:
    """Of an attack without a budget; `clean`, bool (n,): the correctly classified images."""
    fooled = arrays["fooled"]

    def summary(rows: np.ndarray) -> Distances:
        distance, length = arrays["distance"][rows], arrays["length"][rows]
        relative = distance[length > 0] / length[length > 0]
        return Distances(
            n_examples=int(rows.sum()),
            mean=float(distance.mean()) if len(distance) else None,
            median=float(np.median(distance)) if len(distance) else None,
            rho=float(relative.mean()) if len(relative) else None,
        )

    return MinimumNorm(
        name=attack.name,
        config=attack.config,
        seed=seed,
        norm=cast(Norm, norm),
        n_examples=len(fooled),
        found=summary(fooled),
        clean_correct_only=summary(fooled & clean),
        seconds=round(seconds, 3),
    )


def worst_case(outcomes: list[AttackOutcome], survivors: list[np.ndarray]) -> WorstCase:
    """Over the examples that all attacks within the threat model saw."""
    held = _held_by_all(survivors)
    names = tuple(outcome.name for outcome in outcomes)
    return WorstCase.count(int(held.sum()), len(held), attacks=names)


def union_of(
    plan: "EvaluationPlan", others: list[AttackOutcome], survivors: list[np.ndarray]
) -> Union:
    """Over all threat models; `others` are the outcomes in all but the first, `survivors` the images left by each attack."""
    assert plan.threat_model is not None  # or there are no others
    held = _held_by_all(survivors)
    threats = (plan.threat_model, *plan.further_threats)
    return Union.count(int(held.sum()), len(held), threat_models=threats, attacks=tuple(others))


def _held_by_all(survivors: list[np.ndarray]) -> np.ndarray:
    """Which of the examples that all attacks saw are left; samples are nested, so these are the first ones."""
    common = min(map(len, survivors))
    return np.logical_and.reduce([survivor[:common] for survivor in survivors])


def defense_info(defense: DefenseInfo | Any | None, model: keras.Model) -> DefenseInfo | None:
    """Of the trainer of `model`, what it tells of itself."""
    if defense is None or isinstance(defense, DefenseInfo):
        return defense
    if not isinstance(getattr(defense, "classifier", None), keras.Model):
        raise TypeError(
            f"defense must be the defense that trained the model, or a DefenseInfo, got {type(defense).__name__}."
        )
    if defense.classifier is not model:
        raise ValueError(
            f"defense must be the one that trained {model.name!r}, got {type(defense).__name__} around another model: "
            "give evaluate its .classifier."
        )
    if not defense.steps_trained:
        raise ValueError(
            f"defense must have trained the model, got {type(defense).__name__} before its fit: leave it out."
        )
    origin = getattr(model, "origin", None)
    # Steps of its own since `fit`, by train_on_batch, are noted nowhere.
    noted = getattr(defense, "steps_noted", None) == defense.steps_trained
    if origin is not None and noted and origin.weights != variables_sha256(model):
        raise ValueError(
            f"defense must be what trained the model last, but its weights changed after the fit of "
            f"{type(defense).__name__}: give a DefenseInfo that tells of both, or leave it out."
        )
    return DefenseInfo(name=type(defense).__name__, config=defense.hyperparameters())


def is_recorded(model: keras.Model, record: RobustnessRecord) -> bool:
    """Whether a record is of the weights and the layers that a model has now."""
    measured = in_float32(model)
    return (describe_config(measured), describe_weights(measured)) == (
        record.config,
        record.weights,
    )


def carried_by(model: keras.Model, config: Configuration, weights: Weights) -> dict:
    """What is known of its origin: by its own record, if that is of this very model, by what a defense noted, or
    by what it started from.
    """
    record = getattr(model, "robustness", None)
    if record is not None and (record.config, record.weights) == (config, weights):
        keys = ("name", "architecture", "defense", "reported", "training", "base_model")
        return {key: getattr(record, key) for key in (*keys, "license", "notice")}
    carried: dict[str, Any] = {"base_model": getattr(model, "base_model", None)}
    terms = getattr(model, "terms", None)
    if terms is not None:
        carried |= {"license": terms.license, "notice": terms.notice}
    origin = getattr(model, "origin", None)
    if origin is not None and origin.weights == variables_sha256(model):
        carried |= {"defense": origin.defense, "training": origin.training}
    return carried


def versions() -> dict[str, str]:
    versions = {"robust_zoo": __version__, "keras": keras.__version__, "numpy": np.__version__}
    return {**versions, backend.name: backend.version}
