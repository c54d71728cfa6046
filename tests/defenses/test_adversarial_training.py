import keras
import numpy as np
import pytest
from keras import ops

from robust_zoo import architectures, backend
from robust_zoo.attacks import FGSM, PGD, PixelSwap
from robust_zoo.backend import random
from robust_zoo.datasets import load_dataset
from robust_zoo.defenses import AdversarialTraining, DivergenceError


def loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def compiled(defense, optimizer="sgd", **kwargs):
    defense.compile(optimizer=optimizer, loss=loss(), metrics=["accuracy"], **kwargs)
    return defense


def two_class(weights):
    inputs = keras.Input((2, 2, 1))
    flat = keras.layers.Flatten()(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, use_bias=False)(flat))
    model.set_weights([weights])
    return model


def test_a_step_on_a_linear_model_is_the_closed_form_margin_shift(images):
    """Cross-entropy at the worst case is that of the margin less epsilon times the L1 norm."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(4, 2))
    x, y = 0.3 + 0.4 * images(16, (2, 2, 1)), rng.integers(0, 2, 16)
    model = two_class(weights)
    defense = compiled(
        AdversarialTraining(model, attack=FGSM(epsilon=0.1)), keras.optimizers.SGD(0.5)
    )
    logs = defense.train_on_batch(x, y, return_dict=True)

    difference = weights[:, 1] - weights[:, 0]
    sign = 2.0 * y - 1
    margin = sign * (x.reshape(16, 4) @ difference) - 0.1 * np.abs(difference).sum()
    assert logs["loss"] == pytest.approx(np.log1p(np.exp(-margin)).mean(), rel=1e-5)
    pull = -1 / (1 + np.exp(margin))
    slope = sign[:, None] * x.reshape(16, 4) - 0.1 * np.sign(difference)
    gradient = (pull[:, None] * slope).mean(0)
    expected = weights - 0.5 * np.stack([-gradient, gradient], axis=1)
    np.testing.assert_allclose(model.get_weights()[0], expected, atol=1e-5)
    assert logs["robust_accuracy"] == pytest.approx((margin > 0).mean())
    clean = sign * (x.reshape(16, 4) @ difference)
    assert logs["accuracy"] == pytest.approx((clean > 0).mean())


def test_the_batch_is_attacked_with_the_current_step_s_key(small_cnn, images):
    attack = PGD(epsilon=0.2, steps=3)
    defense = compiled(AdversarialTraining(small_cnn, attack=attack, seed=11))
    x, y = images(4), np.arange(4)
    defense.training_steps.assign(5)
    batch, _, _ = defense.prepare(
        (ops.convert_to_tensor(x), ops.convert_to_tensor(y)), training=True
    )
    key = random.fold_in(random.fold_in(random.key(11), 1), 5)
    expected = attack(small_cnn, ops.convert_to_tensor(x), ops.convert_to_tensor(y), key=key)
    np.testing.assert_array_equal(ops.convert_to_numpy(batch["clean"]), x)
    np.testing.assert_allclose(
        ops.convert_to_numpy(batch["adversarial"]), ops.convert_to_numpy(expected), atol=1e-6
    )


def test_epsilon_ramps_up_linearly(small_cnn, images):
    defense = compiled(AdversarialTraining(small_cnn, attack=FGSM(epsilon=0.2), ramp_steps=8))
    x = 0.25 + 0.5 * images(4)
    batch = ops.convert_to_tensor(x), ops.zeros(4, "int32")
    for step, expected in ((0, 0.0), (2, 0.05), (8, 0.2), (20, 0.2)):
        defense.optimizer.iterations.assign(step)
        made, _, _ = defense.prepare(batch, training=True)
        reached = np.abs(ops.convert_to_numpy(made["adversarial"]) - x).max()
        assert reached == pytest.approx(expected, abs=1e-6)
        made, _, _ = defense.prepare(batch, training=False)
        assert np.abs(ops.convert_to_numpy(made["adversarial"]) - x).max() == pytest.approx(
            0.2, abs=1e-6
        )


def made(defense, x, step=0):
    """The adversarial images of one training step, and which of them were attacked."""
    defense.optimizer.iterations.assign(step)
    defense.training_steps.assign(step)
    batch = ops.convert_to_tensor(x), ops.zeros(len(x), "int32")
    batch, _, _ = defense.prepare(batch, training=True)
    return tuple(ops.convert_to_numpy(batch[part]) for part in ("adversarial", "attacked"))


def test_kurakin_s_mixed_minibatch(small_cnn, images):
    """k = 16 of m = 32 are replaced and count 0.3: the sum is divided by 20.8 (arXiv:1611.01236)."""
    x, y = 0.3 + 0.4 * images(32), np.arange(32) % 5
    defense = AdversarialTraining(
        small_cnn, attack=FGSM(epsilon=0.1), fraction=0.5, relative_weight=0.3
    )
    compiled(defense)
    x_adv, attacked = made(defense, x)
    assert attacked.sum() == 16
    assert attacked[:16].sum() == attacked[:8].sum() * 2 == 8
    np.testing.assert_allclose(np.abs(x_adv - x).max((1, 2, 3)), 0.1 * attacked, atol=1e-6)
    z = np.random.default_rng(3).normal(size=(32, 5))
    each = np.log(np.exp(z).sum(1)) - z[np.arange(32), y]
    expected = (each[~attacked].sum() + 0.3 * each[attacked].sum()) / 20.8
    batch = {"clean": x, "attacked": ops.convert_to_tensor(attacked)}
    y_pred = {"clean": None, "adversarial": ops.convert_to_tensor(z, "float32")}
    assert float(defense.objective(batch, y, y_pred, None)) == pytest.approx(expected, rel=1e-5)
    weights = np.random.default_rng(4).random(32)
    relative = np.where(attacked, 0.3, 1.0) * weights
    found = defense.objective(batch, y, y_pred, ops.convert_to_tensor(weights, "float32"))
    assert float(found) == pytest.approx((relative * each).sum() / 20.8, rel=1e-5)


@pytest.mark.parametrize(("fraction", "n", "rows"), [
    (1 / 3, 9, [2, 5, 8]), (0.25, 8, [3, 7]), (2 / 3, 6, [1, 2, 4, 5]), (0.5, 3, [1, 2]),
])  # fmt: skip
def test_the_attacked_examples_are_spread_evenly(small_cnn, images, fraction, n, rows):
    attack = FGSM(epsilon=0.1)
    defense = compiled(AdversarialTraining(small_cnn, attack=attack, fraction=fraction))
    assert np.flatnonzero(made(defense, images(n))[1]).tolist() == rows


def test_every_example_has_an_epsilon_of_its_own(small_cnn, images):
    """|N(0, epsilon / 2)| truncated at epsilon, as Kurakin et al. draw it."""
    x = np.full((2000, 6, 6, 1), 0.5, "float32")
    defense = AdversarialTraining(small_cnn, attack=FGSM(epsilon=0.2), random_epsilon=True)
    x_adv, _ = made(compiled(defense), x)
    size = np.abs(x_adv - x).max((1, 2, 3))
    assert size.max() <= 0.2 + 1e-6
    # Mean and share below one standard deviation of a half normal truncated at two.
    assert size.mean() / 0.1 == pytest.approx(0.7227, abs=0.04)
    assert (size < 0.1).mean() == pytest.approx(0.6827 / 0.9545, abs=0.03)
    again, _ = made(defense, x, step=1)
    assert np.abs(np.abs(again - x).max((1, 2, 3)) - size).max() > 0.05


def test_adversarial_examples_are_introduced_late(small_cnn, images):
    x = 0.3 + 0.4 * images(4)
    defense = AdversarialTraining(small_cnn, attack=FGSM(epsilon=0.2), delay_steps=3, ramp_steps=4)
    compiled(defense)
    for step, size in ((0, 0), (2, 0), (3, 0), (5, 0.1), (7, 0.2)):
        x_adv, attacked = made(defense, x, step)
        assert np.abs(x_adv - x).max() == pytest.approx(size, abs=1e-6)
        assert attacked.all() == (step >= 3)


def test_clean_and_adversarial_loss_are_mixed(small_cnn, images):
    x, y = images(6), np.arange(6) % 5
    defense = AdversarialTraining(small_cnn, attack=FGSM(epsilon=0.1), clean_weight=0.25)
    z = np.random.default_rng(0).normal(size=(2, 6, 5))
    each = np.log(np.exp(z).sum(2)) - z[:, np.arange(6), y]
    y_pred = dict(zip(("clean", "adversarial"), ops.convert_to_tensor(z, "float32"), strict=True))
    found = float(compiled(defense).objective({"clean": x}, y, y_pred, None))
    assert found == pytest.approx(0.25 * each[0].mean() + 0.75 * each[1].mean(), rel=1e-5)


def test_the_attack_s_mode(images):
    """In training mode it sees the batch's own statistics, and keeps none of them."""
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(3, 3)(inputs))
    x = keras.layers.Flatten()(keras.layers.Activation("relu")(x))
    model = keras.Model(inputs, keras.layers.Dense(5)(x))
    x, found = images(8), {}
    for mode in ("inference", "training"):
        attack = PGD(epsilon=0.2, steps=2, step_size=0.05)
        defense = compiled(AdversarialTraining(model, attack=attack, attack_mode=mode))
        before = model.get_weights()
        found[mode], _ = made(defense, x)
        for a, b in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    assert np.abs(found["training"] - found["inference"]).max() > 0.01
    # In training mode an example's gradient depends on the others of its batch.
    other = np.concatenate([x[:4], images(4, seed=9)])
    defense.attack_mode = "inference"
    np.testing.assert_allclose(made(defense, other)[0][:4], found["inference"][:4], atol=1e-6)
    defense.attack_mode = "training"
    assert np.abs(made(defense, other)[0][:4] - found["training"][:4]).max() > 0.01


@pytest.mark.long
def test_logs_hold_clean_and_robust_accuracy(images):
    data, held_out = load_dataset("digits", "train"), load_dataset("digits", "validation")
    defense = compiled(
        AdversarialTraining(
            architectures.mlp((8, 8, 1), hidden=(64,)), attack=PGD(epsilon=0.1, steps=3)
        ),
        "adam",
    )
    history = defense.fit(
        data.images,
        data.labels,
        validation_data=(held_out.images, held_out.labels),
        epochs=8,
        verbose=0,
    ).history
    names = {"loss", "accuracy", "robust_accuracy"}
    assert set(history) == names | {f"val_{name}" for name in names}
    assert history["val_robust_accuracy"][-1] > 0.5
    assert history["val_robust_accuracy"][-1] < history["val_accuracy"][-1]
    again = defense.evaluate(held_out.images, held_out.labels, verbose=0, return_dict=True)
    assert again["robust_accuracy"] == pytest.approx(history["val_robust_accuracy"][-1])
    attack = PGD(epsilon=0.1, steps=3).run(defense.classifier, held_out.images, held_out.labels)
    assert abs(1 - attack.success.mean() - again["robust_accuracy"]) < 0.05


@pytest.mark.slow
def test_sample_weights_count(small_cnn, images):
    x, y = images(8), np.arange(8) % 5
    weights = np.array([0, 0, 0, 0, 1, 1, 1, 1], "float32")
    start = small_cnn.get_weights()
    defense = compiled(AdversarialTraining(small_cnn, attack=FGSM(epsilon=0.1)))
    half = defense.train_on_batch(x[4:], y[4:], return_dict=True)["loss"]
    small_cnn.set_weights(start)
    weighted = defense.train_on_batch(x, y, sample_weight=weights, return_dict=True)["loss"]
    assert weighted == pytest.approx(half * 4 / 8, rel=1e-4)


def test_regularisation_losses_are_part_of_the_loss(images):
    inputs = keras.Input((6, 6, 1))
    dense = keras.layers.Dense(5, kernel_regularizer=keras.regularizers.L2(0.5))
    model = keras.Model(inputs, dense(keras.layers.Flatten()(inputs)))
    penalty = 0.5 * (model.get_weights()[0] ** 2).sum()
    x, y = images(4), np.zeros(4, int)
    defense = compiled(AdversarialTraining(model, attack=FGSM(epsilon=0.1)))
    logits = model(
        FGSM(epsilon=0.1)(
            model, ops.convert_to_tensor(x), ops.convert_to_tensor(y), key=random.key(0)
        )
    )
    expected = float(loss()(y, logits)) + penalty
    assert defense.test_on_batch(x, y)[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_clean_logits_do_not_touch_batch_normalisation(images, fraction):
    """Statistics are those of the batch trained on: in a mixed one, of both kinds together."""

    def build():
        inputs = keras.Input((6, 6, 1))
        x = keras.layers.BatchNormalization(momentum=0.5)(keras.layers.Flatten()(inputs))
        return keras.Model(inputs, keras.layers.Dense(5)(x))

    model, x, y = build(), images(16), np.arange(16) % 5
    attack = FGSM(epsilon=0.3)
    x_adv = ops.convert_to_numpy(
        attack(model, ops.convert_to_tensor(x), ops.convert_to_tensor(y), key=random.key(0))
    )
    defense = compiled(AdversarialTraining(model, attack=attack, fraction=fraction))
    _, attacked = made(defense, x)
    defense.train_on_batch(x, y)
    mean = model.layers[2].get_weights()[2]
    seen = np.where(attacked[:, None, None, None], x_adv, x)
    assert attacked.mean() == fraction
    np.testing.assert_allclose(mean, 0.5 * seen.reshape(16, 36).mean(0), rtol=1e-4)


@pytest.mark.long
def test_an_interrupted_run_resumes(tmp_path, small_cnn, images):
    x, y = images(32), np.arange(32) % 5
    start = small_cnn.get_weights()

    class Power(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def train(*callbacks):
        defense = compiled(AdversarialTraining(small_cnn, attack=PGD(epsilon=0.1, steps=2)), "adam")
        backup = keras.callbacks.BackupAndRestore(tmp_path / "state")
        return defense.fit(
            x,
            y,
            batch_size=8,
            epochs=4,
            shuffle=False,
            verbose=0,
            callbacks=[backup, *callbacks],
        )

    train()
    uninterrupted = small_cnn.get_weights()
    small_cnn.set_weights(start)
    with pytest.raises(KeyboardInterrupt):
        train(Power())
    small_cnn.set_weights([0 * weight for weight in start])
    history = train()
    assert len(history.epoch) == 2
    for a, b in zip(small_cnn.get_weights(), uninterrupted, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda m: AdversarialTraining(m, attack="pgd"), TypeError, "attack must be a robust_zoo"),
        (
            lambda m: AdversarialTraining(m, attack=FGSM(epsilon=0.1), ramp_steps=-1),
            ValueError,
            "ramp_steps must be an integer >= 0, got -1",
        ),
        (
            lambda m: AdversarialTraining(m, attack=FGSM(epsilon=0.1), seed=-1),
            ValueError,
            "seed must be an integer",
        ),
        (
            lambda m: AdversarialTraining(
                keras.Sequential([m, keras.layers.Softmax()]), attack=FGSM(epsilon=0.1)
            ),
            ValueError,
            "ends in softmax",
        ),
        (
            lambda m: AdversarialTraining(m, attack=FGSM(epsilon=0.1), fraction=1.5),
            ValueError,
            "fraction must be a number > 0 and <= 1, got 1.5",
        ),
        (
            lambda m: AdversarialTraining(
                m, attack=FGSM(epsilon=0.1), fraction=0.5, relative_weight=0
            ),
            ValueError,
            "relative_weight must be a number > 0, got 0",
        ),
        (
            lambda m: AdversarialTraining(m, attack=FGSM(epsilon=0.1), relative_weight=0.5),
            ValueError,
            r"relative_weight must be 1 where all examples are attacked \(fraction=1\), got 0.5",
        ),
        (
            lambda m: AdversarialTraining(m, attack=FGSM(epsilon=0.1), clean_weight=1),
            ValueError,
            "clean_weight must be a number >= 0 and < 1, got 1",
        ),
        (
            lambda m: AdversarialTraining(m, attack=PixelSwap(epsilon=4)),
            ValueError,
            "attack must have norm 'linf' or 'l2' in AdversarialTraining",
        ),
        (
            lambda m: AdversarialTraining(m, attack=PGD(epsilon=0.1, targeted=True)),
            ValueError,
            "must not aim at the labels given",
        ),
    ],
)
def test_bad_arguments(small_cnn, make, error, message):
    with pytest.raises(error, match=message):
        make(small_cnn)


GOOD = np.full((4, 6, 6, 1), 0.5, "float32")


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        ((255 * GOOD).astype("uint8"), np.zeros(4, int), TypeError, "images must be floating"),
        (255 * GOOD, np.zeros(4, int), ValueError, r"images must lie in \[0, 1\]"),
        (np.nan * GOOD, np.zeros(4, int), ValueError, "images must be finite"),
        (GOOD[:, :5], np.zeros(4, int), ValueError, "images must have shape"),
        (GOOD, np.full(4, 99), ValueError, r"labels must lie in 0\.\.4"),
    ],
)
def test_bad_arrays_are_refused_before_training(small_cnn, x, y, error, message):
    before = small_cnn.get_weights()
    defense = compiled(AdversarialTraining(small_cnn, attack=FGSM(epsilon=0.1)))
    with pytest.raises(error, match=message):
        defense.fit(x, y, verbose=0)
    with pytest.raises(error, match=message):
        defense.fit(GOOD, np.zeros(4, int), validation_data=(x, y), verbose=0)
    for a, b in zip(small_cnn.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_integer_images_in_a_stream_are_refused(small_cnn):
    defense = compiled(AdversarialTraining(small_cnn, attack=FGSM(epsilon=0.1)))
    batch = ops.convert_to_tensor((255 * GOOD).astype("uint8")), ops.zeros(4, "int32")
    with pytest.raises(TypeError, match=r"images must be floating point .* uint8"):
        defense.prepare(batch, training=False)


def test_too_small_a_part_of_a_batch_is_refused(small_cnn, images):
    attack = FGSM(epsilon=0.1)
    defense = compiled(AdversarialTraining(small_cnn, attack=attack, fraction=0.01))
    with pytest.raises(ValueError, match=r"fraction .* must be some examples, got 0\.01 of 16"):
        defense.fit(images(32), np.zeros(32, int), batch_size=16, verbose=0)


@pytest.mark.slow
def test_a_list_of_callbacks_made_by_hand_is_called(small_cnn, images):
    defense, seen = compiled(AdversarialTraining(small_cnn, attack=FGSM(epsilon=0.1))), []
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    callbacks = keras.callbacks.CallbackList([note], add_history=True, model=defense)
    defense.fit(images(4), np.zeros(4, int), epochs=2, verbose=0, callbacks=callbacks)
    assert seen == [0, 1]
    seen.clear()
    small_cnn.set_weights([np.nan * weight for weight in small_cnn.get_weights()])
    callbacks = keras.callbacks.CallbackList([note], add_history=True, model=defense)
    with pytest.raises(DivergenceError):
        defense.fit(images(4), np.zeros(4, int), verbose=0, callbacks=callbacks)
    assert seen == []


def test_labels_of_another_shape_are_refused_with_a_sentence(small_cnn, images):
    defense = compiled(AdversarialTraining(small_cnn, attack=FGSM(epsilon=0.1)))
    with pytest.raises(ValueError, match=r"labels must be integer classes .*\(4, 3\)"):
        defense.prepare((images(4), np.eye(4)[:, :3]), training=False)


def test_hyperparameters_are_plain_json(small_cnn):
    defense = AdversarialTraining(small_cnn, attack=PGD(epsilon=0.1), ramp_steps=3)
    found = defense.hyperparameters()
    assert found["ramp_steps"] == 3
    assert found["attack"]["name"] == "PGD"
    assert found["attack"]["epsilon"] == 0.1
    assert set(found) == {
        "attack", "attack_mode", "clean_weight", "delay_steps", "fraction", "noise", "ramp_steps", "random_epsilon",
        "relative_weight", "seed",
    }  # fmt: skip


@pytest.mark.skipif(backend.name != "tensorflow", reason="strategies are TensorFlow's")
class TestMirroredStrategy:
    def build(self, images, seed=2):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((6, 6, 1))
        flat = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, activation="relu")(inputs))
        model = keras.Model(inputs, keras.layers.Dense(5, name="logits")(flat))
        attack = PGD(epsilon=0.2, steps=3)
        return compiled(AdversarialTraining(model, attack=attack, ramp_steps=4), "adam")

    @pytest.mark.long
    def test_two_replicas_equal_one_device(self, strategy, images):
        """Same seed and data, random starts included: weights within 1e-6 after 5 steps."""
        x, y = images(40), np.arange(40) % 5
        one = self.build(images)
        options = {"batch_size": 8, "epochs": 1, "shuffle": False, "verbose": 0}
        alone = one.fit(x, y, validation_data=(x[:16], y[:16]), **options).history
        with strategy.scope():
            two = self.build(images)
        shared = two.fit(x, y, validation_data=(x[:16], y[:16]), **options).history
        assert int(two.optimizer.iterations.numpy()) == 5
        for a, b in zip(one.classifier.get_weights(), two.classifier.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
        for name, values in alone.items():
            np.testing.assert_allclose(shared[name], values, atol=1e-5, err_msg=name)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("n", "batch_size", "size"), [(24, 9, 9), (20, 8, None), (21, 8, 5), (1, 8, 1)]
    )
    def test_batches_that_replicas_cannot_share_are_refused(
        self, strategy, images, n, batch_size, size
    ):
        import tensorflow as tf

        with strategy.scope():
            defense = self.build(images)
        x, y = images(n), np.arange(n) % 5
        stream = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size, drop_remainder=True)
        if size is None:
            defense.fit(x, y, batch_size=batch_size, verbose=0)
            defense.fit(stream, shuffle=False, verbose=0)
            return
        message = rf"divisible by the 2 replicas, got one of {size} examples: change batch_size"
        with pytest.raises(ValueError, match=message):
            defense.fit(x, y, batch_size=batch_size, verbose=0)
        if batch_size == 9:
            with pytest.raises(ValueError, match=message):
                defense.fit(stream, shuffle=False, verbose=0)

    def test_validation_and_mixed_batches_that_replicas_cannot_share(self, strategy, images):
        with strategy.scope():
            defense = self.build(images)
        x, y = images(16), np.arange(16) % 5
        with pytest.raises(ValueError, match="divisible by the 2 replicas, got one of 1 examples"):
            defense.fit(x, y, validation_data=(x[:5], y[:5]), batch_size=4, verbose=0)
        with pytest.raises(ValueError, match="divisible by the 2 replicas, got one of 3 examples"):
            defense.fit(x, y, validation_split=0.8, batch_size=8, verbose=0)
        with strategy.scope():
            attack = FGSM(epsilon=0.1)
            mixed = compiled(AdversarialTraining(defense.classifier, attack=attack, fraction=0.5))
        with pytest.raises(ValueError, match=r"must be a whole number of examples, got 0\.5 of 3"):
            mixed.fit(x[:12], y[:12], batch_size=6, verbose=0)

    @pytest.mark.slow
    def test_batch_normalisation_is_synchronized_while_it_trains(self, strategy, images):
        """Two replicas equal one device, moving statistics included, and the configuration stays as it was."""
        x, y = images(16), np.arange(16) % 5

        def build():
            keras.utils.set_random_seed(3)
            inputs = keras.Input((6, 6, 1))
            normal = keras.layers.BatchNormalization(name="bn")
            flat = keras.layers.Flatten()(normal(keras.layers.Conv2D(3, 3)(inputs)))
            model = keras.Model(inputs, keras.layers.Dense(5)(flat))
            return compiled(AdversarialTraining(model, attack=FGSM(epsilon=0.1)))

        options = {"batch_size": 8, "shuffle": False, "verbose": 0}
        one = build()
        one.fit(x, y, **options)
        with strategy.scope():
            two = build()
        two.fit(x, y, **options)
        for a, b in zip(one.classifier.get_weights(), two.classifier.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-6)
        assert two.classifier.get_layer("bn").synchronized is False

    @pytest.mark.slow
    def test_streams_of_unknown_batches_are_refused(self, strategy, images):
        """Keras would weigh the halves of an uneven batch alike, and their images would share numbers."""
        import tensorflow as tf

        with strategy.scope():
            defense = self.build(images)
        stream = tf.data.Dataset.from_tensor_slices((images(33), np.arange(33) % 5)).batch(8)
        with pytest.raises(ValueError, match=r"batches of unknown size: .*drop_remainder=True"):
            defense.fit(stream, shuffle=False, verbose=0)
        with pytest.raises(ValueError, match="unknown size"):
            defense.fit(
                images(8), np.arange(8) % 5, validation_data=stream, batch_size=8, verbose=0
            )
        known = tf.data.Dataset.from_tensor_slices((images(33), np.arange(33) % 5))
        known = known.batch(8, drop_remainder=True)
        assert defense.fit(known, shuffle=False, verbose=0).epoch == [0]

    def test_an_uneven_batch_in_the_middle_is_refused(self, strategy, images):
        class Batches(keras.utils.PyDataset):
            def __len__(self):
                return 3

            def __getitem__(self, index):
                n = 9 if index == 1 else 16
                return images(n), np.arange(n) % 5

        with strategy.scope():
            defense = self.build(images)
        message = "divisible by the 2 replicas, got one of 9 examples"
        with pytest.raises(ValueError, match=message):
            defense.fit(Batches(), shuffle=False, verbose=0)
        with pytest.raises(ValueError, match=message):
            defense.evaluate(Batches(), verbose=0)
        x, y = images(9), np.arange(9) % 5
        for call in (defense.train_on_batch, defense.test_on_batch):
            with pytest.raises(ValueError, match=message):
                call(x, y)
        with pytest.raises(ValueError, match=message):
            defense.evaluate(x, y, batch_size=9, verbose=0)

    @pytest.mark.slow
    def test_replicas_start_from_different_points(self, strategy, images):
        import tensorflow as tf

        with strategy.scope():
            defense = self.build(images)
        image = np.full((2, 6, 6, 1), 0.5, "float32")
        start = PGD(epsilon=0.2, steps=1, step_size=1e-6)
        defense.attack = start

        @tf.function
        def both():
            return strategy.run(
                lambda: defense.prepare((tf.constant(image), tf.zeros(2, "int32")), False)[0][
                    "adversarial"
                ]
            )

        first, second = strategy.experimental_local_results(both())
        found = np.concatenate([first.numpy(), second.numpy()])
        apart = np.abs(found[:, None] - found[None]).max(axis=(2, 3, 4))
        assert apart[~np.eye(4, dtype=bool)].min() > 0.05
        with tf.device("CPU:0"):
            alone = start(
                defense.classifier,
                tf.constant(np.tile(image, (2, 1, 1, 1))),
                tf.zeros(4, "int32"),
                key=random.key(0),
            )
        np.testing.assert_allclose(found, alone.numpy(), atol=1e-5)

    def test_a_model_built_outside_the_scope_is_refused(self, strategy, small_cnn, images):
        with (
            strategy.scope(),
            pytest.raises(ValueError, match=r"'small_cnn' was built outside the scope of Mirrored"),
        ):
            AdversarialTraining(small_cnn, attack=FGSM(epsilon=0.1))
        defense = compiled(AdversarialTraining(small_cnn, attack=FGSM(epsilon=0.1)))
        with strategy.scope(), pytest.raises(ValueError, match="build or load it"):
            defense.fit(images(4), np.zeros(4, int), verbose=0)

    def test_a_defense_built_outside_the_scope_is_refused(self, strategy, images):
        with strategy.scope():
            inputs = keras.Input((6, 6, 1))
            model = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Flatten()(inputs)))
        with pytest.raises(ValueError, match="build or load it and its defense inside the same"):
            AdversarialTraining(model, attack=FGSM(epsilon=0.1))
