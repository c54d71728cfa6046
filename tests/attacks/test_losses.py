import numpy as np
import pytest
from keras import ops

from robust_zoo import backend
from robust_zoo.attacks import DLR, CrossEntropy, CWMargin, Entropy
from robust_zoo.attacks.losses import get_loss, span_of, unit_of

LOGITS = np.array([[2.0, -1.0, 0.5, 0.0], [0.1, 0.2, 0.3, -3.0]], "float32")
LABELS = np.array([0, 2], "int32")
TARGETS = np.array([1, 0], "int32")


def value(loss, targets=None, logits=LOGITS):
    targets = None if targets is None else ops.convert_to_tensor(targets)
    found = loss(ops.convert_to_tensor(logits), ops.convert_to_tensor(LABELS), targets)
    return ops.convert_to_numpy(found)


def test_softplus_of_the_log_odds_is_cross_entropy():
    for targets, sign in ((None, 1), (TARGETS, -1)):
        labels = LABELS if targets is None else targets
        cross_entropy = -np.log(np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True))
        cross_entropy = cross_entropy[np.arange(2), labels]
        odds = sign * value(CrossEntropy(), targets)
        np.testing.assert_allclose(np.log1p(np.exp(odds)), cross_entropy, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e9, 1e20])
def test_huge_logits_keep_their_order(scale):
    scaled = LOGITS * np.float32(scale)
    runner_up = np.array([scaled[0, 2], scaled[1, 1]])
    expected = runner_up - scaled[np.arange(2), LABELS]
    found = value(CWMargin(confidence=1e30), logits=scaled)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(value(CrossEntropy(), logits=scaled), expected, rtol=1e-5)


def test_entropy_against_numpy():
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    np.testing.assert_allclose(value(Entropy()), -(p * np.log(p)).sum(1), rtol=1e-5)


def test_cross_entropy_has_a_gradient_where_softmax_saturates():
    logits = ops.convert_to_tensor(np.array([[500.0, 0.0, 1.0]], "float32"))
    labels = ops.convert_to_tensor(np.array([0], "int32"))
    _, gradient = backend.value_and_input_gradient(
        lambda z: CrossEntropy()(z, labels, None), logits
    )
    odds = 1 / (1 + np.e)
    np.testing.assert_allclose(ops.convert_to_numpy(gradient), [[-1.0, odds, 1 - odds]], rtol=1e-5)


@pytest.mark.parametrize(
    ("confidence", "expected"),
    [(0.0, [-1.5, -0.1]), (50.0, [-1.5, -0.1])],
)
def test_cw_margin_of_correct_examples(confidence, expected):
    np.testing.assert_allclose(value(CWMargin(confidence=confidence)), expected, rtol=1e-5)


def test_cw_margin_stops_at_its_confidence():
    flipped = LOGITS.copy()
    flipped[:, 3] = 10.0  # misclassified by margins of 8 and 9.7
    np.testing.assert_allclose(value(CWMargin(), logits=flipped), [0, 0])
    np.testing.assert_allclose(value(CWMargin(confidence=9.0), logits=flipped), [8, 9])


def test_targeted_cw_margin():
    # Best other class minus target: 2 - (-1) and 0.3 - 0.1.
    np.testing.assert_allclose(value(CWMargin(), TARGETS), [-3.0, -0.2], rtol=1e-5)


def test_dlr_by_hand():
    # Sorted logits 2, .5, 0, -1 and .3, .2, .1, -3.
    np.testing.assert_allclose(value(DLR()), [-1.5 / 2.0, -0.1 / 0.2], rtol=1e-5)
    expected = [-3.0 / (2 + 0.5), -0.2 / (0.3 - 0.5 * (0.1 - 3))]
    np.testing.assert_allclose(value(DLR(), TARGETS), expected, rtol=1e-5)


def test_losses_round_trip_through_their_configuration():
    for loss in (CrossEntropy(), CWMargin(confidence=3.0), DLR()):
        assert get_loss(loss.get_config()) == loss
        assert get_loss(loss.name) == type(loss)()


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"loss must be a Loss or one of .*'hinge'"):
        get_loss("hinge")
    with pytest.raises(ValueError, match="confidence must be >= 0, got -1"):
        CWMargin(confidence=-1)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e12])
def test_masked_classes_do_not_count_in_the_span(scale):
    logits = scale * np.array([[1.0, 2.0, 5.0, 0.0, 3.0], [4.0, 0.5, 1.0, 1.5, 2.0]], "float32")
    masked = np.concatenate([logits, [[-1e30], [-1e30]]], axis=1).astype("float32")
    np.testing.assert_allclose(span_of(logits), scale * np.array([5.0, 3.5]), rtol=1e-5)
    np.testing.assert_allclose(span_of(masked), scale * np.array([3.0, 2.5]), rtol=1e-5)
    units = [ops.convert_to_numpy(unit_of(z)) for z in (logits, masked)]
    assert (units[1] * scale * 3 < 100).all()
    assert (units[1] * scale * 3 > 1).all()
    assert (units[0] == units[1]).all() or scale != 1
