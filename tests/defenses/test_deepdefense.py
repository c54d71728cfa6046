import keras
import numpy as np
import pytest
from keras import ops
from numpy.testing import assert_allclose

from robust_zoo import backend
from robust_zoo.attacks import FGSM
from robust_zoo.attacks.deepfool_path import _size, _step, find_path, length, perturbation
from robust_zoo.attacks.losses import at
from robust_zoo.defenses import DeepDefense


@pytest.fixture
def smooth():
    """A network without kinks, so that finite differences hold."""
    inputs = keras.Input((3, 3, 1))
    x = keras.layers.Dense(6, activation="tanh", name="hidden")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(4, name="logits")(x))
    rng = np.random.default_rng(5)
    model.set_weights([rng.normal(size=weight.shape) for weight in model.get_weights()])
    return model


def batch(model, n=12):
    """Images, half of them with their predicted labels."""
    x = np.random.default_rng(0).random((n, 3, 3, 1)).astype("float32")
    predicted = ops.convert_to_numpy(model(x)).argmax(1)
    y = np.where(np.arange(n) % 2 == 0, predicted, (predicted + 1) % 4).astype("int32")
    return ops.convert_to_tensor(x), ops.convert_to_tensor(y)


def compiled(defense):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    defense.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss)
    return defense


def penalty(defense, x, y):
    """The regulariser alone, as a function of the weights; the path is looked for again."""
    made, labels, _ = defense.prepare((x, y), training=True)
    logits = {"clean": defense.classifier(x)}
    loss = defense.objective(made, labels, logits, None)
    return loss - defense.compiled_loss(x, labels, logits["clean"], None)


def found(model, x, y, steps):
    """Which examples are classified correctly, and the perturbations, in one compiled function."""

    def find(x, y):
        correct, path = find_path(model, x, y, steps=steps, overshoot=0.02)
        return correct, perturbation(model, x, path, overshoot=0.02)

    return backend.function(find, model)(x, y)


def test_candidates(smooth):
    """All of them are the same as none; with two, the class is the likeliest other one, or the true one."""
    x, y = batch(smooth)

    def found_with(candidates):
        def find(x, y):
            correct, path = find_path(smooth, x, y, steps=3, overshoot=0.02, candidates=candidates)
            return correct, [part for step in path for part in step]

        return backend.function(find, smooth)(x, y)

    whole, every, two = (found_with(candidates) for candidates in (None, 4, 2))
    for a, b in zip([whole[0], *whole[1]], [every[0], *every[1]], strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(a), ops.convert_to_numpy(b))
    logits, labels = (ops.convert_to_numpy(part) for part in (smooth(x), y))
    order = np.argsort(-logits, axis=1)
    correct, (base, target, _) = ops.convert_to_numpy(two[0]), map(ops.convert_to_numpy, two[1][:3])
    np.testing.assert_array_equal(correct, order[:, 0] == labels)
    np.testing.assert_array_equal(base, order[:, 0])
    np.testing.assert_array_equal(target, np.where(correct, order[:, 1], labels))
    assert (ops.convert_to_numpy(whole[1][1]) != target).any()
    for wrong in (1, 5):
        with pytest.raises(ValueError, match="candidates must be"):
            DeepDefense(smooth, candidates=wrong)


def test_a_linear_model_in_closed_form(linear, images):
    """One step reaches the boundary; more do not move an example that has crossed."""
    model, kernel, bias = linear
    x = images(20, (2, 2, 1))
    z = x.reshape(20, 4) @ kernel + bias
    predicted = z.argmax(1)
    y = np.where(np.arange(20) < 14, predicted, (predicted + 1) % 3).astype("int32")
    expected = np.empty(20)
    for i in range(20):
        others = [k for k in range(3) if k != y[i]]
        base = y[i] if y[i] == predicted[i] else predicted[i]
        targets = others if y[i] == predicted[i] else [y[i]]
        gaps = [
            abs(z[i, k] - z[i, base]) / np.linalg.norm(kernel[:, k] - kernel[:, base])
            for k in targets
        ]
        expected[i] = 1.02 * min(gaps) / np.linalg.norm(x[i])
    # A misclassified example may meet a third class on its way: those take more steps.
    images, labels = ops.convert_to_tensor(x), ops.convert_to_tensor(y)
    correct, change = found(model, images, labels, steps=1)
    assert_allclose(ops.convert_to_numpy(correct), y == predicted)
    size = length(change)
    ratio = ops.convert_to_numpy(size) / np.sqrt((x**2).sum((1, 2, 3)))
    assert_allclose(ratio, expected, rtol=1e-4)
    _, change = found(model, images, labels, steps=5)
    again = ops.convert_to_numpy(length(change))
    assert_allclose(again[:14], ops.convert_to_numpy(size)[:14], rtol=1e-5)

    defense = compiled(DeepDefense(model, strength=3, c=7, d=2, steps=1))
    each = np.where(y == predicted, np.exp(-7 * expected), np.exp(2 * np.minimum(expected, 1)))
    assert float(penalty(defense, images, labels)) == pytest.approx(3 * each.mean(), rel=1e-4)


def test_perturbations_cross_the_boundary(smooth):
    x, y = batch(smooth)
    correct, change = found(smooth, x, y, steps=10)
    moved = smooth(x + change)
    moved = ops.convert_to_numpy(moved).argmax(1)
    crossed = np.where(ops.convert_to_numpy(correct), moved != y, moved == y)
    assert crossed.mean() > 0.8
    assert set(ops.convert_to_numpy(correct)) == {True, False}


@pytest.mark.slow
def test_the_gradient_agrees_with_finite_differences(smooth):
    x, y = batch(smooth)
    defense = compiled(DeepDefense(smooth, strength=1, c=5, d=1, steps=3))
    weights = smooth.trainable_variables
    _, _, (gradients,) = backend.gradients(
        lambda: ((penalty(defense, x, y),), None), [weights], defense.variables
    )
    rng = np.random.default_rng(1)
    start = [ops.convert_to_numpy(weight).copy() for weight in weights]
    for _ in range(4):
        direction = [rng.normal(size=weight.shape) for weight in weights]
        slope = sum(
            (ops.convert_to_numpy(g) * d).sum() for g, d in zip(gradients, direction, strict=True)
        )
        values = []
        for sign in (1, -1):
            for weight, before, d in zip(weights, start, direction, strict=True):
                weight.assign(before + sign * 1e-3 * d)
            values.append(float(penalty(defense, x, y)))
        for weight, before in zip(weights, start, strict=True):
            weight.assign(before)
        assert (values[0] - values[1]) / 2e-3 == pytest.approx(slope, rel=0.02, abs=2e-3)


def recorded_everything(defense, x, y):
    """DeepFool with the whole Jacobian on record in every iteration."""
    model, change = defense.classifier, ops.zeros_like(x)
    moves, correct = ops.ones((x.shape[0],), "bool"), None
    n, classes = x.shape[0], model.output_shape[1]
    shape = (-1, 1, 1, 1)
    for _ in range(defense.steps):
        rows = []
        for k in range(classes):
            z_k, row = backend.value_and_input_gradient(lambda x, k=k: model(x)[:, k], x + change)
            rows.append((z_k, ops.reshape(row, (n, -1))))
        z = ops.stack([value for value, _ in rows], axis=1)
        jacobian = ops.stack([row for _, row in rows], axis=1)
        predicted = ops.cast(ops.argmax(z, axis=1), "int32")
        correct = predicted == y if correct is None else correct
        base = ops.where(correct, y, predicted)
        gaps = z - at(z, base)[:, None]
        normals = jacobian - ops.take_along_axis(jacobian, base[:, None, None], axis=1)
        distance = ops.abs(gaps) / _size(normals)
        distance = ops.where(ops.one_hot(base, classes, dtype="bool"), np.inf, distance)
        target = ops.where(correct, ops.cast(ops.argmin(distance, axis=1), "int32"), y)
        normal = ops.reshape(ops.take_along_axis(normals, target[:, None, None], axis=1), x.shape)
        step = _step(at(gaps, target), normal)
        change = change + ops.where(ops.reshape(moves, shape), step, 0.0)
        now = ops.cast(ops.argmax(model(x + (1 + defense.overshoot) * change), axis=1), "int32")
        crossed = ops.where(correct, now != y, now == y)
        moves = ops.logical_and(moves, ops.logical_not(crossed))
    ratio = (1 + defense.overshoot) * length(change) / length(x)
    growing = ops.exp(defense.d * ops.minimum(ratio, 1.0))
    values = ops.where(correct, ops.exp(-defense.c * ratio), growing)
    return defense.strength * ops.mean(values)


def test_recomputing_the_chosen_class_is_recording_everything(smooth):
    x, y = batch(smooth)
    defense = compiled(DeepDefense(smooth, strength=1, c=5, d=1, steps=4))
    weights = [smooth.trainable_variables]
    losses, _, (short,) = backend.gradients(
        lambda: ((penalty(defense, x, y),), None), weights, defense.variables
    )
    whole, _, (long,) = backend.gradients(
        lambda: ((recorded_everything(defense, x, y),), None), weights, defense.variables
    )
    assert float(losses[0]) == pytest.approx(float(whole[0]), rel=1e-4)
    for a, b in zip(short, long, strict=True):
        scale = np.abs(ops.convert_to_numpy(b)).max()
        assert scale > 1e-4
        assert_allclose(ops.convert_to_numpy(a), ops.convert_to_numpy(b), atol=1e-3 * scale)


def test_only_some_layers_get_the_penalty_s_gradient(smooth):
    x, y = batch(smooth)
    found = {}
    for layers in (None, ("logits",)):
        defense = compiled(DeepDefense(smooth, steps=2, layers=layers))
        _, _, (gradients,) = backend.gradients(
            lambda defense=defense: ((penalty(defense, x, y),), None),
            [smooth.trainable_variables],
            defense.variables,
        )
        found[layers] = [ops.convert_to_numpy(gradient) for gradient in gradients]
    hidden, logits = slice(0, 2), slice(2, 4)
    assert all(np.abs(gradient).max() == 0 for gradient in found["logits",][hidden])
    assert all(np.abs(gradient).max() > 1e-4 for gradient in found[None][hidden])
    for a, b in zip(found["logits",][logits], found[None][logits], strict=True):
        assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be an integer >= 1, got 0"),
        ({"c": -1}, "c must be a number >= 0, got -1"),
        ({"strength": float("nan")}, "strength must be a number >= 0, got nan"),
        ({"layers": ("conv1",)}, r"layers must be some of \['hidden', 'logits'\], got \['conv1'\]"),
        ({"attack": FGSM(epsilon=0.1), "attack_mode": "eval"}, "attack_mode must be one of"),
    ],
)
def test_bad_arguments(smooth, settings, message):
    with pytest.raises(ValueError, match=message):
        DeepDefense(smooth, **settings)


def test_perturbations_behind_a_layer(smooth):
    """The penalty is that of the model behind the layer, on what comes out of it."""
    inputs = keras.Input((3, 3, 1))
    front = keras.layers.Rescaling(3.0, -1.0, name="front")
    whole = keras.Model(inputs, smooth(front(inputs)))
    x, y = batch(whole)
    behind = compiled(DeepDefense(whole, behind="front", steps=3))
    alone = compiled(DeepDefense(smooth, steps=3))
    pixels = compiled(DeepDefense(whole, steps=3))
    expected, found, other = (
        float(ops.stop_gradient(penalty(defense, images, y)))
        for defense, images in ((alone, front(x)), (behind, x), (pixels, x))
    )
    assert found == pytest.approx(expected, rel=1e-5)
    assert other != pytest.approx(expected, rel=1e-3)
    assert DeepDefense.from_config(behind.get_config()).behind == "front"
    with pytest.raises(ValueError, match="behind must be the name of a layer of a functional"):
        DeepDefense(whole, behind="nothing")


def test_what_goes_around_a_layer_is_told():
    inputs = keras.Input((3, 3, 1))
    side = keras.layers.Rescaling(2.0, name="side")(inputs)
    outputs = keras.layers.Dense(4)(keras.layers.Flatten()(side + inputs))
    with pytest.raises(ValueError, match="behind must be a layer that everything goes through"):
        DeepDefense(keras.Model(inputs, outputs), behind="side")
