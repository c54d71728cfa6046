"""Trains several defenses on one of several hosts; run by test_hosts.py."""

import pathlib
import runpy
import sys

import keras
import numpy as np

from robust_zoo import backend

DEFENSES = runpy.run_path(str(pathlib.Path(__file__).with_name("conftest.py")))["DEFENSES"]
NAMES = ("madry", "trades", "free", "deepdefense", "pgn", "fixed_set")
BATCH = 8


class Batches(keras.utils.PyDataset):
    """What this host is given of batches of 8, the last one of 4."""

    def __init__(self, images, labels):
        super().__init__()
        self.images, self.labels = images, labels

    def __len__(self):
        return -(-len(self.images) // BATCH)

    def __getitem__(self, index):
        parts = [part[index * BATCH : (index + 1) * BATCH] for part in (self.images, self.labels)]
        rows = backend.local_rows(len(parts[0]))
        return parts[0][rows], parts[1][rows]


def network():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(10, name="logits"),
        ]
    )


def train(name, dtype="float32"):
    """The weights of a classifier after two epochs, and the logs, last."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(dtype)
    try:
        defense = DEFENSES[name](network())
    finally:
        keras.config.set_dtype_policy("float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Without momentum and with small steps: rounding is not blown up.
    defense.compile(keras.optimizers.SGD(0.002), loss, metrics=["accuracy"])
    rng = np.random.default_rng(0)
    images, labels = rng.random((20, 8, 8, 1), dtype="float32"), np.arange(20) % 10
    images = defense.training_images(images, labels)
    batches = Batches(images, labels)
    history = defense.fit(
        batches, validation_data=Batches(images[:8], labels[:8]), epochs=2, shuffle=False, verbose=0
    )
    logs = np.array([history.history[key] for key in sorted(history.history)])
    return [*defense.classifier.get_weights(), logs]


def results():
    trained = {name: train(name) for name in NAMES}
    trained["madry in bfloat16"] = train("madry", "mixed_bfloat16")
    found = {}
    for name, (*weights, logs) in trained.items():
        found |= {f"{name}: weight {index}": value for index, value in enumerate(weights)}
        found[f"{name}: logs"] = logs
    return found


if __name__ == "__main__":
    # On two hosts with a device each, or on two devices of one.
    path, devices = sys.argv[1], int(sys.argv[2])
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        # As in tests/conftest.py: optimising these graphs takes longer than they do.
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    with backend.devices(devices, hosts=devices == 1):
        number, hosts = backend.host()
        assert hosts * devices == 2
        found = results()
    np.savez(f"{path}.{number}.npz", **found)
