"""Exported files in their runtimes, beside the models that they were made of."""

import json

import keras
import numpy as np
import pytest

from robust_zoo import backend
from robust_zoo.attacks import PGD
from robust_zoo.datasets import load_dataset
from robust_zoo.exporting import FORMATS, export, measure_export, open_export
from robust_zoo.inference import predict
from robust_zoo.zoo import load_model

MODEL = "digits_cnn.pgd_digits"
WRITTEN = [name for name, (_, backends) in FORMATS.items() if backend.name in backends]
NEEDED = {"onnx": "onnxruntime", "litert": "ai_edge_litert"}


def place(tmp_path, to):
    if to in NEEDED:
        pytest.importorskip(NEEDED[to])
    return tmp_path / f"model{FORMATS[to][0]}"


@pytest.mark.long
@pytest.mark.parametrize("to", WRITTEN)
def test_a_file_has_the_logits_of_its_model(to, tmp_path):
    path, model = place(tmp_path, to), load_model(MODEL)
    assert export(model, path, to=to) == path
    assert [part.name for part in tmp_path.iterdir()] == [path.name]
    images = load_dataset("digits", "test").images[:7]
    run = open_export(path)
    for count in (7, 3):
        found = run(images[:count])
        np.testing.assert_allclose(found, predict(model, images[:count], 7), atol=1e-4)
    export(model, path, to=to)  # replaces it


@pytest.mark.long
@pytest.mark.skipif("litert" not in WRITTEN, reason="this backend does not write it")
def test_quantised_files_get_figures_of_their_own(tmp_path):
    path, model = place(tmp_path, "litert"), load_model(MODEL)
    export(model, path, to="litert", quantized=True)
    plain = export(model, tmp_path / "plain.tflite", to="litert")
    assert path.stat().st_size < plain.stat().st_size / 2
    data = load_dataset("digits", "test")
    found, images = measure_export(
        path, model, data, attack=PGD(epsilon=0.15, steps=5), n=90, seed=1
    )
    assert images["adversarial"].shape == (90, 8, 8, 1)
    assert np.abs(images["adversarial"] - images["images"]).max() <= 0.15 + 1e-6
    for kind, (of_model, of_file) in (("images", found.clean), ("adversarial", found.adversarial)):
        for counted, logits in (
            (of_model, predict(model, images[kind], 90)),
            (of_file, open_export(path)(images[kind])),
        ):
            assert counted.correct == (logits.argmax(1) == images["labels"]).sum()
    assert found.clean[0].accuracy > found.adversarial[0].accuracy
    assert 0 < found.largest_difference < 5
    assert json.loads(found.to_json())["weights_sha256"] == model.robustness.weights.sha256


def test_files_that_are_no_export(tmp_path):
    (tmp_path / "model.zip").write_bytes(b"")
    with pytest.raises(ValueError, match=r"path must end in one of \.onnx, \.tflite"):
        open_export(tmp_path / "model.zip")
    with pytest.raises(FileNotFoundError, match="path must be an exported file"):
        open_export(tmp_path / "model.onnx")


def test_what_cannot_be_exported(tmp_path):
    model = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    to = WRITTEN[0] if WRITTEN else "onnx"
    if WRITTEN:
        with pytest.raises(ValueError, match=f"path must end in {FORMATS[to][0]} for {to!r}"):
            export(model, tmp_path / "model.bin", to=to)
        with pytest.raises(FileNotFoundError, match="path must be in a directory that exists"):
            export(model, tmp_path / "no" / f"model{FORMATS[to][0]}", to=to)
        (tmp_path / f"model{FORMATS[to][0]}").mkdir()
        with pytest.raises(FileExistsError, match="path must not be a directory for"):
            export(model, tmp_path / f"model{FORMATS[to][0]}", to=to)
        with pytest.raises(ValueError, match=f"quantized is for 'litert', got {to!r}"):
            export(model, tmp_path / f"other{FORMATS[to][0]}", to=to, quantized=True)
    if "tf_saved_model" in WRITTEN:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("years of work")
        with pytest.raises(FileExistsError, match="path must be a new directory or a SavedModel"):
            export(model, tmp_path / "mine", to="tf_saved_model")
        assert (tmp_path / "mine" / "thesis.txt").is_file()
    with pytest.raises(ValueError, match="to must be one of onnx, litert, tf_saved_model, torch"):
        export(model, tmp_path / "model.bin", to="coreml")
    (missing,) = {"torch", "litert"} - set(WRITTEN) if len(WRITTEN) > 1 else {"torch"}
    if missing not in WRITTEN:
        with pytest.raises(ValueError, match=f"for {missing!r} set KERAS_BACKEND to"):
            export(model, tmp_path / f"model{FORMATS[missing][0]}", to=missing)


@pytest.mark.long
@pytest.mark.skipif("tf_saved_model" not in WRITTEN, reason="this backend does not write it")
def test_the_command(command, tmp_path):
    output = tmp_path / "saved"
    asked = ["export", MODEL, "--output", output]
    status, out, err = command(*asked, "--to", "tf_saved_model", "--verify", 40)
    assert status == 0, err
    assert "the same predictions on 100.00% of all" in out
    figures = json.loads((tmp_path / "saved.json").read_text())
    assert figures["attack"]["name"] == "PGD"
    assert figures["attack"]["epsilon"] == 0.15
    assert figures["adversarial"][0]["n_examples"] == 40
    with np.load(tmp_path / "saved.npz") as opened:
        assert opened["adversarial"].shape == (40, 8, 8, 1)
    for arguments, message in (
        (["--to", "coreml"], "--to must be one of onnx, litert"),
        (["--to", "litert"], "--output must end in .tflite for 'litert'"),
        (["--to", "tf_saved_model", "--quantized"], "--quantized is for 'litert'"),
        (["--to", "tf_saved_model", "--verify", 0], "--verify must be"),
        (
            ["--to", "tf_saved_model", "--verify", 5, "--attack", "deepfool"],
            "--attack must be one with a budget",
        ),
        (["--to", "tf_saved_model", "--epsilon", 0.1], "--epsilon is for measuring: give --verify"),
        (
            ["--to", "tf_saved_model", "--verify", 99999],
            "--verify must be at most 500, the test im",
        ),
    ):
        status, _, err = command(*asked, *arguments)
        assert status == 1
        assert message in err
