"""Several hosts, as processes of this one that talk over loopback."""

import contextlib
import importlib.util
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

import robust_zoo
from robust_zoo import backend
from robust_zoo.attacks import FGSM
from robust_zoo.defenses import NaturalTraining
from robust_zoo.recipe import load_recipe, run

SCRIPT = pathlib.Path(__file__).with_name("on_hosts.py")
ON_HOSTS = pytest.mark.skipif(keras.config.backend() == "torch", reason="torch trains on one host")


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture
def start():
    """Starts a command on each of two hosts, with what names the others to TensorFlow and to JAX."""
    with contextlib.ExitStack() as processes:

        def start(command):
            addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
            return [processes.enter_context(on_host(index, addresses, command)) for index in (0, 1)]

        yield start


@contextlib.contextmanager
def on_host(index, addresses, command):
    task = {"type": "worker", "index": index}
    environment = {
        **os.environ,
        "TF_CONFIG": json.dumps({"cluster": {"worker": addresses}, "task": task}),
        "KERAS_DISTRIBUTION_JOB_ADDRESSES": addresses[0],
        "KERAS_DISTRIBUTION_NUM_PROCESSES": str(len(addresses)),
        "KERAS_DISTRIBUTION_PROCESS_ID": str(index),
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, *command], env=environment, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process, timeout=300):
    """What a process wrote to stderr; it must have ended well."""
    _, errors = process.communicate(timeout=timeout)
    assert process.returncode == 0, errors[-2000:]
    return errors


@pytest.fixture(scope="module")
def alone():
    """What one device trains."""
    specification = importlib.util.spec_from_file_location("on_hosts", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.results()


def assert_the_same(path, expected):
    with np.load(path) as found:
        assert set(found) == set(expected)
        for name, value in expected.items():
            # An attack's sign of a gradient near 0 shows in a log, but not in the weights.
            rough = name.endswith("logs") or "bfloat16" in name
            atol = 5e-3 if rough else 1e-6
            np.testing.assert_allclose(found[name], value, atol=atol, err_msg=name)


@pytest.mark.long
@ON_HOSTS
def test_two_hosts_equal_one_device(tmp_path, start, alone):
    for process in start([str(SCRIPT), str(tmp_path / "found"), "1"]):
        ended(process)
    for number in (0, 1):
        assert_the_same(tmp_path / f"found.{number}.npz", alone)


@pytest.mark.long
@pytest.mark.skipif(
    keras.config.backend() != "jax",
    reason="each defense's own tests have two replicas of TensorFlow",
)
def test_two_devices_of_jax_equal_one(tmp_path, alone):
    command = [sys.executable, str(SCRIPT), str(tmp_path / "found"), "2"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    assert_the_same(tmp_path / "found.0.npz", alone)


RECIPE = """
import keras
from robust_zoo.attacks import FGSM, PGD
from robust_zoo.defenses import AdversarialTraining
from robust_zoo.recipe import Recipe

def classifier():
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(16, "relu"),
              keras.layers.BatchNormalization(), keras.layers.Dense(10, name="logits")]
    return keras.Sequential(layers, name="small")

def get_recipe():
    attack = PGD(epsilon=0.1, steps=2)
    return Recipe(
        name="small.pgd_digits", dataset="digits", classifier=classifier, epochs=4, batch_size=64, n=8,
        defense=lambda model, steps: AdversarialTraining(model, attack=attack),
        optimizer=lambda steps: keras.optimizers.SGD(0.05, momentum=0.9, use_ema=True),
        validation_attack=PGD(epsilon=0.1, steps=3), attacks=(FGSM(epsilon=0.1),),
    )
"""
# The command line, and a list of the files in the shared directory that this host opened for writing or moved.
COMMAND = """
import os, pathlib, sys
shared, written = sys.argv.pop(1), []
def note(event, arguments):
    changes = event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir")
    changes |= event == "open" and bool((arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    if changes and str(arguments[0]).startswith(shared):
        written.append(str(arguments[0]))
sys.addaudithook(note)
from robust_zoo.cli import main
try:
    main()
finally:
    print(f"wrote {len(written)} files in {shared}", file=sys.stderr)
"""


@pytest.mark.long
@ON_HOSTS
def test_a_lost_host_and_resuming(tmp_path, start):
    recipe = tmp_path / "recipe.py"
    recipe.write_text(RECIPE)
    shared = tmp_path / "shared"
    shared.mkdir()
    output = shared / "small.pgd_digits"
    command = ["-c", COMMAND, str(shared), "train", str(recipe), "--hosts", "--output", str(output)]
    first, second = start(command)
    deadline = time.monotonic() + 200
    state = shared / f".{output.name}.training"
    while not (state / "training.npz").exists() and time.monotonic() < deadline:
        assert first.poll() is None, first.communicate()
        time.sleep(0.02)
    second.send_signal(signal.SIGKILL)
    if keras.config.backend() == "tensorflow":
        _, errors = first.communicate(timeout=200)
        assert first.returncode == 1
        assert "another host failed, or was ended" in errors
        assert "with --resume" in errors or "with resume" in errors
    else:  # which notices after a minute and a half, and ends the process
        first.kill()
    for process in (first, second):
        process.communicate()
    assert not output.exists()

    first, second = start([*command, "--resume"])
    assert "wrote 0 files" in ended(second)
    assert "wrote 0 files" not in ended(first)
    assert not state.exists()

    trained = robust_zoo.load_model(output)
    alone = run(load_recipe(recipe)[0], tmp_path / "alone", verbose=0)
    weights = [robust_zoo.load_model(path).get_weights() for path in (output, tmp_path / "alone")]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert trained.robustness.training.hardware.startswith("2 hosts, each ")
    assert trained.robustness.attacks[0].accuracy == alone.attacks[0].accuracy


GOOD = {"cluster": {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}, "task": {"type": "worker"}}


@pytest.mark.home
@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        (
            None,
            r"hosts must be named by the environment variable TF_CONFIG, of the form \{.*got ''",
        ),
        ("{", r"hosts must be named by .*got '\{'"),
        (
            json.dumps({"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}),
            "host:port",
        ),
        (json.dumps(GOOD), r"hosts must be named by .*index"),
        (
            json.dumps({**GOOD, "task": {"type": "worker", "index": 2}}),
            "hosts must have a task for this process, but TF_CONFIG's cluster has 2 of type 'worker', .* index 2",
        ),
        (json.dumps({**GOOD, "task": {"type": "ps", "index": 0}}), "has 0 of type 'ps'"),
    ],
)
def test_clusters_that_are_none(cluster, message, monkeypatch, tmp_path):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if cluster is not None:
        monkeypatch.setenv("TF_CONFIG", cluster)
    recipe, _ = load_recipe("mlp.pgd_digits")
    with pytest.raises(ValueError, match=message):
        run(recipe, tmp_path / "model", hosts=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.home
@pytest.mark.long
def test_hosts_that_do_not_come(start):
    code = (
        "from robust_zoo.backend import tensorflow as backend\n"
        "backend._MINUTES_FOR_HOSTS = 0.1\n"
        "with backend.devices(1, hosts=True): pass\n"
    )
    first, second = start(["-c", code])
    second.kill()
    _, errors = first.communicate(timeout=100)
    second.communicate()
    assert first.returncode == 1
    assert "ValueError: hosts must all be started within 0.1 minutes" in errors


@pytest.mark.skipif(keras.config.backend() != "torch", reason="of torch")
def test_torch_has_one_host(tmp_path):
    recipe, _ = load_recipe("mlp.pgd_digits")
    with pytest.raises(ValueError, match="hosts must be off on torch"):
        run(recipe, tmp_path / "model", hosts=True)


def test_arrays_are_not_shuffled_in_an_order_of_each_host(small_cnn, images, monkeypatch):
    monkeypatch.setattr(backend, "host", lambda trainer=None: (0, 2))
    monkeypatch.setattr("keras.src.utils.rng_utils.get_random_seed", lambda: None)
    defense = NaturalTraining(small_cnn, attack=FGSM(epsilon=0.1))
    defense.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match=r"shuffle must be False on several hosts, .*got True"):
        defense.fit(images(8), np.arange(8) % 5)
