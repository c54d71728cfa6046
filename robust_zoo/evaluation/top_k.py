"""Top-k accuracy against epsilon, and label leaking (Kurakin et al., arXiv:1611.01236)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral

import keras
import numpy as np

from robust_zoo.attacks import FixedBudgetAttack
from robust_zoo.contract import check_classifier, check_images, check_labels
from robust_zoo.copies import in_float32
from robust_zoo.evaluation.crafting import craft
from robust_zoo.inference import predict
from robust_zoo.record import Accuracy
from robust_zoo.typing import Tensor


@dataclass(frozen=True)
class TopK:
    """Accuracy of the k most likely classes at one epsilon, 0 for clean images.

    Attributes:
        epsilon: in [0, 1] pixel units.
        k: an example is right if its class is among so many.
        accuracy: on the images that the attack ends with.
        ratio: that over the accuracy on clean images; above 1 the attack gives its label away (section 4.2). None
            where no clean image is right.
    """

    epsilon: float
    k: int
    accuracy: Accuracy
    ratio: float | None


@dataclass(frozen=True)
class LabelLeaking:
    """Examples that are right under an attack that knows their label, and wrong under one that does not.

    Attributes:
        leaked: how many.
        n_examples: of how many.
    """

    leaked: int
    n_examples: int


def ranks(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes come before the label, (n,): more likely, or as likely and of a lower number."""
    own = logits[np.arange(len(labels)), labels][:, None]
    lower = np.arange(logits.shape[1]) < labels[:, None]
    return ((logits > own) | ((logits == own) & lower)).sum(1)


def top_k(
    make_attack: Callable[..., FixedBudgetAttack],
    model: keras.Model,
    x: Tensor,
    y: Tensor,
    *,
    epsilons: Sequence[float] = (2 / 255, 4 / 255, 8 / 255, 16 / 255),
    k: Sequence[int] = (1, 5),
    seed: int = 0,
    batch_size: int = 128,
) -> list[TopK]:
    """Top-k accuracy on clean images and at each epsilon, for each k (tables 1 and 2).

    Args:
        make_attack: makes the attack of a given `epsilon`, such as `FGSM` or `partial(PGD, steps=20)`.
        model: classifier, images in [0, 1] to logits.
        x: float array (n, height, width, channels) in [0, 1].
        y: integer array (n,).
        epsilons: in [0, 1] pixel units, above 0, rising or not.
        k: numbers of classes, each in 1..classes - 1; the default (1, 5) needs at least 6 classes.
        seed: integer seed of the attack.
        batch_size: images in a batch, an integer >= 1; it changes no count, and distances only by rounding.

    Raises:
        TypeError, ValueError: inputs that `robust_zoo.contract` refuses, or `epsilons` or `k` out of range.
    """
    model = in_float32(check_classifier(model))
    classes = model.output_shape[1]
    x = check_images(x, model)
    y = check_labels(y, classes, len(x))
    for count in k:
        if isinstance(count, bool) or not isinstance(count, Integral) or not 1 <= count < classes:
            raise ValueError(f"k must be integers in 1..{classes - 1}, got {k!r}.")
    if not all(epsilon > 0 for epsilon in epsilons):
        raise ValueError(f"epsilons must be above 0, got {tuple(epsilons)}.")

    def ranks_of(images: np.ndarray) -> np.ndarray:
        return ranks(predict(model, images, batch_size), y)

    clean = ranks_of(x)
    found = []
    for epsilon in (0.0, *epsilons):
        rank = clean
        if epsilon:
            attack = make_attack(epsilon=epsilon)
            rank = ranks_of(craft(attack, model, x, y, seed=seed, batch_size=batch_size))
        for count in k:
            right, before = int((rank < count).sum()), int((clean < count).sum())
            ratio = right / before if before else None
            accuracy = Accuracy.count(right, len(y))
            found.append(TopK(epsilon=float(epsilon), k=int(count), accuracy=accuracy, ratio=ratio))
    return found


def label_leaking(
    with_labels: FixedBudgetAttack,
    without_labels: FixedBudgetAttack,
    model: keras.Model,
    x: Tensor,
    y: Tensor,
    *,
    seed: int = 0,
    batch_size: int = 128,
) -> LabelLeaking:
    """Counts label leaking (section 4.2, table 3).

    Args:
        with_labels: an attack that uses the true label, such as FGSM.
        without_labels: its counterpart that does not, such as FGSM on predicted labels or `step-ll`.
        model: classifier, images in [0, 1] to logits.
        x: float array (n, height, width, channels) in [0, 1].
        y: integer array (n,).
        seed: integer seed of the attacks.
        batch_size: images in a batch, an integer >= 1; it changes no count, and distances only by rounding.

    Raises:
        TypeError, ValueError: inputs that `robust_zoo.contract` refuses, or attacks of which the first does not use true
            labels, or the second does.
    """
    for name, attack, expected in (
        ("with_labels", with_labels, True),
        ("without_labels", without_labels, False),
    ):
        if (getattr(attack, "labels", "true") == "true") != expected:
            wanted = "use the true labels" if expected else "not use the true labels"
            raise ValueError(f"{name} must {wanted}, got {attack!r}.")
    model = in_float32(check_classifier(model))
    x = check_images(x, model)
    y = check_labels(y, model.output_shape[1], len(x))
    right = [
        predict(
            model, craft(attack, model, x, y, seed=seed, batch_size=batch_size), batch_size
        ).argmax(1)
        == y
        for attack in (with_labels, without_labels)
    ]
    return LabelLeaking(leaked=int((right[0] & ~right[1]).sum()), n_examples=len(y))
