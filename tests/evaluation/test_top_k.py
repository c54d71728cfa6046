from functools import partial

import keras
import numpy as np
import pytest
from keras import ops

from robust_zoo.attacks import FGSM, PGD, BasicIterative
from robust_zoo.evaluation import craft, label_leaking, top_k


@pytest.fixture
def model():
    inputs = keras.Input((3, 3, 1))
    x = keras.layers.Dense(8, activation="tanh")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(6, name="logits")(x))
    rng = np.random.default_rng(3)
    model.set_weights([2 * rng.normal(size=weight.shape) for weight in model.get_weights()])
    return model


def logits(model, x):
    return ops.convert_to_numpy(model(x))


@pytest.mark.slow
def test_top_k_by_sorting(model, images):
    x = images(80, (3, 3, 1))
    y = logits(model, x).argsort(1)[np.arange(80), -1 - np.arange(80) % 3]
    found = top_k(BasicIterative, model, x, y, epsilons=(0.1, 0.3), k=(1, 2))
    assert [(part.epsilon, part.k) for part in found] == [
        (epsilon, k) for epsilon in (0.0, 0.1, 0.3) for k in (1, 2)
    ]
    before = {}
    for part in found:
        moved = x
        if part.epsilon:
            moved = craft(BasicIterative(epsilon=part.epsilon), model, x, y)
        best = logits(model, moved).argsort(1)[:, -part.k :]
        right = (best == y[:, None]).any(1).sum()
        assert part.accuracy.correct == right
        before.setdefault(part.k, right)
        assert part.ratio == right / before[part.k]
    assert found[0].accuracy.correct == 27  # every third is the most likely class
    assert found[1].accuracy.correct == 54
    assert found[4].ratio < 1


def test_no_clean_image_right(model, images):
    x = images(10, (3, 3, 1))
    y = logits(model, x).argmin(1)
    found = top_k(partial(PGD, steps=2), model, x, y, epsilons=(0.1,), k=(1,))
    assert found[0].accuracy.correct == 0
    assert [part.ratio for part in found] == [None, None]
    for k in ((0,), (6,), (1.5,), (True,)):
        with pytest.raises(ValueError, match=r"k must be integers in 1\.\.5"):
            top_k(FGSM, model, x, y, k=k)
    for epsilon in (0.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="epsilons must be above 0, got"):
            top_k(FGSM, model, x, y, epsilons=(0.1, epsilon), k=(1,))


def test_of_equal_logits_the_first_class_is_the_most_likely(model, images):
    constant = keras.models.clone_model(model)
    constant.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
    y = np.array([0, 1, 2, 0])
    found = top_k(FGSM, constant, images(4, (3, 3, 1)), y, epsilons=(0.1,), k=(1, 2))
    assert [part.accuracy.correct for part in found] == [2, 3, 2, 3]


@pytest.mark.slow
def test_label_leaking_is_counted_by_example(model, images):
    x = images(200, (3, 3, 1))
    y = logits(model, x).argsort(1)[np.arange(200), -1 - np.arange(200) % 3]
    knows, guesses = FGSM(epsilon=0.6), FGSM(epsilon=0.6, labels="least_likely", targeted=True)
    found = label_leaking(knows, guesses, model, x, y)
    right = [
        logits(model, craft(attack, model, x, y)).argmax(1) == y for attack in (knows, guesses)
    ]
    assert found.leaked == (right[0] & ~right[1]).sum() > 0
    assert found.n_examples == 200
    guesses = FGSM(epsilon=0.2, labels="predicted")
    knows = FGSM(epsilon=0.2)
    # Where the label is the predicted one, both attacks are the same and nothing can leak.
    assert label_leaking(knows, guesses, model, x, logits(model, x).argmax(1)).leaked == 0
    with pytest.raises(ValueError, match="with_labels must use the true labels"):
        label_leaking(guesses, guesses, model, x, y)
    with pytest.raises(ValueError, match="without_labels must not use the true labels"):
        label_leaking(knows, knows, model, x, y)
