"""Data that are read as they are needed."""

import pathlib
import pickle

import keras
import numpy as np
import pytest

from robust_zoo.attacks import PGD
from robust_zoo.datasets import (
    DatasetError,
    StoredDataset,
    dataset,
    load_dataset,
    open_dataset,
)
from robust_zoo.evaluation import evaluate

tf = pytest.importorskip("tensorflow")


@pytest.fixture
def little_memory(monkeypatch):
    monkeypatch.setattr(dataset, "_IN_MEMORY", 1000)


@pytest.fixture
def prepared(tmp_path):
    """Makes a TFDS dataset of 30 pictures in several files."""

    def prepare(file_format="tfrecord", sizes=((8, 8),)):
        import tensorflow_datasets as tfds

        rng = np.random.default_rng(0)
        images = [rng.integers(0, 256, (*sizes[i % len(sizes)], 3), "uint8") for i in range(30)]
        shape = (*sizes[0], 3) if len(sizes) == 1 else (None, None, 3)
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=shape),
                "label": tfds.features.ClassLabel(num_classes=3),
            }
        )
        examples = [(i, {"image": x, "label": i % 3}) for i, x in enumerate(images)]
        tfds.dataset_builders.store_as_tfds_dataset(
            name="pictures",
            version="1.0.0",
            data_dir=tmp_path,
            features=features,
            split_datasets={"train": examples, "test": examples[:20]},
            file_format=file_format,
        )
        return str(tmp_path)

    return prepare


def of_test(name="pictures", **options):
    return open_dataset(name, **options), load_dataset(name, data_dir=options.get("data_dir"))


def assert_same(one, other):
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.labels, other.labels)


@pytest.mark.slow
@pytest.mark.home
@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_single_examples_are_those_of_the_whole(prepared, little_memory, file_format):
    where = prepared(file_format)
    for split in ("train", "validation", "test", "train[10%:50%]"):
        stored = open_dataset("pictures", split, data_dir=where)
        whole = load_dataset("pictures", split, data_dir=where)
        assert isinstance(stored, StoredDataset)
        assert (len(stored), stored.sha256) == (len(whole), whole.sha256)
        assert_same(stored.take(np.array([2, 0])), whole.take(np.array([2, 0])))
        assert_same(stored.sample(2, 5).take(slice(None)), whole.sample(2, 5))
        assert_same(pickle.loads(pickle.dumps(stored)).take(slice(1, 3)), whole.take(slice(1, 3)))
        assert f"n={len(whole)}" in repr(stored)
    assert len(open_dataset("pictures", "train", data_dir=where)) == 27  # three are held out


@pytest.mark.slow
@pytest.mark.home
def test_small_sets_are_in_memory(prepared):
    data, whole = of_test(data_dir=prepared())
    assert_same(data, whole)
    assert type(data) is type(whole)


@pytest.mark.slow
@pytest.mark.home
@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_several_sizes_are_resized_and_it_is_told(prepared, file_format):
    where = prepared(file_format, sizes=((8, 12), (16, 8)))
    with pytest.raises(DatasetError, match="have several sizes: use open_dataset"):
        load_dataset("pictures", data_dir=where)
    with pytest.raises(DatasetError, match="image_shape is needed"):
        open_dataset("pictures", data_dir=where)
    data = open_dataset("pictures", data_dir=where, image_shape=(6, 6, 3))
    assert data.images.shape == (20, 6, 6, 3)
    assert data.preparation == "resized to 6 x 6, cropped to that aspect ratio"


@pytest.mark.slow
@pytest.mark.home
def test_files_that_are_cut_short_are_told(prepared):
    where = pathlib.Path(prepared())
    (file,) = where.glob("pictures/1.0.0/pictures-test.tfrecord*")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DatasetError, match=r"'pictures' in .* cannot be read: .*Prepare it again"):
        load_dataset("pictures", data_dir=str(where))


@pytest.mark.cifar10
@pytest.mark.slow
@pytest.mark.home
def test_cifar10_by_single_examples(little_memory):
    stored, whole = of_test("cifar10")
    assert_same(stored.sample(20, 3).take(slice(None)), whole.sample(20, 3))
    assert stored.sample(20, 3).sha256 == whole.sample(20, 3).sha256


@pytest.fixture
def network():
    keras.utils.set_random_seed(0)
    parts = [keras.layers.Flatten(), keras.layers.Dense(3, name="logits")]
    return keras.Sequential([keras.Input((8, 8, 3)), *parts], name="linear")


@pytest.mark.long
@pytest.mark.home
@pytest.mark.parametrize("workers", [None, 2])
def test_an_evaluation_holds_a_task_s_images_only(
    prepared, little_memory, network, monkeypatch, workers
):
    where = prepared()
    stored, whole = of_test(data_dir=where)
    options = {"attacks": PGD(epsilon=0.02, steps=3), "n": 15, "checks": False, "task_size": 4}
    asked = []
    original = type(stored.reader).read
    monkeypatch.setattr(dataset, "_READ_AT_ONCE", 4)
    monkeypatch.setattr(
        type(stored.reader), "read", lambda *a: asked.append(len(a[1])) or original(*a)
    )
    one, other = (evaluate(network, data, **options, workers=workers) for data in (stored, whole))
    assert max(asked) <= 4
    assert (one.clean, one.worst_case, one.dataset) == (
        other.clean,
        other.worst_case,
        other.dataset,
    )


@pytest.mark.slow
@pytest.mark.home
def test_a_record_tells_how_pictures_were_resized(network, tmp_path):
    for label, size in (("a", (8, 12)), ("b", (16, 8)), ("c", (8, 8))):
        (tmp_path / label).mkdir()
        keras.utils.save_img(tmp_path / label / "one.png", np.zeros((*size, 3)))
    record = evaluate(network, str(tmp_path), checks=False)
    assert record.dataset.preparation == "resized to 8 x 8, cropped to that aspect ratio"
    assert type(record).from_json(record.to_json()) == record


@pytest.mark.home
@pytest.mark.parametrize("count", [2, 4])
def test_folders_of_other_classes_than_the_model_s_are_refused(network, tmp_path, count):
    for label in "abcd"[:count]:
        (tmp_path / label).mkdir()
        keras.utils.save_img(tmp_path / label / "one.png", np.zeros((8, 8, 3)))
    opened = open_dataset(str(tmp_path), image_shape=(8, 8, 3))
    for data in (str(tmp_path), opened):
        with pytest.raises(
            ValueError, match=f"as many classes as the model, 3, .* has {count}: a, b"
        ):
            evaluate(network, data, checks=False)
