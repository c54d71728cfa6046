"""Adversarial training: Madry et al., Kurakin et al. and fast adversarial training are settings of it."""

from typing import Any

import keras
from keras import ops

from robust_zoo import backend
from robust_zoo.attacks import FixedBudgetAttack
from robust_zoo.attacks.norms import over_images
from robust_zoo.backend import random
from robust_zoo.defenses.batch import Batch
from robust_zoo.defenses.tools import check_count, check_number
from robust_zoo.defenses.trainer import Defense
from robust_zoo.typing import Tensor


@keras.saving.register_keras_serializable("robust_zoo")
class AdversarialTraining(Defense):
    """Minimises the loss at adversarial examples, made on the current weights.

    The papers are settings of it:

    - Madry et al. (arXiv:1706.06083, equation 2.1): `attack=PGD(...)`, the rest as it is. Only adversarial
      examples, true labels.
    - Kurakin et al. (arXiv:1611.01236, algorithm 1): a one-step attack, `FGSM(epsilon=16 / 255,
      labels="least_likely", targeted=True)`, `fraction=0.5`, `relative_weight=0.3`, `random_epsilon=True`,
      `delay_steps=10_000`. The loss of m examples, k of them replaced, is (sum of the clean losses +
      relative_weight * sum of the adversarial ones) / (m - k + relative_weight * k); both kinds share one
      batch and with it batch normalisation's statistics.
    - Galloway et al. (arXiv:1804.03308, the authors' checkpoints): `attack=PGD(epsilon=8 / 255, steps=7,
      step_size=2 / 255, labels="predicted")`, `clean_weight=0.5`.
    - Fast adversarial training (Wong et al., arXiv:2001.03994): `attack=PGD(epsilon=e, steps=1,
      step_size=1.25 * e)`, FGSM from a random start.
    - N-FGSM (de Jorge et al., arXiv:2202.01181): `attack=FGSM(epsilon=e)`, `noise=2`. The step starts from a
      noisy image and is not projected back to the ball around the clean one.

    One-step training can overfit catastrophically: within an epoch the model withstands the step alone and
    no longer PGD. `RobustValidation` notices that. Train it in float32: bfloat16 rounds pixels near 1 to
    1/256, an eighth of epsilon 8/255, and brings the collapse about.

    Args:
        classifier: see `Defense`.
        attack: the inner maximisation.
        fraction: of each batch that is replaced by adversarial examples, in (0, 1]; default 1. They are spread evenly
            over the batch; the paper replaces its first ones. On several replicas it must give each of them a whole
            number of examples.
        relative_weight: Kurakin's lambda, weight of an adversarial example against a clean one in a mixed batch, > 0;
            default 1, which it must be if `fraction` is 1.
        clean_weight: in [0, 1), default 0; the loss becomes clean_weight * loss(clean) + (1 - clean_weight) *
            loss(adversarial), the first on the same images without perturbation.
        noise: radius of the random change that each attacked image gets first, in units of epsilon, >= 0, uniform in
            the attack's norm; default 0. The attack's ball is then around the noisy image.
        random_epsilon: whether each training example has an epsilon of its own, the absolute value of a normal number
            of standard deviation epsilon / 2, truncated at epsilon; default False.
        ramp_steps: updates of the optimizer (batches, unless it accumulates gradients) over which epsilon, and the step
            size with it, rises linearly from zero, >= 0. The default 0, the papers' choice, trains at full strength
            from the start; a ramp avoids the long plateau at the beginning of short trainings.
        delay_steps: updates of the optimizer on clean images alone before the first adversarial one (and before the
            ramp), >= 0; default 0. Until then "robust_accuracy" is 0 in the logs.
        attack_mode: see `Defense`. The papers do not say; Madry's code attacks in training mode.
        seed: see `Defense`.

    Example:
        >>> attack = PGD(epsilon=0.3, steps=40, step_size=0.01)
        >>> defense = AdversarialTraining(classifier, attack=attack)
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> defense.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
        >>> history = defense.fit(x, y, validation_data=(x_val, y_val), verbose=0)
        >>> sorted(history.history)
        ['accuracy', 'loss', 'robust_accuracy', 'val_accuracy', 'val_loss', 'val_robust_accuracy']
    """

    attack: FixedBudgetAttack

    def __init__(
        self,
        classifier: keras.Model,
        *,
        attack: FixedBudgetAttack,
        fraction: float = 1.0,
        relative_weight: float = 1.0,
        clean_weight: float = 0.0,
        noise: float = 0.0,
        random_epsilon: bool = False,
        ramp_steps: int = 0,
        delay_steps: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(classifier, attack=attack, **kwargs)
        self.fraction = check_number("fraction", fraction, above=0, most=1)
        self.relative_weight = check_number("relative_weight", relative_weight, above=0)
        if self.fraction == 1 and self.relative_weight != 1:
            raise ValueError(
                f"relative_weight must be 1 where all examples are attacked (fraction=1), got {relative_weight!r}."
            )
        self.clean_weight = check_number("clean_weight", clean_weight, least=0, below=1)
        self.noise = check_number("noise", noise, least=0)
        self.random_epsilon = bool(random_epsilon)
        self.ramp_steps = check_count("ramp_steps", ramp_steps, least=0)
        self.delay_steps = check_count("delay_steps", delay_steps, least=0)
        self.trains_on_clean = self.clean_weight > 0

    def check_batch(self, size: int, shards: int) -> None:
        super().check_batch(size, shards)
        replicas = backend.replica_count(self)
        attacked = self.fraction * size / replicas
        whole = replicas == 1 or abs(attacked - round(attacked)) < 1e-3
        if attacked < 0.5 or not whole:
            raise ValueError(
                f"fraction of a replica's batch must be {'a whole number of' if replicas > 1 else 'some'} examples, "
                f"got {self.fraction:g} of {size // replicas}: change fraction or the batch."
            )

    def adversarial_part(self, x: Tensor, y: Tensor, training: bool) -> Batch:
        if not training:
            return super().adversarial_part(x, y, training)
        count = ops.shape(x)[0]
        keys = self.keys(x, training)
        if self.fraction == 1.0:
            attacked = ops.ones((count,), "bool")

            def perturbed() -> Tensor:
                return self._attack(x, y, keys)
        else:
            rows = _spread(self.fraction, count)
            attacked = ops.any(ops.arange(count)[:, None] == rows[None], axis=1)

            def perturbed() -> Tensor:
                chosen = [ops.take(part, rows, axis=0) for part in (x, y, keys)]
                return ops.scatter_update(x, rows[:, None], self._attack(*chosen))

        if not self.delay_steps:
            return {"adversarial": perturbed(), "attacked": attacked}
        begun = self.optimizer.iterations >= self.delay_steps
        return {
            "adversarial": ops.cond(begun, perturbed, lambda: x),
            "attacked": ops.logical_and(attacked, begun),
        }

    def _attack(self, x: Tensor, y: Tensor, keys: Tensor) -> Tensor:
        epsilon = None
        if self.ramp_steps:
            step = ops.cast(self.optimizer.iterations, "float32") - self.delay_steps
            epsilon = self.attack.epsilon * ops.minimum(step / self.ramp_steps, 1.0)
        if self.random_epsilon:
            size = ops.abs(random.truncated_normal(random.fold_in(keys, 2), ())) / 2
            epsilon = (self.attack.epsilon if epsilon is None else epsilon) * size
        if self.noise:
            radius = self.noise * (self.attack.epsilon if epsilon is None else epsilon)
            if len(getattr(radius, "shape", ())) == 1:
                radius = over_images(radius, x)
            x = self.attack.geometry.random_start(random.fold_in(keys, 3), x, radius)
        return self.attack(self.adversary_view(True), x, y, key=keys, epsilon=epsilon)

    def objective(
        self, x: Batch, y: Tensor, y_pred: dict[str, Tensor], sample_weight: Tensor | None
    ) -> Tensor:
        weight = sample_weight
        if self.fraction < 1.0:
            attacked = ops.cast(x["attacked"], "float32")
            relative = 1 - attacked + self.relative_weight * attacked
            # Keras divides by the number of examples, the paper by the sum of these weights.
            relative = relative / ops.mean(relative)
            weight = relative if sample_weight is None else sample_weight * relative
        return self.mixed_loss(x, y, y_pred, self.clean_weight, sample_weight, weight)

    def get_config(self) -> dict[str, Any]:
        names: tuple[str, ...] = ("fraction", "relative_weight", "clean_weight", "noise")
        names += ("random_epsilon", "ramp_steps", "delay_steps")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _spread(fraction: float, count: Tensor | int) -> Tensor:
    """Evenly spaced rows of `count`, the rounded `fraction` of them: the same in every part of a batch."""
    if isinstance(count, int):  # JAX and torch: an array's size must not be a tensor
        chosen = int(fraction * count + 0.5)
    else:
        chosen = ops.cast(ops.floor(fraction * ops.cast(count, "float32") + 0.5), "int32")
    number = ops.cast(ops.arange(chosen), "float32") + 1
    # A little less than the quotient: it may lie a rounding error above a whole number.
    return ops.minimum(ops.cast(ops.ceil(number / fraction - 1e-3), "int32"), count) - 1
