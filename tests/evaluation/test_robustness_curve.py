import pytest

from robust_zoo.evaluation import RobustnessCurve, robustness_curve
from robust_zoo.zoo import load_record


def test_points_come_from_the_records():
    records = [load_record(f"mlp.{kind}_digits") for kind in ("pgd", "natural")]
    curve = robustness_curve(records, attack="DeepFool")
    assert curve.names == ("mlp.natural_digits", "mlp.pgd_digits")
    found = [next(i for i in r.minimum_norm if i.name == "DeepFool").found for r in records]
    assert curve.distances == (found[1].mean, found[0].mean)
    assert curve.accuracies == (records[1].clean.accuracy, records[0].clean.accuracy)


def test_distance_at_a_matched_accuracy():
    curve = RobustnessCurve(("a", "b", "c"), (1.0, 2.0, 4.0), (0.9, 0.8, 0.85))
    assert curve.distance_at(0.9) == 1.0
    assert curve.distance_at(0.86) == pytest.approx(1.4)
    assert curve.distance_at(0.825) == pytest.approx(3.0)  # the outer one of two
    assert curve.distance_at(0.8) == 2.0
    assert curve.distance_at(0.95) is curve.distance_at(0.7) is None


def test_records_that_cannot_be_compared():
    digits, mnist = load_record("mlp.pgd_digits"), load_record("madry_cnn.pgd_mnist")
    with pytest.raises(ValueError, match="records must be at least one, measured on the same"):
        robustness_curve([])
    mnist_natural = load_record("lenet.natural_mnist")
    with pytest.raises(ValueError, match="records must be at least one, measured on the same"):
        robustness_curve([digits, mnist_natural], attack="DeepFool")
    with pytest.raises(ValueError, match=r"of at least 99% of the examples, got \d+ of 1000 of"):
        robustness_curve([mnist])
    with pytest.raises(ValueError, match="must have distances under FAB, got"):
        robustness_curve([digits], attack="FAB")
