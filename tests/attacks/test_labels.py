import keras
import numpy as np
import pytest
from keras import ops

from robust_zoo.attacks import APGD
from robust_zoo.attacks.labels import choose_labels, nearest_classes
from robust_zoo.backend import random

LOGITS = np.tile(np.array([[0.0, 3.0, -1.0, 2.0]], "float32"), (600, 1))
Y = np.zeros(600, "int32")


def chosen(policy):
    keys = random.fold_in(random.key(0), np.arange(600))
    found = choose_labels(policy, ops.convert_to_tensor(LOGITS), ops.convert_to_tensor(Y), keys)
    return ops.convert_to_numpy(found)


def test_policies():
    assert set(chosen("true")) == {0}
    assert set(chosen("predicted")) == {1}
    assert set(chosen("least_likely")) == {2}


def test_random_labels_are_uniform_over_the_classes_not_predicted():
    labels, counts = np.unique(chosen("random"), return_counts=True)
    assert labels.tolist() == [0, 2, 3]
    assert counts.min() > 150


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_nearest_classes_of_a_linear_model_are_in_the_order_of_exact_distances(
    linear, images, norm
):
    model, kernel, bias = linear
    x = images(20, (2, 2, 1))
    z = x.reshape(20, -1) @ kernel + bias
    y = z.argmax(1).astype("int32")
    dual = {"linf": 1, "l2": 2, "l1": np.inf}[norm]
    found = ops.convert_to_numpy(
        nearest_classes(model, *map(ops.convert_to_tensor, (x, y)), norm, 2)
    )
    for row, label, logits in zip(found, y, z, strict=True):
        distance = [
            (logits[label] - logits[k]) / np.linalg.norm(kernel[:, k] - kernel[:, label], dual)
            if k != label
            else np.inf
            for k in range(3)
        ]
        np.testing.assert_array_equal(row, np.argsort(distance)[:2])


def a_tempting_class():
    """The second class has nearly the first one's logit, and its gradient; the third is far below, and easily reached."""
    inputs = keras.Input((2, 2, 1))
    layer = keras.layers.Dense(4)
    model = keras.Model(inputs, layer(keras.layers.Flatten()(inputs)))
    kernel = np.zeros((4, 4), "float32")
    kernel[:] = [1.0, 1.0, 3.0, 0.0]
    layer.set_weights([kernel, np.array([3.0, 2.5, -2.9, -9.0], "float32")])
    return model


def test_malt_targets_what_is_within_reach():
    model, x = a_tempting_class(), np.full((3, 2, 2, 1), 0.5, "float32")
    y = np.zeros(3, "int32")
    attack = APGD(epsilon=0.25, loss="cw_margin", targets=1, steps=20)
    assert not attack.run(model, x, y).success.any()
    malt = attack.replace(order="malt")
    result = malt.run(model, x, y)
    assert result.success.all()
    assert result.queries.min() > 1 + 3  # the three other classes were looked at
    made = malt(model, x, y, key=random.key(0))
    assert (ops.convert_to_numpy(model(made)).argmax(1) == 2).all()


def test_malt_resumes_and_aims_each_restart(small_cnn, images, tmp_path):
    x, y = images(30), np.arange(30, dtype="int32") % 5
    attack = APGD(epsilon=0.02, loss="dlr", targets=3, restarts=2, steps=5, order="malt")
    whole = attack.run(small_cnn, x, y, state_file=tmp_path / "state.npz")
    again = attack.run(small_cnn, x, y, state_file=tmp_path / "state.npz")
    np.testing.assert_array_equal(whole.x_adv, again.x_adv)
    np.testing.assert_array_equal(whole.queries, again.queries)
    targets = attack.find_targets(small_cnn, *map(ops.convert_to_tensor, (x, y)))
    targets = ops.convert_to_numpy(targets)
    assert targets.shape == (30, 6)
    np.testing.assert_array_equal(targets[:, ::2], targets[:, 1::2])
    assert (targets != y[:, None]).all()


def test_orders_that_are_refused():
    with pytest.raises(ValueError, match=r"order must be one of .*, got 'nearest'"):
        APGD(epsilon=0.1, loss="dlr", targets=2, order="nearest")
    with pytest.raises(ValueError, match="order='malt' needs targets >= 1"):
        APGD(epsilon=0.1, order="malt")
