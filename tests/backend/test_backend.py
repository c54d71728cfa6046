import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from robust_zoo import backend


def quadratic(matrix):
    """x -> x^T A x an example, with gradient (A + A^T) x."""

    def value(x):
        return ops.sum(ops.matmul(x, matrix) * x, axis=1)

    return value


def test_input_gradient_of_a_quadratic():
    rng = np.random.default_rng(0)
    matrix, x = rng.normal(size=(4, 4)).astype("float32"), rng.normal(size=(3, 4)).astype("float32")
    value, gradient = backend.value_and_input_gradient(
        quadratic(ops.convert_to_tensor(matrix)), ops.convert_to_tensor(x)
    )
    np.testing.assert_allclose(ops.convert_to_numpy(value), ((x @ matrix) * x).sum(1), rtol=1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(gradient), x @ (matrix + matrix.T), rtol=1e-4)


def test_aux_comes_along_undifferentiated():
    x = ops.ones((2, 3))
    (value, aux), gradient = backend.value_and_input_gradient(
        lambda x: (ops.sum(2 * x, axis=1), 5 * x), x, has_aux=True
    )
    np.testing.assert_array_equal(ops.convert_to_numpy(value), [6, 6])
    np.testing.assert_array_equal(ops.convert_to_numpy(aux), np.full((2, 3), 5))
    np.testing.assert_array_equal(ops.convert_to_numpy(gradient), np.full((2, 3), 2))


def test_second_order_gradient_agrees_with_finite_differences():
    inputs = keras.Input((5,))
    hidden = keras.layers.Dense(7, activation="tanh")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3)(hidden))
    x = np.random.default_rng(0).normal(size=(2, 5)).astype("float32")

    def squared_gradient(x):
        _, gradient = backend.value_and_input_gradient(lambda x: ops.logsumexp(model(x), axis=1), x)
        return ops.sum(ops.square(gradient), axis=1)

    _, second = backend.value_and_input_gradient(squared_gradient, ops.convert_to_tensor(x))
    second = ops.convert_to_numpy(second)
    step = 1e-2
    for pixel in range(5):
        shift = np.zeros_like(x)
        shift[:, pixel] = step
        ends = [
            ops.convert_to_numpy(squared_gradient(ops.convert_to_tensor(x + sign * shift))).astype(
                "float64"
            )
            for sign in (1, -1)
        ]
        difference = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(second[:, pixel], difference, atol=2e-4)
    assert np.abs(second).max() > 0.01


def test_jacobian_rows_are_the_gradients_of_the_logits(small_cnn, images):
    x = ops.convert_to_tensor(images(3))
    logits, jacobian = backend.input_jacobian(small_cnn, x)
    assert tuple(jacobian.shape) == (3, 5, 6, 6, 1)
    np.testing.assert_allclose(
        ops.convert_to_numpy(logits), ops.convert_to_numpy(small_cnn(x)), rtol=1e-5
    )
    for k in range(5):
        _, row = backend.value_and_input_gradient(lambda x, k=k: small_cnn(x)[:, k], x)
        np.testing.assert_allclose(
            ops.convert_to_numpy(jacobian)[:, k], ops.convert_to_numpy(row), atol=1e-6
        )


def test_compiled_functions_see_new_weights(small_cnn, images):
    x = ops.convert_to_tensor(images(2))
    compiled = backend.function(small_cnn, small_cnn)
    before = ops.convert_to_numpy(compiled(x))
    small_cnn.set_weights([2 * weight for weight in small_cnn.get_weights()])
    after = ops.convert_to_numpy(compiled(x))
    np.testing.assert_allclose(after, ops.convert_to_numpy(small_cnn(x)), rtol=1e-5)
    assert np.abs(after - before).max() > 0.1


def test_compiled_functions_are_not_traced_again_for_the_same_shape(small_cnn, images):
    traced = []

    def forward(x):
        traced.append(x.shape)
        return small_cnn(x)

    compiled = backend.function(forward, small_cnn)
    for seed in range(4):
        compiled(ops.convert_to_tensor(images(2, seed=seed)))
    assert len(traced) == (4 if backend.name == "torch" else 1)


SCRIPT = """
import json, sys
import numpy as np, keras, robust_zoo as rz
keras.config.set_floatx("float32")
data = rz.load_dataset("digits")
model = rz.load_model("digits_cnn.pgd_digits")
x, y = data.images[:32], data.labels[:32]
found = [rz.attacks.PGD(epsilon=0.15, steps=10, norm=norm, step_size=0.03).run(model, x, y, seed=3)
         for norm in ("linf", "l2")]
np.savez(sys.argv[1], *[r.x_adv for r in found], *[r.success for r in found])
"""


@pytest.mark.skipif(backend.name == "tensorflow", reason="compares this backend with TensorFlow")
def test_pgd_finds_the_same_images_as_on_tensorflow(tmp_path):
    """The whole attack, random start included: at most 1e-5 apart on all pixels of 96% of images.

    An image may end elsewhere where a gradient is zero to within rounding, so that its sign differs.
    """
    results = {}
    for name in (backend.name, "tensorflow"):
        path = tmp_path / f"{name}.npz"
        subprocess.run(
            [sys.executable, "-c", SCRIPT, str(path)],
            env={**os.environ, "KERAS_BACKEND": name},
            check=True,
            timeout=300,
        )
        with np.load(path) as archive:
            results[name] = [archive[key] for key in archive.files]
    ours, reference = results[backend.name], results["tensorflow"]
    for index in (0, 1):
        apart = np.abs(ours[index] - reference[index]).max(axis=(1, 2, 3))
        assert (apart <= 1e-5).mean() >= 0.96
        np.testing.assert_array_equal(ours[2 + index], reference[2 + index])


def test_only_the_backend_folder_imports_a_backend():
    package = pathlib.Path(backend.__file__).parents[1]
    offenders = [
        f"{path.relative_to(package)}: {line.strip()}"
        for path in package.rglob("*.py")
        # Data, PyTorch's files and exported ones are read on every backend.
        if path.relative_to(package).parts[0] not in ("backend", "porting", "exporting")
        and path.name != "reading.py"
        for line in path.read_text().splitlines()
        if line.strip().startswith(("import ", "from "))
        and line.split()[1].split(".")[0] in ("tensorflow", "jax", "torch")
    ]
    assert offenders == []


@pytest.mark.long
def test_an_unknown_backend_is_refused_with_a_sentence():
    code = (
        "import keras; keras.config.backend = lambda: 'numpy'\n"
        "try: import robust_zoo.backend\n"
        "except ImportError as error: print(error)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    assert "KERAS_BACKEND" in printed
    assert "'numpy'" in printed


def test_gradients_of_several_losses_and_what_else_happens():
    """Each loss by its own variables, trainable or not; assignments inside stay."""
    weight, other, count = (
        keras.Variable(value, trainable=trainable, dtype="float32")
        for value, trainable in (([1.0, 2.0], True), (3.0, False), (0.0, False))
    )

    def losses():
        count.assign(count + 5.0)
        product = ops.sum(ops.square(weight)) * other
        return (product, ops.sum(weight) * other**2), product + 1

    values, aux, found = backend.gradients(
        losses, [[weight, other], [other]], [weight, other, count]
    )
    assert [float(value) for value in values] == [15.0, 27.0]
    assert float(aux) == 16.0
    first, second = ([ops.convert_to_numpy(g) for g in group] for group in found)
    np.testing.assert_allclose(first[0], [6.0, 12.0])
    np.testing.assert_allclose([first[1], second[0]], [5.0, 18.0])
    assert float(count) == 5.0
    assert float(other) == 3.0


def test_gradients_of_what_a_loss_does_not_depend_on_are_zero():
    used, unused = keras.Variable([2.0]), keras.Variable([1.0])
    _, _, (found,) = backend.gradients(
        lambda: ((ops.sum(used**2),), None), [[used, unused]], [used, unused]
    )
    np.testing.assert_allclose([ops.convert_to_numpy(g)[0] for g in found], [4.0, 0.0])


def _in_full_precision() -> bool:
    """Whether products of float32 are in float32 now, on a GPU as well."""
    if backend.name == "tensorflow":
        import tensorflow as tf

        return not tf.config.experimental.tensor_float_32_execution_enabled()
    if backend.name == "jax":
        import jax

        return jax.config.jax_default_matmul_precision == "float32"
    import torch

    return not (torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)


def test_compiled_functions_compute_in_full_float32():
    seen = []

    def look(x):
        if (
            backend.name == "tensorflow"
        ):  # its switch counts when the function runs, not when it is traced
            import tensorflow as tf

            tf.py_function(lambda: seen.append(_in_full_precision()), [], [])
        else:
            seen.append(_in_full_precision())
        return x + 1

    before = _in_full_precision()
    backend.function(look)(np.ones((1, 2), "float32"))
    assert seen == [True]
    assert not before
    assert not _in_full_precision()
