"""Files of tensors: what is read of them, and what is refused, without running anything."""

import collections
import io
import pickle
import re
import struct
import zipfile

import keras
import numpy as np
import pytest

from robust_zoo.porting import PortError, read_file

torch = pytest.importorskip("torch")

MATRIX = torch.arange(6.0).reshape(2, 3)
NETWORK = {"conv1.weight": MATRIX, "fc.weight": MATRIX + 1, "fc.bias": torch.ones(2)}


def saved(tmp_path, content, name="model.pt"):
    torch.save(content, tmp_path / name)
    return tmp_path / name


def named(prefix, tensors=NETWORK):
    return {f"{prefix}{name}": value for name, value in tensors.items()}


@pytest.mark.parametrize(
    "content",
    [
        NETWORK,
        named("module."),
        named("module.model."),
        named("module.0."),
        named("net."),
        named("_orig_mod.encoder."),
        named("model.") | named("ema_model.", {"conv1.weight": -MATRIX}),
        named("model.") | {"model.bn.num_batches_tracked": torch.tensor(7)},
        {"state_dict": NETWORK, "epoch": 3, "best_acc": torch.tensor(0.5)},
        {"model": named("module."), "acc": torch.tensor([0.5]), "rng": torch.zeros(5, dtype=torch.uint8)},
        {"state_dict": NETWORK, "state_dict_ema": named("", {"conv1.weight": -MATRIX})},
        {"net": NETWORK, "ema": {"conv1.weight": -MATRIX}},
        {"model": NETWORK, "optimizer": {"state": {0: {"momentum_buffer": MATRIX}}}},
        {"model": NETWORK, "scheduler": {"values": MATRIX}, "rng_state": {"a": MATRIX}},
        {"checkpoint": {"net": {"weights": NETWORK}}},
        # As the trainer of Wang et al. saves it: weights that are averaged, and others.
        {
            "model_state_dict": named("module.0."),
            "unaveraged_model_state_dict": named("module.0.", {"conv1.weight": -MATRIX}),
        },
    ],
)  # fmt: skip
def test_a_network_in_whatever_wrapper(tmp_path, content):
    found = read_file(saved(tmp_path, content)).values
    assert {name: value.tolist() for name, value in found.items()} == {
        name: value.tolist() for name, value in NETWORK.items()
    }


NORMALISED = {"mean": torch.full((1, 3, 1, 1), 0.4), "std": torch.full((1, 3, 1, 1), 0.2)}


@pytest.mark.parametrize(
    "content",
    [
        named("", NETWORK) | NORMALISED,
        named("module.1.") | named("module.0.", NORMALISED),
        named("model.") | {f"normalize.{name}": value for name, value in NORMALISED.items()},
        named("model.") | {"mu": NORMALISED["mean"], "sigma": NORMALISED["std"]},
        # As the robustness library saves it: a second view of the same network for its attacks.
        {
            "model": {
                **named("module.model."),
                **named("module.attacker.model."),
                **{
                    f"module.{part}new_{name}": value
                    for part in ("normalizer.", "attacker.normalize.")
                    for name, value in NORMALISED.items()
                },
            },
            "optimizer": {"state": [MATRIX]},
            "epoch": 9,
        },
    ],
)
def test_the_normalisation_of_images_has_one_name(tmp_path, content):
    found = read_file(saved(tmp_path, content)).values
    assert set(found) == {*NETWORK, "mean", "std"}
    np.testing.assert_array_equal(found["std"].ravel(), np.full(3, 0.2, "float32"))


def test_a_copy_that_differs_is_no_copy(tmp_path):
    content = named("model.") | named("attacker.model.", NETWORK | {"fc.bias": torch.zeros(2)})
    with pytest.raises(PortError, match=r"two networks: 'attacker.model.fc.bias' differs"):
        read_file(saved(tmp_path, content))


def test_entries(tmp_path):
    file = saved(tmp_path, {"net": NETWORK, "ema": {"conv1.weight": -MATRIX}})
    assert read_file(file)[1:] == ("net", ("ema",), 0)
    found = read_file(file, entry="ema")
    assert (found.entry, found.copies) == ("ema", ())
    assert found.values["conv1.weight"].tolist() == (-MATRIX).tolist()
    both = saved(tmp_path, {"last": NETWORK, "best": NETWORK})
    with pytest.raises(PortError, match=r"--entry\) which of \['best', 'last'\] is meant"):
        read_file(both)
    with pytest.raises(PortError, match=r"entry must be one of \['best', 'last'\] .* got 'ema'"):
        read_file(both, entry="ema")
    with pytest.raises(PortError, match=r"entry must not be given: .* one dictionary .*got 'best'"):
        read_file(saved(tmp_path, NETWORK), entry="best")
    assert read_file(saved(tmp_path, {"ema": NETWORK})).entry == "ema"


class Runs:
    def __reduce__(self):
        return print, ("run",)


def in_zip(**members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return stream.getvalue()


def npy(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def written(content):
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def npz(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def keras_file(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.save(tmp_path / "other.keras")
    return (tmp_path / "other.keras").read_bytes()


def deep(levels):
    content = NETWORK
    for _ in range(levels):
        content = {"in": content}
    return content


def cyclic():
    content = {"a": {}}
    content["a"]["b"] = content
    return content


BAD = {
    "empty.pt": (b"", "is empty"),
    "page.pth": (b"<!DOCTYPE html>", "is a web page, not a checkpoint"),
    "lfs.pt": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS"),
    "keras.pt": (b"\x89HDF\r\n\x1a\n" + bytes(90), "an HDF5 file, as Keras saves weights"),
    "script.pt": (in_zip(a__code__x="1", a__constants="2"), r"a program \(TorchScript\)"),
    "flax.pt": (b"\x81\xa6params\x81\xa1w\x01", "a file of Flax's"),
    "large_flax.pt": (b"\xde\x00\x20\xa6params" + bytes(30), "a file of Flax's"),
    "old.pkl": (pickle.dumps({}), "file must be one of .safetensors, .pt"),
    "array.npy": (npy(np.ones(3)), "holds one array without names"),
    "objects.npy": (npy(np.array([{}, {}], dtype=object)), "objects that only code can load"),
    "weights.h5": (b"\x89HDF\r\n", "Keras's: load it with keras"),
    "model.index": (b"tensors", "a checkpoint of TensorFlow's"),
    "called.pt": (pickle.dumps(Runs(), protocol=4), "would run code to load .*print; it is not read"),
    "called_by_name.pt": (pickle.dumps(Runs(), protocol=0), "would run code to load .*print; it is not read"),
    "code.pt": (written({"weights": Runs()}), "would run code to load .*print; it is not read. Save its"),
    "cut.pt": (written(NETWORK)[:700], "is truncated, or not PyTorch's"),
    "noise.pt": (b"\x07" * 300, "damaged, or not PyTorch's|is truncated, or not PyTorch's"),
    "number.pt": (written(7), "holds no dictionary of tensors"),
    "epoch.pt": (written({"epoch": 3}), "holds no dictionary of tensors"),
    "deep.pt": (written(deep(50)), "holds no dictionary of tensors"),
    "cyclic.pt": (written(cyclic()), "holds no dictionary of tensors"),
    "sparse.pt": (written({"a": MATRIX.to_sparse()}), "tensor 'a' must be an ordinary one"),
    "meta.pt": (written({"a": torch.empty(2, 2, device="meta")}), "tensor 'a' must be an ordinary one"),
    "nan.pt": (written({"a": MATRIX * float("nan")}), "tensor 'a' .* has values that are not finite"),
    "zero.pt": (written({"a": MATRIX * 0}), "has no value that is not 0"),
    "int.pt": (written({"a": MATRIX.long()}), "'a' .* must be floating-point, got int64: quantised"),
    "object.npz": (npz(x=np.array([{}], dtype=object)), "cannot be read"),
    "cut.npz": (npz(x=np.ones((9, 9)))[:200], "cannot be read"),
    "npy.npz": (npy(np.ones(3)), "cannot be read"),
    "bytes.npz": (in_zip(a="no array"), "cannot be read"),
    "header.npz": (
        in_zip(**{"a.npy": npy(np.ones(3)).replace(b"(3,)", b"(3,)")[:60] + b" " * 68}),
        "cannot be read",
    ),
    "huge.npz": (
        in_zip(**{"a.npy": b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f8', 'fortran_order': False, 'shape': (100000000000,), }".ljust(117) + b"\n"}),
        r"cannot be read: .*claims shape \(100000000000,\)",
    ),
    "cut.safetensors": (struct.pack("<Q", 900) + b"{}", "cannot be read"),
    "cut.onnx": (b"\x08\x08\x12\x90", "cannot be read|no floating-point tensors"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_files_that_are_not_read(name, tmp_path, capsys):
    if name.endswith((".safetensors", ".onnx")):
        pytest.importorskip(name.rpartition(".")[2])
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PortError, match=message) as caught:
        read_file(tmp_path / name)
    assert name in str(caught.value) or "tensor 'a' must be" in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert "..." not in str(caught.value) or len(str(caught.value)) > 200
    assert capsys.readouterr().out == ""


def test_models_of_keras_are_told(tmp_path):
    content = keras_file(tmp_path)
    for name in ("model.pt", "model.npz"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(PortError, match="a model that Keras saved: load it"):
            read_file(tmp_path / name)


def test_a_flipped_byte(tmp_path):
    content = bytearray(npz(x=np.ones((50, 50))))
    content[len(content) // 2] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(PortError, match="cannot be read"):
        read_file(tmp_path / "a.npz")


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="file must be one that is there"):
        read_file(tmp_path / "nothing.pt")


def test_an_old_pytorch_is_not_trusted(tmp_path, monkeypatch):
    file = saved(tmp_path, NETWORK)
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    with pytest.raises(ImportError, match=r"need PyTorch 2.6 or newer, .*got 2.5.1"):
        read_file(file)


def test_half_precision_is_read_everywhere(tmp_path):
    expected = NETWORK["conv1.weight"].tolist()
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        file = saved(tmp_path, {name: value.to(dtype) for name, value in NETWORK.items()})
        assert read_file(file).values["conv1.weight"].tolist() == expected
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(
        {name: value.bfloat16() for name, value in NETWORK.items()}, tmp_path / "a.safetensors"
    )
    assert read_file(tmp_path / "a.safetensors").values["conv1.weight"].tolist() == expected


def test_npz(tmp_path):
    counter = {"model.y.num_batches_tracked": np.array(2)}
    np.savez(
        tmp_path / "a.npz", **{"model.x.weight": np.ones(3), "model.z.bias": np.ones(1)}, **counter
    )
    found = read_file(tmp_path / "a.npz").values
    assert {name: value.tolist() for name, value in found.items()} == {
        "x.weight": [1, 1, 1],
        "z.bias": [1],
    }


def test_safetensors_and_onnx(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    onnx = pytest.importorskip("onnx")
    arrays = {
        "conv.weight": np.arange(6, dtype="float32").reshape(2, 3),
        "n_averaged": np.array([1]),
    }
    safetensors.save_file(arrays, tmp_path / "a.safetensors")
    kept = [onnx.numpy_helper.from_array(value, name) for name, value in arrays.items()]
    graph = onnx.helper.make_graph([], "graph", [], [], initializer=kept)
    onnx.save(onnx.helper.make_model(graph), tmp_path / "a.onnx")
    for name in ("a.safetensors", "a.onnx"):
        (found,) = read_file(tmp_path / name).values.items()
        assert found[0] == "conv.weight"
        assert np.array_equal(found[1], arrays["conv.weight"])
        whole = (tmp_path / name).read_bytes()
        (tmp_path / f"cut{name}").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(PortError, match="cannot be read"):
            read_file(tmp_path / f"cut{name}")
    with pytest.raises(PortError, match=r"entry is of PyTorch's files, .onnx has none"):
        read_file(tmp_path / "a.onnx", entry="model")


def test_weights_elsewhere_in_an_onnx_file(tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    tensor = onnx.numpy_helper.from_array(NETWORK["conv1.weight"].numpy(), "conv1.weight")
    constant = onnx.helper.make_node("Constant", [], ["conv1.weight"], value=tensor)
    shape = onnx.numpy_helper.from_array(np.array([[1, 2]]), "shape")
    other = onnx.helper.make_node("Constant", [], ["shape"], value=shape)

    def stored(nodes, *parts):
        graph = onnx.helper.make_graph(nodes, "graph", [], [], initializer=parts)
        onnx.save(onnx.helper.make_model(graph), tmp_path / "a.onnx")
        return tmp_path / "a.onnx"

    assert list(read_file(stored([constant, other])).values) == ["conv1.weight"]
    with pytest.raises(PortError, match=re.escape("two tensors of the name 'conv1.weight'")):
        read_file(stored([], tensor, tensor))
    large = onnx.numpy_helper.from_array(np.ones((64, 64), "float32"), "conv1.weight")
    model = onnx.helper.make_model(onnx.helper.make_graph([], "graph", [], [], initializer=[large]))
    onnx.save_model(
        model, tmp_path / "b.onnx", save_as_external_data=True, location="b.bin", size_threshold=0
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PortError, match=r"keeps tensor .* in another file: save"):
        read_file(tmp_path / "b.onnx")


def test_an_ordered_dictionary_is_one(tmp_path):
    assert read_file(saved(tmp_path, collections.OrderedDict(NETWORK))).values


def test_a_structured_array_is_read_by_its_fields(tmp_path):
    kinds = [("conv.weight", "float32", (2, 3)), ("conv.bias", "float64", (2,))]
    array = np.zeros((), dtype=kinds)
    array["conv.weight"], array["conv.bias"] = np.arange(6).reshape(2, 3), [1, 2]
    np.save(tmp_path / "a.npy", array)
    found = read_file(tmp_path / "a.npy").values
    assert {name: value.tolist() for name, value in found.items()} == {
        "conv.weight": [[0, 1, 2], [3, 4, 5]],
        "conv.bias": [1, 2],
    }


def test_what_tensorflow_wrote_is_told(tmp_path):
    (tmp_path / "model.ckpt.index").write_bytes(b"x")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"x")
    for place, message in (
        (tmp_path / "model.ckpt", "is a checkpoint of TensorFlow's"),
        (tmp_path / "saved", "is a SavedModel of TensorFlow's"),
        (tmp_path, "is a directory"),
        (
            "https://example.org/model.pt",
            "file must be on this machine, got 'https://example.org/model.pt'",
        ),
    ):
        with pytest.raises(PortError, match=re.escape(message)):
            read_file(place)


def test_scalars_and_integers_are_tensors_too(tmp_path):
    """A learned activation, which a network without it has no place for, is not dropped in silence."""
    content = {**NETWORK, "act.alpha": torch.tensor(1.5), "places": torch.arange(3)}
    found = read_file(saved(tmp_path, content))
    assert {"act.alpha", "places"} <= set(found.values)
    counted = {**NETWORK, "bn.num_batches_tracked": torch.tensor(3), "n_averaged": torch.tensor(1)}
    found = read_file(saved(tmp_path, counted))
    assert (set(found.values), found.unused) == (set(read_file(saved(tmp_path, NETWORK)).values), 2)


def test_training_states_are_told_from_networks_by_whole_words(tmp_path):
    state = {"optimal_model": NETWORK, "optimizer": {"state": {0: {"exp_avg": torch.ones(2, 2)}}}}
    assert read_file(saved(tmp_path, state)).entry == "optimal_model"
    flat = {**NETWORK, "optimizer.0.exp_avg": torch.ones(2, 2)}
    found = read_file(saved(tmp_path, flat))
    assert (set(found.values), found.unused) == (set(read_file(saved(tmp_path, NETWORK)).values), 1)


def test_a_flipped_byte_is_noticed(tmp_path):
    file = saved(tmp_path, {"conv.weight": torch.ones(64, 64)})
    content = bytearray(file.read_bytes())
    place = content.find(np.float32(1).tobytes() * 8)
    content[place + 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(PortError, match=r"is damaged: .* differs from its checksum"):
        read_file(file)
