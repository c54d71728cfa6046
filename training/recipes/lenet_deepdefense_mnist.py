"""LeNet on MNIST, fine-tuned with DeepDefense (Yan et al., arXiv:1803.00404).

    robust-zoo train lenet.deepdefense_mnist --output checkpoints/lenet.deepdefense_mnist

As mlp.deepdefense_mnist, but for the architecture and the number of epochs.
"""

from robust_zoo import architectures
from robust_zoo.defenses import with_weight_decay
from robust_zoo.recipe import load_recipe
from robust_zoo.record import Reported

base, _ = load_recipe("mlp.deepdefense_mnist")
recipe = base.changed(
    name="lenet.deepdefense_mnist",
    classifier=lambda: with_weight_decay(architectures.lenet(), l2=5e-4),
    start="lenet.natural_mnist",
    epochs=3,
    reported=(Reported(source="Yan et al. 2018, Table 1", setting="clean", accuracy=0.9934),),
    deviations=(
        *base.deviations[:-1],
        "3 epochs with cosine decay from a learning rate of 5e-3, not 5 at 5e-4 and 2.5e-4",
    ),
)
