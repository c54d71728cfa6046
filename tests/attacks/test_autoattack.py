import keras
import numpy as np
import pytest
from keras import ops

from robust_zoo import backend
from robust_zoo.attacks import APGD, FAB, AutoAttack, Square, flags, state_file
from robust_zoo.backend import random


@pytest.fixture
def ten_classes():
    """A network of 6 x 6 images into 10 classes with weights of its own."""
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.Flatten()(inputs)
    x = keras.layers.Dense(30, activation="relu")(x)
    model = keras.Model(inputs, keras.layers.Dense(10, name="logits")(x), name="ten_classes")
    rng = np.random.default_rng(7)
    model.set_weights([rng.normal(size=value.shape) for value in model.get_weights()])
    return model


@pytest.fixture
def short(monkeypatch):
    """A standard version of few steps."""
    original = AutoAttack.ensemble

    def standard(self, num_classes, scale=1.0):
        components, changes = original(self, num_classes, scale)
        steps = {"apgd-ce": 20, "apgd-t": 10, "fab-t": 10, "square": 50}
        return {name: a.replace(steps=steps[name]) for name, a in components.items()}, changes

    monkeypatch.setattr(AutoAttack, "ensemble", standard)


def predictions(model, x):
    return ops.convert_to_numpy(model(x)).argmax(1)


def test_the_standard_version_has_the_published_parameters_and_order():
    for norm in ("linf", "l2"):
        components, changes = AutoAttack(epsilon=0.1, norm=norm).ensemble(10)
        budget = {"epsilon": 0.1, "norm": norm}
        assert components == {
            "apgd-ce": APGD(**budget, loss="cross_entropy", steps=100, restarts=1, rho=0.75),
            "apgd-t": APGD(**budget, loss="dlr", steps=100, targets=9, restarts=1, rho=0.75),
            "fab-t": FAB(norm=norm, steps=100, targets=9, eta=1.05, beta=0.9, alpha_max=0.1),
            "square": Square(**budget, steps=5000, start_share=0.8, restarts=1),
        }
        assert list(components) == ["apgd-ce", "apgd-t", "fab-t", "square"]
        assert changes == []


@pytest.mark.long
@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.02), ("l2", 0.1)])
def test_outcomes_per_component_and_per_example(ten_classes, images, short, norm, epsilon):
    x = images(90)
    y = predictions(ten_classes, x)
    y[:5] = (y[:5] + 1) % 10  # misclassified
    result = AutoAttack(epsilon=epsilon, norm=norm).run(ten_classes, x, y, batch_size=32)
    np.testing.assert_array_equal(result.success, predictions(ten_classes, result.x_adv) != y)
    assert (result.broken_by[:5] == "clean").all()
    assert set(result.broken_by) <= {"", "clean", "apgd-ce", "apgd-t", "fab-t", "square"}
    assert 0.1 < result.success.mean() < 0.9
    assert result.distance.max() <= epsilon * (1 + 1e-5) + 1e-7

    # What is left after each component follows from what each example was broken by.
    left, broken = [], result.broken_by == "clean"
    for name in result.components:
        broken = broken | (result.broken_by == name)
        left.append(1 - broken.mean())
    np.testing.assert_allclose(list(result.components.values()), left)
    # Each component alone, on what was left to it, breaks the same images.
    components, _ = AutoAttack(epsilon=epsilon, norm=norm).ensemble(10)
    alone = components["apgd-ce"].run(ten_classes, x, y)
    first = np.isin(result.broken_by, ["clean", "apgd-ce"])
    assert (first == alone.success).mean() > 0.9  # other random starts
    assert [flag.name for flag in result.flags] == [
        "randomness",
        "softmax_output",
        "zero_gradients",
        "gradients_not_finite",
        "logit_scale",
        "too_few_classes",
        "square_stronger_than_white_box",
    ]
    assert "AutoAttackResult(n=90" in repr(result)


@pytest.mark.long
@pytest.mark.home
def test_one_seed_makes_every_number_whatever_the_batch_size(ten_classes, images, short):
    x = images(40)
    attack = AutoAttack(epsilon=0.02)
    one, two, other = (
        attack.run(ten_classes, x, batch_size=size, seed=seed)
        for size, seed in ((7, 1), (64, 1), (64, 2))
    )
    np.testing.assert_array_equal(one.broken_by, two.broken_by)
    np.testing.assert_allclose(one.x_adv, two.x_adv, atol=1e-5)
    assert not np.array_equal(two.x_adv, other.x_adv)


@pytest.mark.slow
@pytest.mark.home
def test_fab_only_counts_inside_the_ball(ten_classes, images, monkeypatch):
    """Where FAB comes first, an image is broken exactly if its closest example is close enough."""
    fab = FAB(targets=9, steps=20)
    x = images(40)
    distance = fab.run(ten_classes, x).distance
    epsilon = float(np.median(distance))
    components = {"fab-t": fab, "square": Square(epsilon=epsilon, steps=1)}
    monkeypatch.setattr(AutoAttack, "ensemble", lambda self, *told: (components, []))
    result = AutoAttack(epsilon=epsilon).run(ten_classes, x)
    np.testing.assert_array_equal(result.broken_by == "fab-t", distance <= epsilon)
    robust = result.broken_by == ""
    np.testing.assert_array_equal(result.x_adv[robust], x[robust])
    # Images leave as soon as FAB is inside.
    broken = result.broken_by == "fab-t"
    assert result.queries[broken].mean() < 0.5 * result.queries[robust].mean()


@pytest.mark.long
@pytest.mark.home
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_few_classes_are_measured_and_flagged(images, short, classes):
    inputs = keras.Input((3, 3, 1))
    x = keras.layers.Dense(9, activation="relu")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(classes)(x))
    result = AutoAttack(epsilon=0.2).run(model, images(30, (3, 3, 1)))
    assert result.success.any()
    flag = next(flag for flag in result.flags if flag.name == "too_few_classes")
    assert not flag.passed
    assert f"the model has {classes}" in flag.explanation
    assert f"{classes - 1} targets, not 9" in flag.explanation
    assert ("cw_margin, not dlr" in flag.explanation) == (classes < 4)


@pytest.mark.slow
@pytest.mark.home
def test_saturated_logits_are_broken_and_flagged(ten_classes, images, short):
    """Logits of thousands, where softmax has no gradient in float32."""
    x = images(60)
    honest = AutoAttack(epsilon=0.15).run(ten_classes, x)
    masked = keras.models.clone_model(ten_classes)
    weights = ten_classes.get_weights()
    masked.set_weights([*weights[:-2], 1e4 * weights[-2], 1e4 * weights[-1]])
    result = AutoAttack(epsilon=0.15).run(masked, x)
    assert honest.success.mean() > 0.8
    assert result.success.mean() > honest.success.mean() - 0.05
    fired = {flag.name: flag.passed for flag in result.flags}
    assert fired["zero_gradients"] is False
    assert all(flag.passed is not False for flag in honest.flags)


@keras.saving.register_keras_serializable("tests")
class Rounded(keras.layers.Layer):
    """Rounds to eighths: no gradient passes."""

    def call(self, x):
        return ops.round(x * 8) / 8


@pytest.mark.long
@pytest.mark.home
def test_square_finds_what_gradients_hide_and_says_so(ten_classes, images):
    inputs = keras.Input((6, 6, 1))
    model = keras.Model(inputs, ten_classes(Rounded()(inputs)))
    result = AutoAttack(epsilon=0.1).run(model, images(40))
    assert result.components["fab-t"] - result.components["square"] > 0.1
    found = {flag.name: flag for flag in result.flags}
    gained = result.components["fab-t"] - result.components["square"]
    assert found["square_stronger_than_white_box"].passed is False
    assert found["square_stronger_than_white_box"].value == pytest.approx(gained)
    assert not found["zero_gradients"].passed


@pytest.mark.long
@pytest.mark.home
def test_compilations_are_few_whatever_the_working_set_does(
    ten_classes, images, short, monkeypatch
):
    made, traced = [], []
    original = backend.function

    def counting(function, model):
        made.append(function)

        def counted(*arguments):
            traced.append(function)
            return function(*arguments)

        return original(counted, model)

    monkeypatch.setattr(backend, "function", counting)
    for n, batch_size in ((60, 16), (37, 16), (5, 16)):
        AutoAttack(epsilon=0.01).run(ten_classes, images(n), batch_size=batch_size)
    # Prediction, gradients at the clean images, and start, follow and judge of four attacks.
    assert len(made) == 2 + 4 * 3
    if keras.config.backend() == "tensorflow":
        assert len(traced) == len(made)  # one for all batch sizes
    elif keras.config.backend() == "jax":
        assert len(traced) <= 14 * 5  # one for each of five sizes


@pytest.mark.long
@pytest.mark.home
@pytest.mark.parametrize("saves", [2, 7, 30])
def test_an_interrupted_run_goes_on(ten_classes, images, short, monkeypatch, tmp_path, saves):
    x, path = images(40), tmp_path / "state.npz"
    attack = AutoAttack(epsilon=0.01)
    whole = attack.run(ten_classes, x, seed=4)
    monkeypatch.setattr(state_file, "_SECONDS", -1.0)
    original, count = state_file.StateFile.save, 0

    def save(self, *arguments, **options):
        nonlocal count
        original(self, *arguments, **options)
        count += 1
        if count == saves:
            raise KeyboardInterrupt

    monkeypatch.setattr(state_file.StateFile, "save", save)
    with pytest.raises(KeyboardInterrupt):
        attack.run(ten_classes, x, seed=4, state_file=path)
    resumed = attack.run(ten_classes, x, seed=4, state_file=path)
    for field in ("x_adv", "success", "broken_by", "queries"):
        np.testing.assert_array_equal(getattr(resumed, field), getattr(whole, field))
    assert resumed.components == whole.components
    with pytest.raises(ValueError, match="not the same seed"):
        attack.run(ten_classes, x, seed=5, state_file=path)
    with pytest.raises(ValueError, match="not the same attack"):
        attack.replace(epsilon=0.02).run(ten_classes, x, seed=4, state_file=path)


@pytest.mark.slow
def test_nothing_to_attack(ten_classes, images, short):
    x = images(6)
    wrong = (predictions(ten_classes, x) + 1) % 10
    result = AutoAttack(epsilon=0.1).run(ten_classes, x, wrong)
    assert (result.broken_by == "clean").all()
    np.testing.assert_array_equal(result.x_adv, x)
    assert set(result.components.values()) == {0.0}
    with pytest.raises(ValueError, match="images must not be empty"):
        AutoAttack(epsilon=0.1).run(ten_classes, x[:0])
    constant = AutoAttack(epsilon=0.1).run(ten_classes, np.zeros((3, 6, 6, 1), "float32"))
    assert np.isfinite(constant.x_adv).all()


def test_training_uses_another_attack(ten_classes, images):
    with pytest.raises(TypeError, match="AutoAttack is for measuring"):
        AutoAttack(epsilon=0.1)(ten_classes, images(1), key=random.key(0))
    with pytest.raises(ValueError, match="norm must be one of"):
        AutoAttack(epsilon=1, norm="l0")


@pytest.mark.parametrize(
    ("gained", "n", "passed"),
    [
        (2, 1000, True),
        (4, 1000, True),  # 0.4%, but the Wilson interval begins at 0.16%
        (5, 1000, False),  # it begins at 0.21%
        (6, 10_000, True),
        (1, 100, None),  # more than 0.2%, and too few to tell
        (0, 499, None),
        (0, 500, True),
        (10, 40, False),
    ],
)
def test_square_may_gain_two_in_a_thousand(gained, n, passed):
    check = flags.square_stronger(0.5, 0.5 - gained / n, n)
    assert check.passed is passed
    assert f"{gained} of {n} images" in check.explanation
