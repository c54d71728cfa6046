"""Functions that are compiled once for a model, and see whatever changes in it."""

import gc
import weakref

import keras
import numpy as np
import pytest
from keras import ops

from robust_zoo import backend, inference
from robust_zoo.attacks import FGSM, PGD


@pytest.mark.slow
def test_nothing_is_compiled_twice(small_cnn, images, monkeypatch):
    made = []
    original = backend.function
    monkeypatch.setattr(backend, "function", lambda f, m: made.append(f) or original(f, m))
    x = images(20)
    for epsilon in (0.01, 0.05, 0.2):
        for restarts in (1, 2):
            for steps in (4, 9):
                attack = PGD(epsilon=epsilon, steps=steps, restarts=restarts, step_size=epsilon / 3)
                result = attack.run(small_cnn, x, batch_size=8)
                assert result.distance.max() <= epsilon + 1e-6
    assert len(made) == 4  # predict, start, advance, judge
    FGSM(epsilon=0.1).run(small_cnn, x)
    assert len(made) == 7


@pytest.mark.slow
def test_compiled_code_does_not_keep_a_model_alive(images):
    inputs = keras.Input((6, 6, 1))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(inputs)))
    FGSM(epsilon=0.1).run(model, images(4))
    assert model in inference._COMPILED
    reference = weakref.ref(model)
    del model, inputs
    gc.collect()
    assert reference() is None


@pytest.mark.slow
def test_new_weights_are_seen_by_compiled_code(small_cnn, images):
    x = images(20)
    y = ops.convert_to_numpy(small_cnn(x)).argmax(1)
    assert not FGSM(epsilon=1e-6).run(small_cnn, x, y).success.any()
    *body, kernel, bias = small_cnn.get_weights()
    small_cnn.set_weights([*body, -kernel, -bias])  # the least likely class becomes the likeliest
    assert FGSM(epsilon=1e-6).run(small_cnn, x, y).success.all()


@pytest.mark.slow
def test_a_changed_model_is_compiled_anew(small_cnn, images):
    x = images(40)
    before = FGSM(epsilon=0.05).run(small_cnn, x).x_adv
    small_cnn.layers[1].activation = keras.activations.linear
    after = FGSM(epsilon=0.05).run(small_cnn, x)
    predicted = ops.convert_to_numpy(small_cnn(after.x_adv)).argmax(1)
    clean = ops.convert_to_numpy(small_cnn(x)).argmax(1)
    np.testing.assert_array_equal(after.success, predicted != clean)
    assert not np.array_equal(before, after.x_adv)


@keras.saving.register_keras_serializable("tests")
class Signed(keras.Model):
    """A model whose call depends on what is neither a variable nor public."""

    def __init__(self, **options):
        super().__init__(**options)
        self.dense = keras.layers.Dense(3)
        self._sign = 1.0
        self.factor = keras.initializers.Constant(1.0)

    def call(self, x):
        return self._sign * self.factor.value * self.dense(keras.ops.reshape(x, (-1, 36)))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["private attribute of a model inside", "object of Keras"])
def test_state_that_is_no_variable_is_seen_by_compiled_code(images, how):
    inputs = keras.Input((6, 6, 1))
    signed = Signed()
    model = keras.Model(inputs, signed(inputs))
    x = images(20)
    y = ops.convert_to_numpy(model(x)).argmax(1)
    assert not FGSM(epsilon=1e-6).run(model, x, y).success.any()
    if how == "object of Keras":
        signed.factor.value = -1.0
    else:
        signed._sign = -1.0
    assert FGSM(epsilon=1e-6).run(model, x, y).success.all()


def test_training_alone_compiles_nothing_anew(images):
    inputs = keras.Input((6, 6, 1))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(inputs)))
    x, y = images(20), np.arange(20) % 3
    before = inference._state_of(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    model.fit(x, y, validation_data=(x, y), verbose=0)
    model.predict(x, verbose=0)
    assert inference._state_of(model) == before
