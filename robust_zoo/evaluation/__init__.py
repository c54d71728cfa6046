"""Measuring robustness: the only maker of `RobustnessRecord`s, and the metrics of the papers."""

from robust_zoo.evaluation.adversarial_loss import adversarial_loss
from robust_zoo.evaluation.challenge import challenge
from robust_zoo.evaluation.corruptions import ALEXNET, CORRUPTIONS, evaluate_corruptions
from robust_zoo.evaluation.crafting import craft
from robust_zoo.evaluation.deepdefense import (
    DeepDefenseMetrics,
    SignSteps,
    accuracy_columns,
    deepdefense_metrics,
)
from robust_zoo.evaluation.fooling import (
    FoolingImages,
    RubbishTest,
    fooling_images,
    rubbish_test,
)
from robust_zoo.evaluation.gradient_correlation import gradient_correlation
from robust_zoo.evaluation.jsma_table import JSMARow, jsma_table
from robust_zoo.evaluation.landscape import Landscape, loss_landscape
from robust_zoo.evaluation.measuring import evaluate, evaluate_at
from robust_zoo.evaluation.merging import merge
from robust_zoo.evaluation.parts import Part
from robust_zoo.evaluation.plan import EvaluationPlan, Task, plan_evaluation
from robust_zoo.evaluation.robustness_curve import RobustnessCurve, robustness_curve
from robust_zoo.evaluation.roll_off import RollOff, roll_off
from robust_zoo.evaluation.tasks import measure
from robust_zoo.evaluation.top_k import LabelLeaking, TopK, label_leaking, top_k
from robust_zoo.evaluation.transfer import (
    TransferMatrices,
    clean_accuracy,
    transfer_accuracy,
    transfer_matrices,
)
from robust_zoo.evaluation.verification import Agreement, verify

__all__ = [
    "ALEXNET",
    "CORRUPTIONS",
    "Agreement",
    "DeepDefenseMetrics",
    "EvaluationPlan",
    "FoolingImages",
    "JSMARow",
    "LabelLeaking",
    "Landscape",
    "Part",
    "RobustnessCurve",
    "RollOff",
    "RubbishTest",
    "SignSteps",
    "Task",
    "TopK",
    "TransferMatrices",
    "accuracy_columns",
    "adversarial_loss",
    "challenge",
    "clean_accuracy",
    "craft",
    "deepdefense_metrics",
    "evaluate",
    "evaluate_at",
    "evaluate_corruptions",
    "fooling_images",
    "gradient_correlation",
    "jsma_table",
    "label_leaking",
    "loss_landscape",
    "measure",
    "merge",
    "plan_evaluation",
    "robustness_curve",
    "roll_off",
    "rubbish_test",
    "top_k",
    "transfer_accuracy",
    "transfer_matrices",
    "verify",
]
