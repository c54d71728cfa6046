"""Models of every shape go the whole way: measure, harden, save, load, publish, load again."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import robust_zoo as rz
from robust_zoo.attacks import FGSM
from robust_zoo.defenses import AdversarialTraining, with_weight_decay
from robust_zoo.zoo import CheckpointError

SHAPE, CLASSES = (8, 8, 1), 3
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def data():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 0.5, (48, *SHAPE)).astype("float32"), np.arange(48) % CLASSES
    x[np.arange(48), 2, 1 + 2 * y] = 1  # a bright pixel says the class
    return x, y


def body(x, **options):
    x = layers.Conv2D(4, 3, activation="relu", **options)(x)
    return layers.Dense(CLASSES, dtype="float32", name="logits")(layers.Flatten()(x))


def functional(*first):
    x = inputs = keras.Input(SHAPE)
    for layer in first:
        x = layer(x)
    return keras.Model(inputs, body(x))


def sequential():
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(CLASSES),
        ]
    )


def nested():
    inputs = keras.Input(SHAPE)
    return keras.Model(inputs, sequential()(functional_body()(inputs)))


def functional_body():
    inputs = keras.Input(SHAPE)
    return keras.Model(inputs, layers.Conv2D(1, 3, padding="same")(inputs))


def shared():
    inputs = keras.Input(SHAPE)
    twice = layers.Conv2D(1, 3, padding="same", activation="relu")
    return keras.Model(inputs, body(twice(twice(inputs))))


def normalised():
    normalisation = layers.Normalization(axis=None)
    model = functional(normalisation)
    normalisation.adapt(data()[0])
    return model


def frozen():
    model = functional()
    model.layers[1].trainable = False
    return model


def in_policy(name):
    def make():
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(name)
        try:
            return normalised()
        finally:
            keras.config.set_dtype_policy(before)

    return make


def int8():
    model = functional()
    model.get_layer("logits").quantize("int8")
    return model


def lora():
    model = functional()
    model.layers[1].enable_lora(2)
    return model


def batch_normalised():
    return functional(layers.Conv2D(3, 3, padding="same"), layers.BatchNormalization(momentum=0.5))


def dynamic():
    x = inputs = keras.Input((None, None, 1))
    x = layers.Conv2D(4, 3, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(CLASSES)(layers.GlobalMaxPooling2D()(x)))


def wrapped(make, **form):
    return lambda: rz.as_classifier(make(), **form)


def with_ending(end):
    def make():
        inputs = keras.Input(SHAPE)
        return keras.Model(inputs, end(body(inputs)))

    return make


def compiled(make):
    def compile():
        model = make()
        model.compile("adam", "mse")
        return model

    return compile


def channels_first():
    inputs = keras.Input((1, 8, 8))
    return keras.Model(inputs, body(layers.Permute((2, 3, 1))(inputs)))


def subclass():
    class Theirs(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = sequential()

        def call(self, x):
            return self.inner(x)

    model = Theirs()
    model(data()[0][:2])
    images = keras.Input(SHAPE)
    return keras.Model(images, model.call(images))  # of built-in layers, which can be published


def operations():
    """As `x + y`, slices and functions of keras.ops write them."""
    inputs = keras.Input(SHAPE)
    x = ops.relu(layers.Conv2D(4, 3, padding="same")(inputs))
    x = x + 0.5 * layers.Conv2D(4, 3, padding="same")(x)[:, :, :, ::-1]
    x = ops.concatenate([ops.mean(x, axis=(1, 2)), ops.max(x**2, axis=(1, 2))], axis=-1)
    return keras.Model(inputs, layers.Dense(CLASSES)(ops.stack([x, -x], axis=-1)[..., 0]))


MODELS = {
    "sequential": sequential,
    "functional": functional,
    "nested": nested,
    "shared layers": shared,
    "operations": operations,
    "subclass, inlined": subclass,
    "normalization": normalised,
    "rescaling": lambda: functional(layers.Rescaling(2.0, -1.0)),
    "resizing": lambda: functional(layers.Resizing(6, 6)),
    "batch normalisation": batch_normalised,
    "frozen": frozen,
    "dynamic sides": dynamic,
    "mixed_bfloat16": in_policy("mixed_bfloat16"),
    "float64": in_policy("float64"),
    "int8": int8,
    "LoRA": lora,
    "EMA optimizer": functional,
    "compiled": compiled(functional),
    "as_classifier": wrapped(sequential),
    "as_classifier, compiled": wrapped(compiled(sequential), input_range=(0, 255)),
    "as_classifier, normalization": wrapped(normalised, input_range=(-1, 1)),
    "softmax": wrapped(with_ending(layers.Softmax()), output="softmax"),
    "softmax operation": wrapped(with_ending(ops.softmax), output="softmax"),
    "sigmoid": wrapped(with_ending(layers.Activation("sigmoid")), output="sigmoid"),
    "list": wrapped(with_ending(lambda z: [z])),
    "dictionary": wrapped(with_ending(lambda z: {"logits": z})),
    "channels first": wrapped(channels_first, data_format="channels_first"),
}


def logits(model, x):
    return ops.convert_to_numpy(ops.cast(model(x, training=False), "float32"))


@pytest.mark.long
@pytest.mark.home
@pytest.mark.parametrize("name", MODELS)
def test_the_whole_way(name, tmp_path):
    x, y = data()
    model = MODELS[name]()
    low = "bfloat16" in name
    attack = FGSM(epsilon=0.05)
    options = {"attacks": attack, "checks": False, "dataset": "mine", "progress": False}

    before = rz.evaluate(model, (x, y), **options)
    measured = logits(model, x).argmax(1) == y
    assert abs(before.clean.correct - measured.sum()) <= (2 if low else 0)
    assert before.defense is None

    defense = AdversarialTraining(model, attack=attack)
    defense.compile(keras.optimizers.Adam(0.01, use_ema="EMA" in name), LOSS)
    defense.fit(x, y, batch_size=16, epochs=3, verbose=0)
    record = rz.evaluate(model, (x, y), **options)
    assert record.weights != before.weights
    assert record.defense.name == "AdversarialTraining"

    expected = logits(model, x)
    scale = np.abs(expected).max()
    within = (0.05 if low else 1e-4) * scale
    rz.save_model(model, tmp_path / "saved", record)
    loaded = rz.load_model(tmp_path / "saved")
    assert loaded.robustness == record
    np.testing.assert_allclose(logits(loaded, x), expected, atol=within)
    assert record.clean.correct == (logits(loaded, x).argmax(1) == y).sum()
    plain = keras.saving.load_model(tmp_path / "saved")
    np.testing.assert_array_equal(logits(plain, x), logits(loaded, x))

    handle = rz.publish(
        tmp_path / "saved", f"file://{tmp_path}/hub/{name.replace(' ', '_').replace(',', '')}"
    )
    fetched = rz.load_model(handle)
    np.testing.assert_array_equal(logits(fetched, x), logits(loaded, x))
    again = rz.evaluate(fetched, (x, y), **options)
    assert (again.clean, again.attacks[0].correct) == (record.clean, record.attacks[0].correct)
    assert again.weights == record.weights


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (lambda: [keras.Input(SHAPE), keras.Input(SHAPE)], "one input, got 2"),
        (
            lambda: [keras.Input(SHAPE, dtype="uint8")],
            "floating point images, got input dtype uint8",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(inputs, message):
    inputs = inputs()
    x = layers.Add()([layers.Rescaling(1.0)(x) for x in inputs] * (3 - len(inputs)))
    model = keras.Model(inputs if len(inputs) > 1 else inputs[0], body(x))
    with pytest.raises(TypeError, match=message):
        rz.as_classifier(model)


def test_a_layer_shared_with_a_model_inside_stays_shared_and_is_not_saved(tmp_path):
    """Keras writes such a model, and cannot read it again."""
    dense = layers.Dense(8, activation="relu")
    vector = keras.Input((8,))
    inner = keras.Model(vector, dense(vector))
    inputs = keras.Input(SHAPE)
    h = layers.Dense(8)(layers.Flatten()(inputs))
    model = keras.Model(inputs, layers.Dense(CLASSES)(layers.Add()([inner(h), dense(h)])))
    copy = with_weight_decay(model, l2=0.01)
    assert len(copy.weights) == len(model.weights) == 6
    with pytest.raises(CheckpointError, match="shares a layer with a model inside it"):
        rz.save_model(model, tmp_path / "saved")
    assert not list(tmp_path.iterdir())
