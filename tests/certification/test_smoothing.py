"""Randomized smoothing against closed forms: the smoothed linear classifier is known."""

import keras
import numpy as np
import pytest
import scipy.stats
from keras import ops

from robust_zoo.certification import ABSTAIN, SmoothedClassifier, Smoothing, smooth
from robust_zoo.defenses import GaussianAugmentation


@pytest.fixture
def two_classes():
    """A linear classifier of two classes, and its direction as float64."""
    inputs = keras.Input((2, 2, 1))
    outputs = keras.layers.Dense(2, name="logits")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, outputs, name="two_classes")
    kernel = np.random.default_rng(3).normal(size=(4, 2)).astype("float32")
    model.set_weights([kernel, -kernel.sum(axis=0) / 2])
    return model, (kernel[:, 1] - kernel[:, 0]).astype("float64")


def distances(direction, x):
    """Signed distances to the boundary, positive in class 1."""
    return (x.reshape(len(x), -1) - 0.5) @ direction / np.linalg.norm(direction)


def test_votes_of_a_linear_classifier(two_classes, images):
    model, direction = two_classes
    x, sigma, n = images(12, (2, 2, 1)), 0.3, 4000
    away = distances(direction, x)
    y = (away > 0).astype(int)
    found = smooth(model, sigma, n=n, alpha=0.01).certify(x, y, seed=5)
    # The probability of its own side is Phi(distance / sigma).
    probable = scipy.stats.norm.cdf(np.abs(away) / sigma)
    right = found.predicted == y
    z = (found.votes[right] / n - probable[right]) / np.sqrt(
        probable[right] * (1 - probable[right]) / n
    )
    assert right.sum() >= 10
    assert np.abs(z).max() < 4
    assert z.std() < 2
    # No radius is above the distance, but for chance, and most come close.
    assert (found.radius <= np.abs(away) + 1e-6).all()
    close = right & (np.abs(away) < 1.5 * sigma)
    assert (found.radius[close] > np.abs(away[close]) - 0.15 * sigma).all()
    assert found.average_radius == pytest.approx((found.radius * right).mean())
    curve = [found.accuracy(radius).accuracy for radius in (0.0, 0.1, 0.2, 10.0)]
    assert curve == sorted(curve, reverse=True)
    assert curve[-1] == 0
    wrong = smooth(model, sigma, n=100).certify(x, 1 - y, seed=5)
    assert wrong.accuracy(0.0).correct <= 2  # next to the boundary alone


@pytest.mark.parametrize("votes", [0, 5, 55, 66, 99, 100])
def test_radius_is_that_of_the_exact_interval(votes):
    smoothing = Smoothing(0.5, n=100, alpha=0.001)
    test = scipy.stats.binomtest(votes, 100, alternative="greater")
    low = test.proportion_ci(confidence_level=0.999, method="exact").low
    (radius,) = smoothing.radius(np.array([votes]))
    if low > 0.5:
        assert radius == pytest.approx(0.5 * scipy.stats.norm.ppf(low), rel=1e-9)
    else:
        assert np.isnan(radius)
    assert np.isnan(radius) == (votes < 66)  # of 100 at alpha 0.001, by the paper's code


def test_largest_radii_of_the_paper():
    assert Smoothing(0.25, n=100_000).largest == pytest.approx(0.953, abs=5e-4)
    assert Smoothing(0.25, n=1_000).largest == pytest.approx(0.616, abs=5e-4)
    smoothing = Smoothing(0.5, n=1_000)
    assert (smoothing.radii[0], len(smoothing.radii)) == (0, 12)
    assert smoothing.radii[-1] == pytest.approx(1.232, abs=5e-4)


def test_votes_depend_on_image_and_seed_alone(two_classes, images):
    model, _ = two_classes
    x, y = images(5, (2, 2, 1)), np.zeros(5, int)
    smoothed = smooth(model, 0.5, n=50)
    whole = smoothed.certify(x, y, seed=1, batch_size=50)
    for batch_size in (1, 7, 16):
        again = smoothed.certify(x, y, seed=1, batch_size=batch_size)
        np.testing.assert_array_equal(again.votes, whole.votes)
    part = smoothed.certify(x[3:], y[3:], seed=1, numbers=[3, 4])
    np.testing.assert_array_equal(part.votes, whole.votes[3:])
    other = smoothed.certify(x, y, seed=2)
    assert (other.votes != whole.votes).any()


def test_predictions_abstain_near_the_boundary(two_classes, images):
    model, direction = two_classes
    x = images(6, (2, 2, 1))
    x[0] = 0.5  # on the boundary
    found = smooth(model, 0.2, n0=200).predict(x, seed=0)
    away = distances(direction, x)
    assert found[0] == ABSTAIN
    clear = np.abs(away) > 0.2
    assert clear.any()
    np.testing.assert_array_equal(found[clear], (away[clear] > 0).astype(int))


def test_abstentions_are_errors(two_classes):
    model, _ = two_classes
    x = np.full((3, 2, 2, 1), 0.5, "float32")
    found = smooth(model, 0.2, n=100).certify(x, [0, 1, 0])
    assert found.abstained >= 2
    np.testing.assert_array_equal(found.radius[found.predicted == ABSTAIN], 0)
    assert not found.certified(0.0)[found.predicted == ABSTAIN].any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": 0}, "sigma must be a number above 0, got 0"),
        ({"sigma": -0.1}, "sigma must be a number above 0"),
        ({"sigma": np.nan}, "sigma must be a number above 0"),
        ({"n": 9}, "n must be at least 10 to certify anything at alpha 0.001, got 9"),
        ({"n": 16, "alpha": 1e-5}, "n must be at least 17"),
        ({"n0": 0}, r"n0 must be an integer in 1\.\."),
        ({"alpha": 1.0}, r"alpha must be a number in \(0, 1\)"),
        ({"radii": (0.1, -0.2)}, "radii must be rising numbers >= 0"),
        ({"radii": ()}, "radii must be rising"),
        ({"radii": (np.nan,)}, "radii must be rising"),
        ({"radii": (0.0, np.inf)}, "radii must be rising"),
        ({"radii": "ab"}, "radii must be rising"),
        ({"radii": 0.5}, "radii must be rising"),
        ({"n": 10**9}, "n must be an integer in 1"),
        ({"images": True}, "images must be an integer"),
    ],
)
def test_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Smoothing(**{"sigma": 0.25, **settings})


def test_no_negative_radius(two_classes, images):
    model, _ = two_classes
    found = smooth(model, 0.2, n=20).certify(images(2, (2, 2, 1)), [0, 1])
    with pytest.raises(ValueError, match=r"radius must be a number >= 0, got -0\.1"):
        found.accuracy(-0.1)


def test_noise_of_training_is_that_of_smoothing(small_cnn, images):
    """Normal of the standard deviation asked for, other numbers at each step, on the images alone."""
    defense = GaussianAugmentation(small_cnn, sigma=0.2)
    x, y = images(64), np.arange(64) % 5
    made = [defense.prepare((ops.convert_to_tensor(x), y), training)[0] for training in (1, 0)]
    training, validation = (ops.convert_to_numpy(part["clean"]) - x for part in made)
    assert (training != validation).any()
    for noise in (training, validation):
        # Values lie between -0.2 * 5 and 1 + 0.2 * 5: nothing is clipped.
        assert scipy.stats.kstest(noise.ravel() / 0.2, "norm").pvalue > 1e-3
    assert "adversarial" not in made[0]


def test_votes_are_of_the_weights_as_they_are(two_classes):
    model, _ = two_classes
    smoothed = SmoothedClassifier(model, Smoothing(0.1, n=20))
    x = np.full((1, 2, 2, 1), 0.9, "float32")
    (first,) = smoothed.certify(x, [0]).predicted
    assert first != ABSTAIN
    model.set_weights([-weight for weight in model.get_weights()])
    assert smoothed.certify(x, [0]).predicted == [1 - first]


def test_a_random_model_is_refused(images):
    @keras.saving.register_keras_serializable("robust_zoo_tests")
    class Noisy(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.seed = keras.random.SeedGenerator(0)

        def call(self, x):
            return x + keras.random.normal(ops.shape(x), stddev=0.1, seed=self.seed)

    inputs = keras.Input((2, 2, 1))
    logits = keras.layers.Dense(2, name="logits")(keras.layers.Flatten()(Noisy()(inputs)))
    noisy = keras.Model(inputs, logits, name="noisy")
    with pytest.raises(ValueError, match="'noisy' must give the same logits"):
        smooth(noisy, 0.1, n=20).certify(images(2, (2, 2, 1)), [0, 1])


def test_numbers_of_numpy(two_classes, images):
    model, _ = two_classes
    smoothing = Smoothing(np.float32(0.25), n=np.int64(20))
    assert smoothing == Smoothing(0.25, n=20)
    assert type(smoothing.sigma) is float
    found = smooth(model, 0.25, n=20).certify(images(2, (2, 2, 1)), [0, 1])
    assert found.accuracy(np.int64(0)) == found.accuracy(0.0)
    with pytest.raises(ValueError, match="images must"):
        smooth(model, 0.25, n=20).certify(images(2, (2, 2, 1))[:0], [])
