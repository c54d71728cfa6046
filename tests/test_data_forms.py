"""The same examples in every form that data may have are measured alike."""

import keras
import numpy as np
import pytest

import robust_zoo as rz
from robust_zoo import architectures
from robust_zoo.attacks import PGD
from robust_zoo.datasets import load_dataset
from robust_zoo.defenses import AdversarialTraining
from robust_zoo.testing.defenses import Batches

N = 48


def stream(x, y):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(16)


def file(x, y, path):
    np.savez(path / "mine.npz", images=x, labels=y, class_names=[str(k) for k in range(10)])
    return str(path / "mine.npz")


def eight_bits(x, y, path):
    np.savez(path / "mine.npz", images=np.round(255 * x).astype("uint8"), labels=y)
    return str(path / "mine.npz")


def folder(x, y, path):
    image = pytest.importorskip("PIL.Image")
    for number, (pixels, label) in enumerate(zip(x, y, strict=True)):
        (path / "mine" / str(label)).mkdir(parents=True, exist_ok=True)
        picture = image.fromarray(np.round(255 * pixels[..., 0]).astype("uint8"))
        picture.save(path / "mine" / str(label) / f"{number:02d}.png")
    return str(path / "mine")


MEASURED = {
    "arrays": lambda x, y, path: (x, y),
    "float64": lambda x, y, path: (x.astype("float64"), y),
    "list": lambda x, y, path: [x, y],
    "labels in a column": lambda x, y, path: (x, y[:, None]),
    "unsigned labels": lambda x, y, path: (x, y.astype("uint8")),
    "tf.data": lambda x, y, path: stream(x, y),
    "PyDataset": lambda x, y, path: Batches(x, y),
    "npz": file,
    "npz of 8 bits": eight_bits,
    "folder": folder,
}


@pytest.fixture
def examples():
    """Digits on 255 levels, so that 8 bits lose nothing."""
    data = load_dataset("digits")
    return np.round(255 * data.images[:N]).astype("float32") / np.float32(255), data.labels[:N]


def network():
    keras.utils.set_random_seed(0)
    return architectures.mlp((8, 8, 1), hidden=(16,))


@pytest.mark.slow
@pytest.mark.parametrize("form", MEASURED)
def test_measured_alike(form, examples, tmp_path):
    model = network()
    options = {"attacks": PGD(epsilon=0.05, steps=3), "checks": False, "progress": False}
    expected = rz.evaluate(model, examples, **options)
    record = rz.evaluate(model, MEASURED[form](*examples, tmp_path), **options)
    assert record.clean == expected.clean
    if form != "folder":  # sorted by class
        assert record.attacks[0].correct == expected.attacks[0].correct
        assert record.dataset.sha256 == expected.dataset.sha256
    assert record.dataset.name == {
        "tf.data": "stream", "PyDataset": "stream", "npz": "mine.npz", "npz of 8 bits": "mine.npz", "folder": "mine",
    }.get(form, "arrays")  # fmt: skip


def test_a_folder_of_fewer_classes_than_the_model_has_is_refused(examples, tmp_path):
    x, y = examples
    some = np.isin(y, (3, 7))
    data = folder(x[some], y[some], tmp_path)
    with pytest.raises(
        ValueError, match=r"as many classes as the model, 10, .* has 2: 3, 7\. Of a folder"
    ):
        rz.evaluate(network(), data, checks=False, progress=False)
    for label in range(10):
        (tmp_path / "mine" / str(label)).mkdir(exist_ok=True)
    with pytest.warns(UserWarning, match="has no pictures of the classes 0, 1, 2, 4, 5, 6, 8, 9"):
        record = rz.evaluate(network(), data, checks=False, progress=False)
    expected = rz.evaluate(network(), (x[some], y[some]), checks=False, progress=False)
    assert record.clean == expected.clean


def test_a_trainer_that_did_not_train_the_model_is_refused(examples):
    model = network()
    trainer = AdversarialTraining(network(), attack=PGD(epsilon=0.05, steps=1))
    with pytest.raises(ValueError, match="AdversarialTraining around another model"):
        rz.evaluate(model, examples, defense=trainer, checks=False, progress=False)
    with pytest.raises(ValueError, match="AdversarialTraining before its fit"):
        rz.evaluate(trainer.classifier, examples, defense=trainer, checks=False, progress=False)


def test_a_trainer_whose_weights_something_else_changed_is_refused(examples):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = network()
    trainer = AdversarialTraining(model, attack=PGD(epsilon=0.05, steps=1))
    trainer.compile("sgd", loss)
    trainer.fit(*examples, verbose=0)
    options = {"defense": trainer, "checks": False, "progress": False}
    assert rz.evaluate(model, examples, **options).defense.name == "AdversarialTraining"
    model.compile(keras.optimizers.SGD(0.1), loss)
    model.fit(*examples, verbose=0)
    with pytest.raises(ValueError, match="weights changed after the fit of AdversarialTraining"):
        rz.evaluate(model, examples, **options)
    trainer.train_on_batch(*examples)
    assert rz.evaluate(model, examples, **options).defense.name == "AdversarialTraining"
