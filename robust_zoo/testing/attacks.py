"""What every attack has to do."""

import json
from collections.abc import Callable
from functools import partial

import keras
import numpy as np
from keras import ops

from robust_zoo.attacks import Attack, FixedBudgetAttack, MinimumNormAttack
from robust_zoo.backend import random
from robust_zoo.testing.running import run_all

_CLASSES = 4


def check_attack(attack: Attack, *, model: keras.Model | None = None) -> None:
    """Runs all of `attack_checks`.

    Args:
        attack: an `Attack`; few steps keep the checks fast.
        model: see `attack_checks`.

    Raises:
        AssertionError: a check that does not hold; its notes name it.
    """
    run_all(attack_checks(attack, model=model), attack)


def attack_checks(
    attack: Attack, *, model: keras.Model | None = None
) -> dict[str, Callable[[], None]]:
    """The checks of an attack by name.

    Args:
        attack: the `Attack` to check.
        model: a classifier of images of any fixed shape (height, width, channels). Default: an untrained convolutional
            network for 5 x 5 x 3 images and four classes, or a linear one of two classes if the attack refuses that.

    Returns:
        The checks by name; each takes no arguments and raises AssertionError if it fails.

    Raises:
        ValueError: no `model` was given, and the attack refuses both default models.
    """
    model = model_for(attack) if model is None else model
    checks: list[Callable[..., None]] = [
        configuration_round_trips,
        pure_call_and_run_agree,
        constant_images_are_no_trouble,
        empty_batches_are_refused,
        wrong_images_stay,
        batch_size_does_not_matter,
    ]
    if isinstance(attack, FixedBudgetAttack):
        checks.append(stays_in_its_ball)
    if isinstance(attack, MinimumNormAttack):
        checks.append(success_is_what_a_forward_pass_confirms)
    return {check.__name__: partial(check, attack, model) for check in checks}


def network(shape: tuple[int, int, int] = (5, 5, 3), seed: int = 0) -> keras.Model:
    """A small convolutional network of four classes, whose weights do not depend on the backend."""
    inputs = keras.Input(shape)
    x = keras.layers.Conv2D(3, 2, padding="same", activation="tanh")(inputs)
    x = keras.layers.Flatten()(x)
    return _with_random_weights(
        keras.Model(inputs, keras.layers.Dense(_CLASSES, name="logits")(x)), seed
    )


def linear_network(shape: tuple[int, int, int] = (5, 5, 3), seed: int = 0) -> keras.Model:
    """A linear classifier of two classes, whose weights do not depend on the backend."""
    inputs = keras.Input(shape)
    logits = keras.layers.Dense(2, name="logits")(keras.layers.Flatten()(inputs))
    return _with_random_weights(keras.Model(inputs, logits), seed)


def model_for(
    attack: Attack, shape: tuple[int, int, int] = (5, 5, 3), seed: int = 0
) -> keras.Model:
    """`network`, or `linear_network` for an attack that refuses it."""
    for make in (network, linear_network):
        model = make(shape, seed)
        try:
            attack.check_model(model)
        except ValueError as error:
            refusal = error
        else:
            return model
    raise ValueError(f"model is needed: {attack!r} refuses a network and a linear one: {refusal}")


def _with_random_weights(model: keras.Model, seed: int) -> keras.Model:
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=value.shape) for value in model.get_weights()])
    return model


def _images(model: keras.Model, n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((n, *model.input_shape[1:])).astype("float32")


def _predicted(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return ops.convert_to_numpy(model(x)).argmax(1)


def configuration_round_trips(attack: Attack, model: keras.Model) -> None:
    """It is immutable, and its configuration, plain JSON, makes an equal one, by Keras's saving, too."""
    config = attack.get_config()
    assert type(attack).from_config(json.loads(json.dumps(config))) == attack
    revived = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(attack))
    assert revived == attack
    for key in config:
        assert f"{key}=" in repr(attack), f"{key} is not shown"
        with np.testing.assert_raises(AttributeError):
            setattr(attack, key, config[key])


def stays_in_its_ball(
    attack: FixedBudgetAttack,
    model: keras.Model,
    x: np.ndarray | None = None,
    y: np.ndarray | None = None,
    seed: int = 0,
) -> None:
    """Images stay within epsilon and [0, 1], and success is what a forward pass confirms."""
    x = _images(model, 7, seed) if x is None else x
    y = np.arange(len(x)) % model.output_shape[1] if y is None else y
    result = attack.run(model, x, y, seed=seed, batch_size=4, progress=False)
    assert result.x_adv.dtype == np.float32
    assert result.x_adv.min() >= 0
    assert result.x_adv.max() <= 1
    difference = result.x_adv.astype("float64") - x.astype("float32")
    order = {"linf": np.inf, "l2": 2, "l1": 1, "l0": 0}[attack.norm]
    length = np.linalg.norm(difference.reshape(len(x), -1), ord=order, axis=1)
    assert length.max() <= attack.allowed_distance
    np.testing.assert_allclose(length, result.distance, atol=1e-12)
    if not attack.reaches_given_labels:
        np.testing.assert_array_equal(result.success, _predicted(model, result.x_adv) != y)


def success_is_what_a_forward_pass_confirms(attack: MinimumNormAttack, model: keras.Model) -> None:
    """It finds some, others are the clean images, and distances are those of the images."""
    x = _images(model, 12, 1)
    clean = _predicted(model, x)
    result = attack.run(model, x, clean, batch_size=4, progress=False)
    np.testing.assert_array_equal(result.success, _predicted(model, result.x_adv) != clean)
    assert result.success.any()
    assert result.x_adv.min() >= 0
    assert result.x_adv.max() <= 1
    np.testing.assert_array_equal(result.x_adv[~result.success], x[~result.success])
    distance = attack.geometry.distance(result.x_adv, x)
    np.testing.assert_allclose(result.distance, distance)
    assert (distance[result.success] > 0).all()


def batch_size_does_not_matter(attack: Attack, model: keras.Model) -> None:
    """The same verdicts and images in batches of 2 and of 64."""
    x = _images(model, 9, 2)
    y = _predicted(model, x)
    one, many = (
        attack.run(model, x, y, batch_size=size, seed=5, progress=False) for size in (2, 64)
    )
    np.testing.assert_array_equal(one.success, many.success)
    np.testing.assert_allclose(one.x_adv, many.x_adv, atol=1e-4)


def pure_call_and_run_agree(
    attack: FixedBudgetAttack | MinimumNormAttack, model: keras.Model
) -> None:
    """Called as in training it gives images in range, in the ball, and (minimum norm) those that `run` finds."""
    images = _images(model, 5, 3)
    x = ops.convert_to_tensor(images)
    y = ops.argmax(model(x), axis=1)
    found = ops.convert_to_numpy(attack(model, x, y, key=random.key(0)))
    assert found.shape == images.shape
    assert found.min() >= 0
    assert found.max() <= 1
    run = attack.run(model, images, ops.convert_to_numpy(y), progress=False)
    if isinstance(attack, MinimumNormAttack):
        np.testing.assert_allclose(found, run.x_adv, atol=1e-4)
    else:
        assert attack.geometry.distance(found, images).max() <= attack.allowed_distance


def wrong_images_stay(attack: Attack, model: keras.Model) -> None:
    """An image that is misclassified to begin with is a success as it is."""
    x = _images(model, 5, 4)
    wrong = (_predicted(model, x) + 1) % model.output_shape[1]
    if getattr(attack, "labels", "true") == "predicted" and isinstance(attack, MinimumNormAttack):
        attack = attack.replace(labels="true")  # else it only leaves the prediction
    result = attack.run(model, x, wrong, progress=False)
    assert result.success.all()
    np.testing.assert_array_equal(result.x_adv, x)


def constant_images_are_no_trouble(attack: Attack, model: keras.Model) -> None:
    """Black, grey and white images give finite ones."""
    x = np.ones((3, *model.input_shape[1:]), "float32")
    x *= np.asarray([0, 0.5, 1], "float32")[:, None, None, None]
    result = attack.run(model, x, progress=False)
    assert np.isfinite(result.x_adv).all()
    assert np.isfinite(result.distance).all()


def empty_batches_are_refused(attack: Attack, model: keras.Model) -> None:
    """No images are a ValueError."""
    with np.testing.assert_raises_regex(ValueError, "images must not be empty"):
        attack.run(model, np.zeros((0, *model.input_shape[1:]), "float32"), progress=False)
