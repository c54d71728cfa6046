"""Values that change over the steps of an attack."""

import math

from keras import ops

from robust_zoo.typing import Tensor


def cosine(done: Tensor, steps: int, first: float, last: float) -> Tensor:
    """From `first` down to `last` along half a cosine, float32 (batch,).

    Args:
        done: int32 (batch,), steps before this one: 0 gives `first`.
        steps: all of them; `done` equal to it would give `last`.
        first: value of the first step.
        last: value after the last.
    """
    share = ops.cast(done, "float32") / steps
    return last + (first - last) * (1 + ops.cos(math.pi * share)) / 2
