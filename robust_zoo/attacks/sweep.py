"""An attack within several balls: accuracy against epsilon, as a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from robust_zoo.contract import check_images, check_labels, check_numbers
from robust_zoo.record import Accuracy, data_frame
from robust_zoo.sentences import html_table
from robust_zoo.typing import Tensor

if TYPE_CHECKING:
    from robust_zoo.attacks.attack import FixedBudgetAttack


@dataclass(frozen=True, eq=False, repr=False)
class Sweep:
    """What `FixedBudgetAttack.sweep` found of n images.

    Attributes:
        norm: of the balls.
        epsilons: their radii, rising.
        success: bool (epsilons, n), whether the model was fooled within each.
        x_adv: float32 (epsilons, n, height, width, channels); what is broken within a smaller ball is the same as there.
    """

    norm: str
    epsilons: tuple[float, ...]
    success: np.ndarray
    x_adv: np.ndarray

    @property
    def accuracies(self) -> tuple[Accuracy, ...]:
        """Accuracy left within each ball, with its interval."""
        n = self.success.shape[1]
        return tuple(Accuracy.count(int(n - broken.sum()), n) for broken in self.success)

    def to_frame(self) -> Any:
        """A pandas DataFrame, a row a ball: norm, epsilon, accuracy, low, high, correct, n_examples.

        Raises:
            ImportError: pandas is not installed (extra `frames`).
        """
        return data_frame(
            [
                {
                    "norm": self.norm,
                    "epsilon": epsilon,
                    "accuracy": part.accuracy,
                    "low": part.ci95[0],
                    "high": part.ci95[1],
                    "correct": part.correct,
                    "n_examples": part.n_examples,
                }
                for epsilon, part in zip(self.epsilons, self.accuracies, strict=True)
            ]
        )

    def _rows(self) -> list[tuple[str, str, str]]:
        both = zip(self.epsilons, self.accuracies, strict=True)
        return [
            (f"{epsilon:.6g}", f"{part.accuracy:.2%}", f"{part.ci95[0]:.2%} to {part.ci95[1]:.2%}")
            for epsilon, part in both
        ]

    def __repr__(self) -> str:
        lines = [
            f"  {epsilon:>10}  {accuracy:>8}  {span}" for epsilon, accuracy, span in self._rows()
        ]
        return "\n".join([f"{self.norm}, {self.success.shape[1]} images", *lines])

    def _repr_html_(self) -> str:
        headings = (f"epsilon ({self.norm})", "accuracy", "95% interval")
        return html_table(headings, self._rows(), caption=f"{self.success.shape[1]:,} images")


def sweep(
    attack: "FixedBudgetAttack",
    model: keras.Model,
    x: Tensor,
    y: Tensor | None,
    epsilons: Sequence[float],
    options: dict[str, Any],
) -> Sweep:
    """`FixedBudgetAttack.sweep`, whose arguments these are."""
    is_list = isinstance(epsilons, Sequence | np.ndarray) and not isinstance(epsilons, str)
    radii = [float(epsilon) for epsilon in epsilons] if is_list else []
    if not radii or radii != sorted(set(radii)):
        raise ValueError(f"epsilons must be at least one number, rising, got {epsilons!r}.")
    if "state_file" in options:
        raise ValueError("state_file is of one run: sweep has none.")
    if attack.reaches_given_labels:
        raise ValueError("attack must not aim at the labels given: what it leaves is no accuracy.")
    x = check_images(x, model)
    y = None if y is None else check_labels(y, model.output_shape[1], len(x))
    numbers = check_numbers(options.pop("numbers", np.arange(len(x))), len(x))
    attacks = [attack.within(epsilon) for epsilon in radii]
    for part in attacks:
        part.check_shape(x.shape[1:])
    success = np.zeros((len(radii), len(x)), dtype=bool)
    x_adv = np.repeat(x[None], len(radii), axis=0)
    for place, part in enumerate(attacks):
        if place:
            success[place], x_adv[place] = success[place - 1], x_adv[place - 1]
        left = np.flatnonzero(~success[place])
        if len(left):
            labels = None if y is None else y[left]
            found = part.run(model, x[left], labels, numbers=numbers[left], **options)
            success[place, left], x_adv[place, left] = found.success, found.x_adv
    return Sweep(attack.norm, tuple(radii), success, x_adv)
