from functools import partial

import numpy as np
import pytest

from robust_zoo.attacks import FGSM, PixelSwap
from robust_zoo.evaluation import clean_accuracy, roll_off, transfer_accuracy


@pytest.mark.slow
def test_area_under_the_curve(linear, images):
    model = linear[0]
    x = images(100, (2, 2, 1))
    y = (x.reshape(100, 4) @ linear[1] + linear[2]).argmax(1)
    y[:7] = (y[:7] + 1) % 3
    found = roll_off(FGSM, model, x, y, (0.05, 0.1, 0.4), batch_size=32)
    assert found.epsilons == (0.0, 0.05, 0.1, 0.4)
    heights = [part.accuracy for part in found.accuracies]
    assert heights[0] == 0.93 == clean_accuracy(model, x, y).accuracy
    for epsilon, height in zip((0.05, 0.1, 0.4), heights[1:], strict=True):
        single = transfer_accuracy(FGSM(epsilon=epsilon), model, model, x, y)
        assert single.accuracy == height
    area = (heights[0] + heights[1]) / 2 * 0.125 + (heights[1] + heights[2]) / 2 * 0.125
    area += (heights[2] + heights[3]) / 2 * 0.75
    assert found.area == pytest.approx(area)
    assert heights[3] < heights[0]


def test_pixel_swaps(linear, images):
    x, y = images(30, (2, 2, 1)), np.arange(30) % 3
    found = roll_off(partial(PixelSwap, permutation=2), linear[0], x, y, (1, 2, 4))
    assert found.epsilons == (0.0, 1.0, 2.0, 4.0)


@pytest.mark.parametrize("epsilons", [(), (0.0, 0.1), (0.2, 0.1), (0.1, 0.1)])
def test_magnitudes_rise(linear, images, epsilons):
    with pytest.raises(ValueError, match="epsilons must be numbers above 0 that rise, got"):
        roll_off(FGSM, linear[0], images(2, (2, 2, 1)), [0, 1], epsilons)
