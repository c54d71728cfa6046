"""Adversarial training (Madry et al., arXiv:1706.06083)."""

import keras
from keras import ops

from robust_zoo.attacks import FixedBudgetAttack
from robust_zoo.defenses.base import Defense


@keras.saving.register_keras_serializable("robust_zoo")
class AdversarialTraining(Defense):
    """Minimises the loss at the adversarial examples alone (arXiv:1706.06083, equation 2.1).

    The attack runs on the current weights in inference mode; the update, in training mode, sees the
    last iterate of each example and its true label.

    Args:
        classifier: see `Defense`.
        attack: the inner maximisation; Madry's is `PGD` with a random start.
        ramp_steps: training steps over which epsilon (and the step size with it) rises linearly from
            zero to the attack's. 0, the paper's choice, trains at full strength from the start; a ramp
            spares short budgets the long plateau at the beginning.
        seed: see `Defense`.

    Example:
        >>> attack = PGD(epsilon=0.3, steps=40, step_size=0.01)
        >>> defense = AdversarialTraining(classifier, attack=attack)
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> defense.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
        >>> defense.fit(x, y, validation_data=(x_val, y_val))
    """

    def __init__(
        self,
        classifier: keras.Model,
        *,
        attack: FixedBudgetAttack,
        ramp_steps: int = 0,
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(classifier, attack=attack, seed=seed, **kwargs)
        if isinstance(ramp_steps, bool) or not isinstance(ramp_steps, int) or ramp_steps < 0:
            raise ValueError(f"ramp_steps must be an integer >= 0, got {ramp_steps!r}.")
        self.ramp_steps = ramp_steps

    def training_epsilon(self):
        if not self.ramp_steps:
            return None
        progress = ops.cast(self.optimizer.iterations, "float32") / self.ramp_steps
        return self.attack.epsilon * ops.minimum(progress, 1.0)

    def objective(self, x, y, y_pred, sample_weight):
        return self.compiled_loss(x, y, y_pred[1], sample_weight)

    def get_config(self):
        return {**super().get_config(), "ramp_steps": self.ramp_steps}
