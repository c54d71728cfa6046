"""DDN, FMN and sigma-zero against the exact distances of linear models within [0, 1]."""

import keras
import numpy as np
import pytest
from keras import ops

from robust_zoo.attacks import DDN, FMN, JSMA, CarliniWagner, DeepFool, PixelSwap, SigmaZero
from robust_zoo.attacks.norms import get_norm
from robust_zoo.datasets import load_dataset
from robust_zoo.zoo import load_model

SHAPE = (6, 6, 2)
NORMS = ("linf", "l2", "l1", "l0")


def linear(shape=SHAPE, classes=4, seed=0, bias=0.0):
    inputs = keras.Input(shape)
    outputs = keras.layers.Dense(classes, name="logits")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, outputs)
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(int(np.prod(shape)), classes))
    model.set_weights([kernel.astype("float32"), bias - kernel.sum(axis=0).astype("float32") / 2])
    return model, kernel.astype("float32").astype("float64")


def exact(model, kernel, x, y, norm):
    """The least distance to another class in [0, 1], in float64; infinite if there is none."""
    bias = model.get_weights()[1].astype("float64")
    found = np.full(len(x), np.inf)
    for row, (image, label) in enumerate(
        zip(x.reshape(len(x), -1).astype("float64"), y, strict=True)
    ):
        logits = image @ kernel + bias
        for other in set(range(kernel.shape[1])) - {label}:
            w, gap = kernel[:, label] - kernel[:, other], logits[label] - logits[other]
            room = np.where(w > 0, image, 1 - image)
            found[row] = min(found[row], least(np.abs(w), room, gap, norm))
    return found


def least(w, room, gap, norm):
    """The least norm of 0 <= change <= room with sum(w * change) >= gap."""
    if w @ room < gap:
        return np.inf
    if norm == "l0":
        return 1 + np.searchsorted(np.cumsum(np.sort(w * room)[::-1]), gap)
    if norm == "l1":
        order = np.argsort(-w)
        gained = np.cumsum((w * room)[order])
        last = np.searchsorted(gained, gap)
        before = gained[last - 1] if last else 0.0
        return room[order][:last].sum() + (gap - before) / w[order][last]
    low, high = 0.0, 1e4
    for _ in range(200):
        middle = (low + high) / 2
        change = np.minimum(middle * (w if norm == "l2" else 1.0), room)
        low, high = (middle, high) if w @ change < gap else (low, middle)
    change = np.minimum(high * (w if norm == "l2" else 1.0), room)
    return np.sqrt((change**2).sum()) if norm == "l2" else change.max()


@pytest.fixture(scope="module")
def problem():
    model, kernel = linear()
    x = np.random.default_rng(1).random((16, *SHAPE)).astype("float32")
    y = ops.convert_to_numpy(model(x)).argmax(1)
    return model, kernel, x, y


@pytest.mark.parametrize(
    ("norm", "most"), [("linf", 1.03), ("l2", 1.03), ("l1", 1.05), ("l0", 1.2)]
)
def test_fmn_finds_the_boundary(problem, norm, most):
    model, kernel, x, y = problem
    found = FMN(norm=norm, steps=100).run(model, x, y)
    best = exact(model, kernel, x, y, norm)
    assert found.success.all()
    assert (found.distance >= best * (1 - 1e-5)).all()
    assert np.mean(found.distance / best) < most


def test_ddn_finds_the_boundary(problem):
    model, kernel, x, y = problem
    best = exact(model, kernel, x, y, "l2")
    # Of large logits cross-entropy sees the likeliest other class alone.
    model.set_weights([30 * weight for weight in model.get_weights()])
    try:
        found = DDN(steps=200).run(model, x, y)
    finally:
        model.set_weights([weight / 30 for weight in model.get_weights()])
    assert found.success.all()
    assert (found.distance >= best * (1 - 1e-5)).all()
    assert np.mean(found.distance / best) < 1.03


def test_sigma_zero_changes_few_values(problem):
    model, kernel, x, y = problem
    best = exact(model, kernel, x, y, "l0")
    found = SigmaZero(steps=300).run(model, x, y)
    assert found.success.all()
    assert (found.distance >= best).all()
    assert np.mean(found.distance / best) < 1.25
    fmn = FMN(norm="l0", steps=300).run(model, x, y)
    assert found.distance.mean() <= fmn.distance.mean() * 1.1
    rest = PixelSwap(epsilon=10).run(model, x, y)
    assert rest.success.mean() < 1 or rest.distance.mean() > found.distance.mean()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_first_radius_of_fmn_is_the_distance_to_the_plane(problem, norm):
    model, kernel, x, y = problem
    attack = FMN(norm=norm)
    images = ops.convert_to_tensor(x)
    state = attack.start(model, images, ops.convert_to_tensor(y, "int32"), None, 0.0, 0)
    state, _ = attack.step(model, images, state, 0.0)
    logits = x.reshape(len(x), -1).astype("float64") @ kernel + model.get_weights()[1]
    rows = np.arange(len(x))
    others = logits.copy()
    others[rows, y] = -np.inf
    second = others.argmax(1)
    w = (kernel[:, y] - kernel[:, second]).T
    dual = {"linf": np.abs(w).sum(1), "l2": np.linalg.norm(w, axis=1), "l1": np.abs(w).max(1)}
    expected = 1.001 * (logits[rows, y] - logits[rows, second]) / dual[norm]
    np.testing.assert_allclose(ops.convert_to_numpy(state["epsilon"]), expected, rtol=1e-4)


def test_radius_of_ddn_far_from_the_edges():
    """On two classes and grey images the change is the radius along the normal: a simulation of numbers."""
    model, kernel = linear((4, 4, 1), classes=2, seed=5)
    w = kernel[:, 0] - kernel[:, 1]
    distances = np.array([0.05, 0.2, 0.33])
    x = 0.5 + distances[:, None] * w[None] / np.linalg.norm(w)
    x = x.reshape(3, 4, 4, 1).astype("float32")
    attack = DDN(steps=60, gamma=0.05, initial_epsilon=0.1)
    found = attack.run(model, x, np.zeros(3, int))
    for distance, made in zip(distances, found.distance, strict=True):
        radius, best = 0.1, np.inf
        candidate = 0.0
        for _ in range(61):
            fooled = candidate > distance
            best = min(best, candidate) if fooled else best
            radius *= 0.95 if fooled else 1.05
            candidate = radius
        assert made == pytest.approx(best, rel=1e-4)
        assert distance < made <= distance * 1.06


def test_ddn_rounds_to_levels(problem):
    model, _, x, y = problem
    x = np.round(x * 255).astype("float32") / 255
    found = DDN(steps=40, levels=256).run(model, x, y)
    assert found.success.all()
    values = found.x_adv.astype("float64") * 255
    np.testing.assert_allclose(values, np.round(values), atol=1e-4)


def test_one_value_is_enough_where_only_one_counts():
    inputs = keras.Input((4, 4, 1))
    outputs = keras.layers.Dense(2, name="logits")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, outputs)
    kernel = np.zeros((16, 2), "float32")
    kernel[5, 0] = 4.0
    model.set_weights([kernel, np.array([-2.0, 0.0], "float32")])
    x = np.full((2, 4, 4, 1), 0.9, "float32")
    for attack in (SigmaZero(steps=60), FMN(norm="l0", steps=60)):
        found = attack.run(model, x, [0, 0])
        np.testing.assert_array_equal(found.distance, [1, 1])
        assert (found.queries < 60).all()  # nothing is closer, so they are done


@pytest.mark.parametrize("attack", [DDN(steps=8), FMN(steps=8), SigmaZero(steps=8)])
def test_models_without_a_gradient(attack):
    inputs = keras.Input((3, 3, 1))
    outputs = keras.layers.Dense(3, name="logits")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, outputs)
    model.set_weights([np.zeros((9, 3), "float32"), np.array([3, -1, 0], "float32")])
    x = np.full((2, 3, 3, 1), 0.4, "float32")
    found = attack.run(model, x, [0, 1])
    np.testing.assert_array_equal(found.success, [False, True])
    np.testing.assert_array_equal(found.x_adv, x)
    np.testing.assert_array_equal(found.distance, 0)


@pytest.mark.parametrize("norm", NORMS)
def test_an_image_does_not_depend_on_the_others(problem, norm):
    model, _, x, y = problem
    attack = FMN(norm=norm, steps=30)
    whole = attack.run(model, x, y, batch_size=16)
    alone = attack.run(model, x[5:6], y[5:6], batch_size=1)
    np.testing.assert_allclose(alone.distance, whole.distance[5:6], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.home
def test_ddn_is_as_near_as_others_in_a_tenth_of_the_passes():
    model, data = load_model("mlp.natural_digits"), load_dataset("digits").sample(60, 0)
    attacks = {
        "ddn": DDN(),
        "fmn": FMN(),
        "cw": CarliniWagner(steps=300, binary_search_steps=9, step_size=0.02),
        "deepfool": DeepFool(labels="true"),
    }
    found = {name: each.run(model, data.images, data.labels) for name, each in attacks.items()}
    assert all(found[name].success.all() for name in ("ddn", "cw", "deepfool"))
    mean = {name: each.distance[each.success].mean() for name, each in found.items()}
    assert mean["ddn"] <= min(mean["deepfool"], mean["cw"])
    assert found["fmn"].success.sum() >= 56
    assert mean["fmn"] <= 1.05 * mean["cw"]
    assert found["ddn"].queries.max() * 10 <= found["cw"].queries.max()


@pytest.mark.slow
@pytest.mark.home
def test_sigma_zero_changes_fewer_values_than_others():
    model, data = load_model("mlp.natural_digits"), load_dataset("digits").sample(40, 0)
    sigma = SigmaZero(steps=200).run(model, data.images, data.labels)
    fmn = FMN(norm="l0", steps=200).run(model, data.images, data.labels)
    jsma = JSMA(gamma=1.0).run(model, data.images, data.labels)
    assert sigma.success.all()
    assert np.median(sigma.distance) <= np.median(fmn.distance)
    assert sigma.distance.mean() < 0.8 * jsma.distance[jsma.success].mean()


def threshold(v, room, epsilon):
    """float64, by sorting all breakpoints."""
    size = np.abs(v)
    left = lambda t: np.clip(size - t, 0, room).sum()  # noqa: E731
    if left(0) <= epsilon:
        return np.sign(v) * np.minimum(size, room)
    points = np.sort(np.concatenate([[0.0], size.ravel(), np.maximum(size - room, 0).ravel()]))
    sums = np.array([left(t) for t in points])
    place = np.searchsorted(-sums, -epsilon)
    (a, b), (fa, fb) = points[place - 1 : place + 1], sums[place - 1 : place + 1]
    t = a + (fa - epsilon) / (fa - fb) * (b - a)
    return np.sign(v) * np.clip(size - t, 0, room)


@pytest.mark.parametrize("epsilon", [0.01, 0.7, 3.0, 50.0])
def test_projections_in_l1_are_exact(epsilon):
    rng = np.random.default_rng(2)
    x = rng.random((6, 5, 5, 2)).astype("float32")
    v = rng.normal(size=x.shape).astype("float32")
    norm = get_norm("l1")
    tensors = [ops.convert_to_tensor(part) for part in (x + v, x)]
    inside = ops.convert_to_numpy(norm.project(*tensors, epsilon)) - x
    ball = ops.convert_to_numpy(norm.shrink(ops.convert_to_tensor(v), epsilon))
    for row in range(6):
        change = (x[row] + v[row]).astype("float64") - x[row]
        room = np.where(change > 0, 1.0 - x[row].astype("float64"), x[row])
        expected = threshold(change, room, epsilon)
        np.testing.assert_allclose(inside[row], expected, atol=2e-6)
        np.testing.assert_allclose(
            ball[row], threshold(v[row].astype("float64"), np.inf, epsilon), atol=2e-6
        )
        assert np.abs(inside[row]).sum() <= epsilon * (1 + 1e-5)
    black = np.zeros((1, 3, 3, 1), "float32")
    tensors = [ops.convert_to_tensor(part) for part in (black - 0.5, black)]
    np.testing.assert_array_equal(ops.convert_to_numpy(norm.project(*tensors, 1.0)), 0)


def test_l0_keeps_as_many_values_whatever_is_equal():
    change = np.ones((2, 3, 3, 1), "float32")
    for count in (1.0, 4.0, 9.0):
        kept = ops.convert_to_numpy(get_norm("l0").shrink(ops.convert_to_tensor(change), count))
        np.testing.assert_array_equal((kept != 0).sum(axis=(1, 2, 3)), count)
    rng = np.random.default_rng(0)
    change = rng.normal(size=(1, 3, 3, 1)).astype("float32")
    kept = ops.convert_to_numpy(get_norm("l0").shrink(ops.convert_to_tensor(change), 2.0))
    largest = np.sort(np.abs(change).ravel())[-2:]
    np.testing.assert_array_equal(np.sort(np.abs(kept[kept != 0])), largest)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DDN(gamma=1.0), "gamma must lie"),
        (lambda: DDN(initial_epsilon=0), "initial_epsilon must be > 0"),
        (lambda: DDN(levels=1), "levels must be 0 or an integer >= 2"),
        (lambda: DDN(norm="linf"), "norm must be one of"),
        (lambda: FMN(gamma=0), "gamma must lie"),
        (lambda: FMN(step_size=np.inf), "step_size must be > 0 and finite"),
        (lambda: SigmaZero(threshold=1.5), "threshold must lie"),
        (lambda: SigmaZero(sigma=0.0), "sigma must be > 0"),
        (lambda: SigmaZero(norm="l2"), "norm must be one of"),
    ],
)
def test_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
