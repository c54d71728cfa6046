"""Parseval training."""

from typing import Any

import keras
from keras import ops

from robust_zoo.attacks import FixedBudgetAttack
from robust_zoo.backend import random
from robust_zoo.defenses.natural_training import NaturalTraining
from robust_zoo.defenses.tools import check_number, kernels_of
from robust_zoo.typing import Tensor


@keras.saving.register_keras_serializable("robust_zoo")
class ParsevalTraining(NaturalTraining):
    """Natural training with weights pulled towards orthonormal rows after every step.

    Some rows W_S of each weight matrix, drawn anew in each step, become (1 + beta) W_S - beta W_S W_S^T W_S:
    a step of gradient descent on beta / 4 * ||W_S W_S^T - I||^2 (Cisse et al., arXiv:1704.08847, algorithm 1;
    as a baseline in arXiv:1803.00404). The rows of a kernel are the vectors of its output units,
    convolutions included, without the factor for overlapping patches.

    Args:
        classifier: see `Defense`.
        beta: step size of the retraction, > 0; default 1e-4 (MNIST), 3e-4 on CIFAR-10.
        rows: fraction of each matrix's rows that is drawn in a step, in (0, 1]; default 0.3.
        attack: see `NaturalTraining`.
        seed: see `Defense`.
    """

    def __init__(
        self,
        classifier: keras.Model,
        *,
        beta: float = 1e-4,
        rows: float = 0.3,
        attack: FixedBudgetAttack | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(classifier, attack=attack, **kwargs)
        self.beta = check_number("beta", beta, above=0)
        self.rows = check_number("rows", rows, above=0, most=1)
        self._kernels = list(kernels_of(classifier).values())

    def after_update(self) -> list[tuple[keras.Variable, Tensor]]:
        key = random.fold_in(random.fold_in(random.key(self.seed), 2), self.training_steps)
        return [
            (kernel, self.retract(kernel, random.fold_in(key, index)))
            for index, kernel in enumerate(self._kernels)
        ]

    def retract(self, kernel: keras.Variable, key: Tensor) -> Tensor:
        """The kernel (..., units) after one retraction, the rows drawn with `key` (2,)."""
        units = kernel.shape[-1]
        matrix = ops.transpose(ops.reshape(kernel, (-1, units)))
        draws = random.uniform(key[None], (units,))[0]
        chosen = ops.argsort(draws)[: max(1, round(self.rows * units))]
        part = ops.take(matrix, chosen, axis=0)
        gram = ops.matmul(part, ops.transpose(part))
        part = (1 + self.beta) * part - self.beta * ops.matmul(gram, part)
        matrix = ops.scatter_update(matrix, chosen[:, None], part)
        return ops.reshape(ops.transpose(matrix), kernel.shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta": self.beta, "rows": self.rows}
