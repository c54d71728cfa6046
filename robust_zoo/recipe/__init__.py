"""Recipes: a training run as data, and `run`, which trains, measures and writes its checkpoint."""

from robust_zoo.recipe.building import SmoothedCrossEntropy
from robust_zoo.recipe.definition import Recipe, RecipeError
from robust_zoo.recipe.execution import run
from robust_zoo.recipe.files import load_recipe, recipe_names
from robust_zoo.recipe.fitting import TimeLimitError

__all__ = [
    "Recipe",
    "RecipeError",
    "SmoothedCrossEntropy",
    "TimeLimitError",
    "load_recipe",
    "recipe_names",
    "run",
]
