"""All defenses, by name, on 8 x 8 images of 10 classes."""

import numpy as np
import pytest

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, DeepFool, NormalStartPGD
from robust_zoo.defenses import (
    PGN,
    TRADES,
    AdversarialTraining,
    AdversarialWeightPerturbation,
    CrownIBP,
    DeepDefense,
    FixedSetTraining,
    FreeAdversarialTraining,
    GaussianAugmentation,
    IntervalBoundTraining,
    NaturalTraining,
    ParsevalTraining,
    SmallBoxTraining,
    with_weight_decay,
)
from robust_zoo.testing.defenses import Batches

EPSILON = 0.15


def pgd(**settings):
    return PGD(epsilon=EPSILON, **{"steps": 5, **settings})


def trades(classifier, **settings):
    attack = NormalStartPGD(epsilon=EPSILON, steps=5, loss="kl_divergence")
    return TRADES(classifier, attack=attack, **settings)


def pgn(classifier, **settings):
    generator = architectures.perturbation_generator((8, 8, 1), 10, filters=16, hidden=64)
    settings |= {"distortion_weight": 0.5, "gradient_scale": 10.0}
    return PGN(classifier, generator=start(generator, 1), **settings)


DEFENSES = {
    "natural": lambda model: NaturalTraining(model, attack=pgd()),
    "weight_decay": lambda model: NaturalTraining(with_weight_decay(model, l2=0.01), attack=pgd()),
    "madry": lambda model: AdversarialTraining(model, attack=pgd(), ramp_steps=90),
    "kurakin": lambda model: AdversarialTraining(
        model,
        attack=FGSM(epsilon=2 * EPSILON, labels="least_likely", targeted=True),
        fraction=0.5,
        relative_weight=0.3,
        random_epsilon=True,
        delay_steps=1,
    ),
    "galloway": lambda model: AdversarialTraining(
        model, attack=pgd(labels="predicted"), clean_weight=0.5
    ),
    "fast": lambda model: AdversarialTraining(model, attack=pgd(steps=1, step_size=1.25 * EPSILON)),
    "nfgsm": lambda model: AdversarialTraining(model, attack=FGSM(epsilon=EPSILON), noise=1.0),
    "trades": trades,
    "free": lambda model: FreeAdversarialTraining(model, attack=pgd(), batch_size=64, replays=4),
    "awp": lambda model: AdversarialWeightPerturbation(trades(model)),
    "deepdefense": lambda model: DeepDefense(model, steps=3, strength=5.0, attack=pgd()),
    "parseval": lambda model: ParsevalTraining(model, beta=0.01, attack=pgd()),
    "fixed_set": lambda model: FixedSetTraining(model, made_by=DeepFool(steps=5), attack=pgd()),
    "interval_bounds": lambda model: IntervalBoundTraining(
        model, epsilon=0.05, warmup_steps=20, ramp_steps=120, regularization=0.5, attack=pgd()
    ),
    "crown_ibp": lambda model: CrownIBP(
        model, epsilon=0.05, clean_weight=0.3, ramp_steps=150, crown_weight=0.5, attack=pgd()
    ),
    "small_box": lambda model: SmallBoxTraining(
        model, attack=PGD(epsilon=EPSILON, steps=5), box_share=0.2, ramp_steps=90
    ),
    "gaussian": lambda model: GaussianAugmentation(model, sigma=0.1, attack=pgd()),
    "pgn": pgn,
    "pgn_detached": lambda model: pgn(model, detach=True),
}


def start(model, seed):
    """The same initial weights on every backend."""
    rng = np.random.default_rng(seed)
    model.set_weights(
        [
            rng.normal(size=w.shape) * np.sqrt(2 / np.prod(w.shape[:-1])) if w.ndim > 1 else 0 * w
            for w in model.get_weights()
        ]
    )
    return model


@pytest.fixture
def in_batches():
    return Batches
