import json
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
import types

import keras
import numpy as np
import pytest
from keras import layers, ops
from keras.src.backend.common import global_state

from robust_zoo import architectures
from robust_zoo.attacks import FGSM
from robust_zoo.evaluation import evaluate
from robust_zoo.places import RECORD
from robust_zoo.record import RecordError, RobustnessRecord
from robust_zoo.weights import FILE, round_to_float16, sha256
from robust_zoo.zoo import CheckpointError, load_model, save_model


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A model, its weights, its record, and all of it as saved."""
    model = architectures.mlp((8, 8, 1), hidden=(16,))
    record = evaluate(model, "digits", attacks=[FGSM(epsilon=0.1)], n=20, checks=False)
    saved = save_model(model, tmp_path_factory.mktemp("first") / "saved", record)
    return types.SimpleNamespace(
        model=model, weights=model.get_weights(), record=record, saved=saved
    )


@pytest.fixture
def model(first):
    first.model.set_weights(first.weights)
    return first.model


@pytest.fixture
def record(first):
    return first.record


@pytest.fixture
def saved(first, tmp_path):
    return pathlib.Path(shutil.copytree(first.saved, tmp_path / "saved"))


def logits(model, images):
    return ops.convert_to_numpy(model(images(5, (8, 8, 1))))


def test_round_trip(model, record, saved, images):
    loaded = load_model(saved)
    assert type(loaded).__name__ == "Functional"
    np.testing.assert_array_equal(logits(loaded, images), logits(model, images))
    assert loaded.robustness == record
    assert not loaded.compiled
    assert sorted(path.name for path in saved.iterdir()) == [
        "README.md",
        "config.json",
        "metadata.json",
        FILE,
        RECORD,
    ]
    assert sha256(saved / FILE) == record.weights.sha256


def test_a_saved_model_can_be_saved_again_with_its_record(saved, tmp_path):
    loaded = load_model(saved)
    again = save_model(loaded, tmp_path / "again", loaded.robustness)
    assert (again / FILE).read_bytes() == (saved / FILE).read_bytes()


@pytest.mark.long
def test_keras_alone_loads_the_same_model(saved, model, images, tmp_path):
    np.save(tmp_path / "x.npy", images(5, (8, 8, 1)))
    code = (
        "import sys, keras, numpy as np\n"
        "model = keras.saving.load_model(sys.argv[1])\n"
        "assert 'robust_zoo' not in sys.modules\n"
        "logits = model(np.load(sys.argv[2]))\n"
        "np.save(sys.argv[3], keras.ops.convert_to_numpy(logits))\n"
    )
    arguments = [str(saved), str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, cwd="/", timeout=300)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), logits(model, images))


def test_a_configuration_has_nothing_that_a_trained_model_does_not_need(tmp_path, images):
    """Options that are off, and initial values: what versions of Keras differ in."""
    x = inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(2, 3, kernel_initializer="he_normal", name="c")(x)
    x = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-4, synchronized=False)(x)
    x = keras.layers.Flatten()(keras.layers.MaxPooling2D(2, strides=1)(x))
    x = keras.layers.Dense(3, use_bias=False, kernel_regularizer=keras.regularizers.L2(0.1))(x)
    model = keras.Model(inputs, x)
    save_model(model, tmp_path / "lean")
    text = (tmp_path / "lean" / "config.json").read_text()
    for word in ("initializer", "quantization", "renorm", "synchronized", "optional", "constraint"):
        assert word not in text
    layers = [layer["config"] for layer in json.loads(text)["config"]["layers"]]
    assert (layers[2]["momentum"], layers[2]["epsilon"]) == (0.9, 1e-4)
    assert layers[3]["strides"] == [1, 1]
    assert layers[5]["use_bias"] is False
    assert layers[5]["kernel_regularizer"]["config"]["l2"] == 0.1
    loaded = load_model(tmp_path / "lean")
    np.testing.assert_array_equal(logits(loaded, images), logits(model, images))
    assert [w.trainable for w in loaded.weights] == [w.trainable for w in model.weights]


def test_what_cannot_be_read_tells_who_wrote_it_and_why(saved):
    (saved / RECORD).unlink()
    config = json.loads((saved / "config.json").read_text())
    config["config"]["layers"][2]["config"]["from_the_future"] = 1
    (saved / "config.json").write_text(json.dumps(config))
    metadata = json.loads((saved / "metadata.json").read_text())
    (saved / "metadata.json").write_text(json.dumps({**metadata, "keras_version": "9.1.0"}))
    here = re.escape(keras.__version__)
    with pytest.raises(
        CheckpointError, match=rf"Keras {here} \(Keras 9\.1\.0 wrote it\): .*from_the_f"
    ):
        load_model(saved)


@pytest.mark.parametrize("half", [False, True])
def test_float16_storage_is_exact_for_rounded_weights(model, tmp_path, images, half):
    if half:
        round_to_float16(model)
    record = evaluate(model, "digits", checks=False)
    assert record.weights.dtype == ("float16" if half else "float32")
    loaded = load_model(save_model(model, tmp_path / "saved", record))
    np.testing.assert_array_equal(logits(loaded, images), logits(model, images))
    assert {variable.dtype for variable in loaded.variables} == {"float32"}
    by_keras = keras.saving.load_model(tmp_path / "saved")
    np.testing.assert_array_equal(logits(by_keras, images), logits(model, images))


@pytest.mark.slow
def test_compiled_and_mixed_precision_models_are_stored_plain(tmp_path, images):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = architectures.mlp((8, 8, 1), hidden=(16,))
    finally:
        keras.config.set_dtype_policy("float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss)
    model.fit(images(8, (8, 8, 1)), np.arange(8), verbose=0)
    record = evaluate(model, "digits", checks=False)
    loaded = load_model(save_model(model, tmp_path / "saved", record))
    assert not loaded.compiled
    assert {layer.compute_dtype for layer in loaded.layers} == {"float32"}
    assert "bfloat16" not in (tmp_path / "saved" / "config.json").read_text()


@pytest.mark.long
def test_every_architecture_can_be_stored(tmp_path):
    for name in ("logistic", "convnet", "madry_resnet", "allconv", "tramer_b", "nin"):
        model = getattr(architectures, name)()
        load_model(save_model(model, tmp_path / name))
    decay = architectures.mlp(activation=architectures.ReluDecay(0.1))
    for model in (decay, architectures.logistic(binary=True)):
        loaded = load_model(save_model(model, tmp_path / "own"))
        assert loaded.robustness is None


def test_a_record_of_other_weights_is_refused(model, record, tmp_path):
    weights = model.get_weights()
    weights[0][0, 0] += 1e-3
    model.set_weights(weights)
    with pytest.raises(RecordError, match=r"belongs to weights.*measure the model as it is now"):
        save_model(model, tmp_path / "saved", record)
    assert list(tmp_path.iterdir()) == []


def test_saving_replaces_a_checkpoint_and_nothing_else(model, record, saved, tmp_path):
    other = architectures.mlp((8, 8, 1), hidden=(4,))
    save_model(other, saved)
    assert load_model(saved).count_params() == other.count_params()
    assert not (saved / RECORD).exists()
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match="is not a checkpoint: it is left alone"):
        save_model(model, notes)
    assert (notes / "thesis.txt").read_text() == "years of work"


def test_a_folder_with_more_than_a_checkpoint_is_left_alone(model, saved):
    (saved / "thesis.txt").write_text("years of work")
    before = sorted(path.name for path in saved.iterdir())
    with pytest.raises(CheckpointError, match="is not a checkpoint: it is left alone"):
        save_model(model, saved)
    assert sorted(path.name for path in saved.iterdir()) == before


def test_the_old_checkpoint_survives_a_failing_rename(model, record, saved, tmp_path, monkeypatch):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    rename = pathlib.Path.rename

    def failing(self, target):
        if self.name == "new":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(pathlib.Path, "rename", failing)
    monkeypatch.setattr("robust_zoo.files._exchange", lambda one, other: False)
    with pytest.raises(OSError, match="Input/output"):
        save_model(model, saved, record)
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_a_changed_configuration_is_refused(model, record, saved, tmp_path, monkeypatch):
    config = json.loads((saved / "config.json").read_text())
    config["config"]["layers"][3]["config"]["activation"] = "tanh"
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config\.json' is truncated or was tampered with"):
        load_model(saved)
    monkeypatch.setattr(model.layers[3], "activation", keras.activations.tanh)
    with pytest.raises(RecordError, match="belongs to config"):
        save_model(model, tmp_path / "other", record)


def test_nothing_half_written_remains(model, record, saved, tmp_path, monkeypatch):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def full_disk(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("robust_zoo.zoo.saving.write_card", full_disk)
    for target in (saved, tmp_path / "fresh"):
        with pytest.raises(OSError, match="No space left"):
            save_model(model, target, record)
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def flip_a_bit(path: pathlib.Path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: pathlib.Path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [(flip_a_bit, "its sha256 is"), (truncate, r"it has [\d,]+ bytes, the record says [\d,]+")],
)
def test_damaged_weights_are_refused(saved, damage, message):
    damage(saved / FILE)
    with pytest.raises(CheckpointError, match=f"truncated or was tampered with: {message}"):
        load_model(saved)


def test_damaged_weights_without_a_record_are_refused_too(saved):
    (saved / RECORD).unlink()
    truncate(saved / FILE)
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_model(saved)


def test_weights_of_another_shape_are_refused(saved, tmp_path):
    other = save_model(architectures.mlp((8, 8, 1), hidden=(17,)), tmp_path / "other")
    shutil.copy(other / FILE, saved / FILE)
    (saved / RECORD).unlink()
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_model(saved)


@pytest.mark.parametrize("name", ["config.json", "metadata.json", FILE])
def test_missing_files(saved, name):
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=f"is not a checkpoint: it has no {name}"):
        load_model(saved)


@pytest.mark.parametrize("text", ["[]", '"x"', "[" * 10**5, '{"a":' * 300 + "1" + "}" * 300])
def test_json_that_is_no_configuration(saved, text):
    for name in ("config.json", "metadata.json"):
        before = (saved / name).read_text()
        (saved / name).write_text(text)
        with pytest.raises(
            CheckpointError, match=rf"{name}' is (not valid JSON|nested 301 levels)"
        ):
            load_model(saved)
        (saved / name).write_text(before)


def test_what_is_no_classifier_is_refused_in_one_sentence(saved):
    inputs = keras.Input((8, 8, 1))
    flat = keras.layers.Flatten()(inputs)
    two = keras.Model(inputs, [keras.layers.Dense(3)(flat), keras.layers.Dense(3)(flat)])
    keras.saving.save_model(two, saved.parent / "two", zipped=False)
    with pytest.raises(
        CheckpointError, match=r"cannot be loaded by Keras .*one input and one output"
    ):
        load_model(saved.parent / "two")


def test_names_in_a_configuration_do_not_garble_the_message(saved):
    edit_config(saved, class_name="Evil\n\x1b[31m" + "x" * 1000)
    with pytest.raises(CheckpointError, match="only Keras's own layers") as info:
        load_model(saved)
    assert str(info.value).isprintable()
    assert len(str(info.value)) < 500


@pytest.mark.parametrize("name", ["config.json", "metadata.json", RECORD])
def test_truncated_json(saved, name):
    truncate(saved / name)
    with pytest.raises(ValueError, match=r"is not valid JSON|is not a valid record"):
        load_model(saved)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": "' + "x" * 2**22 + '"}', "more than 4,194,304"),
        ('{"a": [' + '{"class_name": "ReLU"},' * 100_000 + "1]}", "100,000 layers and their parts"),
        ('{"a": [' + '{"class_name": "ReLU"},' * 9_000 + "1]}", "9,000 layers and their parts"),
    ],
)
def test_a_configuration_of_any_size_is_refused_at_once(saved, text, message):
    (saved / RECORD).unlink()
    (saved / "config.json").write_text(text)
    start = time.monotonic()
    with pytest.raises(CheckpointError, match=message):
        load_model(saved)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "layer",
    [
        layers.Dense(10**9),
        layers.Embedding(10**9, 10**3),
        layers.Conv1D(10**9, 10),
        layers.SimpleRNN(10**7),
        layers.TimeDistributed(layers.Dense(10**9)),
        layers.SpectralNormalization(layers.Dense(10**9)),
        layers.MultiHeadAttention(10**5, 10**5),
        layers.STFTSpectrogram(frame_length=32, frame_step=8, fft_length=2**30),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_configuration_of_more_weights_than_are_stored_is_refused_at_once(saved, layer):
    (saved / RECORD).unlink()
    config = json.loads((saved / "config.json").read_text())
    inputs = keras.Input((8, 8, 1))
    x = layers.Reshape((64, 1))(inputs)
    with keras.StatelessScope(initialize_variables=False):
        x = layer(x, x) if isinstance(layer, layers.MultiHeadAttention) else layer(x)
        small = keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)))
    global_state.set_global_attribute("uninitialized_variables", [])
    config["config"] = keras.saving.serialize_keras_object(small)["config"]
    (saved / "config.json").write_text(json.dumps(config))
    start, memory = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=r"needs [\d,]{10,} weights, but .* holds"):
        load_model(saved)
    assert time.monotonic() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 2**20  # KiB
    assert not global_state.get_global_attribute("uninitialized_variables")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_classes", 7),
        ("parameters", 1),
        ("input", {"shape": [8, 8, 3], "range": [0.0, 1.0]}),
        ("weights.dtype", "float16"),
    ],
)
def test_a_record_that_describes_another_model_is_refused(saved, name, value):
    record = json.loads((saved / RECORD).read_text())
    part, _, key = name.rpartition(".")
    (record[part] if part else record)[key] = value
    (saved / RECORD).write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=rf"says {name}.* but the model has .*tampered"):
        load_model(saved)


@pytest.mark.slow
def test_readers_never_see_two_versions(model, saved, tmp_path):
    """Without a record, whose hashes would tell them apart."""
    other = architectures.mlp((8, 8, 1), hidden=(7, 7))
    shapes = {tuple(w.shape for w in m.get_weights()) for m in (model, other)}
    target, stop = tmp_path / "target", threading.Event()
    save_model(model, target)

    def write():
        while not stop.is_set():
            save_model(other, target)
            save_model(model, target)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        found = {tuple(w.shape for w in load_model(target).get_weights()) for _ in range(40)}
    finally:
        stop.set()
        writer.join()
    assert found <= shapes


def edit_config(saved, **changes):
    (saved / RECORD).unlink()  # its hash would stop the edit first
    config = json.loads((saved / "config.json").read_text())
    config["config"]["layers"][2].update(changes)
    (saved / "config.json").write_text(json.dumps(config))


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"module": "os", "class_name": "system"},
        {"module": "keras.layers", "class_name": "Lambda"},
        {"module": "mypackage.layers", "class_name": "Dense", "registered_name": "mine>Dense"},
        {"module": "builtins", "class_name": "function", "config": "eval"},
        {"module": "keras.layers", "class_name": "TorchModuleWrapper"},
        {"module": "keras.layers", "class_name": "StringLookup"},
        {"module": "keras.layers", "class_name": "Pipeline"},
        {"module": "keras.layers", "class_name": "mine>Evil"},
        {"module": "keras.layers", "class_name": "Nonsense"},
        {"module": "keras.activations", "class_name": "softmax"},
        {"module": "keras.src.ops.core", "class_name": "Map"},
        {"module": "keras.src.ops.linalg", "class_name": "JVP"},
        {"module": "keras.src.ops.numpy", "class_name": "backend"},
        {"class_name": "__lambda__", "registered_name": "robust_zoo>ReluDecay"},
        {"module": "os", "class_name": "ReluDecay", "registered_name": "robust_zoo>ReluDecay"},
        {"config": {"kernel_initializer": {"module": "evil", "class_name": "Run", "config": {}}}},
    ],
)
def test_foreign_classes_are_never_loaded(saved, changes, monkeypatch):
    edit_config(saved, **changes)

    def reached(*arguments, **options):
        raise AssertionError("the configuration was deserialised")

    monkeypatch.setattr(keras.saving, "load_model", reached)
    with pytest.raises(CheckpointError, match="only Keras's own layers"):
        load_model(saved)


def test_foreign_layers_are_not_saved(tmp_path):
    @keras.saving.register_keras_serializable("elsewhere")
    class Mine(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    base = architectures.mlp((8, 8, 1))
    model = keras.Model(base.inputs[0], Mine()(base.outputs[0]))
    with pytest.raises(CheckpointError, match=r"asks for .*Mine: only Keras's own"):
        save_model(model, tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_loaded_model_is_an_ordinary_model(saved, images, tmp_path):
    model = load_model(saved)
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    np.testing.assert_array_equal(logits(copy, images), logits(model, images))
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        logits(keras.saving.load_model(tmp_path / "model.keras"), images), logits(model, images)
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="sgd", loss=loss)
    model.fit(images(8, (8, 8, 1)), np.arange(8), verbose=0)
    # After that its record is stale, and cannot be published with the new weights.
    with pytest.raises(RecordError, match="measure the model as it is now"):
        save_model(model, tmp_path / "stale", model.robustness)


def test_records_survive_the_disk(saved, record):
    assert RobustnessRecord.read(saved / RECORD) == record
