"""The residual and the ImageNet networks train alike on one device and on two replicas."""

import keras
import numpy as np
import pytest

from robust_zoo import architectures, backend
from robust_zoo.attacks import SignNoise
from robust_zoo.defenses import AdversarialTraining

NETWORKS = {
    "wide_resnet": {"depth": 10, "width": 1, "input_shape": (8, 8, 3)},
    "preact_resnet": {"width": 4, "input_shape": (8, 8, 3)},
    "resnet": {"depth": 20, "width": 4, "input_shape": (8, 8, 3)},
    "vnn_resnet": {"input_shape": (8, 8, 3)},
    "strided_cnn": {"input_shape": (8, 8, 3)},
    "small_cnn": {"input_shape": (16, 16, 3), "dropout": 0.0},
    "alexnet": {"input_shape": (63, 63, 3), "num_classes": 10, "dropout": 0.0},
    "inception_v3": {"input_shape": (75, 75, 3), "num_classes": 10, "width": 0.05},
    "efficientnet_lite0": {
        **{"input_shape": (32, 32, 3), "num_classes": 10, "width": 0.25, "depth": 0.1},
        **{"dropout": 0.0, "drop_connect": 0.0},
    },
}


@pytest.mark.long
@pytest.mark.skipif(backend.name != "tensorflow", reason="strategies are TensorFlow's")
@pytest.mark.parametrize("name", NETWORKS)
def test_two_replicas_equal_one_device(name, strategy, images):
    def build():
        keras.utils.set_random_seed(0)
        model = getattr(architectures, name)(**NETWORKS[name])
        if name == "inception_v3":
            # TensorFlow traces synchronized batch normalisation in a time that is quadratic in its layers: 6 minutes.
            for layer in model.layers:
                layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
        defense = AdversarialTraining(model, attack=SignNoise(epsilon=8 / 255))
        defense.compile(
            keras.optimizers.SGD(0.01),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        return defense

    x, y = images(8, NETWORKS[name]["input_shape"]), np.arange(8) % 10
    options = {"batch_size": 8, "shuffle": False, "verbose": 0}
    one = build()
    before = one.classifier.get_weights()
    one.fit(x, y, **options)
    with strategy.scope():
        two = build()
    two.fit(x, y, **options)
    after = one.classifier.get_weights()
    assert max(np.abs(a - b).max() for a, b in zip(before, after, strict=True)) > 1e-4
    for a, b in zip(after, two.classifier.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
