"""Madry's MNIST network at scale 1 of 16, FGSM training: capacity study (arXiv:1706.06083, section 4).

    robust-zoo train madry_cnn_scale1.fgsm_mnist --output checkpoints/madry_cnn_scale1.fgsm_mnist

As madry_cnn.fgsm_mnist, but for the width.
"""

from robust_zoo import architectures
from robust_zoo.recipe import load_recipe

whole, _ = load_recipe("madry_cnn.fgsm_mnist")
recipe = whole.changed(
    name="madry_cnn_scale1.fgsm_mnist",
    classifier=lambda: architectures.madry_cnn(scale=1, initial="glorot"),
    deviations=(
        "64 dense units and epsilon 0.3, as in later versions of the paper, not 8 and 0.1",
        *whole.deviations,
    ),
)
