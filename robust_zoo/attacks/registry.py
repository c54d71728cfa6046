"""Attacks by name: ours, and those of other packages.

Another package names its attacks by entry points of the group "robust_zoo.attacks", in its pyproject.toml:

    [project.entry-points."robust_zoo.attacks"]
    my-attack = "my_package.attacks:MyAttack"

They are then known to the command line and to `robust_zoo.verify`.
"""

import dataclasses
from typing import Any

from robust_zoo import attacks
from robust_zoo.attack_names import Number, outside
from robust_zoo.attacks.attack import Attack, hyperparameter_types
from robust_zoo.sentences import one_line


def attack_of(name: str, **settings: Any) -> Attack:
    """The attack of a name on the command line, with some hyperparameters.

    Raises:
        ValueError: an unknown name, an attack of another package that cannot be loaded, or values that do not fit.
        TypeError: hyperparameters that it does not have.
    """
    kind = attacks.ATTACKS[name] if name in attacks.ATTACKS else outside_class(name)
    return kind(**settings)


def class_of(kind: str) -> type[Attack] | None:
    """The class of a name in records; None if neither robust_zoo nor a package that is installed has it."""
    found = getattr(attacks, kind, None)
    if isinstance(found, type) and issubclass(found, Attack):
        return found
    return next((made for made in map(outside_class, outside()) if made.__name__ == kind), None)


def outside_class(name: str) -> type[Attack]:
    """The class of another package's attack; ValueError if it cannot be loaded or is none."""
    try:
        found = outside()[name].load()
    except Exception as error:  # whatever another package's code does
        raise ValueError(f"attack {name!r} cannot be loaded: {one_line(error)}.") from error
    if not (
        isinstance(found, type) and issubclass(found, Attack) and dataclasses.is_dataclass(found)
    ):
        raise ValueError(
            f"attack {name!r} must be a dataclass derived from robust_zoo.attacks.Attack, got {found!r}."
        )
    return found


def outside_hyperparameters(name: str) -> dict:
    """What another package's attack takes, in the form of `attack_names.HYPERPARAMETERS`."""
    kind = outside_class(name)
    allowed: dict[str, Any] = {}
    for key, types in hyperparameter_types(kind).items():  # type: ignore[arg-type]  # mypy takes the class for an instance
        if key == "norm":
            allowed[key] = kind.norms
        elif bool in types:
            allowed[key] = bool
        elif int in types or float in types:
            allowed[key] = Number(float if float in types else int)
        else:
            allowed[key] = str
    return allowed
