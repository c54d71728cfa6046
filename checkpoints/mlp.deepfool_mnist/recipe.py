"""MLP on MNIST, fine-tuned on a fixed DeepFool set, a baseline of arXiv:1803.00404.

    robust-zoo train mlp.deepfool_mnist --output checkpoints/mlp.deepfool_mnist

As mlp.deepdefense_mnist, but for the defense.
"""

from robust_zoo.attacks import DeepFool
from robust_zoo.defenses import FixedSetTraining
from robust_zoo.recipe import load_recipe
from robust_zoo.record import Reported

base, _ = load_recipe("mlp.deepdefense_mnist")
recipe = base.changed(
    name="mlp.deepfool_mnist",
    defense=lambda classifier, total_steps: FixedSetTraining(classifier, made_by=DeepFool()),
    paper="arXiv:1511.04599",
    reported=(Reported(source="Yan et al. 2018, Table 1", setting="clean", accuracy=0.9849),),
    deviations=(
        *base.deviations,
        "the set is made by DeepFool with 50 steps that stay in [0, 1], not 5 that may leave it",
    ),
)
