"""TRADES."""

from typing import Any

import keras
from keras import ops

from robust_zoo.attacks import FixedBudgetAttack
from robust_zoo.defenses.batch import Batch
from robust_zoo.defenses.tools import Mean, check_number
from robust_zoo.defenses.trainer import Defense
from robust_zoo.typing import Tensor


@keras.saving.register_keras_serializable("robust_zoo")
class TRADES(Defense):
    """Loss at clean images plus beta times the divergence of adversarial from clean predictions.

    loss(clean) + beta * KL(p(clean) || p(adversarial)), mean over the batch (Zhang et al.,
    arXiv:1901.08573, equation 5 and algorithm 1). Gradients flow through both predictions; each passes
    batch normalisation by itself.

    Args:
        classifier: see `Defense`.
        attack: the inner maximisation; the paper's ascends the same divergence from a small normal
            start, `NormalStartPGD(epsilon=..., loss="kl_divergence")`.
        beta: weight of the divergence, >= 0: 1 / lambda in the paper, 6 in its experiments.
        attack_mode, seed: see `Defense`.
    """

    trains_on_clean = True

    def __init__(
        self,
        classifier: keras.Model,
        *,
        attack: FixedBudgetAttack,
        beta: float = 6.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(classifier, attack=attack, **kwargs)
        self.beta = check_number("beta", beta, least=0)
        self._mean = Mean()

    def objective(
        self, x: Batch, y: Tensor, y_pred: dict[str, Tensor], sample_weight: Tensor | None
    ) -> Tensor:
        clean, adversarial = (
            ops.log_softmax(ops.cast(y_pred[part], "float32"), axis=1)
            for part in ("clean", "adversarial")
        )
        divergence = ops.sum(ops.exp(clean) * (clean - adversarial), axis=1)
        loss = self.compiled_loss(x["clean"], y, y_pred["clean"], sample_weight)
        return loss + self.beta * self._mean(divergence, sample_weight)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta": self.beta}
