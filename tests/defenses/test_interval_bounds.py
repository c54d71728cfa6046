"""Training on bounds, against closed forms, differences of the loss, and certificates."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from robust_zoo.attacks import APGD, PGD
from robust_zoo.certification import NoRuleError, certify, initialise_for_bounds
from robust_zoo.datasets import load_dataset
from robust_zoo.defenses import CrownIBP, IntervalBoundTraining, SmallBoxTraining
from robust_zoo.testing.defenses import compiled, examples, network


def cross_entropy(logits, y):
    logits = logits - logits.max(1, keepdims=True)
    return float((np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y]).mean())


def loss_of(defense, x, y, step=0):
    """Of a training step, which changes nothing, at a step of the ramp."""
    weights = defense.get_weights()
    defense.compile(
        keras.optimizers.SGD(0.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    defense.optimizer.build(defense.trainable_variables)
    defense.optimizer.iterations.assign(step)
    logs = defense.train_on_batch(x, y, return_dict=True)
    defense.set_weights(weights)
    return float(logs["loss"])


def test_the_loss_of_a_linear_model(linear, images):
    """Both losses in closed form, at the beginning, in the middle and at the end of the ramp."""
    model, kernel, bias = linear
    x, y = images(8, (2, 2, 1)), np.arange(8) % 3
    logits = x.reshape(8, 4) @ kernel + bias
    clean = cross_entropy(logits, y)
    for falling in (True, False):
        for step, share in ((0, 0.0), (10, 0.0), (15, 0.5), (20, 1.0), (99, 1.0)):
            defense = IntervalBoundTraining(
                model,
                epsilon=0.3,
                clean_weight=0.2,
                falling=falling,
                warmup_steps=10,
                ramp_steps=10,
                smooth=False,
            )
            low, high = (np.clip(x + sign * 0.3 * share, 0, 1).reshape(8, 1, 4) for sign in (-1, 1))
            slopes = kernel.T[y][:, None] - kernel.T[None]
            least = np.minimum(slopes * low, slopes * high).sum(-1) + (bias[y][:, None] - bias)
            weight = 1 - 0.8 * share if falling else 0.2 if share else 1.0
            expected = weight * clean + (1 - weight) * cross_entropy(-least, y)
            assert loss_of(defense, x, y, step) == pytest.approx(expected, abs=1e-4), (
                falling,
                step,
            )


def test_the_smooth_ramp(small_cnn):
    defense = compiled(
        IntervalBoundTraining(small_cnn, epsilon=0.1, warmup_steps=4, ramp_steps=400)
    )
    found = []
    for step in (0, 4, 5, 54, 104, 105, 204, 404, 999):
        defense.optimizer.iterations.assign(step)
        found.append(float(defense._share(True)))
    # A power of 4 up to a quarter, which has then reached 1 / 13, and a line.
    early = [(done / 100) ** 4 / 13 for done in (1, 50, 100)]
    late = [1 / 13 + done / 300 * 12 / 13 for done in (1, 100)]
    np.testing.assert_allclose(found, [0, 0, *early, *late, 1, 1], atol=1e-6)
    assert early[2] - (99 / 100) ** 4 / 13 == pytest.approx(
        late[0] - early[2], rel=0.02
    )  # no corner
    assert float(defense._share(False)) == 1
    line = compiled(IntervalBoundTraining(small_cnn, epsilon=0.1))
    assert float(line._share(True)) == 1


def normalised():
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(3, 3, strides=2)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dense(6)(layers.Flatten()(x))
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    model = keras.Model(inputs, layers.Dense(10, name="logits")(x))
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(variable + rng.normal(scale=0.3, size=variable.shape).astype("float32"))
    return model


KINDS = {
    "intervals": lambda model: IntervalBoundTraining(
        model, epsilon=0.02, ramp_steps=8, clean_weight=0.5, regularization=0.7
    ),
    "crown": lambda model: CrownIBP(model, epsilon=0.02, ramp_steps=8, crown_weight=0.3),
    "box": lambda model: SmallBoxTraining(
        model, attack=PGD(epsilon=0.02, steps=1, random_start=False), box_share=0.5, ramp_steps=8
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ["intervals", "crown"])
def test_a_step_follows_the_gradient_of_the_loss(name):
    """Of batch normalisation's statistics, too: the loss along the step, by differences."""
    model = normalised()
    defense, (x, y) = KINDS[name](model), examples(16)
    start = [ops.convert_to_numpy(variable) for variable in model.trainable_variables]

    def at(distance, direction):
        for variable, value, part in zip(model.trainable_variables, start, direction, strict=True):
            variable.assign(value + distance * part)
        return loss_of(defense, x, y, step=5)

    defense.compile(
        keras.optimizers.SGD(1.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    defense.optimizer.build(defense.trainable_variables)
    defense.optimizer.iterations.assign(5)
    defense.train_on_batch(x, y)
    step = [
        ops.convert_to_numpy(variable) - value
        for variable, value in zip(model.trainable_variables, start, strict=True)
    ]
    size = float(np.sqrt(sum((part**2).sum() for part in step)))
    unit = [part / size for part in step]
    slope = (at(2e-3, unit) - at(-2e-3, unit)) / 4e-3
    assert slope == pytest.approx(-size, rel=0.03)
    rng = np.random.default_rng(0)
    for _ in range(3):
        drawn = [rng.normal(size=part.shape) for part in step]
        length = np.sqrt(sum((part**2).sum() for part in drawn))
        other = [part / length + direction for part, direction in zip(drawn, unit, strict=True)]
        expected = -sum(float((a * b).sum()) for a, b in zip(step, other, strict=True))
        slope = (at(2e-3, other) - at(-2e-3, other)) / 4e-3
        assert slope == pytest.approx(expected, rel=0.05)


def test_statistics_are_those_of_the_clean_images():
    """Moving averages see each batch once, and what is trained on is normalised by the batch."""
    model, (x, y) = normalised(), examples(16)
    defense = compiled(IntervalBoundTraining(model, epsilon=0.02))
    layer = next(part for part in model.layers if isinstance(part, layers.BatchNormalization))
    before = ops.convert_to_numpy(layer.moving_mean)
    seen = keras.Model(model.inputs[0], layer.input)
    mean = ops.convert_to_numpy(seen(x)).mean((0, 1, 2))
    defense.train_on_batch(x, y)
    after = ops.convert_to_numpy(layer.moving_mean)
    np.testing.assert_allclose(after, 0.99 * before + 0.01 * mean, atol=1e-5)


def test_a_box_of_the_whole_ball_is_the_ball():
    model, (x, y) = network(), examples(8)
    attack = PGD(epsilon=0.1, steps=2)
    whole = SmallBoxTraining(model, attack=attack, box_share=1.0)
    assert loss_of(whole, x, y) == pytest.approx(
        loss_of(IntervalBoundTraining(model, epsilon=0.1), x, y), rel=1e-5
    )
    small = SmallBoxTraining(model, attack=attack, box_share=0.25)
    batch = {"clean": x, "adversarial": np.clip(x + 0.2, 0, 1), "share": np.float32(1)}
    batch = {name: ops.convert_to_tensor(value) for name, value in batch.items()}
    low, high = (ops.convert_to_numpy(part) for part in small.images(batch))
    ball_low, ball_high = np.maximum(x - 0.1, 0), np.minimum(x + 0.1, 1)
    assert (low >= ball_low - 1e-6).all()
    assert (high <= ball_high + 1e-6).all()
    np.testing.assert_allclose(high - low, 0.25 * (ball_high - ball_low), atol=1e-6)
    np.testing.assert_allclose(high, ball_high, atol=1e-6)  # the adversarial image is beyond it


def test_crown_bounds_are_mixed_with_intervals():
    model, (x, y) = network(), examples(8)
    apart = [
        loss_of(CrownIBP(model, epsilon=0.05, crown_weight=weight), x, y)
        for weight in (0.0, 0.5, 1.0)
    ]
    assert apart[0] == pytest.approx(
        loss_of(IntervalBoundTraining(model, epsilon=0.05), x, y), rel=1e-5
    )
    assert apart[2] < apart[1] < apart[0]


@pytest.mark.slow
def test_it_earns_certificates():
    """On digits, from a network for which intervals prove nothing; and they hold against attacks."""
    train, held = load_dataset("digits", "train"), load_dataset("digits", "test")
    model = initialise_for_bounds(network())
    defense = compiled(
        IntervalBoundTraining(
            model, epsilon=0.06, warmup_steps=23, ramp_steps=230, regularization=0.5
        ),
        "adam",
    )
    history = defense.fit(
        train.images, train.labels, batch_size=64, epochs=25, verbose=0,
        validation_data=(held.images, held.labels),
    ).history  # fmt: skip
    assert set(history) >= {"certified_accuracy", "val_certified_accuracy"}
    assert "robust_accuracy" not in history
    found = certify(model, held.images, held.labels, epsilon=0.06, methods=("ibp",))
    assert found.accuracy.accuracy > 0.75
    assert history["val_certified_accuracy"][-1] == pytest.approx(found.accuracy.accuracy, abs=0.01)
    plain = certify(network(), held.images, held.labels, epsilon=0.06)
    assert plain.accuracy.accuracy < 0.05
    result = APGD(epsilon=0.06, loss="dlr").run(model, held.images, held.labels, progress=False)
    assert not (result.success & found.certified).any()
    assert 1 - result.success.mean() < found.accuracy.accuracy + 0.15


def test_kernels_for_bounds():
    model = normalised()
    before = model.layers[-1].get_weights()
    assert initialise_for_bounds(model, seed=3) is model
    for layer, inputs in ((model.layers[1], 9), (model.layers[5], 27)):
        kernel = ops.convert_to_numpy(layer.kernel)
        assert kernel.std() == pytest.approx(np.sqrt(2 * np.pi) / inputs, rel=0.35)
    for one, other in zip(model.layers[-1].get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: IntervalBoundTraining(m, epsilon=0), "epsilon must be a number > 0, got 0"),
        (lambda m: IntervalBoundTraining(m, epsilon=0.1, clean_weight=1.5), "clean_weight must be"),
        (lambda m: IntervalBoundTraining(m, epsilon=0.1, ramp_steps=-1), "ramp_steps must be an"),
        (lambda m: CrownIBP(m, epsilon=0.1, crown_weight=-1), "crown_weight must be a number >= 0"),
        (
            lambda m: SmallBoxTraining(m, attack=PGD(epsilon=0.1, norm="l2"), box_share=0.5),
            "attack must have norm 'linf'",
        ),
        (
            lambda m: SmallBoxTraining(m, attack=PGD(epsilon=0.1), box_share=0),
            "box_share must be a number > 0",
        ),
    ],
)
def test_bad_hyperparameters(small_cnn, make, message):
    with pytest.raises(ValueError, match=message):
        make(small_cnn)


def test_a_layer_without_a_rule_is_refused_at_once():
    inputs = keras.Input((8, 8, 1))
    x = layers.LayerNormalization(name="norm")(layers.Flatten()(inputs))
    model = keras.Model(inputs, layers.Dense(10)(x))
    with pytest.raises(NoRuleError, match="'norm'"):
        IntervalBoundTraining(model, epsilon=0.1)
