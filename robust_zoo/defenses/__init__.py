"""Defenses: `keras.Model`s around a classifier, trained with `compile` and `fit`."""

from robust_zoo.defenses.adversarial_training import AdversarialTraining
from robust_zoo.defenses.averaged_weights import AveragedWeights
from robust_zoo.defenses.deepdefense import DeepDefense
from robust_zoo.defenses.divergence import DivergenceError, StopOnDivergence
from robust_zoo.defenses.fixed_set import FixedSetTraining
from robust_zoo.defenses.free import FreeAdversarialTraining
from robust_zoo.defenses.gaussian_augmentation import GaussianAugmentation
from robust_zoo.defenses.interval_bounds import (
    CrownIBP,
    IntervalBoundTraining,
    SmallBoxTraining,
)
from robust_zoo.defenses.log_examples import LogAdversarialExamples
from robust_zoo.defenses.natural_training import NaturalTraining
from robust_zoo.defenses.parseval import ParsevalTraining
from robust_zoo.defenses.pgn import PGN
from robust_zoo.defenses.robust_validation import RobustValidation
from robust_zoo.defenses.trades import TRADES
from robust_zoo.defenses.trainer import Defense
from robust_zoo.defenses.training_state import TrainingState
from robust_zoo.defenses.weight_decay import with_weight_decay
from robust_zoo.defenses.weight_perturbation import AdversarialWeightPerturbation

__all__ = [
    "PGN",
    "TRADES",
    "AdversarialTraining",
    "AdversarialWeightPerturbation",
    "AveragedWeights",
    "CrownIBP",
    "DeepDefense",
    "Defense",
    "DivergenceError",
    "FixedSetTraining",
    "FreeAdversarialTraining",
    "GaussianAugmentation",
    "IntervalBoundTraining",
    "LogAdversarialExamples",
    "NaturalTraining",
    "ParsevalTraining",
    "RobustValidation",
    "SmallBoxTraining",
    "StopOnDivergence",
    "TrainingState",
    "with_weight_decay",
]
