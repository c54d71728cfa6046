"""Classifiers of the papers: one file a network family.

Every public function returns an uncompiled functional `keras.Model`: float32 images in [0, 1], NHWC,
in; float32 logits out; preprocessing inside; built-in layers only (`BinaryDense`, `ReluDecay` and `ZCAWhitening`
are the registered exceptions). The layer that makes the logits is named "logits". `perturbation_generator`, the other network
of PGN, is no classifier.
"""

from robust_zoo.architectures.activations import ReluDecay
from robust_zoo.architectures.alexnet import alexnet
from robust_zoo.architectures.allconv import allconv
from robust_zoo.architectures.binary import BinaryDense
from robust_zoo.architectures.cnn7 import cnn7
from robust_zoo.architectures.convnet import convnet
from robust_zoo.architectures.digits_cnn import digits_cnn
from robust_zoo.architectures.efficientnet_lite0 import efficientnet_lite0
from robust_zoo.architectures.galloway_cnn import galloway_cnn
from robust_zoo.architectures.inception_v3 import inception_v3
from robust_zoo.architectures.lenet import lenet
from robust_zoo.architectures.logistic import logistic
from robust_zoo.architectures.madry_cnn import madry_cnn
from robust_zoo.architectures.madry_resnet import madry_resnet
from robust_zoo.architectures.mlp import mlp
from robust_zoo.architectures.nin import nin
from robust_zoo.architectures.perturbation_generator import perturbation_generator
from robust_zoo.architectures.preact_resnet import preact_resnet
from robust_zoo.architectures.resnet import resnet
from robust_zoo.architectures.small_cnn import small_cnn
from robust_zoo.architectures.strided_cnn import strided_cnn
from robust_zoo.architectures.tramer_b import tramer_b
from robust_zoo.architectures.vnn_resnet import vnn_resnet
from robust_zoo.architectures.whitening import ZCAWhitening
from robust_zoo.architectures.wide_resnet import wide_resnet

__all__ = [
    "BinaryDense",
    "ReluDecay",
    "ZCAWhitening",
    "alexnet",
    "allconv",
    "cnn7",
    "convnet",
    "digits_cnn",
    "efficientnet_lite0",
    "galloway_cnn",
    "inception_v3",
    "lenet",
    "logistic",
    "madry_cnn",
    "madry_resnet",
    "mlp",
    "nin",
    "perturbation_generator",
    "preact_resnet",
    "resnet",
    "small_cnn",
    "strided_cnn",
    "tramer_b",
    "vnn_resnet",
    "wide_resnet",
]
