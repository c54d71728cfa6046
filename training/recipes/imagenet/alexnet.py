"""AlexNet on ImageNet, fine-tuned with DeepDefense (Yan et al., arXiv:1803.00404).

    robust-zoo train alexnet.deepdefense_imagenet --output checkpoints/alexnet.deepdefense_imagenet --set start=DIR

Needs the TFDS dataset imagenet2012, and as `start` a checkpoint of the network that was trained naturally, such as
`robust-zoo port` makes of torchvision's. An image takes some 50 backward passes of 1.4e9 floating-point operations to find
its path, and six more along it: 1e18 for the ten epochs, a day or two of one modern GPU.
"""

import functools

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.datasets import flip_and_crop
from robust_zoo.defenses import DeepDefense, with_weight_decay
from robust_zoo.recipe import Recipe
from robust_zoo.record import Reported

NORMALISATION = {"mean": (0.485, 0.456, 0.406), "deviation": (0.229, 0.224, 0.225)}

MODELS = [{}]


def get_recipe() -> Recipe:
    return Recipe(
        name="alexnet.deepdefense_imagenet",
        dataset="imagenet2012",
        classifier=lambda: with_weight_decay(
            architectures.alexnet(num_classes=1000, **NORMALISATION), l2=5e-4
        ),
        start="alexnet.natural_imagenet",
        defense=lambda classifier, total_steps: DeepDefense(
            classifier, strength=5, c=500, d=5, candidates=10
        ),
        paper="arXiv:1803.00404",
        optimizer=lambda total_steps: keras.optimizers.SGD(1e-4, momentum=0.9),
        augment=functools.partial(flip_and_crop, pad=0),
        epochs=10,
        central_crop=227 / 256,
        batch_size=256,
        attacks=(
            FGSM(epsilon=1 / 255),
            PGD(epsilon=1 / 255, steps=20, step_size=0.25 / 255),
            AutoAttack(epsilon=1 / 255),
            DeepFool(),
        ),
        n=(50_000, 1_000, 1_000, 1_000),
        reported=(Reported(source="Yan et al. 2018, Table 1", setting="clean", accuracy=0.5711),),
        deviations=(
            "AlexNet of torchvision, in one column and without response normalisation, not Caffe's",
            "the middle of each photograph is trained on, mirrored at random, not a random part of it",
            "DeepFool looks at 10 classes; biases do not decay",
        ),
    )
