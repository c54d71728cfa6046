"""Recipe files: Python programs that make recipes, by a model's name or by their own."""

import importlib.util
import inspect
import pathlib
import types
from collections.abc import Callable
from typing import Any

import pydantic

from robust_zoo.places import recipe_files, recipes_directory
from robust_zoo.recipe.definition import Recipe, RecipeError, refused


def load_recipe(
    handle: str | pathlib.Path, settings: dict[str, str] | None = None
) -> tuple[Recipe, pathlib.Path]:
    """The recipe of a model's name, or of a file, and its file.

    A recipe file is a Python program that defines `get_recipe`, whose arguments have defaults and annotations; it
    returns a `Recipe`. Where it makes several models of the zoo, `MODELS` lists the arguments of each.

    Args:
        handle: name of a model of the zoo, or a Python file, which is run.
        settings: other values: arguments of `get_recipe`, and what `Recipe.override` takes.

    Raises:
        RecipeError: no such file or name, a file that cannot be run or defines no `get_recipe`, or a setting that
            does not fit.
    """
    settings = dict(settings or {})
    if pathlib.Path(handle).suffix == ".py":
        if not pathlib.Path(handle).is_file():
            raise RecipeError(f"no recipe file {str(handle)!r}.")
        path, get_recipe = pathlib.Path(handle), _module(handle).get_recipe
        arguments: dict[str, Any] = {}
    else:
        path, get_recipe, arguments = _of_the_zoo(str(handle))
    told = []
    for name, parameter in inspect.signature(get_recipe).parameters.items():
        if name in settings:
            before = arguments.get(name, parameter.default)
            arguments = {**arguments, name: settings.pop(name)}
            told.append(f"{name} set to {arguments[name]}, not {before}")
    recipe = _made(path, get_recipe, arguments)
    recipe = recipe.changed(deviations=(*recipe.deviations, *told))
    return recipe.override(settings), path


def recipe_names() -> list[str]:
    """The models of the zoo that have a recipe."""
    made = []
    for path in recipe_files():
        module = _module(path)
        made += [_made(path, module.get_recipe, arguments).name for arguments in module.MODELS]
    return sorted(made)


def place_of(source: str | pathlib.Path | None) -> str:
    """How the record names the recipe's file: by its place in robust_zoo if it is shipped, else by its name."""
    if source is None:
        return ""
    path, shipped = pathlib.Path(source).resolve(), recipes_directory().resolve()
    if path.is_relative_to(shipped):
        return f"training/recipes/{path.relative_to(shipped).as_posix()}"
    return path.name


def _of_the_zoo(name: str) -> tuple[pathlib.Path, Callable, dict]:
    """The file, its `get_recipe` and the arguments that make the recipe of a model."""
    for path in recipe_files(name):
        module = _module(path)
        for arguments in module.MODELS:
            if _made(path, module.get_recipe, arguments).name == name:
                return path, module.get_recipe, arguments
    raise RecipeError(
        f"no recipe {name!r}: give a Python file or one of {', '.join(recipe_names())}."
    )


def _module(path: str | pathlib.Path) -> types.ModuleType:
    path = pathlib.Path(path)
    spec = importlib.util.spec_from_file_location(f"robust_zoo_recipe_{path.stem}", path)
    # There is a loader, for the file's name ends in .py.
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the file's own code does
        raise RecipeError(f"recipe {str(path)!r} cannot be read: {error}.") from error
    if not callable(getattr(module, "get_recipe", None)):
        raise RecipeError(f"recipe {str(path)!r} must define get_recipe(), which returns a Recipe.")
    return module


def _made(path: pathlib.Path, get_recipe: Callable, arguments: dict) -> Recipe:
    try:
        recipe = pydantic.validate_call(get_recipe)(**arguments)
    except pydantic.ValidationError as error:
        raise refused(error) from None
    except Exception as error:  # whatever the file's own code does
        raise RecipeError(f"recipe {str(path)!r} cannot be made: {error}.") from error
    if not isinstance(recipe, Recipe):
        raise RecipeError(f"get_recipe() of {str(path)!r} must return a Recipe, got {recipe!r}.")
    return recipe
