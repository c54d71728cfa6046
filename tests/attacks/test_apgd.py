import keras
import numpy as np
import pytest
from keras import ops

from robust_zoo.attacks import APGD, PGD
from robust_zoo.attacks.apgd import halving_points
from robust_zoo.attacks.losses import CWMargin
from robust_zoo.backend import random


def test_checkpoints_are_the_published_iterations():
    assert halving_points(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert halving_points(10) == [2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert halving_points(1) == [1]


@keras.saving.register_keras_serializable("tests")
class Tent(keras.layers.Layer):
    """Logits (0, |x - peak| - 10) of a single pixel: the loss of class 0 peaks in the middle of nowhere."""

    def __init__(self, peak=0.3, **kwargs):
        super().__init__(**kwargs)
        self.peak = peak

    def call(self, x):
        x = ops.reshape(x, (-1, 1))
        return ops.concatenate([ops.zeros_like(x), -ops.abs(x - self.peak) - 10.0], axis=1)

    def get_config(self):
        return {**super().get_config(), "peak": self.peak}


def hand_computed(start, clean, epsilon, steps, rho=0.75, peak=0.3, form=lambda d: d, zero=0.0):
    """Algorithm 1 in one dimension, on a rising form of the loss -|x - peak| - 10, in plain Python."""

    def loss(x):
        return form(-abs(x - peak) - 10)

    def project(x):
        return min(max(x, clean - epsilon, 0.0), clean + epsilon, 1.0)

    def slope(x):
        return np.sign(peak - x)

    x = previous = start
    best, best_loss, size = x, loss(x), 2 * epsilon
    losses, halved_then, best_then = [], True, best_loss
    gradient, points, path, sizes = slope(x), halving_points(steps), [x], []
    for i in range(steps):
        forward = project(x + size * gradient)
        new = forward if i == 0 else project(x + 0.75 * (forward - x) + 0.25 * (x - previous))
        previous, x = x, new
        path.append(x)
        losses.append(loss(x))
        gradient = slope(x)
        if losses[-1] > best_loss:
            best, best_loss = x, losses[-1]
        if i + 1 in points:
            number = points.index(i + 1)
            window = np.diff([0, *points])[number]
            # The first comparison of all is with zero, as in the published code.
            before = [zero, *losses]
            rises = sum(before[j + 1] > before[j] for j in range(i + 1 - window, i + 1))
            stalls = not halved_then and best_then >= best_loss
            halved_then = rises <= rho * window or stalls
            best_then = best_loss
            if halved_then:
                size, x, gradient = size / 2, best, slope(best)
        sizes.append(size)
    return path, sizes


@pytest.mark.slow
def test_momentum_and_halving_against_a_hand_computed_case():
    inputs = keras.Input((1, 1, 1))
    model = keras.Model(inputs, Tent()(inputs))
    steps, epsilon, clean = 40, 0.25, 0.5
    attack = APGD(epsilon=epsilon, steps=steps, loss=CWMargin(confidence=1e6))
    x = ops.convert_to_tensor(np.full((1, 1, 1, 1), clean, "float32"))
    y = ops.convert_to_tensor(np.zeros(1, "int32"))
    state = attack.start(model, x, y, random.fold_in(random.key(0), np.arange(1)), epsilon, 0)
    start = ops.convert_to_numpy(state["x_adv"]).item()
    assert start in (0.25, 0.75)  # on the surface
    expected, sizes = hand_computed(start, clean, epsilon, steps)
    assert len({round(point, 4) for point in expected}) > 8  # the case is not a trivial one
    assert sizes[-1] < sizes[0] / 16
    for i in range(steps):
        assert ops.convert_to_numpy(state["x_adv"]).item() == pytest.approx(expected[i], abs=2e-5)
        state, _ = attack.step(model, x, state, epsilon)
        if i:
            size = ops.convert_to_numpy(state["step_size"]).item() * epsilon
            assert size == pytest.approx(sizes[i - 1])


@pytest.mark.slow
@pytest.mark.parametrize("rho", [0.4, 0.55, 0.65, 0.8, 0.9])
def test_cross_entropy_against_a_hand_computed_case(rho):
    """The published code compares the first loss with zero; cross-entropy is above it, its log-odds here are not."""
    inputs = keras.Input((1, 1, 1))
    model = keras.Model(inputs, Tent()(inputs))
    steps, epsilon, clean = 40, 0.25, 0.5
    attack = APGD(epsilon=epsilon, steps=steps, rho=rho)
    x = ops.convert_to_tensor(np.full((1, 1, 1, 1), clean, "float32"))
    y = ops.convert_to_tensor(np.zeros(1, "int32"))
    state = attack.start(model, x, y, random.fold_in(random.key(0), np.arange(1)), epsilon, 0)
    start = ops.convert_to_numpy(state["x_adv"]).item()
    case = {"rho": rho, "form": lambda d: np.log1p(np.exp(d))}
    expected, sizes = hand_computed(start, clean, epsilon, steps, **case)
    if rho == {0.25: 0.65, 0.75: 0.55}[start]:  # where it matters whether the first step rose
        assert hand_computed(start, clean, epsilon, steps, **case, zero=1.0) != (expected, sizes)
    for i in range(steps):
        assert ops.convert_to_numpy(state["x_adv"]).item() == pytest.approx(expected[i], abs=2e-5)
        state, _ = attack.step(model, x, state, epsilon)
        if i:
            size = ops.convert_to_numpy(state["step_size"]).item() * epsilon
            assert size == pytest.approx(sizes[i - 1])


def test_targets_are_the_ranks_of_the_clean_logits(small_cnn, images):
    x = ops.convert_to_tensor(images(6))
    logits = ops.convert_to_numpy(small_cnn(x))
    y = ops.convert_to_tensor(logits.argmax(1).astype("int32"))
    attack = APGD(epsilon=0.1, loss="dlr", targets=3, restarts=2)
    assert attack.attempts_on(small_cnn) == 6
    keys = random.fold_in(random.key(0), np.arange(6))
    order = np.argsort(-logits, axis=1)
    for attempt in range(6):
        state = attack.start(small_cnn, x, y, keys, 0.1, attempt)
        found = ops.convert_to_numpy(state["targets"])
        np.testing.assert_array_equal(found, order[:, 1 + attempt // 2])


@pytest.mark.long
def test_it_is_as_strong_as_pgd_with_a_tuned_step(small_cnn, images):
    x = images(80)
    for norm, epsilon in (("linf", 0.04), ("l2", 0.2)):
        ours = APGD(epsilon=epsilon, norm=norm).run(small_cnn, x)
        pgd = PGD(epsilon=epsilon, norm=norm, steps=100).run(small_cnn, x)
        assert ours.success.sum() >= pgd.success.sum() - 1
        assert 0 < ours.success.mean() < 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": 5}, "targets must be at most 4, the model's other classes, got 5"),
        ({"targets": -1}, "targets must be an integer >= 0, got -1"),
        ({"rho": 0}, r"rho must lie in \(0, 1\], got 0"),
        ({"loss": "hinge"}, "loss must be a Loss or one of"),
        ({"norm": "l0"}, "norm must be one of"),
    ],
)
def test_bad_hyperparameters(small_cnn, images, arguments, message):
    with pytest.raises(ValueError, match=message):
        APGD(epsilon=0.1, **arguments).run(small_cnn, images(2))


def test_targeted_dlr_needs_four_classes(linear, images):
    model, _, _ = linear
    with pytest.raises(ValueError, match="'dlr' with targets needs a model of at least 4 classes"):
        APGD(epsilon=0.1, loss="dlr", targets=2).run(model, images(2, (2, 2, 1)))
