"""Measuring robustness: the only maker of `RobustnessRecord`s."""

from robust_zoo.evaluation.evaluate import evaluate

__all__ = ["evaluate"]
