"""Models as strangers bring them: measured right, or a check says what is wrong."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from robust_zoo import architectures
from robust_zoo.attacks import (
    FAB,
    FGSM,
    JSMA,
    PGD,
    AutoAttack,
    CarliniWagner,
    DeepFool,
    MinimumNormAttack,
    Square,
)
from robust_zoo.classifier import as_classifier
from robust_zoo.datasets import load_dataset
from robust_zoo.defenses import AdversarialTraining, DivergenceError
from robust_zoo.evaluation import evaluate, evaluate_at
from robust_zoo.evaluation.checks import trained_range
from robust_zoo.record import DefenseInfo

OPTIONS = {"checks": False, "progress": False}


def check_of(record, name):
    return next(check for check in record.checks if check.name == name)


def behind(model, *first):
    """`model` with other layers before it."""
    x = inputs = keras.Input((8, 8, 1))
    for layer in first:
        x = layer(x)
    return keras.Model(inputs, model(x), name="theirs")


def scaled(model, factor):
    inputs = keras.Input((8, 8, 1))
    return keras.Model(inputs, layers.Rescaling(factor)(model(inputs)), name="theirs")


@pytest.mark.slow
def test_mixed_precision_with_adapted_normalization_is_measured_right(trained):
    """The number is that of the same network whose pixels are standardised in NumPy."""
    data = load_dataset("digits")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        normalisation = layers.Normalization(axis=None)
        # Undoes what the normalisation does, so that the network behind it sees the images.
        undo = layers.Rescaling(data.images.std(), data.images.mean())
        model = behind(trained, normalisation, undo)
        normalisation.adapt(data.images)
    finally:
        keras.config.set_dtype_policy("float32")
    correct = (ops.convert_to_numpy(trained(data.images)).argmax(1) == data.labels).sum()
    record = evaluate(model, "digits", **OPTIONS)
    assert abs(record.clean.correct - correct) <= 1


@pytest.mark.slow
def test_adapting_after_a_measurement_is_seen(trained):
    data = load_dataset("digits").sample(200, 0)
    normalisation = layers.Normalization(axis=None)
    model = behind(trained, normalisation)
    for images in (data.images, 5 * data.images + 3, data.images):
        normalisation.adapt(images)
        x = (data.images - images.mean()) / images.std()
        expected = (ops.convert_to_numpy(trained(x)).argmax(1) == data.labels).sum()
        record = evaluate(model, data, attacks=FGSM(epsilon=0.01), **OPTIONS)
        assert record.clean.correct == expected
        assert record.attacks[0].correct <= expected


def test_state_that_nobody_can_see_is_found_by_comparing(trained):
    state = {"factor": 1.0}

    class Hidden(layers.Layer):
        def call(self, x):
            return x * len(state) * state["factor"]

    data = load_dataset("digits").sample(100, 0)
    model = behind(trained, Hidden())
    first = evaluate(model, data, **OPTIONS)
    state["factor"] = 0.0  # all images are black
    second = evaluate(model, data, **OPTIONS)
    black = ops.convert_to_numpy(trained(np.zeros((1, 8, 8, 1)))).argmax()
    assert second.clean.correct == (data.labels == black).sum() != first.clean.correct


@pytest.fixture
def rooted(trained):
    """Takes a power of the pixels, whose slope at black is infinite, and undoes it."""

    class Power(layers.Layer):
        def __init__(self, exponent, **kwargs):
            super().__init__(**kwargs)
            self.exponent = exponent

        def call(self, x):
            return x**self.exponent

    return behind(trained, Power(0.5))


@pytest.mark.long
@pytest.mark.home
def test_infinite_slopes_do_not_blind_attacks(rooted):
    data = load_dataset("digits").sample(40, 0)
    x, y = data.images, data.labels
    clean = ops.convert_to_numpy(rooted(x)).argmax(1) == y
    for attack in (
        DeepFool(norm="linf"),
        FAB(steps=20),
        CarliniWagner(steps=50, binary_search_steps=5, step_size=0.05),
        JSMA(),
    ):
        result = attack.run(rooted, x, y, progress=False)
        assert result.success.mean() > 0.9, attack
        assert np.isfinite(result.distance).all()
    # In L2 its steps are short where slopes beside black are steep, but it is not blind.
    assert DeepFool().run(rooted, x, y, progress=False).success.mean() > 0.1
    for norm, epsilon in (("l2", 1.0), ("linf", 0.2)):
        record = evaluate(rooted, data, attacks=PGD(epsilon=epsilon, norm=norm), progress=False)
        assert record.attacks[0].accuracy < clean.mean() - 0.5
        check = check_of(record, "gradients_not_finite")
        assert check.passed is False
        assert check.value == (x.reshape(40, -1) == 0).any(1).mean() == 1


@pytest.mark.long
def test_training_through_infinite_slopes_works_or_says_why(trained):
    data = load_dataset("digits", "train")
    inputs = keras.Input((8, 8, 1))
    x = ops.sqrt(inputs)  # only images come in: no weight sees the slope
    model = keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    defense = AdversarialTraining(model, attack=PGD(epsilon=0.005, steps=3))
    defense.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    history = defense.fit(data.images, data.labels, epochs=4, verbose=0).history
    assert history["robust_accuracy"][-1] > 0.4
    # Here weights do see it: black pixels stay black behind them.
    x = ops.sqrt(ops.abs(layers.Conv2D(2, 1, use_bias=False)(inputs)))
    model = keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)))
    defense = AdversarialTraining(model, attack=PGD(epsilon=0.005, steps=3, random_start=False))
    defense.compile("adam", loss)
    with pytest.raises(DivergenceError, match=r"not finite at black pixels.*a root, a logarithm"):
        defense.fit(0 * data.images, data.labels, verbose=0)


@pytest.mark.long
@pytest.mark.home
@pytest.mark.parametrize(
    "attack",
    [
        PGD(epsilon=0.1, loss="cw_margin", steps=10),
        PGD(epsilon=0.5, norm="l2", loss="dlr", steps=10),
        Square(epsilon=0.1, steps=100),
        AutoAttack(epsilon=0.08),
        DeepFool(),
        DeepFool(norm="linf"),
        FAB(steps=20),
        CarliniWagner(steps=50, binary_search_steps=5, step_size=0.05),
        JSMA(),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_no_verdict_depends_on_the_scale_of_the_logits(trained, attack):
    data = load_dataset("digits").sample(40, 0)
    model = architectures.mlp((8, 8, 1), hidden=(32,))
    *others, kernel, bias = trained.get_weights()
    found = []
    for factor in (1.0, 1e-6, 1e12):
        model.set_weights([*others, factor * kernel, factor * bias])
        found.append(attack.run(model, data.images, data.labels, progress=False))
    usual = found.pop(0)
    for other in found:
        if isinstance(attack, MinimumNormAttack):
            assert (other.success == usual.success).all()
            np.testing.assert_allclose(other.distance.mean(), usual.distance.mean(), rtol=0.02)
        else:
            assert (other.success != usual.success).sum() <= 1


@pytest.mark.slow
def test_a_masked_class_hides_nothing(trained):
    """An eleventh class that nothing is ever taken for, as models of several tasks have it."""
    data = load_dataset("digits").sample(30, 0)
    inputs = keras.Input((8, 8, 1))
    mask = layers.Dense(
        1, kernel_initializer="zeros", bias_initializer=keras.initializers.Constant(-1e9)
    )
    z = trained(inputs)
    masked = keras.Model(inputs, layers.Concatenate()([z, mask(z)]))
    attack = CarliniWagner(steps=50, binary_search_steps=5, step_size=0.05)
    one, two = (attack.run(m, data.images, data.labels, progress=False) for m in (trained, masked))
    assert one.success.all()
    assert two.success.all()
    np.testing.assert_allclose(one.distance.mean(), two.distance.mean(), rtol=0.02)


@pytest.mark.long
def test_small_logits_weaken_cross_entropy_and_a_check_says_so(trained):
    data = load_dataset("digits").sample(100, 0)
    attacks = [PGD(epsilon=0.1, steps=10), PGD(epsilon=0.1, steps=10, loss="cw_margin")]
    usual, small = (
        evaluate(model, data, attacks=attacks, progress=False)
        for model in (trained, scaled(trained, 1e-3))
    )
    assert small.attacks[0].correct > usual.attacks[0].correct
    assert abs(small.attacks[1].correct - usual.attacks[1].correct) <= 1
    assert check_of(usual, "logit_scale").passed is True
    check = check_of(small, "logit_scale")
    assert check.passed is False
    assert "cw_margin" in check.explanation


@pytest.mark.slow
def test_logits_of_1e20_do_not_overflow(trained):
    data = load_dataset("digits").sample(20, 0)
    result = DeepFool().run(scaled(trained, 1e20), data.images, data.labels, progress=False)
    assert result.success.all()


@pytest.mark.long
@pytest.mark.parametrize(
    "first", [lambda: layers.Rescaling(1 / 255), lambda: layers.Rescaling(1 / 127.5, offset=-1)]
)
def test_a_forgotten_input_range_is_a_failed_check_with_the_remedy(trained, first):
    model = behind(trained, first())
    record = evaluate(model, "digits", n=200, attacks=FGSM(epsilon=0.1), progress=False)
    check = check_of(record, "clean_above_chance")
    assert check.passed is False
    assert "input_range=(0, 255)" in check.explanation
    assert "--input-range 0,255" in check.explanation
    right = evaluate(as_classifier(model, input_range=(0, 255)), "digits", n=200)
    assert check_of(right, "clean_above_chance").passed is (right.clean.ci95[0] > 0.2)


@pytest.mark.parametrize("kind", ["sequential", "functional"])
def test_the_range_is_found_behind_as_classifier(kind):
    first = [layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(10, activation="softmax")]
    inputs = keras.Input((8, 8, 1))
    if kind == "sequential":
        model = keras.Sequential([inputs, *first])
    else:
        x = inputs
        for layer in first:
            x = layer(x)
        model = keras.Model(inputs, x)
    assert trained_range(as_classifier(model, output="softmax"))[1:] == (0.0, 255.0)


def test_sixteen_bits_are_no_eight(trained):
    model = behind(trained, layers.Rescaling(1 / 65535))
    assert trained_range(model)[1:] == (0.0, 65535.0)


@pytest.mark.slow
def test_a_small_sample_neither_accuses_nor_acquits(trained):
    record = evaluate(trained, "digits", n=10, attacks=FGSM(epsilon=0.1), progress=False)
    for name in ("clean_above_chance", "no_label_leaking", "accuracy_reaches_chance"):
        assert check_of(record, name).passed is None
    assert record.failed_checks == ()


@pytest.mark.long
def test_the_curve_is_never_above_what_other_attacks_found(trained):
    """PGD cannot see through rounding; Square can."""
    blind = behind(trained, layers.Lambda(lambda x: ops.round(4 * x) / 4))
    data = load_dataset("digits").sample(60, 0)
    square = Square(epsilon=0.3, steps=200)
    record = evaluate(blind, data, attacks=square, progress=False)
    sample = data.sample(60, 0)
    result = square.run(blind, sample.images, sample.labels, progress=False)
    for point in record.curve.points:
        broken = result.success & (result.distance <= point.epsilon)
        assert point.correct <= (~broken).sum()
        if point.epsilon >= 0.3:
            assert point.correct <= record.attacks[0].correct
    check = check_of(record, "curve_agrees_with_attacks")
    assert check.passed is False
    assert check.value > 0.1


@pytest.mark.slow
def test_accuracy_never_rises_with_epsilon(trained):
    blind = behind(trained, layers.Lambda(lambda x: ops.round(4 * x) / 4))
    plans = [
        [Square(epsilon=0.2, steps=200)],
        [PGD(epsilon=0.3, steps=2)],  # blind, and in the larger ball
    ]
    one, two = evaluate_at(blind, "digits", plans=plans, n=60, **OPTIONS)
    alone = evaluate(blind, "digits", attacks=plans[1], n=60, **OPTIONS)
    assert two.attacks[0].correct <= one.attacks[0].correct < alone.attacks[0].correct
    with pytest.raises(ValueError, match="rising epsilons"):
        evaluate_at(blind, "digits", plans=plans[::-1], n=60)


def test_what_it_was_measured_on_is_in_the_record(trained):
    data = load_dataset("digits")
    record = evaluate(trained, (data.images, data.labels), dataset="mine", n=20, **OPTIONS)
    assert record.dataset.name == "mine"
    sample = data.sample(20, 0)
    assert record.dataset.sha256 == sample.sha256
    changed = data.images.copy()
    changed[:, 0, 0] = 0.5
    other = evaluate(trained, (changed, data.labels), dataset="mine", n=20, **OPTIONS)
    assert other.dataset.sha256 != record.dataset.sha256
    with pytest.raises(ValueError, match="the data have a name already"):
        evaluate(trained, data, dataset="mine")


def test_streams_are_measured(trained):
    data = load_dataset("digits")

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 10

        def __getitem__(self, index):
            rows = slice(50 * index, 50 * index + 50)
            return data.images[rows], data.labels[rows]

    expected = ops.convert_to_numpy(trained(data.images)).argmax(1) == data.labels
    assert evaluate(trained, Batches(), **OPTIONS).clean.correct == expected.sum()
    record = evaluate(trained, Batches(), n=70, **OPTIONS)
    assert (record.clean.n_examples, record.clean.correct) == (70, expected[:70].sum())
    assert record.dataset.name == "stream"


@pytest.mark.home
def test_tf_data_is_measured(trained):
    import tensorflow as tf

    data = load_dataset("digits")
    stream = tf.data.Dataset.from_tensor_slices((data.images, data.labels))
    expected = ops.convert_to_numpy(trained(data.images)).argmax(1) == data.labels
    for batched in (stream, stream.batch(64)):
        assert evaluate(trained, batched, **OPTIONS).clean.correct == expected.sum()
    with pytest.raises(ValueError, match="n is needed: the stream has no end"):
        evaluate(trained, stream.batch(64).repeat())


@pytest.mark.slow
def test_a_defense_notes_itself_on_its_classifier(trained):
    data = load_dataset("digits", "train").sample(64, 0)
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, layers.Dense(10)(layers.Flatten()(inputs)))
    assert evaluate(model, "digits", n=20, **OPTIONS).defense is None
    defense = AdversarialTraining(model, attack=FGSM(epsilon=0.05))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    defense.compile("adam", loss)
    defense.fit(data.images, data.labels, epochs=2, verbose=0)
    record = evaluate(model, "digits", n=20, **OPTIONS)
    assert record.defense.name == "AdversarialTraining"
    assert record.defense.config["attack"]["epsilon"] == 0.05
    assert record.training.epochs == 2
    assert record.training.seconds > 0
    defense.fit(data.images, data.labels, verbose=0)
    assert evaluate(model, "digits", n=20, **OPTIONS).training.epochs == 3
    model.layers[-1].bias.assign(model.layers[-1].bias + 1)  # trained by something else
    record = evaluate(model, "digits", n=20, **OPTIONS)
    assert (record.defense, record.training) == (None, None)
    with pytest.raises(ValueError, match="weights changed after the fit of AdversarialTraining"):
        evaluate(model, "digits", n=20, defense=defense, **OPTIONS)
    told = DefenseInfo(name="AdversarialTraining", config=defense.hyperparameters())
    given = evaluate(model, "digits", n=20, defense=told, **OPTIONS)
    assert given.defense.config["attack"]["name"] == "FGSM"
    with pytest.raises(TypeError, match="defense must be the defense that trained"):
        evaluate(model, "digits", n=20, defense="pgd")


@pytest.mark.slow
def test_an_attack_that_lies_about_success_is_caught(trained):
    class Lying(FGSM):
        """Says of its images that they failed."""

        def run(self, *args, **kwargs):
            result = super().run(*args, **kwargs)
            object.__setattr__(result, "success", np.zeros_like(result.success))
            return result

    data = load_dataset("digits").sample(100, 0)
    honest, lying = (
        evaluate(trained, data, attacks=kind(epsilon=0.2), **OPTIONS) for kind in (FGSM, Lying)
    )
    assert lying.attacks[0].correct == honest.attacks[0].correct < 50
