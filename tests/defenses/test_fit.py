"""What people give to `compile` and `fit`: taken as plain Keras takes it, or refused in a sentence."""

import functools

import keras
import numpy as np
import pytest
from keras import layers, ops

from robust_zoo.attacks import FGSM, PGD
from robust_zoo.defenses import (
    AdversarialTraining,
    AdversarialWeightPerturbation,
    FreeAdversarialTraining,
    NaturalTraining,
)

FROM_LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
OPTIONS = {"batch_size": 8, "shuffle": False, "verbose": 0}


@pytest.fixture
def defense():
    keras.utils.set_random_seed(2)
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, layers.Dense(3, name="logits")(layers.Flatten()(inputs)))
    return AdversarialTraining(model, attack=PGD(epsilon=0.1, steps=2))


@pytest.fixture
def data(images):
    return images(24, (4, 4, 1)), np.arange(24) % 3


def trained(defense, *args, loss=FROM_LOGITS, **options):
    """The weights after `fit`, from the same start."""
    start = defense.classifier.get_weights()
    defense.training_steps.assign(0)
    defense.compile(keras.optimizers.SGD(0.1), loss)
    defense.fit(*args, **{**OPTIONS, **options})
    weights = defense.classifier.get_weights()
    defense.classifier.set_weights(start)
    return weights


def assert_same(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


class OnProbabilities(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)


def margin(y, z):
    """A hinge of logits, by integer labels."""
    others = ops.where(ops.one_hot(y, z.shape[1], dtype="bool"), -1e9, z)
    true = ops.take_along_axis(z, ops.reshape(y, (-1, 1)), axis=1)[:, 0]
    return ops.maximum(0.0, 1 + ops.max(others, axis=1) - true)


def cosine(y, z):
    return -ops.sum(y * z, axis=1) / ops.sqrt(ops.sum(z * z, axis=1))


@pytest.mark.parametrize(
    "loss",
    [
        "sparse_categorical_crossentropy",
        "SparseCategoricalCrossentropy",
        "categorical_crossentropy",
        "binary_crossentropy",
        keras.losses.SparseCategoricalCrossentropy(),
        keras.losses.SparseCategoricalCrossentropy,
        keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
        keras.losses.BinaryFocalCrossentropy(),
        keras.losses.sparse_categorical_crossentropy,
        functools.partial(keras.losses.categorical_crossentropy, from_logits=False),
        [keras.losses.SparseCategoricalCrossentropy()],
        "kl_divergence",
        keras.losses.Dice(),
        "tversky",
        lambda y, p: keras.losses.sparse_categorical_crossentropy(y, p),
        lambda y, p: keras.losses.categorical_crossentropy(y, p, label_smoothing=0.1),
        lambda y, p: -ops.sum(y * ops.log(p), axis=-1),
        lambda y, p: -ops.sum(y * ops.log(ops.clip(p, 1e-7, 1)), axis=-1),
        OnProbabilities(),
    ],
)
def test_a_loss_on_probabilities_is_refused(defense, loss):
    with pytest.raises(ValueError, match=r"loss must take logits.*from_logits=True"):
        defense.compile("adam", loss)


@pytest.mark.parametrize(
    "metric",
    [
        "sparse_categorical_crossentropy",
        "crossentropy",
        keras.metrics.SparseCategoricalCrossentropy(),
        keras.metrics.AUC(),
        "binary_accuracy",
        keras.metrics.BinaryAccuracy(),
        keras.metrics.Precision(),
        keras.metrics.BinaryIoU(),
        keras.metrics.F1Score(threshold=0.5),
        keras.metrics.SensitivityAtSpecificity(0.5),
    ],
)
def test_a_metric_on_probabilities_is_refused(defense, metric):
    with pytest.raises(ValueError, match="metrics must take logits"):
        defense.compile("adam", FROM_LOGITS, metrics=["accuracy", metric])


@pytest.mark.parametrize(
    "loss",
    [
        FROM_LOGITS,
        functools.partial(keras.losses.sparse_categorical_crossentropy, from_logits=True),
        "mse",
        keras.losses.CategoricalHinge(),
        lambda y, z: ops.mean(z, axis=1),
        lambda y, z: keras.losses.sparse_categorical_crossentropy(y, z, from_logits=True),
        lambda y, z: keras.losses.categorical_crossentropy(y, ops.softmax(z)),
        lambda y, z: keras.losses.sparse_categorical_crossentropy(y, z / 10, from_logits=True),
        margin,
        cosine,
    ],
)
def test_other_losses_are_taken(defense, loss):
    metric = keras.metrics.SparseCategoricalCrossentropy(from_logits=True)
    defense.compile("adam", loss, metrics=["accuracy", metric, "sparse_top_k_categorical_accuracy"])


@pytest.mark.parametrize(
    "metric",
    [
        keras.metrics.AUC(from_logits=True),
        keras.metrics.BinaryAccuracy(threshold=0.0),
        keras.metrics.Precision(thresholds=0),
        keras.metrics.Recall(top_k=1),
        keras.metrics.F1Score(),
        keras.metrics.MeanIoU(10),
        "top_k_categorical_accuracy",
    ],
)
def test_other_metrics_are_taken(defense, metric):
    defense.compile("adam", FROM_LOGITS, metrics=["accuracy", metric])


@pytest.mark.long
def test_one_hot_labels_and_weights_in_a_column_are_taken(defense, data):
    x, y = data
    weights = np.linspace(0.1, 2, 24).astype("float32")
    expected = trained(defense, x, y, sample_weight=weights)
    one_hot = np.eye(3, dtype="float32")[y]
    categorical = keras.losses.CategoricalCrossentropy(from_logits=True)
    assert_same(trained(defense, x, one_hot, loss=categorical, sample_weight=weights), expected)
    assert_same(trained(defense, x, y, sample_weight=weights[:, None]), expected)
    assert_same(trained(defense, [x], y, sample_weight=weights), expected)


@pytest.mark.slow
def test_smoothed_labels_are_taken(defense, data):
    """The smoothed cross-entropy of the authors' formula: 1 - s + s / k on the label, s / k on each other class."""
    x, y = data
    smoothed = np.full((24, 3), 0.1, "float32") + 0.7 * np.eye(3, dtype="float32")[y]
    by_rows = keras.losses.CategoricalCrossentropy(from_logits=True)
    by_loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.3)
    expected = trained(defense, x, smoothed, loss=by_rows)
    assert_same(trained(defense, x, np.eye(3, dtype="float32")[y], loss=by_loss), expected)
    with pytest.raises(ValueError, match=r"sum to 1, got sums from 2 to 2"):
        defense.fit(x, 2 * smoothed, **OPTIONS)
    with pytest.raises(ValueError, match=r"shape \(24,\) or \(24, 3\), got \(24, 4\)"):
        defense.fit(x, np.eye(4, dtype="float32")[y], **OPTIONS)


def streams(batches):
    yield batches
    yield (batch for batch in list(batches))


def test_streams_of_bad_images_are_refused_at_the_first_batch(defense, data, in_batches):
    x, y = data
    defense.compile("sgd", FROM_LOGITS)
    for images, labels, message in (
        (255 * x, y, r"images must lie in \[0, 1\].*divide 0..255 images by 255"),
        (x, y + 3, r"labels must lie in 0..2, got values from 3 to 5"),
    ):
        for stream in streams(in_batches(images, labels)):
            with pytest.raises(ValueError, match=message):
                defense.fit(stream, shuffle=False, verbose=0)
        for stream in streams(in_batches(images, labels)):
            with pytest.raises(ValueError, match=message):
                defense.evaluate(stream, verbose=0)
        with pytest.raises(ValueError, match=message):
            defense.fit(x, y, validation_data=in_batches(images, labels), **OPTIONS)


@pytest.mark.slow
def test_a_generator_loses_no_batch_to_the_check(defense, data, in_batches):
    expected = trained(defense, *data)
    for stream in streams(in_batches(*data)):
        assert_same(trained(defense, stream, batch_size=None, steps_per_epoch=3), expected)


@pytest.mark.slow
@pytest.mark.home
def test_tf_data_is_checked_and_loses_no_batch(defense, data):
    import tensorflow as tf

    x, y = data
    stream = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    assert_same(trained(defense, stream, batch_size=None), trained(defense, x, y))
    bad = tf.data.Dataset.from_tensor_slices((255 * x, y)).batch(8)
    with pytest.raises(ValueError, match=r"divide 0\.\.255 images by 255"):
        defense.fit(bad, verbose=0)


def test_accumulated_micro_batches_have_starts_of_their_own(defense, data, monkeypatch):
    """Keras counts updates; a random start must not come back within one."""
    x = np.full((16, 4, 4, 1), 0.5, "float32")
    seen = []
    original = AdversarialTraining.prepare

    def prepare(self, batch, training):
        made = original(self, batch, training)
        seen.append(ops.convert_to_numpy(made[0]["adversarial"]))
        return made

    monkeypatch.setattr(AdversarialTraining, "prepare", prepare)
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    defense.attack = PGD(epsilon=0.1, steps=1, step_size=1e-6)  # next to the random start
    defense.compile(optimizer, FROM_LOGITS, run_eagerly=True)
    if keras.config.backend() == "jax":
        pytest.skip("JAX has no eager steps")
    seen.clear()
    defense.fit(x, np.zeros(16, "int32"), **OPTIONS)
    assert int(ops.convert_to_numpy(defense.training_steps)) == 2
    first, second = seen[-2:]
    assert np.abs(first - second).max() > 1e-3


def test_string_labels_say_what_to_do(data):
    from robust_zoo.contract import check_labels

    with pytest.raises(TypeError, match=r"np\.unique\(labels, return_inverse=True\)"):
        check_labels(np.array(["cat", "dog"]), 2, 2)


def test_noise_starts_beyond_the_ball(defense, data):
    """N-FGSM: at most noise * epsilon from the image before the step, and epsilon more after it."""
    x, y = data
    attack = FGSM(epsilon=0.05)
    noisy = AdversarialTraining(defense.classifier, attack=attack, noise=2.0)
    noisy.compile("sgd", FROM_LOGITS)
    grey = np.full_like(x, 0.5)
    made, _, _ = noisy.prepare(
        (ops.convert_to_tensor(grey), ops.convert_to_tensor(y)), training=True
    )
    change = np.abs(ops.convert_to_numpy(made["adversarial"]) - 0.5)
    assert 0.12 < change.max() <= 0.15 + 1e-6
    # Uniform in [-0.1, 0.1], then 0.05 up or down along a sign that does not depend on it.
    np.testing.assert_allclose((change**2).mean(), 0.1**2 / 3 + 0.05**2, rtol=0.1)
    made, _, _ = noisy.prepare(
        (ops.convert_to_tensor(grey), ops.convert_to_tensor(y)), training=False
    )
    assert np.abs(ops.convert_to_numpy(made["adversarial"]) - 0.5).max() <= 0.05 + 1e-6
    with pytest.raises(ValueError, match="noise must be a number >= 0"):
        AdversarialTraining(defense.classifier, attack=attack, noise=-1)


def test_natural_training_takes_no_attack(defense, data):
    natural = NaturalTraining(defense.classifier)
    natural.compile("sgd", FROM_LOGITS)
    assert "robust_accuracy" not in natural.fit(*data, **OPTIONS).history


@pytest.mark.slow
@pytest.mark.home
@pytest.mark.parametrize("kind", ["free", "awp"])
def test_an_infinite_gradient_in_mixed_float16_leaves_everything_finite(kind, data):
    """Loss scaling looks for its scale by overflowing: such a step changes no weight and no perturbation."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        inputs = keras.Input((4, 4, 1))
        head = layers.Dense(3, dtype="float32", name="logits")
        model = keras.Model(inputs, head(layers.Dense(8)(layers.Flatten()(inputs))))
        attack = PGD(epsilon=0.1, norm="l2", steps=2)
        if kind == "free":
            trainer = FreeAdversarialTraining(model, attack=attack, batch_size=8, replays=2)
        else:
            trainer = AdversarialWeightPerturbation(AdversarialTraining(model, attack=attack))
        optimizer = keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(0.1), initial_scale=2.0**60
        )
        trainer.compile(optimizer, FROM_LOGITS)
    finally:
        keras.config.set_dtype_policy("float32")
    before = model.get_weights()
    x, y = data
    trainer.fit(x[:8], y[:8], **OPTIONS)
    assert float(ops.convert_to_numpy(optimizer.dynamic_scale)) < 2.0**60  # it did overflow
    assert_same(model.get_weights(), before)
    if kind == "free":
        perturbation = ops.convert_to_numpy(trainer.perturbation)
        assert np.isfinite(perturbation).all()
        assert np.abs(perturbation).max() == 0


@pytest.mark.long
@pytest.mark.home
@pytest.mark.parametrize("compiled_anew", [False, True])
def test_fitting_again_and_again_keeps_nothing(defense, data, compiled_anew):
    """No graph of an earlier `fit` is left when a trainer is fitted anew."""
    import gc

    from tensorflow.python.framework.func_graph import FuncGraph

    def graphs():
        gc.collect()
        return sum(isinstance(item, FuncGraph) for item in gc.get_objects())

    defense.compile("adam", FROM_LOGITS)
    found = []
    for _ in range(4):
        if compiled_anew:
            defense.compile("adam", FROM_LOGITS)
        defense.fit(*data, validation_data=data, **OPTIONS)
        found.append(graphs())
    # The first fit may free what trainers of earlier tests left.
    assert len(set(found[1:])) == 1


@pytest.mark.slow
@pytest.mark.parametrize("method", ["train_on_batch", "test_on_batch"])
def test_single_batches_are_checked(defense, data, method):
    x, y = data
    defense.compile("adam", FROM_LOGITS)
    call = getattr(defense, method)
    with pytest.raises(ValueError, match=r"divide 0\.\.255 images by 255"):
        call(x * 255, y)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2"):
        call(x, y + 1)
    assert len(call(x, y, return_dict=True)) >= 2


@pytest.mark.home
def test_a_label_out_of_range_in_a_later_batch_is_told_in_evaluate(defense, data):
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return data[0][:8], data[1][:8] + 15 * index

    defense.compile("adam", FROM_LOGITS)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2, .* a later batch"):
        defense.evaluate(Batches(), verbose=0)


@pytest.mark.home
@pytest.mark.parametrize("form", ["evaluate", "fit", "validation", "generator"])
def test_batches_that_are_views_stay_as_they_are(strategy, in_batches, images, form):
    import tensorflow as tf

    # At a multiple of 64 bytes TensorFlow takes an array's memory as it is.
    memory = np.zeros(32 * 64 * 4 + 64, "uint8")
    x = memory[-memory.ctypes.data % 64 :][: 32 * 64 * 4].view("float32").reshape(32, 8, 8, 1)
    x[:], y = images(32, (8, 8, 1)), np.arange(32) % 10
    with strategy.scope():
        inputs = keras.Input((8, 8, 1))
        # The first layer writes where its input was, if nobody else reads it.
        scaled = layers.Flatten()(layers.Rescaling(-3.0, 1.0)(inputs))
        defense = NaturalTraining(keras.Model(inputs, layers.Dense(10, name="logits")(scaled)))
        defense.compile("sgd", FROM_LOGITS)
    before, batches = x.copy(), in_batches(x, y)
    if form == "evaluate":
        defense.evaluate(batches, verbose=0)
    elif form == "generator":
        signature = tf.TensorSpec((8, 8, 8, 1), "float32"), tf.TensorSpec((8,), "int64")

        def views():
            return map(batches.__getitem__, range(len(batches)))

        generated = tf.data.Dataset.from_generator(views, output_signature=signature)
        defense.evaluate(generated, steps=len(batches), verbose=0)
    else:
        watched = batches if form == "validation" else None
        defense.fit(batches, validation_data=watched, epochs=2, shuffle=False, verbose=0)
    np.testing.assert_array_equal(x, before)


@pytest.mark.slow
def test_images_and_labels_in_lists_of_one(defense, data):
    x, y = data
    assert_same(trained(defense, [x], [y]), trained(defense, x, y))
    defense.compile("adam", FROM_LOGITS)
    expected = defense.evaluate(x, y, verbose=0)
    assert defense.evaluate([x], [y], verbose=0) == expected
    assert defense.evaluate({"image": x}, y, verbose=0) == expected
    with pytest.raises(ValueError, match=r"divide 0\.\.255 images by 255"):
        defense.fit({"image": x * 255}, y)
    assert len(defense.train_on_batch({"image": x}, y, return_dict=True)) >= 2


@pytest.mark.home
@pytest.mark.slow
@pytest.mark.parametrize("form", ["images alone", "one dictionary", "eager metrics"])
def test_what_keras_cannot_build_ahead(defense, data, form):
    import tensorflow as tf

    x, y = data
    if form == "eager metrics":

        def share(y_true, y_pred):
            return np.mean(np.asarray(y_pred).argmax(1) == np.asarray(y_true))

        defense.compile("adam", FROM_LOGITS, metrics=[share], run_eagerly=True)
        assert "share" in defense.fit(x, y, batch_size=len(x), verbose=0).history
        return
    defense.compile("adam", FROM_LOGITS, metrics=["accuracy"])
    parts = x if form == "images alone" else {"image": x, "label": y}
    stream = tf.data.Dataset.from_tensor_slices(parts).batch(8)
    with pytest.raises(ValueError, match=r"labels must be integer classes .*got shape None"):
        defense.fit(stream, shuffle=False, verbose=0)
