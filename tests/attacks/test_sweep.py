import numpy as np
import pytest

from robust_zoo.attacks import APGD, FGSM, PGD
from robust_zoo.record import wilson_interval


def test_accuracy_of_a_linear_model_is_exact_and_falls(linear, images):
    model, kernel, bias = linear
    x = 0.2 + 0.6 * images(60, (2, 2, 1))
    z = x.reshape(60, -1) @ kernel + bias
    y = z.argmax(1).astype("int32")
    y[:5] = (y[:5] + 1) % 3  # wrong to begin with
    epsilons = (0.01, 0.05, 0.1, 0.2)
    found = PGD(epsilon=0.3, steps=20, loss="cw_margin").sweep(
        model, x, y, epsilons=epsilons, progress=False
    )
    others = [[k for k in range(3) if k != label] for label in y]
    for epsilon, broken, part in zip(epsilons, found.success, found.accuracies, strict=True):
        # The nearest boundary in the max norm, which the box is far from.
        distance = np.array(
            [
                min((row[own] - row[k]) / np.abs(kernel[:, k] - kernel[:, own]).sum() for k in rest)
                for row, own, rest in zip(z, y, others, strict=True)
            ]
        )
        assert not broken[distance > 1.001 * epsilon].any()
        assert broken[distance < 0.9 * epsilon].mean() > 0.9
        assert part.correct == 60 - broken.sum()
        assert part.ci95 == wilson_interval(part.correct, 60)
    assert (np.diff(found.success.astype(int), axis=0) >= 0).all()
    distances = np.abs(found.x_adv - x).max(axis=(2, 3, 4))
    assert (distances <= np.array(epsilons)[:, None] + 1e-6).all()


def test_one_ball_is_one_run(small_cnn, images):
    x, y = images(20), np.arange(20, dtype="int32") % 5
    for attack in (FGSM(epsilon=0.1), APGD(epsilon=0.1, steps=5)):
        one = attack.run(small_cnn, x, y, seed=3, progress=False)
        table = attack.sweep(small_cnn, x, y, epsilons=[0.1], seed=3, progress=False)
        np.testing.assert_array_equal(table.success[0], one.success)
        np.testing.assert_array_equal(table.x_adv[0], one.x_adv)


def test_tables(small_cnn, images):
    x = images(10)
    found = FGSM(epsilon=0.1).sweep(small_cnn, x, epsilons=[0.01, 0.3], progress=False)
    assert "linf, 10 images" in repr(found)
    assert found._repr_html_().count("<tr>") == 3
    pandas = pytest.importorskip("pandas")
    frame = found.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["epsilon"].tolist() == [0.01, 0.3]
    assert frame["accuracy"].tolist() == [part.accuracy for part in found.accuracies]


@pytest.mark.parametrize("epsilons", [[], [0.2, 0.1], [0.1, 0.1], 0.1, "12"])
def test_epsilons_that_are_refused(small_cnn, images, epsilons):
    with pytest.raises(ValueError, match="epsilons must be at least one number, rising"):
        FGSM(epsilon=0.1).sweep(small_cnn, images(2), epsilons=epsilons)
    with pytest.raises(ValueError, match="epsilon must be > 0"):
        FGSM(epsilon=0.1).sweep(small_cnn, images(2), epsilons=[0.0, 0.1])


def test_everything_is_refused_before_the_first_ball(small_cnn, images, monkeypatch):
    monkeypatch.setattr(FGSM, "run", None)  # which would fail
    attack = FGSM(epsilon=0.1)
    with pytest.raises(ValueError, match="epsilon must be at most 1"):
        attack.sweep(small_cnn, images(2), epsilons=[0.1, 8])
    for labels in ([0], [0, 1, 2]):
        with pytest.raises(ValueError, match="labels"):
            attack.sweep(small_cnn, images(2), labels, epsilons=[0.1])
    with pytest.raises(ValueError, match="attack must not aim at the labels given"):
        FGSM(epsilon=0.1, targeted=True).sweep(small_cnn, images(2), [0, 1], epsilons=[0.1])
