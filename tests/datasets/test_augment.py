import keras
import numpy as np
import pytest

from robust_zoo.datasets import Batches, RandomResizedCrop, open_dataset


def test_whole_images_are_kept_and_flipped():
    images = np.random.default_rng(0).random((40, 6, 9, 2), dtype="float32")
    found = RandomResizedCrop((1, 1), (9 / 6, 9 / 6))(images, np.random.default_rng(1))
    as_they_are = np.abs(found - images).max((1, 2, 3)) < 1e-5
    mirrored = np.abs(found - images[:, :, ::-1]).max((1, 2, 3)) < 1e-5
    assert (as_they_are ^ mirrored).all()
    assert 5 < as_they_are.sum() < 35


def test_parts_have_the_areas_and_ratios_that_are_asked_for():
    """Of images whose values are their places, so that what is seen of them can be told."""
    height, width, n = 64, 96, 300
    rows, columns = np.mgrid[:height, :width].astype("float32")
    images = np.repeat(np.stack([rows, columns], -1)[None], n, 0)
    found = RandomResizedCrop((0.1, 0.5), (0.5, 2))(images, np.random.default_rng(0))
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


@pytest.fixture
def ramps(tmp_path):
    """Pictures of two sizes whose red is their row and whose green is their column."""
    for number, (height, width) in enumerate([(200, 120), (90, 250)] * 4):
        rows, columns = np.mgrid[:height, :width]
        picture = np.stack([rows, columns, np.full_like(rows, number)], -1)
        directory = tmp_path / "ramps" / "train" / ("even", "odd")[number % 2]
        directory.mkdir(parents=True, exist_ok=True)
        keras.utils.save_img(directory / f"{number}.png", picture, scale=False)
    return str(tmp_path / "ramps")


@pytest.mark.home
def test_stored_pictures_are_cut_in_their_own_size(ramps):
    data = open_dataset(ramps, "train", image_shape=(50, 50, 3), in_memory=False)
    crop = RandomResizedCrop((0.1, 0.4), (0.5, 2))
    parts, _ = crop.drawn(len(data), np.random.default_rng(0))
    assert parts.shape == (8, 4)
    found = 255 * data.take(slice(None), parts).images
    for image, (share, ratio, down, right) in zip(found, parts, strict=True):
        height, width = ((200, 120), (90, 250))[round(image[0, 0, 2]) % 2]
        tall = min(np.sqrt(share * height * width / ratio), height)
        wide = min(np.sqrt(share * height * width * ratio), width)
        # The middle of the part, and how far apart two pixels of what it was resized to are in it.
        middle = image[24:26, 24:26].mean((0, 1))
        expected = down * (height - tall) + tall / 2 - 0.5, right * (width - wide) + wide / 2 - 0.5
        np.testing.assert_allclose(middle[:2], expected, atol=1.1)
        steps = (image[40, 40, :2] - image[10, 10, :2]) / 30
        np.testing.assert_allclose(steps, (tall / 50, wide / 50), atol=0.03)


@pytest.mark.home
def test_batches_of_parts_are_drawn_by_seed_pass_and_place(ramps):
    data = open_dataset(ramps, "train", image_shape=(20, 20, 3), in_memory=False)
    whole = Batches(data, 4, 7, RandomResizedCrop())
    hosts = [Batches(data, 4, 7, RandomResizedCrop(), rows=slice(2 * i, 2 * i + 2)) for i in (0, 1)]
    seen = []
    for epoch in (0, 1, 0):
        for batches in (whole, *hosts):
            batches.begin(epoch)
        images, labels = whole[1]
        read = [batches[1] for batches in hosts]
        np.testing.assert_array_equal(np.concatenate([x for x, _ in read]), images)
        np.testing.assert_array_equal(np.concatenate([y for _, y in read]), labels)
        seen.append(images)
    np.testing.assert_array_equal(seen[0], seen[2])
    assert not np.array_equal(seen[0], seen[1])
    # Columns rise from left to right, but for pictures that are flipped.
    rising = [x[:, -1, 1].mean() > x[:, 0, 1].mean() for images in seen for x in images]
    assert set(rising) == {True, False}


@pytest.mark.parametrize("area", [(0, 1), (0.5, 0.1), (0.5, 1.5)])
def test_shares_that_no_part_has(area):
    with pytest.raises(ValueError, match=r"area must be two shares in \(0, 1\]"):
        RandomResizedCrop(area)


@pytest.mark.parametrize("ratio", [(0, 1), (2, 1)])
def test_ratios_that_no_part_has(ratio):
    with pytest.raises(ValueError, match="ratio must be two numbers above 0"):
        RandomResizedCrop(ratio=ratio)


@pytest.mark.parametrize("size", [0, 1798])
def test_batches_that_the_data_do_not_fill(size):
    with pytest.raises(
        ValueError, match=r"batch_size must be in 1\.\.\d+, the examples of 'digits'"
    ):
        Batches(open_dataset("digits", "train"), size, 0)
