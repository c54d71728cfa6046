"""The loss landscape around an image, as PGD sees it (Madry et al., arXiv:1706.06083, section 3 and appendix)."""

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from robust_zoo import backend
from robust_zoo.attacks import PGD
from robust_zoo.backend import random
from robust_zoo.contract import check_classifier, check_images, check_labels
from robust_zoo.copies import in_float32
from robust_zoo.evaluation.adversarial_loss import cross_entropy
from robust_zoo.inference import logits_of, predict
from robust_zoo.typing import Tensor


@dataclass(frozen=True, eq=False)
class Landscape:
    """Where PGD gets to from several random starts around one image.

    Attributes:
        losses: float64 (restarts, steps + 1), cross-entropy at the start and after each step.
        distances: float64 (restarts, restarts), L2 between the final points.
        random_distance: L2 between two uniform points of the linf ball in expectation, epsilon *
            sqrt(2 d / 3) of d pixels, what `distances` is to be compared with (nothing cut at 0 or 1).
        angles: float64 (restarts, restarts), in degrees, between the final perturbations.
        gradient_cosines: float64 (restarts,), between the final perturbation and the clean image's gradient.
    """

    losses: np.ndarray
    distances: np.ndarray
    random_distance: float
    angles: np.ndarray
    gradient_cosines: np.ndarray

    @property
    def final_losses(self) -> np.ndarray:
        return self.losses[:, -1]

    @property
    def spread(self) -> float:
        """Standard deviation of the final losses over their mean."""
        return float(self.final_losses.std() / self.final_losses.mean())


def loss_landscape(
    model: keras.Model,
    image: Tensor,
    label: int,
    *,
    epsilon: float,
    steps: int = 100,
    step_size: float | None = None,
    restarts: int = 20,
    seed: int = 0,
) -> Landscape:
    """Runs linf PGD from several starts on one image and looks at the losses and where it ends.

    Args:
        model: classifier, images in [0, 1] to logits.
        image: float array (height, width, channels) in [0, 1].
        label: its class.
        epsilon: radius of the linf ball.
        steps: of PGD.
        step_size: of each; None is PGD's own, 2.5 epsilon / steps.
        restarts: random starts, at least 2; all of them make one batch.
        seed: integer seed of the starts.

    Raises:
        TypeError, ValueError: inputs that `robust_zoo.contract` or PGD refuses.
    """
    if restarts < 2:
        raise ValueError(f"restarts must be an integer >= 2, got {restarts!r}.")
    model = in_float32(check_classifier(model))
    image = check_images(np.asarray(image)[None], model)
    labels = check_labels(np.asarray([label]), model.output_shape[1], 1)
    attack = PGD(epsilon=epsilon, steps=steps, step_size=step_size)
    x, y = np.repeat(image, restarts, axis=0), np.repeat(labels, restarts)
    keys = np.asarray(random.fold_in(random.key(seed), np.arange(restarts)))

    def follow(x: Tensor, y: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        def loss_of(logits: Tensor) -> Tensor:
            return keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True)

        def clean_loss(x: Tensor) -> Tensor:
            return loss_of(logits_of(model, x))

        keys = random.fold_in(keys, 0)
        state, losses = attack.trajectory(model, x, y, keys, attack.epsilon, look=loss_of)
        return state["x_adv"], losses, backend.value_and_input_gradient(clean_loss, x)[1]

    compiled = backend.function(follow, model)
    x_adv, losses, gradient = (
        ops.convert_to_numpy(part).astype("float64")
        for part in compiled(*map(ops.convert_to_tensor, (x, y, keys)))
    )
    last = cross_entropy(predict(model, x_adv.astype("float32"), restarts), y)
    change = (x_adv - x).reshape(restarts, -1)
    size = np.maximum(np.linalg.norm(change, axis=1), 1e-12)
    direction = gradient.reshape(restarts, -1)
    products = change @ change.T
    cosines = np.clip(products / np.outer(size, size), -1, 1)
    squares = products.diagonal()
    distances = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * products, 0))
    np.fill_diagonal(distances, 0)
    slope = np.maximum(np.linalg.norm(direction, axis=1), 1e-30)
    return Landscape(
        losses=np.concatenate([losses, last[:, None]], axis=1),
        distances=distances,
        random_distance=float(epsilon * np.sqrt(2 * change.shape[1] / 3)),
        angles=np.degrees(np.arccos(cosines)),
        gradient_cosines=(change * direction).sum(1) / (size * slope),
    )
