"""The table of names and hyperparameters says of the attacks what they say of themselves."""

import dataclasses
from typing import get_args

import numpy as np
import pytest

from robust_zoo import attacks
from robust_zoo.attack_names import HYPERPARAMETERS, LOSSES, NAMES, Number
from robust_zoo.attacks import losses


def test_losses():
    assert set(LOSSES) == set(losses.LOSSES)


@pytest.mark.parametrize("name", NAMES)
def test_every_named_attack_is_in_the_table(name):
    kind, settings = NAMES[name]
    assert settings.keys() <= HYPERPARAMETERS[kind].keys()


@pytest.mark.parametrize("name", HYPERPARAMETERS)
def test_hyperparameters(name):
    kind, table = getattr(attacks, name), HYPERPARAMETERS[name]
    fields = {field.name: field.type for field in dataclasses.fields(kind)}
    assert table.keys() == fields.keys()
    assert table["norm"] == kind.norms
    for key, value in table.items():
        types = get_args(fields[key]) or (fields[key],)
        expected = value.kind if isinstance(value, Number) else value
        assert (str if isinstance(value, tuple) else expected) in types, key


def outside():
    """Values just outside the bounds of every number."""
    for name, table in HYPERPARAMETERS.items():
        for key, number in table.items():
            if not isinstance(number, Number):
                continue
            step = 1 if number.kind is int else 1e-3
            values = (number.above, number.least - step, number.most + step, number.below)
            yield from ((name, key, value) for value in values if np.isfinite(value))
            if number.kind is float:
                yield name, key, float("nan")


@pytest.mark.parametrize(("name", "key", "value"), outside())
def test_bounds_are_those_of_the_class(name, key, value):
    table = HYPERPARAMETERS[name]
    assert value not in table[key]
    settings = {"epsilon": 2 if table["norm"] == ("l0",) else 1} if "epsilon" in table else {}
    value = int(value) if table[key].kind is int else value
    with pytest.raises(ValueError, match=key):
        getattr(attacks, name)(**{**settings, key: value})


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        (name, key, value)
        for name, table in HYPERPARAMETERS.items()
        for key, values in table.items()
        if isinstance(values, tuple)
        for value in values
        if value != "kl_divergence"  # which needs a random start, and no targets
    ],
)
def test_every_choice_is_taken(name, key, value):
    table = HYPERPARAMETERS[name]
    settings = {"epsilon": 2 if table["norm"] == ("l0",) else 1} if "epsilon" in table else {}
    settings[key] = value
    if value in ("least_likely", "random"):
        settings["targeted"] = True
    if value == "malt":
        settings["targets"] = 1
    made = getattr(attacks, name)(**settings)
    assert getattr(getattr(made, key), "name", getattr(made, key)) == value
