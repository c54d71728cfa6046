import keras
import numpy as np
import pytest
from keras import ops
from numpy.testing import assert_allclose

from robust_zoo import architectures, backend
from robust_zoo.attacks.generator import generate
from robust_zoo.defenses import PGN


@pytest.fixture
def networks(images):
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Dense(16, activation="tanh")(keras.layers.Flatten()(inputs))
    classifier = keras.Model(inputs, keras.layers.Dense(5, name="logits")(x))
    generator = architectures.perturbation_generator((8, 8, 1), 5, filters=4, hidden=8)
    x = ops.convert_to_tensor(images(6, (8, 8, 1)))
    return classifier, generator, x, ops.convert_to_tensor(np.arange(6) % 5, "int32")


def compiled(defense, optimizer="sgd"):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    defense.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])
    return defense


def test_parameter_counts():
    assert architectures.perturbation_generator().count_params() == 8_966_147
    assert architectures.perturbation_generator(num_classes=100).count_params() == 10_002_947


def test_images_stay_inside_and_a_silent_generator_changes_nothing(networks):
    classifier, generator, x, y = networks
    loud = [100 * weight for weight in generator.get_weights()]
    generator.set_weights(loud)
    x_adv = ops.convert_to_numpy(generate(generator, classifier, x, y))
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert np.abs(x_adv - x).max() > 0.1
    generator.set_weights([0 * weight for weight in loud])
    edges = ops.concatenate([x, ops.zeros_like(x), ops.ones_like(x)])
    same = generate(generator, classifier, edges, ops.tile(y, 3))
    assert_allclose(ops.convert_to_numpy(same), ops.convert_to_numpy(edges), atol=1e-6)


def test_the_generator_s_gradient_input(networks):
    """A 128th of the derivative of the true class's probability, by finite differences."""
    classifier, _, x, y = networks
    seen = []

    def spy(parts):
        seen.append([ops.convert_to_numpy(part) for part in parts])
        return ops.zeros_like(x)

    generate(spy, classifier, x, y)
    label, gradient, signed = seen[0]
    assert_allclose(label, np.eye(5)[ops.convert_to_numpy(y)])
    assert_allclose(signed, 2 * ops.convert_to_numpy(x) - 1, atol=1e-6)
    step = np.zeros((1, 8, 8, 1), "float32")
    step[0, 3, 4] = 1e-2

    def probability(x):
        return ops.convert_to_numpy(ops.softmax(classifier(x), axis=1))[
            np.arange(6), np.arange(6) % 5
        ]

    slope = (probability(x + step) - probability(x - step)) / 2e-2
    assert_allclose(gradient[:, 3, 4, 0], slope / 128, atol=2e-5)
    generate(spy, classifier, x, y, gradient_scale=0.0)
    assert not seen[1][1].any()


def step_of(networks, rate=1.0, **settings):
    """What one step of plain gradient descent adds to both networks' weights."""
    classifier, generator, x, y = networks
    start = classifier.get_weights(), generator.get_weights()
    defense = compiled(
        PGN(classifier, generator=generator, distortion_weight=3.0, **settings),
        keras.optimizers.SGD(rate),
    )
    logs = defense.train_on_batch(
        ops.convert_to_numpy(x), ops.convert_to_numpy(y), return_dict=True
    )
    after = classifier.get_weights(), generator.get_weights()
    classifier.set_weights(start[0])
    generator.set_weights(start[1])
    return logs, [
        [b - a for a, b in zip(*pair, strict=True)] for pair in zip(start, after, strict=True)
    ]


def losses_of(networks, detach):
    """Loss and penalty as functions of all weights, written down once more."""
    classifier, generator, x, y = networks

    def losses():
        made = generate(generator, classifier, x, y, detach=detach)
        logits = classifier(made)
        loss = ops.mean(keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True))
        penalty = 3.0 * ops.mean(ops.sum(ops.square(made - x), axis=(1, 2, 3)))
        return (loss, penalty - loss), None

    weights = [classifier.trainable_variables, generator.trainable_variables]
    values, _, gradients = backend.gradients(
        losses, weights, classifier.variables + generator.variables
    )
    return values, [[ops.convert_to_numpy(g) for g in group] for group in gradients]


@pytest.mark.slow
@pytest.mark.parametrize("detach", [False, True])
def test_each_network_goes_down_its_own_loss(networks, detach):
    logs, moved = step_of(networks, detach=detach)
    (loss, _), gradients = losses_of(networks, detach)
    assert logs["loss"] == pytest.approx(float(loss), rel=1e-5)
    for steps, expected in zip(moved, gradients, strict=True):
        for step, gradient in zip(steps, expected, strict=True):
            assert_allclose(step, -gradient, atol=1e-5)
    assert max(np.abs(step).max() for step in moved[1]) > 1e-4


@pytest.mark.slow
def test_detaching_only_changes_the_classifier(networks):
    networks[1].set_weights([3 * weight for weight in networks[1].get_weights()])
    _, faithful = step_of(networks)
    _, detached = step_of(networks, detach=True)
    for a, b in zip(faithful[1], detached[1], strict=True):
        assert_allclose(a, b, atol=1e-5)
    assert max(np.abs(a - b).max() for a, b in zip(faithful[0], detached[0], strict=True)) > 1e-6
    _, mixed = step_of(networks, detach=True, clean_weight=0.5)
    for a, b in zip(mixed[1], detached[1], strict=True):
        assert_allclose(a, b, atol=1e-5)


@pytest.mark.slow
def test_the_generator_s_loss_falls_when_only_it_trains(networks):
    classifier, generator, x, y = networks
    classifier.trainable = False
    defense = compiled(
        PGN(classifier, generator=generator, distortion_weight=3.0), keras.optimizers.Adam(1e-3)
    )
    values = []
    for _ in range(5):
        values.append(float(losses_of((classifier, generator, x, y), False)[0][1]))
        for _ in range(5):
            defense.train_on_batch(ops.convert_to_numpy(x), ops.convert_to_numpy(y))
    assert values == sorted(values, reverse=True)
    assert values[-1] < values[0] - 0.05


def test_the_generator_is_an_attack(networks):
    classifier, generator, x, y = networks
    generator.set_weights([3 * weight for weight in generator.get_weights()])
    defense = PGN(classifier, generator=generator)
    attack = defense.as_attack()
    result = attack.run(classifier, ops.convert_to_numpy(x), ops.convert_to_numpy(y))
    made = ops.convert_to_numpy(generate(generator, classifier, x, y))
    fooled = ops.convert_to_numpy(classifier(made)).argmax(1) != ops.convert_to_numpy(y)
    already = ops.convert_to_numpy(classifier(x)).argmax(1) != ops.convert_to_numpy(y)
    np.testing.assert_array_equal(result.success, fooled | already)
    new = fooled & ~already
    assert_allclose(result.x_adv[new], made[new], atol=1e-6)
    before = attack.get_config()
    generator.set_weights([-2 * weight for weight in generator.get_weights()])
    images, labels = ops.convert_to_numpy(x), ops.convert_to_numpy(y)
    again = defense.as_attack().run(classifier, images, labels)
    made = ops.convert_to_numpy(generate(generator, classifier, x, y))
    fooled = ops.convert_to_numpy(classifier(made)).argmax(1) != labels
    np.testing.assert_array_equal(again.success, fooled | already)
    new = fooled & ~already
    assert_allclose(again.x_adv[new], made[new], atol=1e-6)
    assert attack.get_config() != before
    with pytest.raises(ValueError, match="lacks weights"):
        type(attack).from_config(before)


@pytest.mark.slow
@pytest.mark.parametrize("detach", [False, True])
def test_regularisation_of_the_generator_is_not_turned_round(networks, detach):
    generator = networks[1]
    _, plain = step_of(networks, rate=0.1, detach=detach)
    for layer in generator.layers:
        if hasattr(layer, "kernel"):
            layer.kernel.regularizer = keras.regularizers.L2(0.1)
    _, decayed = step_of(networks, rate=0.1, detach=detach)
    kernels = [weight for weight in generator.get_weights() if weight.ndim > 1]
    steps = [b - a for a, b in zip(plain[1], decayed[1], strict=True) if a.ndim > 1]
    for step, kernel in zip(steps, kernels, strict=True):
        assert_allclose(step, -0.1 * 0.2 * kernel, atol=1e-5)


@pytest.mark.slow
def test_clean_images_leave_batch_statistics_alone(images):
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.BatchNormalization(momentum=0.5)(keras.layers.Flatten()(inputs))
    classifier = keras.Model(inputs, keras.layers.Dense(5)(x))
    generator = architectures.perturbation_generator((8, 8, 1), 5, filters=4, hidden=8)
    x, y = images(16, (8, 8, 1)), np.arange(16) % 5
    tensors = ops.convert_to_tensor(x), ops.convert_to_tensor(y, "int32")
    made = ops.convert_to_numpy(generate(generator, classifier, *tensors))
    compiled(PGN(classifier, generator=generator, detach=True)).train_on_batch(x, y)
    mean = classifier.layers[2].get_weights()[2]
    assert_allclose(mean, 0.5 * made.reshape(16, 64).mean(0), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.home
def test_averaged_weights_are_kept(networks):
    classifier, generator, x, y = networks
    optimizer = keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.5)
    defense = compiled(PGN(classifier, generator=generator), optimizer)
    seen = []
    keep = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(generator.get_weights()[0].copy())
    )
    x, y = ops.convert_to_numpy(x), ops.convert_to_numpy(y)
    defense.fit(x, y, batch_size=3, shuffle=False, verbose=0, callbacks=[keep])
    average = 0.5 * seen[0] + 0.5 * seen[1]
    assert_allclose(generator.get_weights()[0], average, atol=1e-5)
    assert np.abs(average - seen[1]).max() > 1e-4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"distortion_weight": 0}, "distortion_weight must be a number > 0, got 0"),
        ({"clean_weight": 1}, "clean_weight must be a number >= 0 and < 1, got 1"),
        ({"generator": keras.Sequential()}, "generator must take inputs of shapes"),
    ],
)
def test_bad_arguments(networks, settings, message):
    with pytest.raises(ValueError, match=message):
        PGN(networks[0], **{"generator": networks[1], **settings})
    with pytest.raises(ValueError, match="sides divisible by 4"):
        architectures.perturbation_generator((30, 30, 3))
