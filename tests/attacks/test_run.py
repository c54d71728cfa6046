import keras
import numpy as np
import pytest
from keras import ops

from robust_zoo import backend
from robust_zoo.attacks import FGSM, PGD
from robust_zoo.backend import random


@pytest.fixture
def attack():
    return PGD(epsilon=0.08, steps=25, step_size=0.01, restarts=3)


def test_success_is_what_a_forward_pass_says(small_cnn, images, attack):
    x = images(70)
    y = np.random.default_rng(0).integers(0, 5, 70)
    result = attack.run(small_cnn, x, y, batch_size=16)
    predicted = ops.convert_to_numpy(small_cnn(result.x_adv)).argmax(1)
    np.testing.assert_array_equal(result.success, predicted != y)
    assert 0 < result.success.mean() < 1
    assert result.seconds > 0
    assert "n=70" in repr(result)


def test_an_image_that_is_wrong_already_is_returned_as_it_is(small_cnn, images, attack):
    x = images(30)
    wrong = (ops.convert_to_numpy(small_cnn(x)).argmax(1) + 1) % 5
    result = attack.run(small_cnn, x, wrong)
    assert result.success.all()
    np.testing.assert_array_equal(result.x_adv, x)
    np.testing.assert_array_equal(result.queries, 1)


@pytest.mark.slow
def test_nothing_depends_on_the_batch_size(small_cnn, images, attack):
    x = images(50)
    results = [attack.run(small_cnn, x, batch_size=size, seed=4) for size in (1, 7, 16, 64)]
    for result in results[1:]:
        np.testing.assert_array_equal(result.success, results[0].success)
        np.testing.assert_allclose(result.x_adv, results[0].x_adv, atol=1e-5)


@pytest.mark.slow
def test_windows_do_not_change_anything(small_cnn, images, attack, monkeypatch):
    x = images(50)
    together = attack.run(small_cnn, x, batch_size=4)
    monkeypatch.setattr("robust_zoo.attacks.working_set._WINDOW", 7)
    apart = attack.run(small_cnn, x, batch_size=4)
    np.testing.assert_array_equal(apart.success, together.success)
    np.testing.assert_allclose(apart.x_adv, together.x_adv, atol=1e-5)
    np.testing.assert_array_equal(apart.queries, together.queries)


@pytest.mark.slow
def test_looking_more_often_saves_queries_and_changes_no_verdict(
    small_cnn, images, attack, monkeypatch
):
    x = images(50)
    seldom = attack.run(small_cnn, x, batch_size=16)
    monkeypatch.setattr(PGD, "look_every", 1)
    often = attack.run(small_cnn, x, batch_size=16)
    np.testing.assert_array_equal(often.success, seldom.success)
    assert often.queries.sum() < seldom.queries.sum()


@pytest.mark.slow
def test_seeds_matter_and_repeat(small_cnn, images, attack):
    x = images(20)
    first, again, other = (attack.run(small_cnn, x, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.x_adv, again.x_adv)
    assert not np.array_equal(first.x_adv, other.x_adv)


@pytest.mark.slow
def test_run_agrees_with_the_pure_call_where_the_attack_fails(small_cnn, images):
    attack = PGD(epsilon=0.02, steps=12, step_size=0.005)
    x = images(40)
    result = attack.run(small_cnn, x, seed=9)
    y = ops.argmax(small_cnn(x), axis=1)
    pure = attack(small_cnn, ops.convert_to_tensor(x), y, key=random.key(9))
    held = ~result.success
    assert held.any()
    np.testing.assert_allclose(result.x_adv[held], ops.convert_to_numpy(pure)[held], atol=1e-5)


def test_restarts_only_help(small_cnn, images):
    x = images(60)
    one = PGD(epsilon=0.1, steps=3, step_size=0.01).run(small_cnn, x)
    many = PGD(epsilon=0.1, steps=3, step_size=0.01, restarts=8).run(small_cnn, x)
    assert (many.success >= one.success).all()
    assert many.success.sum() > one.success.sum()


def test_a_success_on_the_way_counts(images):
    """A model that only errs within a thin shell, which the last iterate has left again."""
    inputs = keras.Input((1, 1, 1))
    x = keras.layers.Flatten()(inputs)
    bumps = keras.layers.Dense(3, activation="relu")(x)  # slopes that make a tent at 0.55
    model = keras.Model(inputs, keras.layers.Dense(2)(bumps))
    first = [np.ones((1, 3)), np.array([-0.5, -0.55, -0.6])]
    # Class 1 minus class 0: rises from 0.5 to 0.55, falls after it, minus a threshold.
    tent = np.array([[0, 40.0], [0, -80.0], [0, 40.0]])
    model.set_weights([*first, tent, np.array([1.0, 0.0])])
    image = np.full((1, 1, 1, 1), 0.51, "float32")
    attack = PGD(epsilon=0.4, steps=2, step_size=0.04, random_start=False)
    result = attack.run(model, image, [0])
    last = attack(model, ops.convert_to_tensor(image), ops.zeros(1, "int32"), key=random.key(0))
    assert result.success.tolist() == [True]
    assert result.x_adv.item() == pytest.approx(0.55)
    assert ops.convert_to_numpy(last).item() == pytest.approx(0.59)
    assert ops.convert_to_numpy(model(last)).argmax() == 0


def test_fooled_images_leave_the_working_set(small_cnn, images):
    result = PGD(epsilon=0.3, steps=100, restarts=5).run(small_cnn, images(64), batch_size=16)
    assert result.success.mean() > 0.9
    # Without dropping every image would cost 5 * 100 passes.
    assert result.queries.mean() < 100


@pytest.mark.slow
def test_few_shapes_are_compiled(small_cnn, images, monkeypatch):
    shapes = set()
    original = backend.function

    def recording(function, model):
        compiled = original(function, model)

        def call(x, *rest):
            if hasattr(x, "shape"):
                shapes.add(tuple(x.shape))
            return compiled(x, *rest)

        return call

    monkeypatch.setattr(backend, "function", recording)
    PGD(epsilon=0.05, steps=40, restarts=4).run(small_cnn, images(83), batch_size=16)
    assert {shape[0] for shape in shapes} <= {1, 2, 4, 8, 16}
    assert len(shapes) > 1


@pytest.mark.slow
def test_images_of_several_sizes(images):
    inputs = keras.Input((None, None, 1))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    for side in (6, 9):
        result = FGSM(epsilon=0.1).run(model, images(5, (side, side, 1)))
        assert result.x_adv.shape == (5, side, side, 1)


@pytest.mark.slow
def test_float32_is_used_for_mixed_precision_models(images):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        inputs = keras.Input((6, 6, 1))
        flat = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, activation="relu")(inputs))
        mixed = keras.Model(inputs, keras.layers.Dense(5, dtype="float32")(flat))
    finally:
        keras.config.set_dtype_policy("float32")
    inputs = keras.Input((6, 6, 1))
    flat = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, activation="relu")(inputs))
    plain = keras.Model(inputs, keras.layers.Dense(5)(flat))
    plain.set_weights(mixed.get_weights())
    attack, x = FGSM(epsilon=0.05), images(20)
    np.testing.assert_array_equal(attack.run(mixed, x).x_adv, attack.run(plain, x).x_adv)


def test_an_attack_that_leaves_its_ball_is_caught(small_cnn, images, monkeypatch):
    attack = FGSM(epsilon=0.01)
    monkeypatch.setattr(
        type(attack.geometry), "project", lambda self, x_adv, x, epsilon: x_adv + 0.1
    )
    y = ops.convert_to_numpy(small_cnn(images(4))).argmax(1)
    with pytest.raises(RuntimeError, match=r"left its ball|left \[0, 1\]"):
        attack.run(small_cnn, images(4), y)


@pytest.mark.parametrize("batch_size", [0, -1, 2.0])
def test_bad_batch_size(small_cnn, images, batch_size):
    with pytest.raises(ValueError, match="batch_size must be an integer >= 1"):
        FGSM(epsilon=0.1).run(small_cnn, images(2), batch_size=batch_size)


def test_no_bar_in_a_pipe(small_cnn, images, capfd):
    FGSM(epsilon=0.1).run(small_cnn, images(2), progress=True)
    assert capfd.readouterr() == ("", "")
