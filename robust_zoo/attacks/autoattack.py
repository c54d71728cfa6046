"""AutoAttack: the field's standard ensemble."""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NoReturn

import keras
import numpy as np
from keras import ops

from robust_zoo.attacks import flags
from robust_zoo.attacks.apgd import APGD
from robust_zoo.attacks.attack import Attack, FixedBudgetAttack
from robust_zoo.attacks.expectation import expected_logits
from robust_zoo.attacks.fab import FAB
from robust_zoo.attacks.losses import CrossEntropy, unit_of
from robust_zoo.attacks.run import AttackResult
from robust_zoo.attacks.square import Square
from robust_zoo.attacks.state_file import StateFile
from robust_zoo.attacks.working_set import WorkingSet, like
from robust_zoo.backend import random
from robust_zoo.inference import predict
from robust_zoo.progress import progress_bar
from robust_zoo.record import Check
from robust_zoo.typing import Tensor

_VERSIONS = ("standard", "rand")
_SAMPLES = 20  # of a random model, in the version for them
_TARGETS = 9
_TARGETS_APGD = {"linf": _TARGETS, "l2": _TARGETS, "l1": 5}


@dataclass(frozen=True, eq=False, repr=False)
class AutoAttackResult(AttackResult):
    """What `AutoAttack.run` found.

    Where an image withstood everything, `x_adv` is that image.

    Attributes:
        broken_by: str (n,), which component broke each image: "apgd-ce", "apgd-t", "fab-t" or "square";
            "clean" where it was misclassified to begin with, "" where it withstood all.
    """

    broken_by: np.ndarray


@keras.saving.register_keras_serializable("robust_zoo")
@dataclass(frozen=True, kw_only=True)
class AutoAttack(FixedBudgetAttack):
    """AutoAttack (Croce and Hein, arXiv:2003.01690), for norms "linf", "l2" and "l1".

    The standard version: APGD-CE, APGD-T (DLR loss), FAB-T and Square, in this order and each on the images that are still
    robust, with the authors' parameters: 100 steps (Square 5000), one restart, 9 targets; in l1 (arXiv:2103.01208) APGD-CE
    has 5 restarts, and APGD-T 5 targets. A model of fewer than 10 classes has fewer targets, and one of fewer than 4, for
    which targeted DLR is not defined, a margin loss in APGD-T; the flag "too_few_classes" then says so. APGD-CE multiplies
    all logits by one factor, the median over the images of the power of ten that brings an image's logits to a span of
    about 10 (1 for spans from 0.1 to 1000). The other components do not depend on the scale of the logits.

    The version "rand", for random models: APGD-CE and APGD-DLR, untargeted, each step of which averages over 20 draws of
    the model's randomness, and the verdict is by the majority of as many fresh draws; the authors' code takes one draw.

    Attributes:
        version: "standard" (default) or "rand".
        samples: draws that are averaged; by default 20 in the version "rand", 1 in the other.

    Example:
        >>> result = AutoAttack(epsilon=0.3).run(model, x, y, seed=0, state_file="state.npz")
        >>> result.components
        {'apgd-ce': 0.0, 'apgd-t': 0.0, 'fab-t': 0.0, 'square': 0.0}
    """

    version: str = "standard"
    samples: int | None = None  # type: ignore[assignment]  # None until `defaults` replaces it

    result: ClassVar = AutoAttackResult
    flagged: ClassVar[int] = 128
    norms: ClassVar = ("linf", "l2", "l1")

    def defaults(self) -> dict[str, Any]:
        return {"samples": _SAMPLES if self.version == "rand" else 1}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.version not in _VERSIONS:
            raise ValueError(f"version must be one of {_VERSIONS}, got {self.version!r}.")
        if self.version == "rand" and self.samples == 1:
            raise ValueError("samples must be at least 2 in the version 'rand', got 1.")

    def __call__(
        self,
        model: keras.Model,
        x: Tensor,
        y: Tensor | None = None,
        *,
        key: Tensor,
        epsilon: Tensor | float | None = None,
    ) -> NoReturn:
        raise TypeError("AutoAttack is for measuring: use run, or another attack inside training.")

    def ensemble(self, num_classes: int, scale: float = 1.0) -> tuple[dict[str, Attack], list[str]]:
        """The components for a model of so many classes.

        Args:
            num_classes: number of classes of the model, >= 2.
            scale: factor of the logits in APGD-CE's cross-entropy, > 0; default 1.

        Returns:
            The attacks by name, in their order; and sentences on what differs from the authors' version because the
            model has too few classes, empty if nothing does.
        """
        budget: dict[str, Any] = {
            "epsilon": self.epsilon,
            "norm": self.norm,
            "samples": self.samples,
        }
        first = APGD(
            **budget, loss=CrossEntropy(scale=scale), restarts=5 if self.norm == "l1" else 1
        )
        if self.version == "rand":
            loss, changes = "dlr", []
            if num_classes < 3:
                loss, changes = "cw_margin", ["apgd-dlr ascends cw_margin, not dlr"]
            return {"apgd-ce": first, "apgd-dlr": APGD(**budget, loss=loss)}, changes
        usual = {"apgd-t": _TARGETS_APGD[self.norm], "fab-t": _TARGETS}
        targets = {name: min(most, num_classes - 1) for name, most in usual.items()}
        changes = [
            f"{name} has {count} targets, not {usual[name]}"
            for name, count in targets.items()
            if count < usual[name]
        ]
        loss = "dlr"
        if num_classes < 4:
            loss = "cw_margin"
            changes.append("apgd-t ascends cw_margin, not dlr")
        components = {
            "apgd-ce": first,
            "apgd-t": APGD(**budget, loss=loss, targets=targets["apgd-t"]),
            "fab-t": FAB(norm=self.norm, samples=budget["samples"], targets=targets["fab-t"]),
            "square": Square(**budget),
        }
        return components, changes

    def search(
        self,
        model: keras.Model,
        x: np.ndarray,
        y: np.ndarray | None,
        *,
        rough: keras.Model | None,
        numbers: np.ndarray,
        seed: int,
        batch_size: int,
        progress: bool,
        state: StateFile,
    ) -> dict[str, Any]:
        num_classes = model.output_shape[1]
        logits = expected_logits(model, x, samples=self.samples or 1, batch_size=batch_size)
        scale = float(np.median(ops.convert_to_numpy(unit_of(logits))))
        components, _ = self.ensemble(num_classes, scale)
        y = logits.argmax(1).astype("int32") if y is None else y
        found: dict[str, Any] = {
            "x_adv": x.copy(),
            "success": logits.argmax(1) != y,
            "queries": np.full(len(x), self.samples, "int64"),
        }
        found |= self.confirmed(model, x, y, found, seed, batch_size)
        found["broken_by"] = np.where(found.pop("success"), "clean", "").astype("<U8")
        accuracy = []
        saved = state.load()
        if saved:
            with state.restoring():
                found = {name: like(array, saved, name) for name, array in found.items()}
                accuracy = _falling(saved.get("accuracy"), len(components))
        inner = {
            name.removeprefix("inside/"): value
            for name, value in saved.items()
            if name.startswith("inside/")
        }

        for number, (name, attack) in enumerate(components.items()):
            if number < len(accuracy):
                continue
            robust = np.flatnonzero(found["broken_by"] == "")
            if len(robust):
                working_set = WorkingSet(
                    attack,
                    model,
                    x[robust],
                    y[robust],
                    key=random.fold_in(random.key(seed), number),
                    batch_size=batch_size,
                    rough=rough,
                    logits=logits[robust],
                    numbers=numbers[robust],
                    # FAB has no ball of its own: what it finds inside ours is enough.
                    stop_distance=self.epsilon if isinstance(attack, FAB) else None,
                )
                with state.restoring():
                    working_set.restore(inner)

                def snapshot(working_set: WorkingSet = working_set) -> dict[str, np.ndarray]:
                    inside = working_set.snapshot()
                    inside = {f"inside/{name}": value for name, value in inside.items()}
                    return {**found, "accuracy": np.asarray(accuracy), **inside}

                title = f"AutoAttack {name}"
                options: dict[str, Any] = {"done": working_set.done, "enabled": progress}
                with progress_bar(title, working_set.work, **options) as advance:
                    working_set.run(advance, partial(state.save, snapshot))
                new = working_set.found()
                new |= self.confirmed(model, x[robust], y[robust], new, seed, batch_size)
                self._take_over(found, robust, name, x, new)
            inner = {}
            accuracy.append(float((found["broken_by"] == "").mean()))
            state.save(lambda: {**found, "accuracy": np.asarray(accuracy)}, now=True)

        after = dict(zip(components, accuracy, strict=True))
        signs = (
            (flags.square_stronger(after["fab-t"], after["square"], len(x)),)
            if "square" in after
            else ()
        )
        success = found["broken_by"] != ""
        return {**found, "success": success, "components": after, "flags": signs}

    def find_flags(
        self, model: keras.Model, x: np.ndarray, y: np.ndarray | None, *, batch_size: int
    ) -> tuple[Check, ...]:
        x, y = x[: self.flagged], None if y is None else y[: self.flagged]
        logits, num_classes = predict(model, x, batch_size), model.output_shape[1]
        y = logits.argmax(1).astype("int32") if y is None else y
        return (
            flags.randomness(model, x, averaged=self.samples != 1),
            flags.softmax_output(logits),
            *flags.gradient_checks(model, x, y, batch_size=batch_size),
            flags.logit_scale(logits),
            flags.too_few_classes(num_classes, self.ensemble(num_classes)[1]),
        )

    def _take_over(
        self,
        found: dict[str, np.ndarray],
        robust: np.ndarray,
        name: str,
        x: np.ndarray,
        new: dict[str, np.ndarray],
    ) -> None:
        """Notes what a component found on the images `robust`."""
        broken = new["success"]
        broken &= self.geometry.distance(new["x_adv"], x[robust]) <= self.allowed_distance
        found["queries"][robust] += new["queries"]
        found["broken_by"][robust[broken]] = name
        found["x_adv"][robust[broken]] = new["x_adv"][broken]
        if "fooled" in new:
            found["fooled"][robust] = np.maximum(found["fooled"][robust], new["fooled"])


def _falling(accuracy: np.ndarray | None, most: int) -> list[float]:
    """The accuracy after each component that is done, of a state; ValueError if it cannot be that."""
    values = [1.0, *np.ravel([] if accuracy is None else accuracy).tolist()]
    if accuracy is None or len(values) > most + 1 or sorted(values, reverse=True) != values:
        raise ValueError(f"accuracy must be at most {most} falling numbers, got {accuracy!r}")
    return values[1:]
