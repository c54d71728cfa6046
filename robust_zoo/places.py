"""Where the zoo's models and recipes lie: inside the installed package, else in the checkout around it.

The wheel carries the models that pyproject.toml lists; a checkout has all of them.
"""

import pathlib

_PACKAGE = pathlib.Path(__file__).resolve().parent


def checkpoints_directory() -> pathlib.Path:
    """The folder of all checkpoint directories."""
    inside = _PACKAGE / "checkpoints"
    return inside if inside.is_dir() else _PACKAGE.parent / "checkpoints"


def recipes_directory() -> pathlib.Path:
    """The folder of all recipes."""
    inside = _PACKAGE / "recipes"
    return inside if inside.is_dir() else _PACKAGE.parent / "training" / "recipes"


def recipe_file(name: str) -> pathlib.Path:
    """Where the recipe of a model is, if it has one."""
    return recipes_directory() / f"{name.replace('.', '_')}.py"
