"""What holds for every attack, by its name on the command line."""

import functools
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from robust_zoo import backend
from robust_zoo.attacks import ATTACKS, AutoAttack, FixedBudgetAttack
from robust_zoo.testing.attacks import (
    attack_checks,
    configuration_round_trips,
    linear_network,
    model_for,
    network,
    stays_in_its_ball,
)

FAST = {
    "apgd-t": {"steps": 12, "targets": 2},
    "fab-t": {"steps": 5, "targets": 2},
    "carlini-wagner": {"steps": 20, "binary_search_steps": 3},
    "deepfool": {"steps": 10},
    "jsma": {"gamma": 0.5},
    "square": {"steps": 12},
}


def small(name, norm=None, epsilon=0.1):
    """The attack with few steps, in a norm if it has it, else in its own."""
    kind = ATTACKS[name].func
    values = dict(FAST.get(name, {}))
    if norm in kind.norms and "norm" not in ATTACKS[name].keywords:
        values["norm"] = norm
    if issubclass(kind, FixedBudgetAttack):
        values["epsilon"] = 4.0 if "l0" in kind.norms else epsilon
    attack = ATTACKS[name](**values)
    if name not in FAST and "steps" in attack.get_config():
        attack = attack.replace(steps=3)
    return attack


NAMES = sorted(set(ATTACKS) - {"autoattack"})  # which is made of the others
FIXED = [name for name in NAMES if issubclass(ATTACKS[name].func, FixedBudgetAttack)]
KINDS = sorted({ATTACKS[name].func: name for name in NAMES}.values())  # a name a class
SHAPES = [(2, 3, 1), (5, 5, 3), (4, 7, 2)]
BOTH = ("pure_call_and_run_agree", "empty_batches_are_refused")
CHECKS = (*BOTH, "success_is_what_a_forward_pass_confirms")  # the last of minimum-norm attacks
LONG = ("batch_size_does_not_matter", "wrong_images_stay", "constant_images_are_no_trouble")


@functools.cache
def cached(linear_one, shape):
    """One model for each shape, so that the same attack is not compiled again and again."""
    return linear_network(shape) if linear_one else network(shape)


def model_of(name, shape=(5, 5, 3)):
    return cached(name == "extreme-weights", shape)


@pytest.mark.long
@settings(max_examples=40 if backend.name == "tensorflow" else 15, deadline=None)
@given(
    name=st.sampled_from(FIXED),
    shape=st.sampled_from(SHAPES),
    norm=st.sampled_from(["linf", "l2", "l1"]),
    epsilon=st.floats(1e-3, 0.9),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    n=st.integers(1, 7),
    seed=st.integers(0, 1000),
)
def test_fixed_budget_attacks_stay_in_their_ball_and_in_range(
    name, shape, norm, epsilon, dtype, n, seed
):
    model, attack = model_of(name, shape), small(name, norm, epsilon)
    rng = np.random.default_rng(seed)
    x = rng.random((n, *shape)).astype(dtype)
    y = rng.integers(0, model.output_shape[1], n)
    stays_in_its_ball(attack, model, x, y, seed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "check"),
    [(name, check) for name in KINDS for check in CHECKS if name not in FIXED or check in BOTH],
)
def test_checks(name, check):
    checks = attack_checks(small(name), model=model_of(name))
    assert checks.keys() <= {*CHECKS, *LONG, "configuration_round_trips", "stays_in_its_ball"}
    checks[check]()


@pytest.mark.home
@pytest.mark.parametrize("check", LONG)
@pytest.mark.parametrize("name", KINDS)
def test_long_checks(name, check):
    attack_checks(small(name, epsilon=0.05), model=model_of(name))[check]()


@pytest.mark.parametrize("name", [*NAMES, "autoattack"])
def test_round_trips(name):
    attack = AutoAttack(epsilon=0.1) if name == "autoattack" else small(name)
    configuration_round_trips(attack, model_of(name))


def verdicts():
    """Per example, whether each attack fooled the fixed models and at what distance."""
    x = np.random.default_rng(6).random((24, 5, 5, 3)).astype("float32")
    found = {}
    for name in NAMES:
        model = model_for(small(name), seed=3)
        y = ops.convert_to_numpy(model(x)).argmax(1)
        result = small(name, epsilon=0.02).run(model, x, y, batch_size=16)
        found[name] = [result.success.tolist(), result.distance.tolist()]
    return found


def _other_backend():
    import importlib.util

    own = keras.config.backend()
    for name in ("tensorflow", "jax"):
        if name != own and importlib.util.find_spec(name):
            return name
    return None


@pytest.mark.skipif(_other_backend() is None, reason="only one of TensorFlow and JAX is installed")
def test_backends_give_the_same_verdicts():
    environment = {**os.environ, "KERAS_BACKEND": _other_backend()}
    run = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, check=True, env=environment
    )
    theirs = json.loads(run.stdout.splitlines()[-1])
    ours = verdicts()
    assert set(theirs) == set(ours)
    broken = 0
    for name, (success, distance) in ours.items():
        assert success == theirs[name][0], name
        np.testing.assert_allclose(distance, theirs[name][1], rtol=2e-3, atol=1e-5, err_msg=name)
        broken += sum(success)
    assert 0 < broken < 24 * len(ours)


if __name__ == "__main__":
    print(json.dumps(verdicts()))
