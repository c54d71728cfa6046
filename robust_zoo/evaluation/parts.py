"""A part: what was measured in one task of a plan."""

import json
import pathlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from robust_zoo.files import replacing
from robust_zoo.npz import read_npz
from robust_zoo.record import Check
from robust_zoo.sentences import one_line

if TYPE_CHECKING:
    from robust_zoo.evaluation.plan import EvaluationPlan, Task

_ABOUT = "about"


@dataclass(frozen=True, eq=False)
class Part:
    """What `measure` found in one task.

    Attributes:
        plan: sha256 of the plan that it belongs to.
        task: number of the task.
        versions: of what measured it, the backend included.
        seconds: that it took.
        arrays: what was found, by name, a row an image; which ones depends on the kind of task.
        notes: what is not of single images, by name, as JSON values.
        checks: the outcomes of checks.
    """

    plan: str
    task: int
    versions: dict[str, str]
    seconds: float
    arrays: dict[str, np.ndarray]
    notes: dict[str, Any] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()

    @staticmethod
    def place(folder: pathlib.Path, task: "Task") -> pathlib.Path:
        """The file of a task's part in a folder of parts."""
        return folder / f"part_{task.number:05}.npz"

    def save(self, path: str | pathlib.Path) -> None:
        """Writes it to a file (.npz), atomically."""
        about = {
            "plan": self.plan,
            "task": self.task,
            "versions": self.versions,
            "seconds": self.seconds,
            "notes": self.notes,
            "checks": [check.model_dump(mode="json") for check in self.checks],
        }
        with replacing(pathlib.Path(path)) as partial, partial.open("wb") as file:
            arrays: dict[str, Any] = {_ABOUT: np.asarray(json.dumps(about)), **self.arrays}
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: str | pathlib.Path) -> Self:
        """From a file; ValueError if it is none of a part."""
        try:
            arrays = read_npz(path)
            about = json.loads(str(arrays.pop(_ABOUT)))
            checks = tuple(Check.model_validate(check) for check in about["checks"])
            versions = {str(name): str(value) for name, value in about["versions"].items()}
            notes = dict(about["notes"])
            told = (str(about["plan"]), int(about["task"]), versions, float(about["seconds"]))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{str(path)!r} is not a part of an evaluation: {one_line(error)}. Remove it to measure it again."
            ) from None
        return cls(*told, arrays, notes, checks)

    def of(self, plan: "EvaluationPlan", source: str = "part") -> Self:
        """Itself; ValueError, which names `source`, unless it was measured for the plan, and fits its task."""
        if self.plan != plan.sha256:
            raise ValueError(
                f"{source} belongs to another plan: its model, data, attacks, seed or version of robust_zoo are others."
            )
        if not 0 <= self.task < len(plan.tasks):
            raise ValueError(
                f"{source} is of task {self.task}, and the plan has {len(plan.tasks)}."
            )
        return self
