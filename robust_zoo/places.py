"""Where the zoo's models and recipes lie, and the files of a checkpoint directory.

The wheel carries the models that pyproject.toml lists, inside the installed package; a checkout around the package has
all of them. In a checkpoint directory lie

    config.json         the model, logits out, Keras's own layers and operations only
    metadata.json       Keras's version and date
    model.weights.h5    the weights, without an optimizer
    robustness.json     the RobustnessRecord of these weights
    recipe.json         every value of the recipe that trained them, and the history of the training, if one did
    NOTICE              of others' weights: whose they are, where they are from, and their license
    README.md           the card, generated from the record
    accuracy.png        its picture of accuracy against epsilon
    generator.*         the perturbation generator that it was trained against, if PGN did (see zoo/generator.py)

`keras.saving.load_model(directory)` reads the same model without robust_zoo.
"""

import pathlib

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
RECORD, RECIPE, CARD, PICTURE = "robustness.json", "recipe.json", "README.md", "accuracy.png"
NOTICE = "NOTICE"
GENERATOR, GENERATOR_WEIGHTS = "generator.json", "generator.weights.h5"
EVAL_RESULTS = ".eval_results/robust_zoo.yaml"  # on a Hugging Face hub alone
TAG = "robust_zoo"  # on a hub, of every model that was published

MODEL_FILES = (CONFIG, METADATA, WEIGHTS)
GENERATOR_FILES = (GENERATOR, GENERATOR_WEIGHTS)
FILES = (*MODEL_FILES, RECORD, RECIPE, NOTICE, CARD, PICTURE, *GENERATOR_FILES)

_PACKAGE = pathlib.Path(__file__).resolve().parent


def checkpoints_directory() -> pathlib.Path:
    """The folder of all checkpoint directories."""
    inside = _PACKAGE / "checkpoints"
    return inside if inside.is_dir() else _PACKAGE.parent / "checkpoints"


def recipes_directory() -> pathlib.Path:
    """The folder of all recipes."""
    inside = _PACKAGE / "recipes"
    return inside if inside.is_dir() else _PACKAGE.parent / "training" / "recipes"


def recipe_files(name: str | None = None) -> list[pathlib.Path]:
    """The files of recipes, all or those that may have the one of a model: `<dataset>/<architecture>.py`.

    One file has the recipes of an architecture under several defenses and at several widths, which the name adds to
    the file's: `mnist/madry_cnn.py` has "madry_cnn_scale4.pgd_mnist".
    """
    found = sorted(recipes_directory().glob("*/*.py"))
    if name is None:
        return found
    architecture, _, rest = name.partition(".")
    dataset = rest.rpartition("_")[2]
    return [
        path
        for path in found
        if path.parent.name == dataset and f"{architecture}_".startswith(f"{path.stem}_")
    ]


def has_recipe(name: str) -> bool:
    """Whether a recipe seems to be there for a model, without running its file."""
    defense = name.partition(".")[2].rpartition("_")[0]
    texts = [path.read_text(encoding="utf-8") for path in recipe_files(name)]
    return any(f'"{defense}": ' in text or f'"{name}"' in text for text in texts)
