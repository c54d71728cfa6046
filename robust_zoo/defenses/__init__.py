"""Defenses: `keras.Model`s around a classifier, trained with `compile` and `fit`."""

from robust_zoo.defenses.adversarial_training import AdversarialTraining
from robust_zoo.defenses.base import Defense

__all__ = ["AdversarialTraining", "Defense"]
