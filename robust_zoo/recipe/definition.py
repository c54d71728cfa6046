"""Recipe: what a training run is."""

from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np
import pydantic

from robust_zoo.attacks import Attack, FixedBudgetAttack
from robust_zoo.certification import Smoothing
from robust_zoo.defenses import Defense
from robust_zoo.recipe.hyperparameters import with_hyperparameter
from robust_zoo.record import Reported, ThreatModel

_FIELDS = (
    "name", "dataset", "start", "epochs", "steps_per_epoch", "batch_size", "label_smoothing", "dtype_policy", "seed", "n"
)  # fmt: skip
_PARTS = ("defense", "optimizer", "augment", "validation_attack")  # that have hyperparameters


class RecipeError(ValueError):
    """A recipe that cannot be found, read or changed as asked."""


class Recipe(pydantic.BaseModel):
    """One experiment. A recipe file makes them in `get_recipe`.

    Attributes:
        name: of the model, "architecture.defense_dataset".
        dataset: name for `open_dataset`; trained on "train", which need not fit into memory, watched on "validation"
            (full batches), measured on "test". Images of several sizes are resized to the classifier's.
        classifier: makes the uncompiled classifier; a `ZCAWhitening` in it adapts to the training images, unless there
            is a `start`.
        start: name or directory of a checkpoint whose weights are the initial ones; None starts afresh.
        defense: makes the defense around it, given the classifier and the total number of training
            steps; None trains naturally.
        paper: arXiv number of the defense.
        optimizer: makes the optimizer, given the total number of training steps. With `use_ema`, averaged
            weights are what is watched and kept, with batch-norm statistics of their own.
        label_smoothing: share of the labels' weight that is spread over all classes, in [0, 1); default 0.
        augment: changes a batch of training images, each independently, given the images and a random generator; None
            (default) leaves them as they are. `RandomResizedCrop` cuts images that have several sizes as they are stored.
        central_crop: of validation and test images of several sizes, see `open_dataset`; default 1.
        epochs: how often the state is saved and the validation split looked at, >= 1; an epoch is a pass over the
            training split, or `steps_per_epoch` steps.
        steps_per_epoch: >= 1, where passes take hours: the next epoch goes on where the last one ended. Default: None.
        batch_size: global batch, in examples, >= 1; default 128. A last batch that is not full is left out.
        dtype_policy: Keras policy of training, "float32" (default) or "mixed_bfloat16"; measuring is in float32.
        seed: integer seed >= 0 for initial weights, order of the data and random starts; default 0. Measuring always
            uses seed 0, so that all models are measured on the same examples.
        validation_attack: measured on the validation split after each epoch; the best epoch's weights are kept,
            and training stops when that accuracy collapses (see `RobustValidation`). Needs validation images that fit
            into memory (see `open_dataset`). None keeps the last epoch.
        attacks: the attacks that the record is measured with.
        n: test examples of each attack, as in `evaluate`; None (default) is all.
        certify: methods by which the record's images are certified, see `evaluate`; default none.
        skip_certified: whether attacks leave out what is certified, see `evaluate`; default False.
        smoothing: how the smoothed classifier is certified, see `evaluate`; None (default) does not.
        threat_models: further balls that the attacks run in, see `evaluate`; default none.
        reported: what others published for it.
        deviations: from the paper.
        hyperparameters: other values, by their paths, than what `defense` and `optimizer` make has, such as
            {"defense.attack.epsilon": "0.2"}.
    """

    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, validate_default=True
    )

    name: str
    dataset: str
    classifier: Callable[[], keras.Model]
    start: str | None = None
    defense: Callable[[keras.Model, int], Defense] | None = None
    paper: str = ""
    optimizer: Callable[[int], Any]
    augment: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None
    central_crop: float = pydantic.Field(1.0, gt=0, le=1)
    label_smoothing: float = pydantic.Field(0.0, ge=0, lt=1)
    epochs: int = pydantic.Field(ge=1)
    steps_per_epoch: int | None = pydantic.Field(None, ge=1)
    batch_size: int = pydantic.Field(128, ge=1)
    dtype_policy: Literal["float32", "mixed_bfloat16"] = "float32"
    seed: int = pydantic.Field(0, ge=0)
    validation_attack: FixedBudgetAttack | None = None
    attacks: tuple[Attack, ...]
    n: tuple[int | None, ...] | int | None = None
    certify: tuple[str, ...] = ()
    skip_certified: bool = False
    smoothing: Smoothing | None = None
    threat_models: tuple[ThreatModel, ...] = ()
    reported: tuple[Reported, ...] = ()
    deviations: tuple[str, ...] = ()
    hyperparameters: dict[str, str] = {}

    def changed(self, **changes: Any) -> "Recipe":
        """A copy with some fields replaced, checked like a new one: for recipes that differ little."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**{**values, **changes})

    def override(self, settings: dict[str, str]) -> "Recipe":
        """A copy with some values replaced, which is added to the deviations.

        Args:
            settings: new values by name: of the fields name, dataset, start, epochs, steps_per_epoch, batch_size,
                label_smoothing, dtype_policy, seed and n, and of hyperparameters by their paths, such as "defense.beta",
                "defense.attack.epsilon" or "optimizer.learning_rate".

        Raises:
            RecipeError: a setting that does not exist, or a value that does not fit. A hyperparameter is found
                wrong when the run begins.
        """
        fields: dict[str, Any] = {}
        paths, told = {}, []
        for key, value in settings.items():
            root, dot, _ = key.partition(".")
            if dot and root in _PARTS and getattr(self, root) is not None:
                told.append(f"{key} set to {value}")
                if root in ("defense", "optimizer"):  # which are there when the run begins
                    paths[key] = value
                else:
                    fields[root] = changed_part(fields.get(root, getattr(self, root)), key, value)
            elif key in _FIELDS:
                fields[key] = value
                told.append(f"{key} set to {value}, not {getattr(self, key)}")
            else:
                parts = [f"{name}.*" for name in _PARTS if getattr(self, name) is not None]
                raise RecipeError(
                    f"setting must be one of {', '.join((*_FIELDS, *parts))}, or an argument of the recipe "
                    f"file's get_recipe, got {key!r}."
                )
        try:
            return self.changed(
                **fields,
                hyperparameters={**self.hyperparameters, **paths},
                deviations=(*self.deviations, *told),
            )
        except pydantic.ValidationError as error:
            raise refused(error) from None


def changed_part(part: Any, key: str, value: str) -> Any:
    """`part` with the hyperparameter that `key` tells, from the part's name on, set to `value`."""
    try:
        return with_hyperparameter(part, key.partition(".")[2], value)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"setting {key}: {error}.".replace("..", ".")) from None


def refused(error: pydantic.ValidationError) -> RecipeError:
    first = error.errors()[0]
    return RecipeError(f"setting {first['loc'][0]}: {first['msg']}, got {first['input']!r}.")
