"""What every defense has to do."""

import json
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np

from robust_zoo.defenses import Defense
from robust_zoo.testing.running import run_all

_OPTIONS: dict[str, Any] = {"batch_size": 8, "shuffle": False, "verbose": 0}


def check_defense(make: Callable[[keras.Model], Defense], *, strategy: Any = None) -> None:
    """Runs all of `defense_checks`.

    Args:
        make: see `defense_checks`.
        strategy: see `defense_checks`.

    Raises:
        AssertionError: a check that does not hold; its notes name it.
    """
    run_all(defense_checks(make, strategy=strategy), make)


def defense_checks(
    make: Callable[[keras.Model], Defense],
    *,
    strategy: Any = None,
    fresh: Callable[[str], Defense] | None = None,
) -> dict[str, Callable[[], None]]:
    """The checks of a defense by name.

    Args:
        make: makes the defense around a classifier of 8 x 8 images with one channel into ten classes.
        strategy: a `tf.distribute.MirroredStrategy` of two devices, to check that two replicas give the same result as
            one device; None (default) leaves that check out.
        fresh: function of "sgd" or "adam" that returns the untrained defense, compiled with that optimizer; pass one to
            reuse a defense that is slow to build. Default: builds a new one with `make` for each check.

    Returns:
        The checks by name; each takes no arguments and raises AssertionError if it fails.
    """
    fresh = (lambda optimizer: compiled(make(network()), optimizer)) if fresh is None else fresh
    checks = [
        partial(hyperparameters_are_json, fresh),
        partial(training_moves_the_weights, fresh),
        partial(examples_of_weight_zero_do_not_count, fresh),
        partial(saved_and_loaded_it_goes_on, fresh),
    ]
    if strategy is not None:
        checks.append(partial(two_replicas_equal_one_device, fresh, make, strategy))
    return {check.func.__name__: check for check in checks}


def network(seed: int = 0) -> keras.Model:
    """A perceptron of 8 x 8 images into ten classes, whose weights do not depend on the backend."""
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Dense(48, activation="relu")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(10, name="logits", dtype="float32")(x))
    rng = np.random.default_rng(seed)
    weights = model.get_weights()
    model.set_weights(
        [rng.normal(size=w.shape) * np.sqrt(2 / len(w)) if w.ndim > 1 else 0 * w for w in weights]
    )
    return model


def compiled(defense: Defense, optimizer: str = "sgd") -> Defense:
    """The defense compiled with cross-entropy of logits, and "sgd" or "adam"."""
    made = {"sgd": keras.optimizers.SGD, "adam": partial(keras.optimizers.Adam, 3e-3)}[optimizer]()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    defense.compile(optimizer=made, loss=loss, metrics=["accuracy"])
    return defense


def examples(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random images (n, 8, 8, 1) and labels."""
    rng = np.random.default_rng(seed)
    return rng.random((n, 8, 8, 1)).astype("float32"), rng.integers(0, 10, n).astype("int32")


class Batches(keras.utils.PyDataset):
    """Arrays as batches of eight, what is left over left out."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        super().__init__()
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x) // 8

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.x[8 * index : 8 * index + 8], self.y[8 * index : 8 * index + 8]


def _weights(defense: Defense) -> list[np.ndarray]:
    return defense.classifier.get_weights()


def _assert_same(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> None:
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def _moved(before: Sequence[np.ndarray], after: Sequence[np.ndarray]) -> float:
    return max(np.abs(a - b).max() for a, b in zip(before, after, strict=True))


def hyperparameters_are_json(fresh: Callable[[str], Defense]) -> None:
    """What a record says of the defense is plain JSON."""
    found = fresh("sgd").hyperparameters()
    assert json.loads(json.dumps(found)) == found


def training_moves_the_weights(fresh: Callable[[str], Defense]) -> None:
    """The logs are finite and have robust accuracy, if it has an attack, and the classifier changes."""
    x, y = examples(16)
    defense = fresh("sgd")
    before = _weights(defense)
    logs = defense.fit(x, y, validation_data=(x, y), **_OPTIONS).history
    names = {"loss", "accuracy"} | ({"robust_accuracy"} if defense.robust_accuracy else set())
    assert logs.keys() >= names | {f"val_{name}" for name in names}
    assert all(np.isfinite(values).all() for values in logs.values())
    assert _moved(before, _weights(defense)) > 1e-4


def examples_of_weight_zero_do_not_count(fresh: Callable[[str], Defense]) -> None:
    """Whatever their images are, the weights are the same; with a weight, they are not."""
    x, y = examples(8)
    weights = np.where(np.arange(8) % 4 < 2, 1.0, 0.0).astype("float32")

    def trained(images: np.ndarray, weights: np.ndarray) -> list[np.ndarray]:
        defense = fresh("sgd")
        defense.fit(images, y, sample_weight=weights, epochs=2, **_OPTIONS)
        return _weights(defense)

    counts = weights[:, None, None, None] > 0
    one, other = (np.where(counts, x, examples(8, seed)[0]) for seed in (1, 2))
    _assert_same(trained(one, weights), trained(other, weights))
    everything = np.ones_like(weights)
    assert _moved(trained(one, everything), trained(other, everything)) > 1e-6


def saved_and_loaded_it_goes_on(fresh: Callable[[str], Defense]) -> None:
    """Saved as .keras and loaded, it has the same hyperparameters, and further training gives the same."""
    data = Batches(*examples(16))
    defense = fresh("adam")
    defense.fit(data, shuffle=False, verbose=0)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        path = pathlib.Path(scratch) / "defense.keras"
        defense.save(path)
        defense.fit(data, shuffle=False, verbose=0)
        revived = keras.saving.load_model(path)
    assert type(revived) is type(defense)
    assert revived.hyperparameters() == defense.hyperparameters()
    revived.fit(data, shuffle=False, verbose=0)
    _assert_same(revived.get_weights(), defense.get_weights())


def two_replicas_equal_one_device(
    fresh: Callable[[str], Defense], make: Callable[[keras.Model], Defense], strategy: Any
) -> None:
    """Same seed and data, random starts included: weights within 1e-6 after 3 steps, logs within 1e-5."""
    x, y = examples(24)
    weights = np.linspace(0.5, 1.5, 24, dtype="float32")
    options: dict[str, Any] = {
        "sample_weight": weights,
        "validation_data": (x[:16], y[:16]),
        **_OPTIONS,
    }
    one = fresh("sgd")
    before = _weights(one)
    alone = one.fit(x, y, **options).history
    with strategy.scope():
        two = compiled(make(network()))
    shared = two.fit(x, y, **options).history
    _assert_same(_weights(one), _weights(two))
    assert _moved(before, _weights(one)) > 1e-3
    assert alone.keys() == shared.keys()
    for metric, values in alone.items():
        np.testing.assert_allclose(shared[metric], values, atol=1e-5, err_msg=metric)
