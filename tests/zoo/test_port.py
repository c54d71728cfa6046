"""Files of PyTorch's in each layout's names, with random weights, ported and compared."""

import hashlib
import inspect
import pathlib
import pickle
import re

import numpy as np
import pytest

from robust_zoo import architectures
from robust_zoo.datasets import load_dataset
from robust_zoo.evaluation import clean_accuracy, evaluate
from robust_zoo.inference import predict
from robust_zoo.porting import PortError, find_published, port, read_tensors
from robust_zoo.porting.convert import expected_names, guess
from robust_zoo.porting.layouts import LAYOUTS
from robust_zoo.zoo import load_model

torch = pytest.importorskip("torch")
from robust_zoo.porting.reference import Reference  # noqa: E402  # it needs PyTorch

WEIGHTS = pathlib.Path(__file__).resolve().parents[3] / "shared" / "weights"

CASES = {
    "TRADES": ("wide_resnet", {"depth": 16, "width": 2}),
    "DeepMind": (
        "wide_resnet",
        {
            "depth": 10,
            "width": 1,
            "activation": "silu",
            "border": "end",
            "mean": 0.4,
            "deviation": 0.2,
        },
    ),
    "Huang": ("wide_resnet", {"depth": 10, "stages": (8, 24, 16)}),
    "Rice": ("preact_resnet", {"width": 4}),
    "Wong": (
        "preact_resnet",
        {"width": 4, "shortcut": "raw", "final_norm": False, "mean": None, "deviation": None},
    ),
    "DeepMind's R18": (
        "preact_resnet",
        {"width": 4, "activation": "silu", "shortcut": "raw 3x3", "border": "end"},
    ),
    "CIFAR-10": ("resnet", {"width": 4}),
    "ResNet-20": ("resnet", {"depth": 20, "width": 6}),
    "VNN-COMP": ("vnn_resnet", {"width": 3, "blocks": 3, "input_shape": (16, 12, 3)}),
    "DeepRobust": ("lenet", {"convolution_activation": "relu", "num_classes": 7}),
    "MatConvNet": ("lenet", {}),
    "convex_adversarial": ("strided_cnn", {"input_shape": (16, 12, 2), "num_classes": 4}),
    "AlexNet": ("alexnet", {"input_shape": (67, 63, 3), "num_classes": 7}),
    "Inception": (
        "inception_v3",
        {
            "input_shape": (75, 75, 3),
            "width": 0.125,
            "scale": True,
            "pool_border": "counted",
            "num_classes": 7,
        },
    ),
    "EfficientNet": ("efficientnet_lite0", {"input_shape": (40, 32, 3), "num_classes": 7}),
    "EfficientNet-Lite2": (
        "efficientnet_lite0",
        {"input_shape": (35, 32, 3), "num_classes": 7, "width": 1.1, "depth": 1.2},
    ),
    "SmallCNN": ("small_cnn", {"input_shape": (24, 20, 2), "num_classes": 6}),
    "torchvision": (
        "resnet",
        {"input_shape": (64, 64, 3), "depth": 50, "width": 4, "stem": "large", "num_classes": 7},
    ),
}


def state_of(name, seed=0, options=None):
    """A state_dict in the layout's names, with the idle tensors that its files have."""
    architecture, small = CASES[name]
    options = small if options is None else options
    model = getattr(architectures, architecture)(**options)
    named = {
        **{"Wong": "Rice", "DeepMind's R18": "DeepMind", "SmallCNN": "TRADES"},
        **{"ResNet-20": "CIFAR-10", "MatConvNet": "DeepRobust"},
        **dict.fromkeys(("AlexNet", "Inception"), "torchvision"),
        **dict.fromkeys(("EfficientNet", "EfficientNet-Lite2"), "EfficientNet-PyTorch"),
    }
    wanted = named.get(name, name)
    (layout,) = (part for part in LAYOUTS[architecture] if part.name == wanted)
    defaults = inspect.signature(getattr(architectures, architecture)).parameters
    whole = {key: part.default for key, part in defaults.items()} | options
    reference = Reference(architecture, whole)
    names = expected_names(model, layout)
    shapes = {key: tuple(value.shape) for key, value in reference.module.state_dict().items()}
    generator, state = torch.Generator().manual_seed(seed), {}
    for layer, found in names.items():
        stage, block, part = layer.split("_", 2) if layer.startswith("stage") else (layer, "", "")
        module = f"stages.{stage[5:]}.{block[5:]}.{part}" if part else layer
        for tensor in found:
            shape = shapes[f"{module}.{tensor.rpartition('.')[2]}"]
            drawn = torch.rand(shape, generator=generator)
            if len(shape) > 1:
                drawn = (drawn - 0.5) * (12 / np.prod(shape[1:])) ** 0.5
            elif tensor.endswith(("weight", "var")):
                drawn = 0.5 + drawn
            state[tensor] = drawn
            if tensor.endswith("running_var"):
                state[tensor.replace("running_var", "num_batches_tracked")] = torch.tensor(7)
    if name == "TRADES":
        idle = {key: value for key, value in state.items() if key.startswith("block1.")}
        state |= {f"sub_{key}": 0 * value for key, value in idle.items()}
    return state


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_ported_networks_are_those_of_pytorch(name, tmp_path):
    state = state_of(name)
    file = tmp_path / "model.pt"
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}, file
    )
    architecture, options = CASES[name]
    model, report = port(file, architecture, **options)
    assert report.difference < 1e-4
    used = sum(
        value.is_floating_point() and not key.startswith("sub_") for key, value in state.items()
    )
    assert report.used == used
    assert (report.dropped > 0) == (name == "TRADES")
    assert model.output_shape[1] == options.get("num_classes", 10)


def test_a_normalisation_in_the_file_must_be_the_one_that_is_given(tmp_path):
    file, state = tmp_path / "model.pt", state_of("Rice")
    mean, deviation = [0.49, 0.48, 0.44], [0.25, 0.24, 0.26]
    state |= {"mu": torch.tensor(mean).reshape(3, 1, 1), "sigma": torch.tensor(deviation)}
    torch.save(state, file)
    _, report = port(file, "preact_resnet", width=4, mean=mean, deviation=deviation)
    assert report.dropped == 2
    for told in ({}, {"mean": mean}, {"mean": None, "deviation": None}):
        with pytest.raises(
            PortError, match=r"(mean|deviation) must be that of the file, whose tensor"
        ):
            port(file, "preact_resnet", width=4, **told)


IMAGENET = {"mean": (0.485, 0.456, 0.406), "deviation": (0.229, 0.224, 0.225)}
CIFAR = {"mean": (0.4914, 0.4822, 0.4465), "deviation": (0.2471, 0.2435, 0.2616)}
# Of 10,000; published are 99.48, 69.25 and, as an error, 8.27; the two others say nothing of clean accuracy.
OUTSIDE = {
    "trades_mnist.pt": ("small_cnn", {}, "mnist", 9948),
    "deeprobust_pgd.pt": ("lenet", {"convolution_activation": "relu"}, "mnist", 9856),
    "ca_mnist.pth": ("strided_cnn", {}, "mnist", 9820),
    "resnet2b.pth": ("vnn_resnet", CIFAR, "cifar10", 6925),
    "resnet20_cifar10.th": ("resnet", {"depth": 20, **IMAGENET}, "cifar10", 9173),
}


@pytest.mark.long
@pytest.mark.mnist
@pytest.mark.cifar10
@pytest.mark.parametrize("file", OUTSIDE)
@pytest.mark.skipif(not WEIGHTS.is_dir(), reason="other people's checkpoints are not here")
def test_somebody_s_own_checkpoint(file):
    architecture, options, dataset, expected = OUTSIDE[file]
    model, report = port(WEIGHTS / file, architecture, **options)
    assert report.difference < 1e-4
    test = load_dataset(dataset, "test")
    assert clean_accuracy(model, test.images, test.labels).correct == expected


WHOLE = {
    "WRN-28-10": ("TRADES", {"depth": 28, "width": 10}),
    "WRN-34-10": ("DeepMind", {"depth": 34, "width": 10, "activation": "silu", "border": "end"}),
    "PreActResNet-18": ("Rice", {}),
    "ResNet-50": (
        "torchvision",
        {
            **{"input_shape": (224, 224, 3), "depth": 50, "stem": "large", "num_classes": 1000},
            **IMAGENET,
        },
    ),
    "Inception v3": ("Inception", {"scale": True, "pool_border": "counted"}),
}


@pytest.mark.long
@pytest.mark.parametrize("name", WHOLE)
def test_networks_of_full_size(name, tmp_path):
    case, options = WHOLE[name]
    architecture, _ = CASES[case]
    file = tmp_path / "model.pt"
    torch.save(state_of(case, options=options), file)
    _, report = port(file, architecture, **options)
    assert report.difference < 1e-4


WRONG = {
    "another border": ("DeepMind", {"border": "all"}),
    "another shortcut": ("Rice", {"shortcut": "raw"}),
}


@pytest.mark.long
@pytest.mark.parametrize("name", WRONG)
def test_what_no_tensor_tells_changes_the_logits(name, tmp_path):
    """Two networks of the same names and shapes: only what is said of them tells them apart."""
    case, change = WRONG[name]
    architecture, options = CASES[case]
    state, file = state_of(case), tmp_path / "model.pth"
    torch.save(state, file)
    right, wrong = (port(file, architecture, **made)[0] for made in (options, options | change))
    x = np.random.default_rng(0).random((3, *right.input_shape[1:]), dtype="float32")
    assert np.abs(predict(right, x, 3) - predict(wrong, x, 3)).max() > 1e-3


def test_other_networks_are_told(tmp_path):
    file = tmp_path / "model.pt"
    torch.save(state_of("TRADES"), file)
    for options, message in (
        (
            {"depth": 22, "width": 2},
            r"30 missing \(block1.layer.2.bn1.bias, .*\.\.\.\); 0 left over",
        ),
        ({"depth": 10, "width": 2}, r"0 missing; \d+ left over \(block1.layer.1"),
        (
            {"depth": 16, "width": 3},
            r"tensors have other shapes than the network's .*like those of wide_resnet\(depth=16, width=2, num_cl",
        ),
    ):
        with pytest.raises(PortError, match=message):
            port(file, "wide_resnet", **options)
    with pytest.raises(ValueError, match="architecture must be one of wide_resnet, preact_resnet"):
        port(file, "vgg")
    with pytest.raises(ValueError, match="wide_resnet has no size"):
        port(file, "wide_resnet", size=3)


@pytest.mark.parametrize("name", [name for name in CASES if name != "Huang"])
def test_what_a_file_looks_like(name):
    """All that its tensors tell: borders, activations, normalisation and what shortcuts see are not among it."""
    architecture, options = CASES[name]
    tensors = {
        key: value.numpy() for key, value in state_of(name).items() if value.is_floating_point()
    }
    found = [guess(architecture, layout, tensors) for layout in LAYOUTS[architecture]]
    (made,) = (part for part in found if part is not None)
    assert made.pop("num_classes") == options.get("num_classes", 10)
    for key, value in made.items():
        default = inspect.signature(getattr(architectures, architecture)).parameters[key].default
        value = value.strip("'") if isinstance(value, str) else value
        assert value == options.get(key, default), key
    others = [
        other
        for other in LAYOUTS
        if other != architecture
        for layout in LAYOUTS[other]
        if guess(other, layout, tensors) is not None
    ]
    assert others == []


class Runs:
    def __reduce__(self):
        return print, ("run",)


def test_files_that_are_not_read(tmp_path, capsys):
    code, cut, page = (tmp_path / name for name in ("code.pt", "cut.pt", "page.pth"))
    torch.save({"weights": Runs()}, code)
    torch.save({"a": torch.ones(999)}, cut)
    cut.write_bytes(cut.read_bytes()[:900])
    page.write_text("<!DOCTYPE html>")
    (tmp_path / "old.pkl").write_bytes(pickle.dumps({}))
    several, empty = tmp_path / "several.tar", tmp_path / "empty.pt"
    torch.save({"last": {"a": torch.ones(2)}, "best": {"a": torch.zeros(2)}}, several)
    torch.save({"epoch": 3}, empty)
    nan = tmp_path / "nan.pt"
    torch.save({"a": torch.tensor([1.0, float("nan")])}, nan)
    for file, message in (
        (code, "holds more than tensors, and would run code"),
        (cut, "is truncated, or not PyTorch's"),
        (page, "is a web page, not a checkpoint"),
        (tmp_path / "old.pkl", "file must be one of .safetensors, .pt"),
        (
            several,
            r"holds 2 dictionaries of tensors: say with entry \(--entry\) which of \['best', 'last'\]",
        ),
        (empty, "holds no dictionary of tensors"),
        (nan, "tensor 'a' .* has values that are not finite"),
    ):
        with pytest.raises(PortError, match=message):
            read_tensors(file)
    assert capsys.readouterr().out == ""
    assert read_tensors(several, entry="best")["a"].tolist() == [0, 0]
    with pytest.raises(PortError, match=r"entry must be one of \['best', 'last'\] .* got 'ema'"):
        read_tensors(several, entry="ema")
    with pytest.raises(FileNotFoundError, match="file must be one that is there"):
        read_tensors(tmp_path / "nothing.pt")


def test_npz(tmp_path):
    np.savez(
        tmp_path / "a.npz", **{"model.x": np.ones(3), "model.y.num_batches_tracked": np.array(2)}
    )
    assert {name: value.tolist() for name, value in read_tensors(tmp_path / "a.npz").items()} == {
        "x": [1, 1, 1]
    }
    np.savez(tmp_path / "b.npz", x=np.array([{}], dtype=object))
    with pytest.raises(PortError, match="cannot be read"):
        read_tensors(tmp_path / "b.npz")


def test_safetensors_and_onnx(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    onnx = pytest.importorskip("onnx")
    arrays = {"conv.weight": np.arange(6, dtype="float32").reshape(2, 3), "steps": np.array([1])}
    safetensors.save_file(arrays, tmp_path / "a.safetensors")
    kept = [onnx.numpy_helper.from_array(value, name) for name, value in arrays.items()]
    graph = onnx.helper.make_graph([], "graph", [], [], initializer=kept)
    onnx.save(onnx.helper.make_model(graph), tmp_path / "a.onnx")
    for name in ("a.safetensors", "a.onnx"):
        (found,) = read_tensors(tmp_path / name).items()
        assert found[0] == "conv.weight"
        assert np.array_equal(found[1], arrays["conv.weight"])
        whole = (tmp_path / name).read_bytes()
        (tmp_path / f"cut{name}").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(PortError, match="cannot be read"):
            read_tensors(tmp_path / f"cut{name}")
    with pytest.raises(PortError, match=r"entry is of PyTorch's files, .onnx has none"):
        read_tensors(tmp_path / "a.onnx", entry="model")


@pytest.mark.long
def test_the_command(command, tmp_path):
    file, output = tmp_path / "model.pt", tmp_path / "ported"
    torch.save(state_of("DeepMind"), file)
    asked = [file, "--output", output, "--architecture", "wide_resnet:10,1"]
    told = ["activation=silu", "border=end", "mean=0.4", "deviation=0.2"]
    asked += [part for setting in told for part in ("--set", setting)]
    architecture, options = CASES["DeepMind"]
    ported, _ = port(file, architecture, **options)
    x = np.random.default_rng(0).random((3, 32, 32, 3), dtype="float32")
    labels = predict(ported, x, 3).argmax(1).astype("int32")
    own = evaluate(ported, (x, labels), checks=False)
    assert own.license == "unknown"
    assert "those of the file model.pt with sha256" in own.notice
    np.savez(tmp_path / "mine.npz", images=x, labels=labels)
    asked += ["--dataset", tmp_path / "mine.npz"]
    status, out, err = command("port", *asked)
    assert status == 0, err
    assert "tensors in DeepMind's names, 0 of no use; logits within" in out
    assert "Not checked, since no tensor tells them: the mean and deviation" in out
    model = load_model(output)
    assert np.array_equal(predict(model, x, 3), predict(ported, x, 3))
    assert (model.robustness.license, model.robustness.clean.correct) == ("unknown", 3)

    claimed = ["--expect-clean"]
    other = tmp_path / "other"
    asked[2] = other
    status, _, err = command("port", *asked, *claimed, 70)
    assert status == 1
    assert "the clean accuracy that is claimed, 70%, is not within 0.5 of the 100.00% that" in err
    assert not other.exists()
    attack = ["--attack", "fgsm", "--epsilon", 0.01, "--n", 2]
    status, out, err = command("port", *asked, *claimed, 99.7, "--license", "CC-BY-NC-4.0", *attack)
    assert status == 0, err
    assert "Not checked" not in out
    record = load_model(other).robustness
    assert record.architecture == "wide_resnet"
    assert (record.license, record.clean.n_examples) == ("CC-BY-NC-4.0", 2)
    assert [part.name for part in record.attacks] == ["FGSM"]
    assert [(part.source, part.accuracy) for part in record.reported] == [("model.pt", 0.997)]
    assert hashlib.sha256(file.read_bytes()).hexdigest() in record.notice
    assert (other / "NOTICE").read_text() == f"{record.notice}\n"
    assert "license: cc-by-nc-4.0" in (other / "README.md").read_text()

    published = f"file://{tmp_path}/hub/other"
    status, _, err = command("publish", other, published)
    assert status == 1
    assert "must be one that lets everybody pass its weights on" in err
    assert "got 'CC-BY-NC-4.0': if you may publish them all the same, give accept_license" in err
    assert command("publish", other, published, "--accept-license")[0] == 0
    loaded = load_model(published)
    base = loaded.base_model
    assert (base.license, base.notice) == (record.license, record.notice)
    assert any(path.name == "NOTICE" for path in (tmp_path / "hub").rglob("*"))
    loaded.get_layer("logits").bias.assign(np.ones(10, "float32"))
    tuned = evaluate(loaded, (x, labels), checks=False)
    assert (tuned.license, tuned.notice) == (record.license, record.notice)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--architecture", "wide_resnet:a"], "--architecture must be a name, or name:depth or"),
        (["--architecture", "vgg"], "--architecture must be one of wide_resnet, preact_resnet"),
        (["--architecture", "resnet", "--set", "depth"], "--set must be NAME=VALUE"),
        (["--architecture", "resnet", "--n", "9"], "--n is for attacks: give --attack, too"),
        (["--architecture", "resnet", "--epsilon", "0.1"], "--epsilon is for attacks"),
        (
            ["--architecture", "resnet", "--dataset", "digits", "--license", "no sale"],
            "--license must be an SPDX identifier such as MIT, got 'no sale'",
        ),
        (
            ["--from", "robustbench:X", "--dataset", "digits", "--license", "MIT"],
            "--from says the architecture's settings, clean accuracy, license, epsilon and norm",
        ),
        ([], "--architecture or --from is needed, and not both"),
        (
            ["--from", "robustbench:Rice2020", "--dataset", "cifar10"],
            "such as Rice2020Overfitting, got 'robustbench:Rice",
        ),
        (
            ["--from", "robustbench:Gowal2020Uncovering", "--dataset", "cifar10"],
            "--from must say which of the models of that name: robustbench:cifar10/l2/Gow.* or robus",
        ),
        (
            ["--architecture", "resnet", "--expect-clean", "900", "--dataset", "digits"],
            "--expect-clean must be percent, above 0 and up to 100, got 900",
        ),
        (["--architecture", "resnet"], "--file must be one that is there|file must be one"),
    ],
)
def test_the_command_refuses(command, tmp_path, arguments, message):
    status, _, err = command(
        "port", tmp_path / "no.pt", "--output", tmp_path / "out", "--dataset", "digits", *arguments
    )
    assert status == 1
    assert re.search(message, err), err
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_a_published_model_is_downloaded_or_asked_for(command, tmp_path, monkeypatch):
    file, asked = tmp_path / "cached.pt", []
    torch.save({"last": state_of("Rice"), "best": state_of("Rice", seed=1)}, file)
    x = np.random.default_rng(0).random((50, 32, 32, 3), dtype="float32")
    labels = np.arange(50) % 10
    np.savez(tmp_path / "mine.npz", images=x, labels=labels)
    again, _ = port(file, "preact_resnet", entry="last", width=4)
    clean = 100 * clean_accuracy(again, x, labels).accuracy
    known = find_published("robustbench:cifar10/l2/Rice2020Overfitting").model_copy(
        update={
            "options": {"width": 4},
            "entry": "last",
            "clean": clean,
            "sources": ("hf://me/robust:models/rice.pt", "https://example.org/rice.pt"),
        }
    )
    monkeypatch.setattr("robust_zoo.porting.robustbench.published", lambda: (known,))
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda *where: asked.append(where) or str(file)
    )
    arguments = ["--from", "robustbench:Rice2020Overfitting", "--output", tmp_path / "out"]
    arguments += ["--dataset", tmp_path / "mine.npz", "--attack", "fgsm"]
    status, out, err = command("port", *arguments)
    assert status == 0, err
    assert asked == [("me/robust", "models/rice.pt")]
    assert "tensors in Rice's names" in out
    record = load_model(tmp_path / "out").robustness
    assert (record.architecture, record.license) == ("preact_resnet", "MIT")
    assert (record.threat_model.norm, record.threat_model.epsilon) == ("l2", 0.5)
    assert [(part.setting, part.accuracy) for part in record.reported] == [
        ("clean", pytest.approx(clean / 100)),
        ("AutoAttack", 0.6768),
    ]
    assert "cifar10/l2/Rice2020Overfitting of RobustBench, from hf://me/robust:" in record.notice

    monkeypatch.setattr(
        "huggingface_hub.list_repo_files",
        lambda repository: {"me/one": ["README.md", "a.safetensors"]}.get(
            repository, ["b.pt", "c.pt"]
        ),
    )
    asked.clear()
    plain = ["--architecture", "preact_resnet", "--set", "width=4", "--entry", "last"]
    plain += ["--dataset", tmp_path / "mine.npz"]
    status, _, err = command("port", "hf://me/one", *plain, "--output", tmp_path / "one")
    assert (status, asked) == (0, [("me/one", "a.safetensors")]), err
    status, _, err = command("port", "hf://me/two", *plain, "--output", tmp_path / "two")
    assert status == 1
    assert "must be one of those in hf://me/two, as hf://owner/repository:file: b.pt, c.pt" in err

    elsewhere = known.model_copy(update={"sources": ("https://example.org/rice.pt",)})
    monkeypatch.setattr("robust_zoo.porting.robustbench.published", lambda: (elsewhere,))
    status, _, err = command("port", *arguments)
    assert status == 1
    assert "FILE is needed: download https://example.org/rice.pt in a browser" in err
