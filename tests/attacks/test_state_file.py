import time

import keras
import numpy as np
import pytest
from keras import ops

from robust_zoo.attacks import PGD, CarliniWagner, Square, state_file
from robust_zoo.attacks.working_set import WorkingSet


def interrupt_after(monkeypatch, saves):
    """Saves at every opportunity, and stops in the middle after so many of them."""
    monkeypatch.setattr(state_file, "_SECONDS", -1.0)
    original, count = state_file.StateFile.save, 0

    def save(self, *arguments, **options):
        nonlocal count
        original(self, *arguments, **options)
        count += 1
        if count == saves:
            raise KeyboardInterrupt

    monkeypatch.setattr(state_file.StateFile, "save", save)
    return lambda: monkeypatch.setattr(state_file.StateFile, "save", original)


@pytest.mark.slow
@pytest.mark.home
@pytest.mark.parametrize(
    "attack",
    [
        PGD(epsilon=0.02, steps=30, restarts=3),
        Square(epsilon=0.02, steps=40, restarts=2),
        CarliniWagner(steps=30, binary_search_steps=3),
    ],
)
@pytest.mark.parametrize("saves", [1, 4, 9])
def test_an_interrupted_attack_goes_on(small_cnn, images, monkeypatch, tmp_path, attack, saves):
    x, path = images(40), tmp_path / "state.npz"
    monkeypatch.setattr("robust_zoo.attacks.working_set._WINDOW", 25)
    whole = attack.run(small_cnn, x, seed=3, batch_size=8)
    restore = interrupt_after(monkeypatch, saves)
    with pytest.raises(KeyboardInterrupt):
        attack.run(small_cnn, x, seed=3, batch_size=8, state_file=path)
    restore()

    steps = []
    original = WorkingSet._call
    monkeypatch.setattr(
        WorkingSet, "_call", lambda *arguments: steps.append(1) or original(*arguments)
    )
    # The batch size may be another one.
    resumed = attack.run(small_cnn, x, seed=3, batch_size=16, state_file=path)
    for field in ("success", "queries"):
        np.testing.assert_array_equal(getattr(resumed, field), getattr(whole, field))
    np.testing.assert_allclose(resumed.x_adv, whole.x_adv, atol=1e-5)
    assert len(steps) > 5

    steps.clear()
    again = attack.run(small_cnn, x, seed=3, batch_size=8, state_file=path)
    np.testing.assert_array_equal(again.x_adv, resumed.x_adv)
    assert again.seconds > 0.9 * resumed.seconds
    assert len(steps) <= 5 + 5  # only the clean images are looked at again
    assert [file.name for file in tmp_path.iterdir()] == ["state.npz"]


def test_a_state_of_something_else_is_refused(small_cnn, images, tmp_path):
    x, path = images(6), tmp_path / "state.npz"
    y = ops.convert_to_numpy(small_cnn(x)).argmax(1)
    attack = PGD(epsilon=0.02, steps=3)
    attack.run(small_cnn, x, y, state_file=path)
    for arguments, part in (
        ((attack.replace(epsilon=0.03), x, y, 0), "attack"),
        ((attack, x[::-1], y, 0), "images"),
        ((attack, x, (y + 1) % 5, 0), "labels"),
        ((attack, x, y, 1), "seed"),
    ):
        other, images_given, labels, seed = arguments
        with pytest.raises(ValueError, match=f"belongs to another run: not the same {part}"):
            other.run(small_cnn, images_given, labels, seed=seed, state_file=path)
    small_cnn.layers[-1].bias.assign([1.0, 0, 0, 0, 0])
    with pytest.raises(ValueError, match="not the same model"):
        attack.run(small_cnn, x, y, state_file=path)


def build(activation="relu", *, named=False, nested=False):
    """The same weights whatever the activation; layers and models named by Keras, or by what they are."""
    inputs = keras.Input((6, 6, 1))
    hidden = keras.layers.Dense(3)(keras.layers.Flatten()(inputs))
    name = activation if named else None
    outputs = keras.layers.Activation(activation, name=name)(hidden)
    model = keras.Model(inputs, keras.layers.Dense(5)(outputs))
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=value.shape) for value in model.get_weights()])
    return keras.Model(inputs, model(inputs)) if nested else model


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"named": True}, {"nested": True}])
def test_a_model_is_known_whatever_keras_calls_it(images, tmp_path, options):
    x, y, path = images(6), np.zeros(6, int), tmp_path / "state.npz"
    attack = PGD(epsilon=0.02, steps=3)
    first, second = build(**options), build(**options)
    assert first.name != second.name
    attack.run(first, x, y, state_file=path)
    attack.run(second, x, y, state_file=path)
    with pytest.raises(ValueError, match="not the same model"):
        attack.run(build("tanh", **options), x, y, state_file=path)


def test_bad_state_files(small_cnn, images, tmp_path):
    attack = PGD(epsilon=0.02, steps=3)
    with pytest.raises(ValueError, match=r"state_file must end in \.npz, got"):
        attack.run(small_cnn, images(2), state_file=tmp_path / "state.json")
    with pytest.raises(FileNotFoundError, match="state_file: no directory"):
        attack.run(small_cnn, images(2), state_file=tmp_path / "no" / "state.npz")
    for content in (b"", b"PK\x03\x04 broken", b"text"):
        (tmp_path / "state.npz").write_bytes(content)
        with pytest.raises(ValueError, match="is no readable state"):
            attack.run(small_cnn, images(2), state_file=tmp_path / "state.npz")


def test_it_is_written_once_in_a_while_and_at_the_end(small_cnn, images, monkeypatch, tmp_path):
    times = []
    original = np.savez
    monkeypatch.setattr(
        state_file.np, "savez", lambda *a, **k: times.append(time.monotonic()) or original(*a, **k)
    )
    PGD(epsilon=0.001, steps=50).run(small_cnn, images(4), state_file=tmp_path / "state.npz")
    assert len(times) == 1
