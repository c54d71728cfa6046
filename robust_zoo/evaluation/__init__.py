"""Measuring robustness: the only maker of `RobustnessRecord`s."""

from robust_zoo.evaluation.evaluate import evaluate
from robust_zoo.evaluation.fooling import (
    FoolingImages,
    RubbishTest,
    fooling_images,
    rubbish_test,
)

__all__ = ["FoolingImages", "RubbishTest", "evaluate", "fooling_images", "rubbish_test"]
