"""What every defense is: a trainer around a classifier that makes its own adversarial examples."""

import keras
import numpy as np
from keras import ops

from robust_zoo import backend
from robust_zoo.attacks import AutoAttack, FixedBudgetAttack
from robust_zoo.backend import random
from robust_zoo.contract import check_classifier, check_images, check_labels


class Defense(backend.DefenseSteps, keras.Model):
    """Base of the defenses.

    `compile`, `fit`, `evaluate`, callbacks, `save` and resuming work as for any model, on one device
    and under `tf.distribute.MirroredStrategy`. The logs hold "robust_accuracy" (and
    "val_robust_accuracy"), measured with the training attack, beside the compiled metrics, which see
    the clean images. A subclass states its `objective`. What gets published is `defense.classifier`.

    Random starts depend on `seed`, the optimizer's iteration and the example's position in the global
    batch: not on the number of replicas, which must divide the batch, and a resumed run continues them.

    Args:
        classifier: functional `keras.Model`, float32 images in [0, 1] to logits. Under a strategy it
            must have been built inside the scope.
        attack: any `FixedBudgetAttack` but AutoAttack.
        seed: of the attack's random numbers.

    Raises:
        TypeError: `attack` is something else.
        ValueError: a classifier that `robust_zoo.contract` refuses, or one built outside the scope.
    """

    def __init__(
        self, classifier: keras.Model, *, attack: FixedBudgetAttack, seed: int = 0, **kwargs
    ):
        super().__init__(**kwargs)
        check_classifier(classifier)
        if not isinstance(attack, FixedBudgetAttack) or isinstance(attack, AutoAttack):
            raise TypeError(
                f"attack must be a robust_zoo attack with a budget, and not AutoAttack, got {attack!r}."
            )
        attack.check_model(classifier)
        if attack.reaches_given_labels:
            raise ValueError(
                f"attack must not aim at the labels given, which are the true ones here, got {attack!r}."
            )
        backend.check_scope(classifier, self)
        random.key(seed)  # refuses a bad seed now rather than inside a compiled step
        self.classifier, self.attack, self.seed = classifier, attack, seed
        self.robust_accuracy = keras.metrics.SparseCategoricalAccuracy(name="robust_accuracy")
        self.built = True  # all variables are the classifier's: BackupAndRestore asks for this

    def fit(self, x=None, y=None, *args, **kwargs):
        """Keras's `fit`; arrays are checked first.

        Raises:
            TypeError, ValueError: images or labels that `robust_zoo.contract` refuses, in `x` and `y` or in
                `validation_data`, or a classifier built outside the strategy's scope.
        """
        backend.check_scope(self.classifier, self)
        for data in ((x, y), kwargs.get("validation_data")):
            if isinstance(data, (tuple, list)) and isinstance(data[0], np.ndarray):
                check_images(data[0], self.classifier)
                check_labels(data[1], self.classifier.output_shape[1], len(data[0]))
        return super().fit(x, y, *args, **kwargs)

    def call(self, x, training=False):
        """Logits of images, or of a (clean, adversarial) pair of image batches."""
        if isinstance(x, (tuple, list)):
            clean, adversarial = x
            return (
                self.classifier(clean, training=training and self.trains_on_clean),
                self.classifier(adversarial, training=training),
            )
        return self.classifier(x, training=training)

    trains_on_clean = False
    """Whether the objective uses the clean logits; if not, they are only looked at, in inference mode."""

    def training_epsilon(self):
        """Epsilon of the current training step, scalar or (batch,); by default the attack's."""
        return None

    def prepare(self, data, training: bool):
        """A batch (x, y[, sample_weight]) with `x` replaced by the pair (clean, adversarial)."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if y is None or len(y.shape) not in (1, 2) or (len(y.shape) == 2 and y.shape[1] != 1):
            shape = None if y is None else tuple(y.shape)
            raise ValueError(
                f"labels must be integer classes of shape (batch,), got shape {shape}."
            )
        dtype = keras.backend.standardize_dtype(x.dtype)
        if not keras.backend.is_float_dtype(dtype):
            raise TypeError(
                f"images must be floating point in [0, 1], got dtype {dtype}: divide 8-bit images by 255."
            )
        x = ops.cast(x, "float32")
        local_batch = ops.shape(x)[0]
        position = backend.replica_id() * local_batch + ops.arange(local_batch)
        key = random.key(self.seed)
        if training:
            key = random.fold_in(random.fold_in(key, 1), self.optimizer.iterations)
        adversarial = self.attack(
            self.classifier,
            x,
            ops.reshape(y, (-1,)),
            key=random.fold_in(key, position),
            epsilon=self.training_epsilon() if training else None,
        )
        return (x, adversarial), y, sample_weight

    def objective(self, x, y, y_pred, sample_weight):
        """The loss of a batch: a scalar, made of `keras.losses` so that replicas are scaled right.

        Args:
            x: the pair of clean and adversarial images, each (batch, height, width, channels).
            y: labels (batch,).
            y_pred: the pair of clean and adversarial logits, each (batch, classes).
            sample_weight: (batch,) or None.
        """
        raise NotImplementedError

    def compiled_loss(self, x, y, logits, sample_weight):
        """The loss given to `compile`, of these logits, with all regularisation losses."""
        return super().compute_loss(x, y, logits, sample_weight)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if not isinstance(y_pred, (tuple, list)):  # Keras builds the trainer on a plain batch
            return self.compiled_loss(x, y, y_pred, sample_weight)
        return self.objective(x, y, y_pred, sample_weight)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        if isinstance(y_pred, (tuple, list)):
            y_pred, adversarial = y_pred
            self.robust_accuracy.update_state(y, adversarial, sample_weight)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def get_config(self):
        return {
            **super().get_config(),
            "classifier": keras.saving.serialize_keras_object(self.classifier),
            "attack": keras.saving.serialize_keras_object(self.attack),
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config):
        parts = ("classifier", "attack")
        revived = {part: keras.saving.deserialize_keras_object(config[part]) for part in parts}
        return cls(**{**config, **revived})

    def hyperparameters(self) -> dict:
        """What a record tells of the defense: its arguments but for the classifier, as JSON values."""
        config = {key: value for key, value in self.get_config().items() if key != "classifier"}
        for key in ("name", "trainable", "dtype"):
            config.pop(key, None)
        attack = {"name": type(self.attack).__name__, **self.attack.get_config()}
        return {**config, "attack": attack}
