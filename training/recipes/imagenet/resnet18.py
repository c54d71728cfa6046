"""ResNet-18 on ImageNet, fine-tuned with DeepDefense (Yan et al., arXiv:1803.00404).

    robust-zoo train resnet18.deepdefense_imagenet --output checkpoints/resnet18.deepdefense_imagenet --set start=DIR

Needs the TFDS dataset imagenet2012, and as `start` a checkpoint of the network that was trained naturally, such as
`robust-zoo port` makes of torchvision's. An image takes some 50 backward passes of 7e9 floating-point operations to find its
path, and six more along it: 3e17 for the half epoch, half a day of one modern GPU.
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.datasets import RandomResizedCrop
from robust_zoo.defenses import DeepDefense, with_weight_decay
from robust_zoo.recipe import Recipe

NORMALISATION = {"mean": (0.485, 0.456, 0.406), "deviation": (0.229, 0.224, 0.225)}
STEPS = (
    500  # between two looks at the validation split; five of them are half a pass in batches of 256
)

MODELS = [{}]


def get_recipe() -> Recipe:
    def classifier():
        made = architectures.resnet((224, 224, 3), 1000, stem="large", **NORMALISATION)
        named = keras.Model(made.inputs[0], made.outputs[0], name="resnet18")
        return with_weight_decay(named, l2=5e-4)

    def optimizer(total_steps):
        halved = keras.optimizers.schedules.PiecewiseConstantDecay(
            [round(0.6 * total_steps)], [1e-4, 5e-5]
        )
        return keras.optimizers.SGD(halved, momentum=0.9)

    return Recipe(
        name="resnet18.deepdefense_imagenet",
        dataset="imagenet2012",
        classifier=classifier,
        start="resnet18.natural_imagenet",
        defense=lambda classifier, total_steps: DeepDefense(
            classifier, strength=5, c=500, d=5, candidates=10
        ),
        paper="arXiv:1803.00404",
        optimizer=optimizer,
        augment=RandomResizedCrop(),
        epochs=5,
        steps_per_epoch=STEPS,
        central_crop=0.875,
        batch_size=256,
        attacks=(
            FGSM(epsilon=1 / 255),
            PGD(epsilon=1 / 255, steps=20, step_size=0.25 / 255),
            AutoAttack(epsilon=1 / 255),
            DeepFool(),
        ),
        n=(50_000, 1_000, 1_000, 1_000),
        deviations=(
            "DeepFool looks at 10 classes; biases do not decay; the learning rate, which the paper does not name, is AlexNet's",
        ),
    )
