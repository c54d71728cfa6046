import numpy as np
import pytest

from robust_zoo.attacks import JSMA
from robust_zoo.evaluation import jsma_table


@pytest.mark.slow
def test_one_run_holds_the_runs_of_every_budget(small_cnn, images):
    x = images(12)
    y = np.asarray(small_cnn(x)).argmax(1)
    y[0] = (y[0] + 1) % 5  # a misclassified image
    gammas = (0.06, 0.12, 0.34)  # 2, 4 and 12 of 36 values
    rows = jsma_table(small_cnn, x, y, gammas=gammas, batch_size=8)
    rates = [row.success_rate for row in rows]
    assert 0 < rates[0] < rates[2] < 1
    for gamma, row in zip(gammas, rows, strict=True):
        successes, changed = [], []
        for shift in range(1, 5):
            result = JSMA(gamma=gamma, targeted=True).run(small_cnn, x, (y + shift) % 5)
            successes.append(result.success)
            changed.append(result.distance / 36)
        successes, changed = np.stack(successes), np.stack(changed)
        assert row.gamma == gamma
        assert row.n_examples == 12
        assert row.success_rate == pytest.approx(successes.mean())
        by_successes = changed[successes]
        assert row.changed_by_successes == pytest.approx(by_successes.mean())
        # The paper's matrix has a row for the true class, and zeros where the attack failed.
        assert row.paper_changed_by_successes == pytest.approx(by_successes.sum() / (12 * 5))
        assert row.paper_changed == pytest.approx(0.8 * row.changed)
        # An attack that fails has spent its budget, or found no pair that helps.
        budget = 2 * JSMA(gamma=gamma).steps_on((6, 6, 1)) / 36
        spent = by_successes.sum() + budget * (~successes).sum()
        assert row.changed <= spent / successes.size + 1e-9
        if gamma == gammas[0]:
            assert row.changed == pytest.approx(spent / successes.size)


def test_bad_arguments(small_cnn, images):
    x, y = images(2), np.zeros(2, int)
    with pytest.raises(ValueError, match="gammas must be at least one, got none"):
        jsma_table(small_cnn, x, y, gammas=())
    with pytest.raises(ValueError, match=r"gamma must lie in \(0, 1\], got 2"):
        jsma_table(small_cnn, x, y, gammas=(2,))
    with pytest.raises(ValueError, match="gamma must let two values change"):
        jsma_table(small_cnn, x, y, gammas=(0.01,))
