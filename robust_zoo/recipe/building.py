"""From a recipe to a compiled trainer."""

from typing import Any

import keras
from keras import ops

from robust_zoo.copies import copy_state
from robust_zoo.defenses import Defense, NaturalTraining
from robust_zoo.recipe.definition import Recipe, RecipeError, changed_part
from robust_zoo.typing import Tensor
from robust_zoo.zoo import load_model


def build(recipe: Recipe, total_steps: int) -> Defense:
    """The compiled trainer of a training of so many steps."""
    from keras.src.backend.common import global_state

    keras.utils.set_random_seed(recipe.seed)
    names = global_state.get_global_attribute("object_name_uids")
    # The same names, and so the same configuration, whatever the process made before.
    global_state.set_global_attribute("object_name_uids", None)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(recipe.dtype_policy)
    try:
        classifier = recipe.classifier()
        if recipe.start is not None:
            _initial_weights(recipe.start, classifier)
        defense = recipe.defense or (lambda classifier, _: NaturalTraining(classifier))
        trainer = defense(classifier, total_steps)
        optimizer = recipe.optimizer(total_steps)
        for key, value in recipe.hyperparameters.items():
            if key.startswith("defense."):
                trainer = changed_part(trainer, key, value)
            else:
                optimizer = changed_part(optimizer, key, value)
        trainer.compile(
            optimizer=optimizer,
            loss=SmoothedCrossEntropy(label_smoothing=recipe.label_smoothing),
            metrics=["accuracy"],
        )
    finally:
        keras.config.set_dtype_policy(before)
        global_state.set_global_attribute("object_name_uids", names)
    return trainer


@keras.saving.register_keras_serializable("robust_zoo")
class SmoothedCrossEntropy(keras.losses.Loss):
    """Cross-entropy of logits (batch, classes) against integer labels, which may be smoothed.

    Args:
        label_smoothing: in [0, 1); the true class keeps 1 - s + s / classes, the others s / classes each.
    """

    def __init__(
        self, label_smoothing: float = 0.0, name: str = "smoothed_cross_entropy", **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.label_smoothing = label_smoothing

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        labels = ops.one_hot(ops.cast(ops.reshape(y_true, (-1,)), "int32"), y_pred.shape[1])
        return keras.losses.categorical_crossentropy(
            labels, y_pred, from_logits=True, label_smoothing=self.label_smoothing
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


def _initial_weights(start: str, classifier: keras.Model) -> None:
    source = load_model(start)
    shapes = [[tuple(w.shape) for w in model.weights] for model in (source, classifier)]
    if shapes[0] != shapes[1]:
        raise RecipeError(
            f"start must be a checkpoint of the recipe's architecture, but the weights of {start!r} have "
            f"shapes {shapes[0]}, not {shapes[1]}."
        )
    copy_state(source, classifier)
    classifier.base_model = source.base_model
