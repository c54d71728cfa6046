import numpy as np

from robust_zoo.datasets import random_resized_crop


def test_whole_images_are_kept_and_flipped():
    images = np.random.default_rng(0).random((40, 6, 9, 2), dtype="float32")
    found = random_resized_crop(images, np.random.default_rng(1), area=(1, 1), ratio=(9 / 6, 9 / 6))
    as_they_are = np.abs(found - images).max((1, 2, 3)) < 1e-5
    mirrored = np.abs(found - images[:, :, ::-1]).max((1, 2, 3)) < 1e-5
    assert (as_they_are ^ mirrored).all()
    assert 5 < as_they_are.sum() < 35


def test_parts_have_the_areas_and_ratios_that_are_asked_for():
    """Of images whose values are their places, so that what is seen of them can be told."""
    height, width, n = 64, 96, 300
    rows, columns = np.mgrid[:height, :width].astype("float32")
    images = np.repeat(np.stack([rows, columns], -1)[None], n, 0)
    found = random_resized_crop(images, np.random.default_rng(0), area=(0.1, 0.5), ratio=(0.5, 2))
    assert found.shape == images.shape
    assert found.dtype == np.float32
    assert found[..., 0].min() >= 0
    assert found[..., 0].max() <= height - 1 + 1e-4
    assert found[..., 1].max() <= width - 1 + 1e-4
    # From the middle of one pixel to that of the next, so that no border is clipped.
    tall = (found[:, 40, 50, 0] - found[:, 20, 50, 0]) * height / 20
    wide = np.abs(found[:, 30, 60, 1] - found[:, 30, 30, 1]) * width / 30
    share, ratio = tall * wide / (height * width), wide / tall
    inside = (tall < height - 1) & (wide < width - 1)
    assert inside.mean() > 0.8
    assert share[inside].min() > 0.09
    assert 0.4 < share[inside].max() < 0.51
    assert 0.49 < ratio[inside].min() < 0.7
    assert 1.5 < ratio[inside].max() < 2.05
