"""Madry's MNIST network at scale 8 of 16, PGD training: capacity study (arXiv:1706.06083, section 4).

    robust-zoo train madry_cnn_scale8.pgd_mnist --output checkpoints/madry_cnn_scale8.pgd_mnist

As madry_cnn_scale1.pgd_mnist, but for the width.
"""

from robust_zoo import architectures
from robust_zoo.recipe import load_recipe

smallest, _ = load_recipe("madry_cnn_scale1.pgd_mnist")
recipe = smallest.changed(
    name="madry_cnn_scale8.pgd_mnist",
    classifier=lambda: architectures.madry_cnn(scale=8, initial="glorot"),
)
