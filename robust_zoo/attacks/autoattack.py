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
    """AutoAttack, standard version (Croce and Hein, arXiv:2003.01690), for norms "linf", "l2" and "l1".

    APGD-CE, APGD-T (DLR loss), FAB-T and Square, in this order and each on the images that are still robust, with the
    authors' parameters: 100 steps (Square 5000), one restart, 9 targets; in l1 (arXiv:2103.01208) APGD-CE has 5 restarts,
    and APGD-T 5 targets. A model of fewer than 10 classes has fewer targets, and one of fewer than 4, for which targeted
    DLR is not defined, a margin loss in APGD-T; the flag "too_few_classes" then says so. APGD-CE multiplies all logits by
    one factor, the median over the images of the power of ten that brings an image's logits to a span of about 10 (1 for
    spans from 0.1 to 1000). The other components do not depend on the scale of the logits.

    Example:
        >>> result = AutoAttack(epsilon=0.3).run(model, x, y, seed=0, state_file="state.npz")
        >>> result.components
        {'apgd-ce': 0.0, 'apgd-t': 0.0, 'fab-t': 0.0, 'square': 0.0}
    """

    result: ClassVar = AutoAttackResult
    flagged: ClassVar[int] = 128
    norms: ClassVar = ("linf", "l2", "l1")

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

    def standard(self, num_classes: int, scale: float = 1.0) -> tuple[dict[str, Attack], list[str]]:
        """The components for a model of so many classes.

        Args:
            num_classes: number of classes of the model, >= 2.
            scale: factor of the logits in APGD-CE's cross-entropy, > 0; default 1.

        Returns:
            The attacks by name, in their order; and sentences on what differs from the authors' version because the
            model has too few classes, empty if nothing does.
        """
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
        budget: dict[str, Any] = {"epsilon": self.epsilon, "norm": self.norm}
        components = {
            "apgd-ce": APGD(
                **budget, loss=CrossEntropy(scale=scale), restarts=5 if self.norm == "l1" else 1
            ),
            "apgd-t": APGD(**budget, loss=loss, targets=targets["apgd-t"]),
            "fab-t": FAB(norm=self.norm, targets=targets["fab-t"]),
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
        logits = predict(model, x, batch_size)
        scale = float(np.median(ops.convert_to_numpy(unit_of(logits))))
        components, _ = self.standard(num_classes, scale)
        y = logits.argmax(1).astype("int32") if y is None else y
        clean = np.where(logits.argmax(1) == y, "", "clean").astype("<U8")
        found = {"x_adv": x.copy(), "queries": np.ones(len(x), "int64"), "broken_by": clean}
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
                self._take_over(found, robust, name, x, **working_set.found())
            inner = {}
            accuracy.append(float((found["broken_by"] == "").mean()))
            state.save(lambda: {**found, "accuracy": np.asarray(accuracy)}, now=True)

        after = dict(zip(components, accuracy, strict=True))
        stronger = flags.square_stronger(after["fab-t"], after["square"], len(x))
        success = found["broken_by"] != ""
        return {**found, "success": success, "components": after, "flags": (stronger,)}

    def find_flags(
        self, model: keras.Model, x: np.ndarray, y: np.ndarray | None, *, batch_size: int
    ) -> tuple[Check, ...]:
        x, y = x[: self.flagged], None if y is None else y[: self.flagged]
        logits, num_classes = predict(model, x, batch_size), model.output_shape[1]
        y = logits.argmax(1).astype("int32") if y is None else y
        return (
            flags.randomness(model, x),
            flags.softmax_output(logits),
            *flags.gradient_checks(model, x, y, batch_size=batch_size),
            flags.logit_scale(logits),
            flags.too_few_classes(num_classes, self.standard(num_classes)[1]),
        )

    def _take_over(
        self,
        found: dict[str, np.ndarray],
        robust: np.ndarray,
        name: str,
        x: np.ndarray,
        *,
        x_adv: np.ndarray,
        success: np.ndarray,
        queries: np.ndarray,
    ) -> None:
        """Notes what a component found on the images `robust`."""
        broken = success & (self.geometry.distance(x_adv, x[robust]) <= self.allowed_distance)
        found["queries"][robust] += queries
        found["broken_by"][robust[broken]] = name
        found["x_adv"][robust[broken]] = x_adv[broken]


def _falling(accuracy: np.ndarray | None, most: int) -> list[float]:
    """The accuracy after each component that is done, of a state; ValueError if it cannot be that."""
    values = [1.0, *np.ravel([] if accuracy is None else accuracy).tolist()]
    if accuracy is None or len(values) > most + 1 or sorted(values, reverse=True) != values:
        raise ValueError(f"accuracy must be at most {most} falling numbers, got {accuracy!r}")
    return values[1:]
