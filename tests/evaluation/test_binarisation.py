import dataclasses

import keras
import numpy as np
import pytest
from keras import layers, ops

from robust_zoo import as_classifier
from robust_zoo.attacks import APGD, FGSM, PGD, AutoAttack, FixedBudgetAttack, Square
from robust_zoo.attacks.norms import get_norm
from robust_zoo.datasets import load_dataset
from robust_zoo.evaluation import binarisation, evaluate
from robust_zoo.evaluation.binarisation import (
    _Features,
    _Head,
    _Points,
    _TestModel,
    _told_apart,
    binarisation_test,
)
from robust_zoo.record import ThreatModel

OPTIONS = {"seed": 3, "batch_size": 64, "progress": False}
THREAT = ThreatModel(norm="linf", epsilon=0.1)


@pytest.fixture(scope="module")
def images():
    return load_dataset("digits").images[:32]


def measure(model, images, attacks, **changes):
    attacks = attacks if isinstance(attacks, list) else [attacks]
    return binarisation_test(model, images, attacks, THREAT, **(OPTIONS | changes))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Told(FixedBudgetAttack):
    """Hands out a point that it is told for each image: of the surface the planted one, or the image itself."""

    planted: bool
    points: dict = dataclasses.field(hash=False, compare=False)

    def start(self, model, x, y, keys, epsilon, attempt):
        table = ops.convert_to_tensor(np.stack([*self.points.values()]))
        clean = ops.convert_to_tensor(
            np.stack([np.frombuffer(key, "float32") for key in self.points])
        )
        flat = ops.reshape(x, (-1, 1, clean.shape[1]))
        nearest = ops.argmin(ops.sum(ops.square(flat - clean[None]), axis=2), axis=1)
        return {"x_adv": ops.take(table, nearest, axis=0)}

    def step(self, model, x, state, epsilon):
        return state, model(state["x_adv"], training=False)

    def loss_value(self, logits, state):
        return ops.zeros_like(logits[:, 0])

    def get_config(self):
        return {"epsilon": self.epsilon, "norm": self.norm}


def told(images, planted):
    """An attack that knows what is planted, or one that does nothing."""
    points = {}
    for number, image in enumerate(images[:, None]):
        ball = _Points(image, THREAT, np.random.default_rng([OPTIONS["seed"], number]))
        points[image.tobytes()] = next(ball.surface(1))[0] if planted else image[0]
    return Told(epsilon=THREAT.epsilon, planted=planted, points=points)


@pytest.mark.slow
def test_what_is_planted_is_an_adversarial_example(trained, images):
    check = measure(trained, images, told(images, planted=True))
    assert (check.name, check.passed, check.value) == ("binarisation_test", True, 1.0)
    assert "planted for 32 of 32 images" in check.explanation


@pytest.mark.slow
def test_an_attack_that_stays_where_it_is_fails(trained, images):
    check = measure(trained, images, told(images, planted=False))
    assert (check.passed, check.value) == (False, 0.0)


@pytest.mark.long
def test_steps_that_are_too_short_fail_and_enough_of_them_pass(trained, images):
    short = PGD(epsilon=0.1, steps=1, step_size=0.001, random_start=False)
    assert measure(trained, images, short).passed is False
    strong = AutoAttack(epsilon=0.1)
    assert measure(trained, images, strong).passed is True
    # Together they are as good as the better one, and the explanation tells them apart.
    both = measure(trained, images, [short, strong])
    assert both.passed is True
    assert "found 32 (PGD, no random start 0; AutoAttack 32)" in both.explanation


@pytest.mark.long
def test_gradient_attacks_find_everything_on_a_linear_model(images):
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(10)])
    for attack in (PGD(epsilon=0.1, steps=20), APGD(epsilon=0.1, targets=9, loss="dlr")):
        check = measure(model, images, attack)
        assert (check.passed, check.value) == (True, 1.0)


@pytest.mark.long
def test_a_gradient_that_is_hidden_in_the_features_is_noticed(trained, images):
    inputs = keras.Input((8, 8, 1))
    hidden = keras.Model(inputs, trained(ops.round(inputs * 12) / 12))
    blind = measure(hidden, images, PGD(epsilon=0.1, steps=20, random_start=False))
    assert (blind.passed, blind.value) == (False, 0.0)
    assert measure(hidden, images, Square(epsilon=0.1)).value > 0


@pytest.mark.long
def test_no_number_depends_on_the_batch_size(trained, images):
    attack = PGD(epsilon=0.1, steps=3)
    first, second = (measure(trained, images[:12], attack, batch_size=size) for size in (5, 64))
    assert first == second
    assert measure(trained, images[:12], attack, seed=4) != first


@pytest.mark.slow
def test_few_images_do_not_acquit(trained, images):
    check = measure(trained, images[:10], AutoAttack(epsilon=0.1))
    assert (check.passed, check.value) == (None, 1.0)


@pytest.mark.slow
def test_where_guessing_is_enough_nothing_is_said(trained, images, monkeypatch):
    # Nothing inside the ball but the image: almost all of the surface is class 1.
    monkeypatch.setattr(binarisation, "_INNER", (0,))
    check = measure(trained, images, PGD(epsilon=0.1, steps=20))
    assert (check.passed, check.value) == (None, 1.0)
    assert "200 random points of the surface 32" in check.explanation


def ends():
    """Models of the same shape, and how many features stand before the last layer of each."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(6, 3, activation="relu")(inputs)
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(10, 1)(x))
    yield "pooled", keras.Model(inputs, pooled), 6
    flat = layers.Flatten()(layers.Conv2D(10, 6)(x))
    yield "whole", keras.Model(inputs, flat), 6 * 6 * 6
    inner = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(10)])
    yield "nested", keras.Model(inputs, layers.Identity()(inner(inputs))), 64
    unit = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(1, activation="sigmoid")]
    )
    yield "sigmoid", as_classifier(unit, output="sigmoid"), 64

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(10)

        def call(self, x):
            return self.dense(ops.reshape(x, (-1, 64)))

    own = Own()
    own(np.zeros((1, 8, 8, 1), "float32"))
    yield "the logits", as_classifier(own), 10


@pytest.mark.parametrize(
    ("name", "model", "count"), ends(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_ending(name, model, count, images):
    features = _Features(model)
    assert features.count == count
    assert (features.place == "the logits") == (name == "the logits")
    check = measure(model, images[:4], FGSM(epsilon=0.1))
    assert check.name == "binarisation_test"
    assert f"planted for 4 of 4 images by a new last layer on {count} features" in check.explanation
    if count != 10:  # ten features may do, by their initial values
        assert ("tells it from 999 points or more" in check.explanation) == (count > 6)


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.1), ("l2", 0.7), ("l0", 5.0)])
def test_points_lie_where_they_should(norm, epsilon, images):
    image = images[:1]
    points = _Points(image, ThreatModel(norm=norm, epsilon=epsilon), np.random.default_rng(0))
    inside, surface = (np.concatenate([*part(250)]) for part in (points.inside, points.surface))
    assert inside.shape == surface.shape == (250, 8, 8, 1)
    distance = get_norm(norm).distance
    near, far = (distance(part, np.repeat(image, 250, axis=0)) for part in (inside, surface))
    assert near.max() <= epsilon * 0.95 * (1 + 1e-5)
    assert near.min() > 0.6 * epsilon
    np.testing.assert_allclose(far, epsilon, rtol=2e-3)
    assert (far <= epsilon * (1 + 1e-5)).all()
    for part in (inside, surface):
        assert 0 <= part.min() < part.max() <= 1


@pytest.mark.long
def test_every_record_of_a_budget_has_it(trained):
    data = load_dataset("digits")
    record = evaluate(trained, data, n=32, attacks=[AutoAttack(epsilon=0.1)], progress=False)
    check = next(check for check in record.checks if check.name == "binarisation_test")
    assert check.passed is True
    bare = evaluate(trained, data, n=32, progress=False)
    assert "binarisation_test" not in {check.name for check in bare.checks}


def test_only_balls_that_do_not_meet_are_told_apart(trained, images):
    """An image twice, or a ball that holds everything, needs heads of its own time."""
    same = np.concatenate([images[:3], images[:3]])
    assert [*_told_apart(same.reshape(6, -1), THREAT)] == [[0, 1, 2], [3, 4, 5]]
    everything = ThreatModel(norm="linf", epsilon=1.0)
    assert [*_told_apart(same.reshape(6, -1), everything)] == [[n] for n in range(6)]
    check = measure(trained, same, PGD(epsilon=0.1, steps=20))
    assert check.value == 1.0
    assert "planted for 6 of 6 images" in check.explanation


@pytest.mark.parametrize("norm", ["linf", "l2", "l0"])
def test_a_candidate_gets_the_head_of_its_image(norm, trained, images):
    rng = np.random.default_rng(0)
    test = _TestModel(trained, norm, 32)
    size = trained.layers[-1].kernel.shape[0]
    heads = {
        number: _Head(np.zeros((size, 2), "float32"), np.array([number, 0], "float32"), 9, False)
        for number in range(0, 32, 2)
    }
    test.take(images, heads)
    rows = [*heads]
    near = images[rows].copy()
    near[:, 3, 3] = 1 - near[:, 3, 3]  # one value, or little of the length
    if norm == "linf":
        near = np.clip(images[rows] + rng.uniform(-0.1, 0.1, near.shape), 0, 1).astype("float32")
    logits = ops.convert_to_numpy(test.model(near))
    assert logits.tolist() == [[number, 0] for number in rows]
