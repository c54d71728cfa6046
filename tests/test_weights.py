import hashlib

import keras
import numpy as np
import pytest

from robust_zoo.weights import FILE, describe_weights, model_files, round_to_float16, sha256


def write_weights(model, path):
    files, weights = model_files(model)
    path.write_bytes(files[FILE])
    return weights


def test_hash_is_that_of_the_file(small_cnn, tmp_path):
    weights = write_weights(small_cnn, tmp_path / FILE)
    content = (tmp_path / FILE).read_bytes()
    assert weights.sha256 == sha256(tmp_path / FILE) == hashlib.sha256(content).hexdigest()
    assert weights.bytes == len(content)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize("half", [False, True])
def test_the_same_weights_make_the_same_file(small_cnn, tmp_path, half):
    if half:
        round_to_float16(small_cnn)
    first = write_weights(small_cnn, tmp_path / FILE)
    copy = keras.Model.from_config(small_cnn.get_config())
    copy.load_weights(tmp_path / FILE)
    assert describe_weights(copy) == first
    assert first.dtype == ("float16" if half else "float32")
    for a, b in zip(small_cnn.get_weights(), copy.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
        assert b.dtype == np.float32


def test_names_and_optimizers_make_no_difference(small_cnn, images):
    before = describe_weights(small_cnn)
    copy = keras.models.clone_model(small_cnn)
    copy.set_weights(small_cnn.get_weights())
    renamed = keras.Model(copy.inputs[0], copy.outputs[0], name="renamed")
    assert describe_weights(renamed) == before
    small_cnn.compile("adam", "mse")
    small_cnn.predict(images(2), verbose=0)
    small_cnn.optimizer.build(small_cnn.trainable_variables)
    assert describe_weights(small_cnn) == before


def test_float16_files_are_half_as_large(tmp_path):
    inputs = keras.Input((10, 10, 1))
    outputs = keras.layers.Dense(500)(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, outputs)
    before = model.get_weights()
    full = write_weights(model, tmp_path / FILE)
    round_to_float16(model)
    half = write_weights(model, tmp_path / FILE)
    assert half.bytes < 0.6 * full.bytes
    np.testing.assert_allclose(model.get_weights()[0], before[0], rtol=2**-11, atol=2**-25)


def test_one_changed_weight_changes_the_hash(small_cnn):
    before = describe_weights(small_cnn)
    weights = small_cnn.get_weights()
    weights[1][0] += 1e-7
    small_cnn.set_weights(weights)
    assert describe_weights(small_cnn).sha256 != before.sha256


def test_weights_beyond_float16_are_not_rounded(small_cnn):
    weights = small_cnn.get_weights()
    weights[0][0, 0, 0, 0] = 1e6
    small_cnn.set_weights(weights)
    round_to_float16(small_cnn)
    for a, b in zip(small_cnn.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(a, b)
