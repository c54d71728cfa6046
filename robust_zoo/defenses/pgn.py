"""Perturbation generator networks."""

from typing import Any

import keras
from keras import ops

from robust_zoo import architectures, backend
from robust_zoo.attacks import FixedBudgetAttack
from robust_zoo.attacks.generator import GRADIENT_SCALE, GeneratorAttack, generate
from robust_zoo.defenses.batch import Batch, integer_labels
from robust_zoo.defenses.tools import Mean, check_number
from robust_zoo.defenses.trainer import Defense
from robust_zoo.typing import Tensor


@keras.saving.register_keras_serializable("robust_zoo")
class PGN(backend.UpdateSteps, Defense):
    """Training against a generator of perturbations that trains against the classifier (PGN, 2020).

    The generator G makes x_adv = (tanh(atanh(2x - 1) + G) + 1) / 2 (equation 5) of the true label, the
    image and the gradient of the true class's probability by the image. It minimises -loss(x_adv) +
    distortion_weight * mean ||x_adv - x||_2^2, the classifier minimises loss(x_adv); both are updated
    from the same forward pass by the one optimizer. No attack is run: robust accuracy is that at the
    generator's images, and the trained generator is an attack, `defense.as_attack()`.

    Compile with an optimizer that has `use_ema=True, ema_momentum=0.998`, and give `fit` the callback
    `keras.callbacks.SwapEMAWeights`, to evaluate and keep averaged weights of both networks as the paper does.

    Args:
        classifier: see `Defense`.
        generator: `keras.Model` as made by `architectures.perturbation_generator`; default: a new one of the paper's
            size for the classifier's images and classes.
        distortion_weight: c_L, > 0; default 50, as in the tables; 70 in the authors' code.
        clean_weight: in [0, 1), default 0; the classifier minimises clean_weight * loss(x) + (1 - clean_weight) *
            loss(x_adv). The paper's adversarial coefficient is 1 - clean_weight, its value 1.
        gradient_scale: factor of the gradient that the generator sees, >= 0; default 1 / 128, as in the paper. Small
            images and short training need a larger one; 0 is the paper's ablation without the gradient.
        detach: whether the gradient that the generator sees is a constant; default False. If False, as in the authors'
            code, the classifier's gradient flows through it too, second derivatives included.
        seed: see `Defense`.
    """

    def __init__(
        self,
        classifier: keras.Model,
        *,
        generator: keras.Model | None = None,
        distortion_weight: float = 50.0,
        clean_weight: float = 0.0,
        gradient_scale: float = GRADIENT_SCALE,
        detach: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(classifier, attack=None, **kwargs)
        shape, classes = classifier.input_shape[1:], classifier.output_shape[1]
        if generator is None:
            generator = architectures.perturbation_generator(shape, classes)
        GeneratorAttack(generator=generator).check_model(classifier)
        backend.check_scope(generator, self)
        self.generator = generator
        self.distortion_weight = check_number("distortion_weight", distortion_weight, above=0)
        self.clean_weight = check_number("clean_weight", clean_weight, least=0, below=1)
        self.gradient_scale = check_number("gradient_scale", gradient_scale, least=0)
        self.detach = bool(detach)
        self.trains_on_clean = self.clean_weight > 0
        self._mean = Mean()

    def _check_attack(self, attack: FixedBudgetAttack | None, classifier: keras.Model) -> None:
        """There is none."""

    def as_attack(self) -> GeneratorAttack:
        """The generator as it is now, as an attack."""
        return GeneratorAttack(generator=self.generator, gradient_scale=self.gradient_scale)

    def adversarial_part(self, x: Tensor, y: Tensor, training: bool) -> Batch:
        if training:
            return {"attacked": ops.ones((ops.shape(x)[0],), "bool")}
        x_adv = self._generate(x, y)
        return {"adversarial": x_adv, "attacked": ops.ones((ops.shape(x)[0],), "bool")}

    def _generate(self, x: Tensor, y: Tensor) -> Tensor:
        settings: dict[str, Any] = {"gradient_scale": self.gradient_scale, "detach": self.detach}
        return generate(self.generator, self.classifier, x, y, **settings)

    def update(self, data: Any) -> dict[str, Any]:
        batch, y, sample_weight = self.prepare(data, training=True)
        x, labels = batch["clean"], integer_labels(y)
        weights = self.classifier.trainable_variables, self.generator.trainable_variables

        def losses() -> tuple[tuple[Tensor, ...], tuple[Tensor, dict[str, Tensor]]]:
            made = self._generate(x, labels)
            penalty = ops.sum(ops.square(made - x), axis=tuple(range(1, len(x.shape))))
            penalty = self.distortion_weight * self._mean(penalty, sample_weight)
            if self.detach:
                # Seen from here the generator's gradient has its sign turned (and is rid of the loss's
                # weight): one backward pass serves both networks.
                factor = 1 / (1 - self.clean_weight)
                x_adv = ops.stop_gradient((1 + factor) * made) - factor * made
            else:
                x_adv = made
            parts = {"clean": x, "adversarial": x_adv}
            y_pred = self(parts, training=True)
            loss = self.compute_loss(batch, y, y_pred, sample_weight)
            scale = self.optimizer.scale_loss
            if self.detach:
                return (scale(loss + penalty),), (loss, y_pred)
            adversarial = self.compiled_loss(x, y, y_pred["adversarial"], sample_weight)
            # The compiled loss has both networks' regularisation in it: its sign must not turn.
            regularisation = sum(self.losses) / backend.replica_count(self)
            generator_loss = penalty - adversarial + 2 * regularisation
            return (scale(loss), scale(generator_loss)), (loss, y_pred)

        groups = [[*weights[0], *weights[1]]] if self.detach else list(weights)
        _, (loss, y_pred), gradients = backend.gradients(
            losses, groups, self.variables + self.optimizer.variables
        )
        self.optimizer.apply([g for group in gradients for g in group], [*weights[0], *weights[1]])
        self.record_loss(loss, ops.shape(y)[0])
        return self.compute_metrics(batch, y, y_pred, sample_weight)

    def objective(
        self, x: Batch, y: Tensor, y_pred: dict[str, Tensor], sample_weight: Tensor | None
    ) -> Tensor:
        return self.mixed_loss(x, y, y_pred, self.clean_weight, sample_weight)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["attack"]
        names = ("distortion_weight", "clean_weight", "gradient_scale", "detach")
        config |= {name: getattr(self, name) for name in names}
        return {**config, "generator": keras.saving.serialize_keras_object(self.generator)}
