import io
import shutil
import types
import warnings
import zipfile

import keras
import numpy as np
import pytest
from PIL import Image

from robust_zoo.datasets import (
    SPLITS,
    Dataset,
    DatasetError,
    flip_and_crop,
    load_dataset,
    open_dataset,
    options_of,
)
from robust_zoo.datasets.folder import Folder
from robust_zoo.datasets.tfds import Tfds


def rows(images):
    return {image.tobytes() for image in images}


def test_digits():
    parts = {split: load_dataset("digits", split) for split in SPLITS}
    assert {split: len(part) for split, part in parts.items()} == {
        "train": 1137,
        "validation": 160,
        "test": 500,
    }
    for part in parts.values():
        assert part.images.shape[1:] == (8, 8, 1)
        assert part.images.dtype == np.float32
        assert (part.images.min(), part.images.max()) == (0, 1)
        assert set(part.labels) == set(range(10))
        assert part.class_names == tuple("0123456789")
    everything = np.concatenate([part.images for part in parts.values()])
    assert len(rows(everything)) == len(everything)  # no example stands in two splits


def test_samples_of_one_seed_are_nested():
    data = load_dataset("digits")
    small, large, other = data.sample(10, 0), data.sample(50, 0), data.sample(10, 1)
    np.testing.assert_array_equal(small.images, large.images[:10])
    np.testing.assert_array_equal(small.labels, large.labels[:10])
    assert not np.array_equal(small.images, other.images)
    assert len(data.sample(None, 0)) == 500
    assert "n=500" in repr(data)


@pytest.mark.parametrize("n", [0, 501, 2.5, True])
def test_bad_sample_sizes(n):
    with pytest.raises(ValueError, match=r"n must be an integer in 1..500.*'digits'"):
        load_dataset("digits").sample(n, 0)


@pytest.fixture
def npz(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "mine.npz", **arrays)
        return str(tmp_path / "mine.npz")

    return write


def test_npz_of_one_split(npz, images):
    x = (255 * images(6)).astype("uint8")
    data = load_dataset(npz(images=x, labels=np.arange(6) % 3, class_names=["a", "b", "c"]))
    np.testing.assert_allclose(data.images, x / 255, atol=1e-7)
    assert data.class_names == ("a", "b", "c")
    assert data.name == "mine.npz"


@pytest.mark.parametrize("split", ["train", "validation"])
def test_npz_of_one_split_is_never_trained_on(npz, images, split):
    path = npz(images=images(6), labels=np.arange(6))
    with pytest.raises(
        DatasetError, match=f"holds one split, which is 'test', got split '{split}'"
    ):
        load_dataset(path, split)


def test_npz_validation_is_held_out_of_train(npz, images):
    path = npz(
        train_images=images(50),
        train_labels=np.arange(50) % 4,
        test_images=images(9, seed=1),
        test_labels=np.arange(9) % 4,
    )
    train, validation, test = (load_dataset(path, split) for split in SPLITS)
    assert (len(train), len(validation), len(test)) == (45, 5, 9)
    assert not rows(train.images) & rows(validation.images)
    np.testing.assert_array_equal(np.concatenate([train.images, validation.images]), images(50))


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (lambda npz, x: load_dataset("nosuchset"), "unknown dataset 'nosuchset'.*'digits'.*TFDS"),
        (lambda npz, x: load_dataset("digits", "dev"), r"split of 'digits' must be one of .*'dev'"),
        (lambda npz, x: load_dataset("/no/such.npz"), "no dataset file '/no/such.npz'"),
        (lambda npz, x: load_dataset(npz(pictures=x)), "must hold the arrays.*holds.*pictures"),
        (lambda npz, x: load_dataset(npz(images=x * 2, labels=np.zeros(3, int))), "0, 1"),
        (lambda npz, x: load_dataset(npz(images=x, labels=np.zeros(2, int))), r"shape \(3,\)"),
        (
            lambda npz, x: load_dataset(npz(images=x, labels=[0, 1, 2], class_names=["a", "b"])),
            "labels must lie in 0..1",
        ),
    ],
)
def test_bad_datasets(npz, images, load, message):
    with pytest.raises(ValueError, match=message):
        load(npz, 0.6 * images(3) / images(3).max())


@pytest.mark.parametrize(
    "name",
    ["huggingface:mnist", "huggingface:user/x", "gs://x", "kaggle:x", "", "\n", "\0", "x" * 5000],
)
def test_names_that_are_none(name, monkeypatch):
    """Names of other hosts' datasets ask the network; the others are no names at all."""
    import socket

    monkeypatch.delattr(socket, "getaddrinfo")
    with pytest.raises(DatasetError, match="unknown dataset"):
        load_dataset(name)


@pytest.mark.mnist
@pytest.mark.parametrize("split", ["test[5:2]", "test[:0]", "test[", "test[:200%]", "nope", ""])
def test_splits_without_examples(split):
    with pytest.raises(DatasetError, match=r"has no examples|split of 'mnist' must be one of"):
        load_dataset("mnist", split)


def test_a_file_that_is_no_npz(tmp_path):
    path = tmp_path / "broken.npz"
    path.write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(DatasetError, match="is not a readable"):
        load_dataset(str(path))


def test_a_dataset_checks_itself(images):
    with pytest.raises(ValueError, match="labels must lie in"):
        Dataset("x", "", "test", images(2), np.array([0, 5]), ("a", "b"))


@pytest.mark.long
@pytest.mark.mnist
def test_mnist_splits():
    train, validation, test = (load_dataset("mnist", split) for split in SPLITS)
    assert (len(train), len(validation), len(test)) == (55_000, 5_000, 10_000)
    assert test.images.shape == (10_000, 28, 28, 1)
    assert (test.images.min(), test.images.max()) == (0, 1)
    assert (
        np.bincount(test.labels) == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    ).all()
    assert not rows(train.images) & rows(test.images)
    assert not rows(train.images) & rows(validation.images)


@pytest.mark.mnist
def test_a_dataset_that_is_not_prepared(tmp_path):
    with pytest.raises(DatasetError, match=r"'cifar100' is not prepared in .*tfds\.load"):
        load_dataset("cifar100", data_dir=str(tmp_path))


@pytest.mark.mnist
def test_an_unknown_tfds_split():
    with pytest.raises(DatasetError, match=r"split of 'mnist' must be one of .*'dev'"):
        load_dataset("mnist", "dev")


def test_some_classes_are_numbered_anew():
    whole, part = load_dataset("digits", "train"), load_dataset("digits:7,3", "train")
    assert (part.name, part.class_names) == ("digits:7,3", ("7", "3"))
    kept = np.isin(whole.labels, (3, 7))
    np.testing.assert_array_equal(part.images, whole.images[kept])
    np.testing.assert_array_equal(part.labels, (whole.labels[kept] == 3).astype(int))


@pytest.mark.parametrize("classes", ["7", "7,7", "3,10"])
def test_classes_that_make_no_dataset(classes):
    with pytest.raises(
        DatasetError, match=r"classes of 'digits' must be at least two different ones"
    ):
        load_dataset(f"digits:{classes}", "train")


def test_images_are_mirrored_and_shifted_over_black():
    image = np.arange(1, 13, dtype="float32").reshape(1, 3, 4, 1) / 12
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    mirrored = np.pad(image[:, :, ::-1], ((0, 0), (1, 1), (1, 1), (0, 0)))
    allowed = {
        source[0, i : i + 3, j : j + 4].tobytes()
        for source in (padded, mirrored)
        for i in range(3)
        for j in range(3)
    }
    found = flip_and_crop(np.repeat(image, 400, axis=0), np.random.default_rng(0), pad=1)
    assert found.shape == (400, 3, 4, 1)
    assert {one.tobytes() for one in found} == allowed


@pytest.fixture
def folder(tmp_path):
    """Two classes of images of several sizes: dark squares, and bright ones."""
    sizes = ((12, 12), (8, 16), (20, 10))
    for split in ("train", "test"):
        for label, shade in (("bright", 200), ("dark", 20)):
            directory = tmp_path / "shades" / split / label
            directory.mkdir(parents=True)
            for number, size in enumerate(sizes):
                image = np.full((*size, 3), shade + number, "uint8")
                keras.utils.save_img(directory / f"{number}.png", image, scale=False)
    return tmp_path / "shades"


@pytest.mark.home
def test_a_folder_of_images_is_a_dataset(folder):
    data = load_dataset(str(folder), "test", image_shape=(8, 8, 3))
    assert data.name == "shades"
    assert data.class_names == ("bright", "dark")
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]
    expected = np.array([200, 201, 202, 20, 21, 22]) / 255
    np.testing.assert_allclose(
        data.images, np.broadcast_to(expected[:, None, None, None], (6, 8, 8, 3)), atol=1e-5
    )
    grey = load_dataset(str(folder / "test"), image_shape=(4, 4, 1))
    assert grey.images.shape == (6, 4, 4, 1)
    assert load_dataset(str(folder)).images.shape == (6, 12, 12, 3)  # of the first image


@pytest.mark.home
def test_a_class_keeps_its_number_where_a_split_lacks_it(folder):
    shutil.rmtree(folder / "test" / "bright")
    (folder / "test" / ".ipynb_checkpoints").mkdir()
    with pytest.warns(UserWarning, match="has no pictures of the classes bright, which keep"):
        data = load_dataset(str(folder), "test", image_shape=(8, 8, 3))
    assert data.class_names == ("bright", "dark")
    assert data.labels.tolist() == [1, 1, 1]


@pytest.mark.home
def test_bad_folders_say_what_is_wrong(folder, tmp_path):
    with pytest.raises(DatasetError, match=r"must be one of \('train', 'test'\), got 'validation'"):
        load_dataset(str(folder), "validation")
    with pytest.raises(DatasetError, match="holds one split, which is 'test', got split 'train'"):
        load_dataset(str(folder / "test"), "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="subfolder of images for each of at least two classes"):
        load_dataset(f"{tmp_path}/empty")
    with pytest.raises(DatasetError, match="1, 3 or 4 channels, got 2"):
        load_dataset(str(folder), image_shape=(8, 8, 2))


def test_cifar10_holds_1000_out_and_others_5000():
    from robust_zoo.datasets.dataset import held_out

    assert held_out(50_000, "cifar10") == 1000
    assert held_out(60_000, "mnist") == 5000
    assert held_out(300) == 30


def test_shifts_over_the_image_s_own_reflection():
    """Each row of a ramp that is shifted by k begins with its own reflection."""
    ramp = np.broadcast_to(np.arange(8, dtype="float32") / 8, (64, 8, 8))[..., None]
    made = flip_and_crop(ramp, np.random.default_rng(0), pad=2, border="reflect")
    rows = np.unique(made[:, 0, :, 0], axis=0) * 8
    padded = np.pad(np.arange(8), 2, mode="reflect")
    windows = [padded[k : k + 8] for k in range(5)]
    expected = {tuple(window) for window in windows} | {tuple(7 - window) for window in windows}
    assert {tuple(row) for row in rows} == expected


def claiming(path, shape):
    """An .npz whose images claim another shape than they have."""
    np.savez(path, images=np.zeros((4, 2, 2, 1), "float32"), labels=np.arange(4))
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = io.BytesIO()
    form = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, form)
    members["images.npy"] = header.getvalue() + b"\0" * 64
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_a_file_that_claims_more_than_it_has(tmp_path):
    claiming(tmp_path / "mine.npz", (6 * 10**12, 2, 2, 1))
    with pytest.raises(DatasetError, match=r"images\.npy claims shape .*96,000,000,000,000 bytes"):
        load_dataset(str(tmp_path / "mine.npz"))


def test_a_file_that_unpacks_to_very_much(tmp_path, monkeypatch):
    path = str(tmp_path / "mine.npz")
    zeros = np.zeros((2**14, 16, 16, 1), "float32")
    np.savez_compressed(path, images=zeros, labels=np.arange(2**14) % 3)
    assert len(load_dataset(path)) == 2**14
    monkeypatch.setattr("robust_zoo.npz.MOST_BYTES", 2**20)
    with pytest.raises(DatasetError, match="it unpacks from"):
        load_dataset(path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 1, 2, 2**31 - 2]), "must be below 100,000, got"),
        (np.array([0, 1, 2, np.nan]), "labels must be integer classes, got dtype float64"),
        (np.array([0, 1, 2, np.inf], "float32"), "integer classes"),
        (np.array([0, 1, 2, -1]), r"0\.\.2, got values from -1 to 2"),
        (np.array(["a", "b", "c", "d"]), "number them"),
    ],
)
def test_labels_that_are_none(npz, images, labels, message):
    with pytest.raises((TypeError, ValueError), match=message):
        load_dataset(npz(images=images(4), labels=labels))


@pytest.mark.parametrize("bad", ["first", "later"])
def test_a_picture_that_is_none_is_named(tmp_path, bad):
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for number in range(2):
            image = np.full((6, 6, 3), 100 * number, "uint8")
            keras.utils.save_img(tmp_path / label / f"{number}.png", image, scale=False)
    broken = tmp_path / ("cat/0.png" if bad == "first" else "dog/1.png")
    broken.write_bytes(b"no picture")
    with pytest.raises(
        DatasetError,
        match=rf"1 of \d+ pictures cannot be read: .*{broken.name}' \(Unknown image .*\)",
    ) as info:
        load_dataset(str(tmp_path))
    assert "\n" not in str(info.value)


@pytest.fixture
def pictures(tmp_path):
    """A folder of three classes, one of them empty, with a grey, a transparent and two broken pictures."""
    for label in ("ant", "bee", "cat"):
        (tmp_path / label).mkdir()
    rng = np.random.default_rng(0)
    for place, (mode, channels) in {
        "ant/grey.png": ("L", 0), "ant/plain.jpg": ("RGB", 3), "cat/clear.png": ("RGBA", 4),
    }.items():  # fmt: skip
        shape = (8, 12, channels) if channels else (8, 12)
        Image.fromarray(rng.integers(0, 256, shape, dtype="uint8"), mode).save(tmp_path / place)
    (tmp_path / "ant/a_broken.jpg").write_bytes(b"no picture")
    whole = (tmp_path / "ant/plain.jpg").read_bytes()
    (tmp_path / "cat/cut.jpg").write_bytes(whole[: len(whole) // 3])
    return tmp_path


@pytest.mark.home
def test_pictures_that_cannot_be_read_are_left_out_if_asked(pictures):
    with (
        pytest.raises(
            DatasetError,
            match=r"2 of \d+ pictures cannot be read: .*a_broken.jpg' \(.*\), .*cut.jpg' \(.*\): open_dataset\(skip_cor",
        ),
        pytest.warns(
            UserWarning, match="has no pictures of the classes bee, which keep their numbers"
        ),
    ):
        open_dataset(str(pictures), image_shape=(4, 4, 3))
    with (
        pytest.warns(UserWarning, match="has no pictures of the classes bee, which keep"),
        pytest.warns(
            UserWarning,
            match=r"2 of \d+ pictures cannot be read: .*a_broken.jpg' .*cut.jpg' .*; left out",
        ),
    ):
        data = open_dataset(str(pictures), image_shape=(8, 12, 3), skip_corrupt=True)
    assert data.preparation.endswith("; 2 that cannot be read left out")
    assert options_of(data.preparation) == {"central_crop": 1.0, "skip_corrupt": True}
    assert data.class_names == ("ant", "bee", "cat")
    assert data.labels.tolist() == [0, 0, 2]
    grey, _, clear = data.images
    assert (grey[..., :1] == grey).all()
    with Image.open(pictures / "cat/clear.png") as opened:
        expected = np.asarray(opened.convert("RGB"), "float32") / 255
    np.testing.assert_allclose(clear, expected, atol=1e-6)
    with (
        pytest.warns(UserWarning, match="has no pictures of the classes bee, which keep"),
        pytest.warns(UserWarning, match="left out"),
    ):
        own = open_dataset(str(pictures), skip_corrupt=True)
    assert own.images.shape == (3, 8, 12, 3)


@pytest.mark.home
def test_a_folder_without_any_picture_that_can_be_read(tmp_path):
    for label in ("ant", "bee"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "0.png").write_bytes(b"no picture")
    warnings.simplefilter("ignore")
    for shape in (None, (4, 4, 3)):
        with pytest.raises(DatasetError, match="has no picture that can be read"):
            open_dataset(str(tmp_path), image_shape=shape, skip_corrupt=True)


@pytest.mark.home
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pictures_of_all_kinds_have_the_channels_that_are_asked_for(tmp_path, channels):
    """Also where a decoder would refuse: JPEG has no alpha, and CMYK and GIF no grey."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (2, 2, 3), dtype="uint8").repeat(8, 0).repeat(8, 1)
    for label in ("ant", "bee"):
        (tmp_path / label).mkdir()
    for number, (mode, kind) in enumerate(
        (mode, kind)
        for kind, modes in {
            "png": ("L", "RGB", "RGBA"),
            "jpg": ("L", "RGB", "CMYK"),
            "gif": ("P",),
            "bmp": ("RGB",),
        }.items()
        for mode in modes
    ):
        image = Image.fromarray(colours).convert(mode, palette=Image.Palette.ADAPTIVE)
        image.save(tmp_path / ("ant", "bee")[number % 2] / f"{number}.{kind}")
    data = open_dataset(str(tmp_path), image_shape=(16, 16, channels))
    assert data.images.shape == (8, 16, 16, channels)
    grey = (colours @ np.array([0.299, 0.587, 0.114]))[..., None]
    expected = {1: grey, 3: colours, 4: np.concatenate([colours, np.full((16, 16, 1), 255)], -1)}[
        channels
    ]
    close = [np.abs(255 * image - expected).mean() < 12 for image in data.images]
    greys = [np.ptp(255 * image[..., :3], axis=-1).max() < 1 for image in data.images]
    assert sum(close) >= 6  # two were grey to begin with
    assert all(near or flat for near, flat in zip(close, greys, strict=True))


@pytest.mark.home
def test_the_middle_of_a_picture(tmp_path):
    rng = np.random.default_rng(0)
    for label in ("ant", "bee"):
        (tmp_path / label).mkdir()
        image = rng.integers(0, 256, (32, 48, 3), dtype="uint8")
        Image.fromarray(image).save(tmp_path / label / "0.png")
    data = open_dataset(str(tmp_path), image_shape=(28, 28, 3), central_crop=0.875)
    assert data.preparation == "the middle 0.875 resized to 28 x 28, cropped to that aspect ratio"
    np.testing.assert_allclose(
        data.images[1], image[2:30, 10:38].astype("float32") / 255, atol=1e-6
    )
    assert options_of(data.preparation) == {"central_crop": 0.875, "skip_corrupt": False}
    whole = open_dataset(str(tmp_path), image_shape=(28, 28, 3))
    assert options_of(whole.preparation) == {"central_crop": 1.0, "skip_corrupt": False}
    assert np.abs(whole.images - data.images).max() > 0.1
    for share in (0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="central_crop must be above 0 and at most 1, got"):
            open_dataset(str(tmp_path), central_crop=share)


def test_crops_of_data_that_have_one_size():
    with pytest.raises(ValueError, match="central_crop is for folders and for TFDS datasets of"):
        open_dataset("digits", central_crop=0.5)
    with pytest.raises(ValueError, match="skip_corrupt is for folders of images, got"):
        open_dataset("digits", skip_corrupt=True)
    with pytest.raises(ValueError, match="central_crop and skip_corrupt are for folders"):
        open_dataset("digits:1,2", central_crop=0.5)


@pytest.mark.parametrize(
    ("name", "splits"),
    [
        ("imagenet2012", {"train": 100_000, "validation": 500, "test": 700}),  # no labels in "test"
        ("imagenette", {"train": 9_000, "validation": 500}),
    ],
)
def test_the_labelled_validation_split_is_the_test_split(name, splits):
    source = Tfds.__new__(Tfds)
    info = types.SimpleNamespace(
        splits={key: types.SimpleNamespace(num_examples=count) for key, count in splits.items()}
    )
    source._builder = types.SimpleNamespace(name=name, info=info)
    assert source._split("test") == "validation"
    kept = 99_000 if name == "imagenet2012" else 8_100
    assert source._split("train") == f"train[:{kept}]"
    assert source._split("validation") == f"train[{kept}:]"
    assert source._split("validation[:10]") == "validation[:10]"


@pytest.mark.home
def test_every_picture_that_cannot_be_read_is_counted(tmp_path, monkeypatch):
    """Where pictures are read batch by batch, too, and whatever is wrong with them."""
    for label in ("ant", "bee"):
        (tmp_path / label).mkdir()
        for number in range(4):
            image = np.full((6, 6, 3), 60 * number, "uint8")
            Image.fromarray(image).save(tmp_path / label / f"{number}.png")
    (tmp_path / "ant/3.png").unlink()
    (tmp_path / "ant/3.png").symlink_to("nowhere.png")
    (tmp_path / "bee/1.png").write_bytes(b"no picture")
    Image.fromarray(np.zeros((6, 6), "uint8")).convert("P").save(tmp_path / "bee/2.bmp")
    (tmp_path / "bee/9.webp").write_bytes(b"RIFF")
    with pytest.warns(UserWarning, match=r"formats that are not read, \.webp"):
        reader, _ = Folder(tmp_path)._reader("test", (6, 6, 3))
    with pytest.raises(DatasetError) as info:
        reader.read(np.array([3]))
    message = str(info.value)
    assert message.startswith("3 of 9 pictures cannot be read: ")
    for name, reason in (
        ("ant/3.png", "no such file, or a link to none"),
        ("bee/1.png", ""),
        ("bee/2.bmp", "palette"),
    ):
        assert f"{name}' ({reason}" in message or (name in message and reason in message)
    with pytest.warns(UserWarning, match="left out") as caught:
        data = open_dataset(str(tmp_path), skip_corrupt=True)
    told = " ".join(str(warning.message) for warning in caught)
    assert "formats that are not read, .webp" in told
    assert "3 of 9 pictures cannot be read" in told
    assert len(data) == 6


@pytest.mark.home
def test_a_crop_of_tiny_pictures_has_a_pixel(tmp_path):
    for label in ("ant", "bee"):
        (tmp_path / label).mkdir()
        Image.fromarray(np.full((3, 3, 3), 90, "uint8")).save(tmp_path / label / "0.png")
    data = open_dataset(str(tmp_path), image_shape=(4, 4, 3), central_crop=0.1)
    np.testing.assert_allclose(data.images, 90 / 255, atol=1e-6)
