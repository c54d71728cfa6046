"""What lies in a checkpoint directory, by the names of its files.

    config.json         the model, logits out, built-in layers only
    metadata.json       Keras's version and date
    model.weights.h5    the weights, without an optimizer
    robustness.json     the RobustnessRecord of these weights
    recipe.json         every value of the recipe that trained them, and the history of the training, if one did
    README.md           the card, generated from the record
    accuracy.png        its picture of accuracy against epsilon
    generator.*         the perturbation generator that it was trained against, if PGN did (see generator.py)

`keras.saving.load_model(directory)` reads the same model without robust_zoo.
"""

import pathlib

from robust_zoo.files import is_scratch
from robust_zoo.record import RobustnessRecord
from robust_zoo.zoo.errors import CheckpointError

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
RECORD, RECIPE, CARD, PICTURE = "robustness.json", "recipe.json", "README.md", "accuracy.png"
GENERATOR, GENERATOR_WEIGHTS = "generator.json", "generator.weights.h5"
TAG = "robust_zoo"  # on a hub, of every model that was published

MODEL_FILES = (CONFIG, METADATA, WEIGHTS)
GENERATOR_FILES = (GENERATOR, GENERATOR_WEIGHTS)
FILES = (*MODEL_FILES, RECORD, RECIPE, CARD, PICTURE, *GENERATOR_FILES)

_ASSETS = "assets"  # Keras's own empty folder, which may lie in a directory that is replaced


def check_target(directory: str | pathlib.Path) -> None:
    """Raises CheckpointError if `directory` holds anything but a checkpoint, which could be replaced."""
    directory = pathlib.Path(directory)
    found = directory.iterdir() if directory.is_dir() else ()
    names = {path.name for path in found if not is_scratch(path)}
    assets = directory / _ASSETS
    if assets.is_dir() and not any(assets.iterdir()):
        names -= {_ASSETS}
    if directory.is_file() or (names and not {CONFIG, WEIGHTS} <= names <= set(FILES)):
        raise CheckpointError(
            f"{str(directory)!r} exists and is not a checkpoint: it is left alone."
        )


def read_record(directory: pathlib.Path) -> RobustnessRecord:
    """The record of a checkpoint directory; CheckpointError if it has none."""
    if not (directory / RECORD).is_file():
        raise CheckpointError(
            f"{str(directory)!r} has no {RECORD}: its robustness was never measured."
        )
    return RobustnessRecord.read(directory / RECORD)
