"""Random models: expectation over draws of their randomness, and AutoAttack's version for them."""

import keras
import numpy as np
import pytest
from keras import ops

from robust_zoo import backend
from robust_zoo.attacks import APGD, DDN, EOT, FAB, FGSM, PGD, AutoAttack, Square
from robust_zoo.attacks.expectation import (
    Expectation,
    expected_logits,
    predictions,
    value_and_input_gradient,
)
from robust_zoo.backend import random
from robust_zoo.inference import logits_of

N, SIDE = 40, 4


@keras.saving.register_keras_serializable("tests")
class NoisyDense(keras.layers.Layer):
    """Two classes, -(w x + noise) / 2 and half of that, with a normal draw of w around its mean for the whole batch."""

    def __init__(self, deviation, **kwargs):
        super().__init__(**kwargs)
        self.deviation = deviation
        self.seed_generator = keras.random.SeedGenerator(3)

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 1), name="kernel")

    def call(self, x):
        noise = keras.random.normal(self.kernel.shape, seed=self.seed_generator)
        value = (x - 0.5) @ (self.kernel + self.deviation * noise)
        return ops.concatenate([-value / 2, value / 2], axis=1)


@keras.saving.register_keras_serializable("tests")
class Flip(keras.layers.Layer):
    """Negates the logits of an example with some probability."""

    def __init__(self, probability, **kwargs):
        super().__init__(**kwargs)
        self.probability = probability
        self.seed_generator = keras.random.SeedGenerator(4)

    def call(self, x):
        drawn = keras.random.uniform((ops.shape(x)[0], 1), seed=self.seed_generator)
        return ops.where(drawn < self.probability, -x, x)


KERNEL = np.random.default_rng(0).normal(size=(SIDE * SIDE, 1)).astype("float32")


def noisy(deviation):
    inputs = keras.Input((SIDE, SIDE, 1))
    layer = NoisyDense(deviation)
    model = keras.Model(inputs, layer(keras.layers.Flatten()(inputs)), name="noisy")
    layer.kernel.assign(KERNEL)
    return model


def flipping(probability):
    model = noisy(0.0)
    return keras.Model(model.inputs[0], Flip(probability)(model.outputs[0]), name="flipping")


@pytest.fixture
def x():
    return np.random.default_rng(1).uniform(0.2, 0.8, (N, SIDE, SIDE, 1)).astype("float32")


def value(x):
    """What the classes are told apart by, without noise."""
    return ((x.reshape(len(x), -1) - 0.5) @ KERNEL)[:, 0]


def test_gradients_are_means_over_draws(x):
    model = noisy(2.0)
    errors = []
    for samples in (4, 64):
        seen = Expectation(model, samples)

        def gradient(x, seen=seen):
            def gap(x):
                logits = logits_of(seen, x)
                return logits[:, 1] - logits[:, 0], logits

            (gaps, logits), found = value_and_input_gradient(seen, gap, x, has_aux=True)
            return gaps, logits, found

        compiled = backend.function(gradient, model)
        found = []
        for row in x:  # one image a batch: each has draws of its own
            gaps, logits, slope = map(
                ops.convert_to_numpy, compiled(ops.convert_to_tensor(row[None]))
            )
            np.testing.assert_allclose(gaps, logits[:, 1] - logits[:, 0], rtol=1e-4, atol=1e-5)
            found.append(slope.ravel() - KERNEL.ravel())
        errors.append(np.sqrt(np.mean(np.square(found))))
        assert errors[-1] == pytest.approx(2.0 / np.sqrt(samples), rel=0.2)
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.2)


def test_draws_follow_from_the_images_and_the_seed_alone(x):
    model = noisy(2.0)
    before = [ops.convert_to_numpy(variable) for variable in model.variables]
    options = {"samples": 8, "batch_size": 64}
    first = predictions(model, x, seed=0, **options)
    again = predictions(model, x, seed=0, **options)
    other = predictions(model, x, seed=1, **options)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first != first[:, :1]).any()  # draws differ
    moved = predictions(model, np.roll(x, 1, axis=0), seed=0, **options)
    assert (moved != np.roll(first, 1, axis=0)).any()
    after = [ops.convert_to_numpy(variable) for variable in model.variables]
    for one, two in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, two)


def test_without_randomness_the_expectation_is_the_model(x):
    model = noisy(0.0)
    one, many = (expected_logits(model, x, samples=count, batch_size=64) for count in (1, 5))
    np.testing.assert_allclose(one, many, rtol=1e-5, atol=1e-6)
    y = (value(x) > 0).astype("int32")
    attack = PGD(epsilon=0.1, steps=10)
    np.testing.assert_array_equal(
        attack.run(model, x, y).success, EOT(attack, 3).run(model, x, y).success
    )


@pytest.mark.home
def test_a_flipped_sign_is_seen_through(x):
    """Of a model that says the opposite with probability 0.3, what is within reach is right in 0.3 of the draws."""
    model, epsilon = flipping(0.3), 0.05
    y = (value(x) > 0).astype("int32")
    reach = epsilon * np.abs(KERNEL).sum()
    broken = np.abs(value(x)) < 0.98 * reach
    safe = np.abs(value(x)) > 1.02 * reach
    assert min(broken.sum(), safe.sum()) >= 8
    for attack in (
        PGD(epsilon=epsilon, steps=10),
        APGD(epsilon=epsilon, steps=20),
        FGSM(epsilon=epsilon),
        Square(epsilon=epsilon, steps=300),
    ):
        found = EOT(attack, 51).run(model, x, y)
        drawn = predictions(model, found.x_adv, samples=501, seed=9, batch_size=64)
        right = (drawn == y[:, None]).mean(axis=1)
        np.testing.assert_allclose(right[safe], 0.7, atol=0.1)
        if not isinstance(attack, Square):  # which is not that thorough in 300 queries
            np.testing.assert_allclose(right[broken], 0.3, atol=0.1)
        assert found.success[safe].sum() <= 1
        np.testing.assert_array_equal(found.success, found.fooled > 0.5)
        np.testing.assert_allclose(found.fooled, 1 - right, atol=0.3)


def test_a_single_draw_misleads(x):
    """The same attack without averaging calls images broken that are right in most draws."""
    model = flipping(0.3)
    y = (value(x) > 0).astype("int32")
    found = PGD(epsilon=1e-3, steps=10).run(model, x, y)
    assert found.success.mean() > 0.5
    assert found.fooled is None
    assert EOT(PGD(epsilon=1e-3, steps=10), 51).run(model, x, y).success.mean() < 0.1


@pytest.mark.home
def test_minimum_norm_attacks_average_too(x):
    model = noisy(0.3)
    y = (value(x) > 0).astype("int32")
    exact = np.abs(value(x)) / np.linalg.norm(KERNEL)
    for attack in (DDN(), FAB(norm="l2", targets=1, steps=20)):
        found = EOT(attack, 30).run(model, x, y)
        # Points on the boundary, chosen for being fooled by some draws: fresh ones confirm a part of them.
        assert 0.1 < found.success.mean() < 0.9
        ratio = found.distance[found.success] / exact[found.success]
        assert np.median(ratio) == pytest.approx(1.0, abs=0.25)
        np.testing.assert_array_equal(found.x_adv[~found.success], x[~found.success])
        assert (found.queries > 30).all()


def test_inside_a_training_step(x):
    attack = EOT(PGD(epsilon=0.1, steps=3), 4)
    y = (value(x) > 0).astype("int32")
    model = noisy(0.5)
    made = backend.function(lambda x, y, key: attack(model, x, y, key=key), model)
    x_adv = ops.convert_to_numpy(made(x, y, random.fold_in(random.key(0), np.arange(N))))
    assert np.abs(x_adv - x).max() <= 0.1 + 1e-6
    assert (np.abs(value(x_adv) - value(x)) > 0.1).mean() > 0.9


@pytest.mark.home
def test_autoattack_for_random_models(x, tmp_path):
    model = noisy(1.0)
    y = (value(x) > 0).astype("int32")
    attack = AutoAttack(epsilon=0.05, version="rand")
    assert attack.samples == 20
    components, changes = attack.ensemble(10)
    assert {
        name: (part.samples, part.steps, part.restarts) for name, part in components.items()
    } == {
        "apgd-ce": (20, 100, 1),
        "apgd-dlr": (20, 100, 1),
    }
    assert not changes
    assert attack.ensemble(2)[1] == ["apgd-dlr ascends cw_margin, not dlr"]
    attack = AutoAttack(epsilon=0.05, version="rand", samples=5)
    state = tmp_path / "state.npz"
    found = attack.run(model, x, y, state_file=state)
    assert list(found.components) == ["apgd-ce", "apgd-dlr"]
    assert found.components["apgd-dlr"] == pytest.approx(1 - found.success.mean())
    np.testing.assert_array_equal(found.broken_by != "", found.success)
    (flag,) = [flag for flag in found.flags if flag.name == "randomness"]
    assert flag.passed
    assert flag.value > 0.1
    (flag,) = [
        flag
        for flag in AutoAttack(epsilon=0.05).find_flags(model, x, y, batch_size=64)
        if flag.name == "randomness"
    ]
    assert not flag.passed
    assert "EOT(attack)" in flag.explanation
    again = attack.run(model, x, y, state_file=state)
    np.testing.assert_array_equal(again.x_adv, found.x_adv)
    np.testing.assert_array_equal(again.fooled, found.fooled)


def test_what_is_refused():
    with pytest.raises(ValueError, match="samples must be an integer >= 1, got 0"):
        PGD(epsilon=0.1, samples=0)
    with pytest.raises(TypeError, match=r"samples must be an integer, got 2\.5"):
        EOT(PGD(epsilon=0.1), 2.5)
    with pytest.raises(ValueError, match=r"version must be one of .*, got 'plus'"):
        AutoAttack(epsilon=0.1, version="plus")
    # An average over one draw is none, and is not the version that is asked for.
    for attack in (
        lambda: AutoAttack(epsilon=0.1, version="rand", samples=1),
        lambda: AutoAttack(epsilon=0.1).replace(version="rand"),
    ):
        with pytest.raises(ValueError, match="samples must be at least 2 in the version 'rand'"):
            attack()


def test_the_configuration_tells_of_several_draws_alone():
    assert "samples" not in PGD(epsilon=0.1).get_config()
    attack = EOT(PGD(epsilon=0.1))
    assert attack.get_config()["samples"] == 20
    assert PGD.from_config(attack.get_config()) == attack
    for attack in (AutoAttack(epsilon=0.1, version="rand"), AutoAttack(epsilon=0.1, samples=3)):
        assert AutoAttack.from_config(attack.get_config()) == attack


@keras.saving.register_keras_serializable("tests")
class Unseeded(keras.layers.Layer):
    """Noise from the generator that Keras draws from where none is given."""

    def call(self, x):
        return x + keras.random.normal(ops.shape(x))


@pytest.mark.skipif(keras.config.backend() == "jax", reason="Keras refuses it in what JAX compiles")
def test_noise_of_nobodys_generator_is_drawn_each_time(x):
    """Beside a layer with a generator of its own, too, even one that is idle."""
    inputs = keras.Input((SIDE, SIDE, 1))
    hidden = keras.layers.Dropout(0.5)(Unseeded()(keras.layers.Flatten()(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
    drawn = predictions(model, x, samples=8, seed=0, batch_size=64)
    assert (drawn != drawn[:, :1]).any()
    np.testing.assert_array_equal(drawn, predictions(model, x, samples=8, seed=0, batch_size=64))
