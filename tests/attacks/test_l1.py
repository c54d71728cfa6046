"""APGD, FAB, Square and AutoAttack in the l1 ball, against the exact answers of linear models."""

import keras
import numpy as np
import pytest
from keras import ops

from robust_zoo.attacks import APGD, FAB, FGSM, AutoAttack, Square
from robust_zoo.attacks.apgd_l1 import _sparse, steps_of
from robust_zoo.attacks.fab import project_on_hyperplane
from robust_zoo.attacks.square import wave
from robust_zoo.backend import random
from robust_zoo.evaluation import evaluate
from robust_zoo.record import RobustnessRecord

SHAPE = (6, 6, 2)


def linear(shape=SHAPE, lift=0.0):
    """A linear model of two classes, grey images on the boundary but for what `lift` adds to class 0, and its kernel."""
    inputs = keras.Input(shape)
    outputs = keras.layers.Dense(2, name="logits")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, outputs)
    kernel = np.random.default_rng(0).normal(size=(int(np.prod(shape)), 2)).astype("float32")
    bias = -kernel.sum(axis=0) / 2
    model.set_weights([kernel, bias + np.array([lift, 0], "float32")])
    return model, kernel.astype("float64")


@pytest.fixture(scope="module")
def problem():
    model, kernel = linear()
    x = np.random.default_rng(1).random((24, *SHAPE)).astype("float32")
    y = ops.convert_to_numpy(model(x)).argmax(1)
    return model, kernel, x, y


def most(w, room, epsilon):
    """The largest sum(w * change), 0 <= change <= room, sum(change) <= epsilon: a fractional knapsack."""
    order = np.argsort(-w)
    room = room[order]
    spent = np.minimum(np.cumsum(room), epsilon)
    return (np.diff(spent, prepend=0.0) * w[order]).sum()


def gains(kernel, x, y, epsilon, lift=0.0):
    """By how much the margin can fall in the l1 ball within [0, 1], and the margin."""
    images = x.reshape(len(x), -1).astype("float64")
    w = kernel[:, 1] - kernel[:, 0]
    margin = np.abs((images - 0.5) @ w - lift)
    toward = np.where(y[:, None] == 0, w, -w)
    room = np.where(toward > 0, 1 - images, images)
    return np.array([most(np.abs(w), each, epsilon) for each in room]), margin


@pytest.fixture(scope="module")
def large():
    """Images of 432 values, of all of which class 0 is right by a margin that some l1 balls of 6 can undo."""
    model, kernel = linear((12, 12, 3), lift=24.0)
    x = np.random.default_rng(1).random((26, 12, 12, 3)).astype("float32")
    x = x[ops.convert_to_numpy(model(x)).argmax(1) == 0]
    y = np.zeros(len(x), int)
    return (model, x, y, *gains(kernel, x, y, 6.0, lift=24.0))


def test_apgd_breaks_what_can_be_broken(large):
    model, x, y, gain, margin = large
    found = APGD(norm="l1", epsilon=6.0).run(model, x, y)
    assert 5 < (gain > margin).sum() < len(x) - 5
    assert found.success[gain > 1.02 * margin].all()
    assert not found.success[gain < 0.999 * margin].any()
    assert found.distance.max() <= 6.0 * (1 + 1e-5)


def test_what_apgd_ends_with_is_nearly_the_best(large):
    model, x, y, gain, margin = large
    strong = gain < 0.99 * margin
    found = APGD(norm="l1", epsilon=6.0).run(model, x[strong], y[strong])
    logits = ops.convert_to_numpy(model(found.x_adv)).astype("float64")
    left = logits[:, 0] - logits[:, 1]
    assert (margin[strong] - left >= 0.99 * gain[strong]).all()


def test_nothing_outside_the_ball_counts(problem):
    """The first balls are larger: images that only they break are no successes."""
    model, kernel, x, y = problem
    epsilon = 0.5
    gain, margin = gains(kernel, x, y, epsilon)
    larger, _ = gains(kernel, x, y, 3 * epsilon)
    between = (gain < 0.999 * margin) & (larger > 1.02 * margin)
    assert between.any()
    attack = APGD(norm="l1", epsilon=epsilon, steps=20, restarts=2)
    found = attack.run(model, x[between], y[between])
    assert not found.success.any()
    assert (found.distance <= epsilon * (1 + 1e-5)).all()
    assert (found.queries == 1 + 2 * (steps_of(20) + 1)).all()


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_few_steps_end_in_the_ball(problem, steps):
    model, _, x, y = problem
    attack = APGD(norm="l1", epsilon=0.5, steps=steps)
    assert attack.run(model, x, y).distance.max() <= 0.5 * (1 + 1e-5)
    made = ops.convert_to_numpy(attack(model, x, y, key=random.key(0)))
    assert np.abs(made - x).sum(axis=(1, 2, 3)).max() <= 0.5 * (1 + 1e-5)


def test_steps_change_the_steepest_values_alone():
    gradient = np.arange(1.0, 11.0, dtype="float32").reshape(1, 1, 10, 1) * np.float32(-1)
    for share, kept in ((0.2, 2), (0.5, 5), (1.0, 10), (0.0, 1)):
        direction = _sparse(
            ops.convert_to_tensor(gradient), ops.convert_to_tensor(np.array([share], "float32"))
        )
        direction = ops.convert_to_numpy(direction).ravel()
        np.testing.assert_array_equal(np.flatnonzero(direction), np.arange(10 - kept, 10))
        np.testing.assert_allclose(direction[direction != 0], -1 / kept, rtol=1e-5)


def test_projection_of_fab_is_the_knapsack():
    rng = np.random.default_rng(4)
    x = rng.random((8, 20)).astype("float32")
    w = rng.normal(size=(8, 20)).astype("float32")
    w[:, 3] = 0.0
    offset = np.array([0.1, -0.1, 0.5, -0.5, 1.0, -1.0, 3.0, 1e3], "float32")
    tensors = [ops.convert_to_tensor(part) for part in (x, w, offset)]
    move = ops.convert_to_numpy(project_on_hyperplane(*tensors, "l1")).astype("float64")
    assert ((x + move >= -1e-6) & (x + move <= 1 + 1e-6)).all()
    for row in range(8):
        toward = -np.sign(w[row]) * np.sign(offset[row])
        room = np.where(toward > 0, 1 - x[row], x[row]).astype("float64")
        size = np.abs(w[row]).astype("float64")
        if size @ room < abs(offset[row]):
            np.testing.assert_allclose(np.abs(move[row])[size > 0], room[size > 0], atol=1e-6)
            continue
        assert w[row].astype("float64") @ move[row] == pytest.approx(-offset[row], rel=1e-4)
        # No cheaper change gains as much.
        assert most(size, room, np.abs(move[row]).sum() * 0.999) < abs(offset[row])
    assert (move[:, 3] == 0).all()


def test_fab_finds_the_boundary(problem):
    model, kernel, x, y = problem
    found = FAB(norm="l1", targets=1).run(model, x, y)
    assert found.success.all()
    for place, distance in enumerate(found.distance):
        gain, margin = gains(kernel, x[place : place + 1], y[place : place + 1], distance)
        assert gain[0] >= margin[0] * (1 - 1e-4)  # it is far enough
        least, _ = gains(kernel, x[place : place + 1], y[place : place + 1], 0.9 * distance)
        assert least[0] < margin[0]  # and not much farther


def test_waves_of_square():
    for side in (3, 5, 9):
        pattern = wave(side, "l1")
        assert np.abs(pattern).sum() == pytest.approx(1, rel=1e-6)
        assert (pattern[: side // 2] >= 0).all()
        assert (pattern[side // 2 :] <= 0).all()


def test_square_stays_inside_and_only_gains(small_cnn, images):
    x = images(8)
    y = ops.convert_to_numpy(small_cnn(x)).argmax(1)
    losses = []
    for steps in (10, 60, 200):
        found = Square(norm="l1", epsilon=0.4, steps=steps).run(small_cnn, x, y)
        assert found.distance.max() <= 0.4
        logits = ops.convert_to_numpy(small_cnn(found.x_adv))
        others = np.where(np.eye(5, dtype=bool)[y], -np.inf, logits).max(1)
        losses.append(np.where(found.success, np.inf, others - logits[np.arange(8), y]))
    assert (losses[0] <= losses[1] + 1e-6).all()
    assert (losses[1] <= losses[2] + 1e-6).all()
    assert np.isfinite(losses[0]).any()


@pytest.mark.slow
@pytest.mark.home
def test_autoattack_is_exact_on_a_linear_model(problem):
    model, kernel, x, y = problem
    gain, margin = gains(kernel, x, y, 0.5)
    found = AutoAttack(norm="l1", epsilon=0.5).run(model, x, y, progress=False)
    clear = np.abs(gain / margin - 1) > 0.02
    np.testing.assert_array_equal(found.success[clear], (gain > margin)[clear])
    assert list(found.components) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    components, changes = AutoAttack(norm="l1", epsilon=12.0).ensemble(10)
    assert (components["apgd-ce"].restarts, components["apgd-t"].targets) == (5, 5)
    assert (components["fab-t"].targets, changes) == (9, [])
    assert AutoAttack(norm="l1", epsilon=12.0).ensemble(4)[1]


@pytest.mark.slow
@pytest.mark.home
def test_records_in_l1(small_cnn, images):
    x = images(40)
    y = ops.convert_to_numpy(small_cnn(x)).argmax(1)
    attacks = [APGD(norm="l1", epsilon=0.5, steps=20), FGSM(norm="l1", epsilon=0.5)]
    record = evaluate(small_cnn, (x, y), attacks=attacks)
    assert (record.threat_model.norm, record.curve.name) == ("l1", "APGD")
    assert record.attacks[0].correct <= record.attacks[1].correct
    corrects = [point.correct for point in record.curve.points]
    assert corrects == sorted(corrects, reverse=True)
    assert record.curve.points[-1].epsilon == 36
    assert RobustnessRecord.from_json(record.to_json()) == record
