"""What an attack remembers of each image between two steps."""

from typing import Any, Literal

from robust_zoo.typing import Tensor

AttackState = dict[str, Any]
"""Tensors with one row an image, under names.

An attack keeps what it needs under names of its own; these are known to what runs it:

- "x_adv", always there: the candidate that the next step looks at, in the shape of the images.
- "finished", bool (batch,): these images need no more steps in this attempt, and no later candidate of theirs counts.
- "best", "best_loss": the candidate of highest loss so far, which a fixed-budget attack hands out where it fails,
  instead of the last one, and that loss (batch,).
"""


def finished(state: AttackState) -> Tensor | Literal[False]:
    """Which images need no more steps, bool (batch,), or False for none."""
    return state.get("finished", False)


def strongest(state: AttackState) -> Tensor:
    """What a fixed-budget attack hands out where it fails: the best candidate if it keeps one, else the last."""
    return state.get("best", state["x_adv"])
