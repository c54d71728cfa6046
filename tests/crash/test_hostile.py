"""Files and names from strangers, mutated at random from sound ones: refused in a sentence, or harmless."""

import io
import json
import random
import resource
import shutil
import sys
import time
import zipfile

import numpy as np
import pytest

from robust_zoo import cli
from robust_zoo.attacks import FGSM, PGD
from robust_zoo.attacks.state_file import StateFile
from robust_zoo.datasets import DatasetError, load_dataset
from robust_zoo.defenses import RobustValidation, TrainingState
from robust_zoo.places import checkpoints_directory
from robust_zoo.record import RecordError, RobustnessRecord
from robust_zoo.report.card import model_card
from robust_zoo.zoo import CheckpointError, HubError, UnknownModelError, load_model, load_record

SOURCE = checkpoints_directory() / "mlp.natural_digits"
VALUES = (
    None, True, False, 0, 1, -1, 2**31, 10**30, -(10**18), 0.5, 1e308, -0.0, "", "x", "x" * 20_000, "a\nb", "\x1b[31m",
    "[/red]", "<script>", "../../x", "\u202e", "\ud800", [], {}, [[]], [None], {"name": 3}, {"class_name": "Dense"},
    {"module": "os", "class_name": "system", "config": {}, "registered_name": None}, "__lambda__", "$a_{",
)  # fmt: skip
ATTRIBUTES = ("Lambda", "Dense", "Input", "Flatten", "Rescaling", "Normalization", "Discretization")


def places(node, path=()):
    """The ways to everything inside JSON."""
    yield path
    if isinstance(node, (dict, list)):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from places(value, (*path, key))


def mutated(node, rng):
    """A copy of JSON with one to three things replaced, removed, doubled or added."""
    node = json.loads(json.dumps(node))
    for _ in range(rng.randint(1, 3)):
        found = [path for path in places(node) if path]
        *way, last = rng.choice(found)
        parent = node
        for key in way:
            parent = parent[key]
        kind = rng.random()
        if kind < 0.7:
            value = rng.choice((*VALUES, *ATTRIBUTES))
            if isinstance(parent[last], (int, float)) and rng.random() < 0.5:
                value = parent[last] * rng.choice((-1, 0, 2, 1000)) + rng.choice((0, 1, -1))
            parent[last] = value
        elif kind < 0.85:
            del parent[last]
        elif isinstance(parent, list):
            parent.insert(0, parent[last])
        else:
            parent[rng.choice(("extra", "name", "config", "compile_config"))] = rng.choice(VALUES)
        if not isinstance(node, dict):
            return node
    return node


def damaged(data: bytes, rng) -> bytes:
    """Bytes with a part overwritten, removed or repeated."""
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.choice((1, 2, 8, 64, 4096)))
    middle = rng.choice(
        (b"", rng.randbytes(end - start), b"\0" * (end - start), data[start:end] * 2)
    )
    return data[:start] + middle + data[end:]


def one_sentence(error: BaseException) -> None:
    text = str(error)
    assert text
    assert "Traceback" not in text
    assert len(text) < 1000
    assert all(c.isprintable() for c in text)


@pytest.mark.parametrize("seed", range(10))
def test_records(seed, tmp_path):
    """What is taken can be shown; everything else is a RecordError."""
    rng, sound = random.Random(seed), json.loads((SOURCE / "robustness.json").read_text())
    for _ in range(30):
        text = json.dumps(mutated(sound, rng))
        try:
            record = RobustnessRecord.from_json(text)
        except RecordError as error:
            one_sentence(error)
            continue
        assert model_card(record)
        assert "\x1b" not in record.to_json()


@pytest.mark.parametrize(
    "name", ["robustness.json", "config.json", "metadata.json", "model.weights.h5"]
)
def test_damaged_files(name, tmp_path):
    rng, data = random.Random(name), (SOURCE / name).read_bytes()
    directory = tmp_path / "model"
    shutil.copytree(SOURCE, directory)
    for _ in range(25):
        (directory / name).write_bytes(damaged(data, rng))
        try:
            load_model(directory)
        except (CheckpointError, RecordError) as error:
            one_sentence(error)


@pytest.mark.parametrize("seed", range(4))
def test_configurations(seed, tmp_path, monkeypatch):
    """Without a record, whose hash would stop them first; none of them runs code."""
    rng, sound = random.Random(seed), json.loads((SOURCE / "config.json").read_text())
    directory = tmp_path / "model"
    shutil.copytree(SOURCE, directory)
    (directory / "robustness.json").unlink()
    ran = []
    sys.addaudithook(lambda event, args: ran.append(event) if event == "os.system" else None)
    for _ in range(25):
        (directory / "config.json").write_text(json.dumps(mutated(sound, rng)))
        try:
            load_model(directory)
        except CheckpointError as error:
            one_sentence(error)
    assert not ran


HANDLES = [
    "", " ", ".", "..", "/", "//", "~", "\0", "a\0b", "x" * 5000, "zoo://", "zoo://../..", "zoo:///etc/passwd",
    "hf://", "hf://a", "hf://a/b/c", "hf://../x", "hf://a/..", "hf://a/b@", "hf://a/b@../..", "hf://a/b@x y", "hf://a/b@a@b",
    "hf://a/\x1b[31m", "hf://" + "a" * 500 + "/b", "file://", "file:///", "file://host/x", "file:///no/such", "file:///a?b",
    "file:///a#b", "file:///%00", "file:///%2e%2e/x", "ftp://x/y", "javascript:alert(1)", "://", "a://", "\u202e", "\ud800",
    "../checkpoints", "mlp.pgd_digits/../..", "-x", "--help", "*", "[a]", "CON", "mlp.pgd_digits\n",
]  # fmt: skip


@pytest.mark.parametrize("load", [load_model, load_record])
def test_handles(load, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for handle in HANDLES:
        with pytest.raises((ValueError, HubError, UnknownModelError)) as info:
            load(handle)
        assert str(info.value), handle
        assert len(str(info.value)) < 12_000
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("seed", range(2))
def test_datasets(seed, tmp_path):
    rng, path = random.Random(seed), tmp_path / "mine.npz"
    images = np.random.default_rng(0).random((6, 4, 4, 1)).astype("float32")
    save = np.savez_compressed if seed % 2 else np.savez
    save(path, images=images, labels=np.arange(6) % 3, class_names=["a", "b", "c"])
    data = path.read_bytes()
    for _ in range(40):
        path.write_bytes(damaged(data, rng))
        try:
            load_dataset(str(path))
        except (DatasetError, TypeError, ValueError) as error:
            one_sentence(error)


@pytest.mark.slow
def test_states(tmp_path):
    """A damaged state of an attack is refused, or is the very state."""
    rng, path = random.Random(0), tmp_path / "state.npz"
    model, data = load_model("mlp.natural_digits"), load_dataset("digits").sample(8, 0)
    attack = FGSM(epsilon=0.1)
    expected = attack.run(model, data.images, data.labels, state_file=path, progress=False)
    sound = path.read_bytes()
    for _ in range(25):
        path.write_bytes(damaged(sound, rng))
        try:
            found = attack.run(model, data.images, data.labels, state_file=path, progress=False)
        except ValueError as error:
            one_sentence(error)
        else:
            np.testing.assert_array_equal(found.x_adv, expected.x_adv)


def rewritten(path, **changes):
    """An .npz file with some arrays replaced, or left out where they are None."""
    with np.load(path) as content:
        arrays = {**content, **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


STATES = [
    {"closest": None}, {"queries": None}, {"identity": None}, {"seconds": None}, {"cursor": None},
    {"identity": np.asarray("[]")}, {"identity": np.asarray("null")}, {"identity": np.asarray("[" * 100_000)},
    {"seconds": np.asarray(np.nan)}, {"seconds": np.asarray([1.0, 2.0])}, {"seconds": np.asarray("x")},
    {"closest": np.full(8, np.nan, "float32")}, {"closest": np.zeros(0, "float32")}, {"closest": np.zeros(8)},
    {"queries": np.zeros(8, "int64")}, {"queries": np.asarray(["x"] * 8)}, {"cursor": np.asarray([-1, 0, 0])},
    {"x_adv": np.zeros((8, 9, 9, 1), "float32")}, {"worst": np.zeros((8, 1), "float32")},
]  # fmt: skip


@pytest.mark.parametrize("change", STATES)
def test_states_that_were_made_up(tmp_path, change):
    path = tmp_path / "state.npz"
    model, data = load_model("mlp.natural_digits"), load_dataset("digits").sample(8, 0)
    attack = FGSM(epsilon=0.1)
    attack.run(model, data.images, data.labels, state_file=path, progress=False)
    rewritten(path, **change)
    with pytest.raises(
        ValueError, match=r"^state_file .* is no readable state|not the same"
    ) as info:
        attack.run(model, data.images, data.labels, state_file=path, progress=False)
    one_sentence(info.value)


TOLD = [
    "[]", "null", "{}", "3", "[" * 100_000, '{"settings": [], "epochs_done": 1, "seconds": 1, "history": [{}]}',
    '{"settings": {}, "epochs_done": "x", "seconds": 1, "history": [{}]}',
    '{"settings": {}, "epochs_done": -1, "seconds": 1, "history": []}',
    '{"settings": {}, "epochs_done": 1000000000, "seconds": 1, "history": [{}]}',
    '{"settings": {}, "epochs_done": 1, "seconds": "x", "history": [{}]}',
    '{"settings": {}, "epochs_done": 1, "seconds": 1, "history": [3]}',
]  # fmt: skip


@pytest.mark.parametrize("told", TOLD)
def test_trainings_that_were_made_up(tmp_path, told):
    """The one before is gone on with, or a sentence says that there is none."""
    weights = np.zeros(3, "uint8")
    np.savez(tmp_path / "training.npz", told=told, weights=weights)
    with pytest.raises(ValueError, match="cannot be read, nor can the one before it") as info:
        TrainingState(tmp_path)
    one_sentence(info.value)
    sound = {"settings": {}, "epochs_done": 1, "seconds": 1.0, "history": [{"loss": 1.0}]}
    np.savez(tmp_path / "training.previous.npz", told=json.dumps(sound), weights=weights)
    assert TrainingState(tmp_path).epochs_done == 1


@pytest.mark.parametrize("told", [*TOLD, '{"weights": 1, "best": 1.0}'])
def test_best_epochs_that_were_made_up(tmp_path, told):
    np.savez(tmp_path / "best.npz", told=told)
    with pytest.raises(ValueError, match=r"the best epoch of .* cannot be read") as info:
        RobustValidation(PGD(epsilon=0.1), None, None, file=tmp_path / "best.npz")
    one_sentence(info.value)


def header(shape, dtype="<f8"):
    """The beginning of an .npy file that claims a shape."""
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        content, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    return content.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        {"images.npy": header((10**13,))},
        {"images.npy": header((-5, -20))},
        {"images.npy": header((1,))[:40]},
        {"images.npy": b""},
        {"images.npy": header((10**9,), "|u1") + bytes(2**27)},  # stored as next to nothing
        {"images": b"what"},
    ],
)
@pytest.mark.parametrize("read", ["dataset", "state", "training", "best"])
def test_archives_that_claim_more_than_they_have(tmp_path, content, read):
    names = {"dataset": "mine", "state": "state", "training": "training", "best": "best"}
    path = tmp_path / f"{names[read]}.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    act = {
        "dataset": lambda: load_dataset(str(path)),
        "state": lambda: StateFile(path, dict).load(),
        "training": lambda: TrainingState(tmp_path),
        "best": lambda: RobustValidation(PGD(epsilon=0.1), None, None, file=path),
    }[read]
    start, memory = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((DatasetError, ValueError)) as info:
        act()
    one_sentence(info.value)
    assert time.monotonic() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 2**20  # KiB


@pytest.mark.slow
def test_the_command_line_says_one_sentence(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for handle in HANDLES:
        if "\0" in handle or "\ud800" in handle or handle.startswith("-"):
            continue  # which no shell can pass on, or which is an option
        monkeypatch.setattr(sys, "argv", ["robust-zoo", "show", handle])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 1
        err = capfd.readouterr().err
        assert err.startswith("robust-zoo: ")
        assert err.count("\n") == 1
        assert "\x1b" not in err
