import ctypes
import gc
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# JAX compiles these small networks for longer than it runs them: 3 times as fast all in all.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1",
)
# torch's threads wait for cores that other workers have. By the environment, so that processes of tests, whose
# results are compared to the bit, do the same.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Fewer pools of memory that is freed and kept; for the workers, which start later.
os.environ.setdefault("MALLOC_ARENA_MAX", "2")

import keras
import numpy as np
import pytest

if keras.config.backend() == "tensorflow":
    import tensorflow as tf

    # Two devices for MirroredStrategy; only possible before TensorFlow starts.
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    # Most graphs here run once or twice: optimising them takes longer than they do.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})

keras.config.disable_traceback_filtering()


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True, scope="module")
def _memory_given_back():
    """What tests traced and dropped goes back to the system: a process of hundreds of tests would keep gigabytes."""
    gc.freeze()  # what is left of others is not searched for garbage again and again
    yield
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


@pytest.fixture
def command(monkeypatch, capfd):
    """Runs `robust-zoo` with arguments; returns exit status, stdout and stderr."""

    from robust_zoo import cli

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["robust-zoo", *map(str, arguments)])
        status = 0
        try:
            cli.main()
        except SystemExit as exit_:
            status = exit_.code or 0
        printed = capfd.readouterr()
        return status, printed.out, printed.err

    return run


@pytest.fixture
def few_planted(monkeypatch):
    """The binarisation test, half of an evaluation's time here, on two images: for tests of other things."""
    monkeypatch.setattr("robust_zoo.evaluation.binarisation.N_EXAMPLES", 2)


@pytest.fixture
def linear():
    """A linear classifier of 2 x 2 images into 3 classes, and its kernel and bias as float64."""
    inputs = keras.Input((2, 2, 1))
    flat = keras.layers.Flatten()(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(flat), name="linear")
    rng = np.random.default_rng(1)
    kernel = rng.normal(size=(4, 3))
    bias = -kernel.sum(axis=0) / 2  # a grey image is on every boundary
    model.set_weights([kernel.astype("float32"), bias.astype("float32")])
    return (
        model,
        kernel.astype("float32").astype("float64"),
        bias.astype("float32").astype("float64"),
    )


@pytest.fixture
def small_cnn():
    """An untrained network of 6 x 6 images into 5 classes with logits of moderate size."""
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    x = keras.layers.Flatten()(x)
    outputs = keras.layers.Dense(5, name="logits")(x)
    return keras.Model(inputs, outputs, name="small_cnn")


@pytest.fixture
def images():
    def make(n, shape=(6, 6, 1), seed=0):
        return np.random.default_rng(seed).random((n, *shape)).astype("float32")

    return make


@pytest.fixture
def strategy():
    """Two replicas on one machine."""
    if keras.config.backend() != "tensorflow":
        pytest.skip("strategies are TensorFlow's")
    # Several strategies in one process collide with the default cross-device operations.
    return tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )


def _is_prepared(name):
    try:
        import tensorflow_datasets as tfds

        return tfds.builder(name).is_prepared()
    except ImportError:
        return False


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("long") or item.get_closest_marker("crash"):
            item.add_marker("slow")
    if keras.config.backend() != "tensorflow":
        for item in items:
            if item.get_closest_marker("home"):
                item.add_marker(pytest.mark.skip(reason="the same on every backend, and long"))
    for name in ("mnist", "cifar10"):
        marked = [item for item in items if item.get_closest_marker(name)]
        if marked and not _is_prepared(name):
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=f"{name} is not prepared for TFDS"))
