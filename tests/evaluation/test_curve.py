import keras
import numpy as np
import pytest

from robust_zoo.attacks import FGSM, PGD
from robust_zoo.evaluation import evaluate
from robust_zoo.evaluation.curve import (
    N_EXAMPLES,
    accuracy_curve,
    broken_at,
    curve_attack,
    curve_radii,
)
from robust_zoo.record import ThreatModel
from robust_zoo.zoo import load_model

OPTIONS = {"seed": 0, "batch_size": 64}


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_of_a_linear_model_it_is_the_share_of_larger_margins(norm):
    """An image falls at the distance |margin| / dual norm of the difference of the two kernels."""
    rng = np.random.default_rng(0)
    inputs = keras.Input((2, 2, 1))
    outputs = keras.layers.Dense(2, use_bias=False)(keras.layers.Flatten()(inputs - 0.5))
    model = keras.Model(inputs, outputs)
    kernel = rng.normal(size=(4, 2)).astype("float32")
    model.set_weights([kernel])
    x = rng.uniform(0.3, 0.7, (300, 2, 2, 1)).astype("float32")
    difference = kernel[:, 1] - kernel[:, 0]
    margin = (x.reshape(300, 4) - 0.5) @ difference
    y = (margin > 0).astype("int32")
    y[:20] = 1 - y[:20]  # misclassified: they count as fallen everywhere
    dual = np.abs(difference).sum() if norm == "linf" else np.linalg.norm(difference)
    distance = np.where(np.arange(300) < 20, 0, np.abs(margin) / dual)
    threat = ThreatModel(norm=norm, epsilon=0.1)
    radii = curve_radii(threat, (2, 2, 1))
    places = broken_at(curve_attack(threat), radii, model, x, y, np.arange(300), **OPTIONS)
    curve, alone = accuracy_curve(places, radii, threat, seed=0)
    assert [point.correct for point in curve.points] == [own.correct for own in alone]
    inside = [point for point in curve.points if point.epsilon < 0.3]  # where no pixel is cut off
    assert len(inside) >= 5
    for point in inside:
        # PGD comes within 5% of the distance.
        assert (distance > point.epsilon).sum() <= point.correct
        assert point.correct <= (distance > 0.95 * point.epsilon).sum()
        assert point.n_examples == 300
    assert curve.points[-1].correct == 0


def test_each_radius_is_that_of_an_attack_of_its_own(small_cnn, images):
    x, y = images(40), np.arange(40, dtype="int32") % 5
    radii = [0.02, 0.05, 0.1, 0.2, 0.4]
    places = broken_at(
        curve_attack(ThreatModel(norm="linf", epsilon=0.1)),
        radii,
        small_cnn,
        x,
        y,
        np.arange(40),
        **OPTIONS,
    )
    fooled = np.stack(
        [
            PGD(epsilon=radius, steps=20).run(small_cnn, x, y, progress=False, **OPTIONS).success
            for radius in radii
        ]
    )
    first = np.where(fooled.any(axis=0), fooled.argmax(axis=0), len(radii))
    assert len(set(first)) > 2
    assert places.tolist() == first.tolist()


def test_radii():
    linf = curve_radii(ThreatModel(norm="linf", epsilon=0.125), (2, 2, 1))
    assert linf == pytest.approx([0.03125, 0.0625, 0.09375, 0.125, 0.25, 0.5, 1])
    l2 = curve_radii(ThreatModel(norm="l2", epsilon=0.25), (2, 2, 1))
    assert l2 == pytest.approx([0.0625, 0.125, 0.1875, 0.25, 0.5, 1, 2])
    assert curve_radii(ThreatModel(norm="linf", epsilon=1.0), (2, 2, 1)) == [0.25, 0.5, 0.75, 1.0]


def test_an_image_s_draws_do_not_depend_on_the_others(small_cnn, images):
    x, y = images(12), np.arange(12, dtype="int32") % 5
    attack, radii = curve_attack(ThreatModel(norm="linf", epsilon=0.2)), (0.1, 0.2)
    numbers = np.arange(12)
    places = broken_at(attack, radii, small_cnn, x, y, numbers, **OPTIONS)
    some = np.array([1, 5, 6, 11])
    part = broken_at(attack, radii, small_cnn, x[some], y[some], numbers[some], **OPTIONS)
    assert part.tolist() == places[some].tolist()


@pytest.mark.long
def test_records_have_one_of_the_first_examples():
    model = load_model("mlp.natural_digits")
    images = np.zeros((N_EXAMPLES + 5, 8, 8, 1), "float32")
    labels = np.zeros(len(images), "int32")
    record = evaluate(model, (images, labels), attacks=FGSM(epsilon=0.1), progress=False)
    assert {point.n_examples for point in record.curve.points} == {N_EXAMPLES}
    assert record.curve.config["epsilon"] == 0.1
    assert "curve_agrees_with_attacks" in {check.name for check in record.checks}
    bare = evaluate(model, (images[:5], labels[:5]), attacks=FGSM(epsilon=0.1), checks=False)
    assert bare.curve is None
    assert evaluate(model, (images[:5], labels[:5]), progress=False).curve is None
