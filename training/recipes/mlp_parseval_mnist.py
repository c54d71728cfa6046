"""MLP on MNIST, Parseval training (arXiv:1704.08847), a baseline of arXiv:1803.00404.

    robust-zoo train mlp.parseval_mnist --output checkpoints/mlp.parseval_mnist

As mlp.deepdefense_mnist, but for the defense.
"""

from robust_zoo.defenses import ParsevalTraining
from robust_zoo.recipe import load_recipe
from robust_zoo.record import Reported

base, _ = load_recipe("mlp.deepdefense_mnist")
recipe = base.changed(
    name="mlp.parseval_mnist",
    defense=lambda classifier, total_steps: ParsevalTraining(classifier, beta=1e-4),
    paper="arXiv:1704.08847",
    reported=(Reported(source="Yan et al. 2018, Table 1", setting="clean", accuracy=0.9832),),
)
