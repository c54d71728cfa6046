"""What every defense is: a trainer around a classifier that makes its own batches."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from robust_zoo import backend
from robust_zoo.attacks import AutoAttack, FixedBudgetAttack, GeneratorAttack
from robust_zoo.backend import random
from robust_zoo.contract import check_classifier, check_images, check_targets
from robust_zoo.defenses.batch import (
    Batch,
    CheckedBatches,
    batch_sizes,
    first_batch,
    integer_labels,
    only_input,
    only_labels,
)
from robust_zoo.defenses.divergence import StopOnDivergence
from robust_zoo.defenses.probabilities import check_compiled
from robust_zoo.defenses.tools import InTrainingMode, synchronised
from robust_zoo.defenses.training_note import TrainingNote
from robust_zoo.typing import Tensor

MODES = ("inference", "training")


class Defense(backend.PreparedSteps, keras.Model):
    """Base of the defenses.

    `compile`, `fit`, `evaluate`, callbacks, `save` and resuming work as for any model, on one device, under
    `tf.distribute.MirroredStrategy` and `MultiWorkerMirroredStrategy`, and under `keras.distribution.DataParallel` on
    JAX. The logs hold "robust_accuracy" (and "val_robust_accuracy"), measured with the attack and with the examples'
    weights, beside the compiled metrics, which see the clean images. Keras's callbacks that monitor it need mode="max":
    they do not know the name. A subclass states its `objective`. Publish `defense.classifier`.

    Random numbers depend on `seed`, the training step (each batch is one, whether or not the optimizer
    accumulates gradients) and the example's position in the global batch: not on the number of replicas, which must
    divide the batch, and a resumed run continues them.

    Args:
        classifier: functional `keras.Model`, float32 images in [0, 1] to logits. Under a strategy it
            must have been built inside the scope.
        attack: any `FixedBudgetAttack` but AutoAttack, with norm "linf" or "l2". Defenses that do not train
            on its examples measure robust accuracy with it, or leave that out if it is None.
        attack_mode: how the attack sees the classifier while training: "inference", or "training", with
            the statistics of the batch (batch normalisation) and dropout (one mask for all steps), leaving
            moving statistics alone.
        seed: integer seed for all randomness.

    Raises:
        TypeError: `attack` is something else.
        ValueError: a classifier that `robust_zoo.contract` refuses, one built outside the scope, or an
            attack whose norm or labels do not fit.
    """

    trains_on_clean = False
    """Whether the objective uses the clean logits; if not, they are only looked at, in inference mode."""

    trains_on_adversarial = True
    """Whether the objective uses the adversarial logits; if not, they are only looked at."""

    def __init__(
        self,
        classifier: keras.Model,
        *,
        attack: FixedBudgetAttack | None,
        attack_mode: str = "inference",
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_classifier(classifier)
        if attack is not None or self.trains_on_adversarial:
            self._check_attack(attack, classifier)
        if attack_mode not in MODES:
            raise ValueError(f"attack_mode must be one of {MODES}, got {attack_mode!r}.")
        backend.check_scope(classifier, self)
        random.key(seed)  # refuses a bad seed now rather than inside a compiled step
        self.classifier, self.attack, self.seed = classifier, attack, seed
        self.attack_mode = attack_mode
        self.training_steps = self.add_weight(
            shape=(),
            initializer="zeros",
            dtype="int32",
            trainable=False,
            aggregation="only_first_replica",
            name="training_steps",
        )
        self.robust_accuracy = None
        if attack is not None or self.trains_on_adversarial:
            self.robust_accuracy = keras.metrics.SparseCategoricalAccuracy(name="robust_accuracy")
        self.built = True  # there is nothing to make: BackupAndRestore asks for this

    def _check_attack(self, attack: FixedBudgetAttack | None, classifier: keras.Model) -> None:
        if not isinstance(attack, FixedBudgetAttack) or isinstance(attack, AutoAttack):
            raise TypeError(
                f"attack must be a robust_zoo attack with a budget, and not AutoAttack, got {attack!r}."
            )
        if attack.norm not in ("linf", "l2"):
            raise ValueError(
                f"attack must have norm 'linf' or 'l2' in {type(self).__name__}, got {attack!r}."
            )
        attack.check_model(classifier)
        if attack.reaches_given_labels:
            raise ValueError(
                f"attack must not aim at the labels given, which are the true ones here, got {attack!r}."
            )

    def compile(
        self,
        optimizer: keras.optimizers.Optimizer | str = "rmsprop",
        loss: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """Keras's `compile`.

        Raises:
            ValueError: a loss or metric that takes the classifier's logits for probabilities. A loss that is not one
                of Keras's is called once, on a few logits, to find out.
        """
        check_compiled(self.classifier.output_shape[1], loss, metrics, weighted_metrics)
        super().compile(
            optimizer=optimizer,
            loss=loss,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            **kwargs,
        )

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles from a saved configuration; Keras does not do this where a subclass overrides `compile`."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: keras.callbacks.CallbackList
        | keras.callbacks.Callback
        | Iterable[keras.callbacks.Callback]
        | None = None,
        validation_split: float | None = 0.0,
        validation_data: Any = None,
        shuffle: bool | str = True,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Keras's `fit`; images and labels are checked first, and divergence stops it.

        Of arrays all is checked, of streams (tf.data, `PyDataset`, data loaders, generators) the first batch. Labels
        are integer classes, or rows of a distribution over the classes such as one-hot ones where the compiled loss
        takes these. Afterwards the classifier carries what it was trained with, for the record that
        `robust_zoo.evaluate` makes of it.

        Under `MultiWorkerMirroredStrategy` all hosts are given the same, of which TensorFlow trains on a part in each.
        Under `keras.distribution` on several JAX processes, each is given its part of every batch, as Keras wants it.

        Raises:
            TypeError, ValueError: images or labels that `robust_zoo.contract` refuses, in `x` and `y` or in
                `validation_data`; on several replicas, a batch size that they do not divide or that is unknown; on
                several hosts, arrays shuffled without a common seed (`keras.utils.set_random_seed`); or a classifier
                built outside the strategy's scope.
            DivergenceError: the loss or a weight became NaN or infinite. Nothing is saved after that: a
                `BackupAndRestore` callback still holds the last good epoch.
        """
        backend.check_scope(self.classifier, self)
        shards, y = backend.shards(self), only_labels(y)
        self._check_order(x, shuffle)
        validating = isinstance(validation_data, (tuple, list))
        watched, labels = validation_data[:2] if validating else (validation_data, None)
        kept, batch = 1 - (validation_split or 0), kwargs.get("validation_batch_size") or batch_size
        x = self._checked(x, y, batch_size, lambda size: self.check_batch(size, shards), kept)
        watched = self._checked(watched, labels, batch, self._check_evaluated)
        validation_data = (watched, *validation_data[1:]) if validating else watched
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks.callbacks.insert(0, StopOnDivergence())
            callbacks.set_model(self)
        else:
            callbacks = callbacks or []
            callbacks = callbacks if isinstance(callbacks, Iterable) else [callbacks]
            callbacks = [StopOnDivergence(), *callbacks]  # first: before any backup
        note = TrainingNote(self)
        replicas = backend.replica_count(self)
        with synchronised(self.classifier, replicas), self._labels_in_words():
            history = super().fit(
                x,
                y,
                batch_size=batch_size,
                epochs=epochs,
                verbose=verbose,
                callbacks=callbacks,
                validation_split=validation_split,
                validation_data=validation_data,
                shuffle=shuffle,
                **kwargs,
            )
        note.write(len(history.epoch))
        return history

    def _check_order(self, x: Any, shuffle: bool | str) -> None:
        """Raises ValueError for arrays that each host would shuffle in an order of its own."""
        from keras.src.utils.rng_utils import get_random_seed

        if backend.host(self)[1] == 1 or not shuffle or get_random_seed() is not None:
            return
        if hasattr(only_input(x), "__array__"):
            raise ValueError(
                "shuffle must be False on several hosts, or keras.utils.set_random_seed called with the same seed on "
                f"all of them: each would draw an order of its own; got {shuffle!r} for arrays without a seed."
            )

    @contextlib.contextmanager
    def _labels_in_words(self) -> Iterator[None]:
        """Turns what TensorFlow says of a label out of range, in a later batch of a stream, into a sentence."""
        try:
            yield
        except Exception as error:
            # Of TensorFlow's SparseSoftmaxCrossEntropyWithLogits.
            if "Received a label value of" not in str(error):
                raise
            raise ValueError(
                f"labels must lie in 0..{self.classifier.output_shape[1] - 1}, the classifier's classes, in every "
                "batch, but a later batch of the stream has others."
            ) from error

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras's `evaluate`, with robust accuracy; images, labels and batches are checked as in `fit`."""
        if "_use_cached_eval_dataset" in kwargs:  # the validation of `fit`, which has checked it
            return super().evaluate(x, y, *args, **kwargs)
        y = only_labels(y)
        x = self._checked(
            x, y, args[0] if args else kwargs.get("batch_size"), self._check_evaluated
        )
        with self._labels_in_words():
            return super().evaluate(x, y, *args, **kwargs)

    def train_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras's `train_on_batch`; images, labels and the batch are checked as in `fit`."""
        x = self._check_data(x, y)
        self.check_batch(len(x), backend.shards(self))
        return super().train_on_batch(x, y, *args, **kwargs)

    def test_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras's `test_on_batch`; images, labels and the batch are checked as in `fit`."""
        x = self._check_data(x, y)
        self._check_evaluated(len(x))
        return super().test_on_batch(x, y, *args, **kwargs)

    def _checked(
        self,
        x: Any,
        y: Any,
        batch_size: int | None,
        check: Callable[[int], None],
        kept: float = 1.0,
    ) -> Any:
        """`x`, or what stands for it, after checking images, labels and, by `check`, the sizes of the batches."""
        x = self._check_data(x, y)
        for size in batch_sizes(x, batch_size, kept, backend.shards(self)):
            check(size)
        return CheckedBatches(x, check) if isinstance(x, keras.utils.PyDataset) else x

    def _check_data(self, x: Any, y: Any) -> Any:
        """`x`, or what stands for it, after checking arrays or the first batch of a stream."""
        x = only_input(x)
        if x is None:
            return x
        if hasattr(x, "__array__"):
            self._check_batch_of(x, y)
            return x
        first, x = first_batch(x)
        if isinstance(first, (list, tuple)) and len(first) >= 2:
            images = only_input(first[0])
            if hasattr(images, "__array__"):
                self._check_batch_of(images, first[1])
        return x

    def _check_batch_of(self, images: Tensor, labels: Tensor) -> None:
        images = check_images(images, self.classifier)
        check_targets(labels, self.classifier.output_shape[1], len(images))

    def check_batch(self, size: int, shards: int) -> None:
        """Raises ValueError if a global batch of `size` examples cannot be trained on with `shards` replicas."""
        if size % shards:
            raise ValueError(
                f"every batch must be divisible by the {shards} replicas, got one of {size} examples: "
                "change batch_size, or leave out a last batch that is not full (drop_remainder=True)."
            )

    def _check_evaluated(self, size: int) -> None:
        """`check_batch` for one that is not trained on: a defense's own rules are for training."""
        Defense.check_batch(self, size, backend.shards(self))

    def call(self, x: Any, training: bool = False) -> Tensor | dict[str, Tensor]:
        """Logits of images; of a batch that `prepare` made, those of its "clean" and "adversarial" images."""
        if not (isinstance(x, dict) and "clean" in x):  # Keras builds the trainer on a plain batch
            return self.classifier(only_input(x), training=training)
        trains = {"clean": self.trains_on_clean, "adversarial": self.trains_on_adversarial}
        return {
            part: self.classifier(x[part], training=training and trains[part])
            for part in trains
            if part in x
        }

    def prepare(self, data: Any, training: bool) -> tuple[Batch, Any, Any]:
        """A batch (x, y[, sample_weight]) with `x` replaced by a `Batch`."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x = only_input(x)
        classes = self.classifier.output_shape[1]
        shape = None if y is None else tuple(y.shape)
        if shape is None or len(shape) not in (1, 2) or shape[1:] not in ((), (1,), (classes,)):
            raise ValueError(
                f"labels must be integer classes of shape (batch,), or rows of shape (batch, {classes}), got shape "
                f"{shape}."
            )
        if sample_weight is not None and len(sample_weight.shape) > 1:
            sample_weight = ops.reshape(sample_weight, (-1,))
        dtype = keras.backend.standardize_dtype(x.dtype)
        if not keras.backend.is_float_dtype(dtype):
            raise TypeError(
                f"images must be floating point in [0, 1], got dtype {dtype}: divide 8-bit images by 255."
            )
        batch: Batch = {"clean": ops.cast(x, "float32")}
        if self.robust_accuracy is not None:
            batch |= self.adversarial_part(batch["clean"], integer_labels(y), training)
        return batch, y, sample_weight

    def adversarial_part(self, x: Tensor, y: Tensor, training: bool) -> Batch:
        """The adversarial images of a batch and which of them were attacked, as in `prepare`."""
        assert self.attack is not None  # or there is no robust accuracy, see `prepare`
        x_adv = self.attack(self.adversary_view(training), x, y, key=self.keys(x, training))
        return {"adversarial": x_adv, "attacked": ops.ones((ops.shape(x)[0],), "bool")}

    def keys(self, x: Tensor, training: bool) -> Tensor:
        """One random key an example of this batch, (batch, 2)."""
        local_batch = ops.shape(x)[0]
        position = backend.replica_id() * local_batch + ops.arange(local_batch)
        key = random.key(self.seed)
        if training:
            key = random.fold_in(random.fold_in(key, 1), ops.convert_to_tensor(self.training_steps))
        return random.fold_in(key, position)

    def adversary_view(self, training: bool) -> keras.Model | InTrainingMode:
        """The classifier as the attack sees it."""
        if training and self.attack_mode == "training":
            return InTrainingMode(self.classifier)
        return self.classifier

    def objective(
        self, x: Batch, y: Tensor, y_pred: dict[str, Tensor], sample_weight: Tensor | None
    ) -> Tensor:
        """The loss of a batch: a scalar, made of `keras.losses` so that replicas are scaled right.

        Args:
            x: what `prepare` made.
            y: labels (batch,).
            y_pred: logits (batch, classes) of "clean" and "adversarial".
            sample_weight: (batch,) or None.
        """
        raise NotImplementedError

    def compiled_loss(
        self, x: Tensor, y: Tensor, logits: Tensor, sample_weight: Tensor | None
    ) -> Tensor:
        """The loss given to `compile`, of these logits, with all regularisation losses."""
        return super().compute_loss(x, y, logits, sample_weight)

    def mixed_loss(
        self,
        x: Batch,
        y: Tensor,
        y_pred: dict[str, Tensor],
        clean_weight: float,
        sample_weight: Tensor | None,
        adversarial_weight: Tensor | None = None,
    ) -> Tensor:
        """clean_weight * loss(clean) + (1 - clean_weight) * loss(adversarial).

        `adversarial_weight` are the examples' weights in the second loss, by default `sample_weight`.
        """
        weight = sample_weight if adversarial_weight is None else adversarial_weight
        adversarial = self.compiled_loss(x["clean"], y, y_pred["adversarial"], weight)
        if not clean_weight:
            return adversarial
        clean = self.compiled_loss(x["clean"], y, y_pred["clean"], sample_weight)
        return clean_weight * clean + (1 - clean_weight) * adversarial

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Tensor | None = None,
        training: bool = True,
    ) -> Tensor:
        if not isinstance(y_pred, dict):  # Keras builds the trainer on a plain batch
            return self.compiled_loss(x, y, y_pred, sample_weight)
        return self.objective(x, y, y_pred, sample_weight)

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Tensor | None = None
    ) -> dict[str, Any]:
        if not isinstance(y_pred, dict):
            return super().compute_metrics(x, y, y_pred, sample_weight)
        if "adversarial" in y_pred:
            attacked = ops.cast(x["attacked"], "float32")
            weight = attacked if sample_weight is None else sample_weight * attacked
            assert self.robust_accuracy is not None  # or `prepare` attacks nothing
            self.robust_accuracy.update_state(integer_labels(y), y_pred["adversarial"], weight)
        return super().compute_metrics(x["clean"], y, y_pred["clean"], sample_weight)

    def record_loss(self, loss: Tensor, examples: Tensor | int) -> None:
        """Adds the loss of a batch to the logged mean; for defenses that make the update themselves.

        Args:
            loss: as `compute_loss` returned it, scaled for replicas.
            examples: how many were in the batch.
        """
        tracker = next(metric for metric in self.metrics if metric.name == "loss")
        tracker.update_state(loss * backend.replica_count(self), sample_weight=examples)

    def after_update(self) -> list[tuple[keras.Variable, Tensor]]:
        """Variables that change once more after the optimizer's step: pairs (variable, new value)."""
        return []

    def counted(self) -> list[tuple[keras.Variable, Tensor]]:
        """The step counters after one more training step: pairs (variable, new value)."""
        return [(self.training_steps, self.training_steps + 1)]

    def training_images(self, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The images to train on in place of a training set's (n, height, width, channels); by default the same."""
        return images

    def as_attack(self) -> GeneratorAttack | None:
        """An attack that was trained along with the classifier, to be published with it; None if there is none."""
        return None

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "classifier": keras.saving.serialize_keras_object(self.classifier),
            "attack": keras.saving.serialize_keras_object(self.attack),
            "attack_mode": self.attack_mode,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        def revive(value: Any) -> Any:
            if isinstance(value, dict) and "class_name" in value:
                return keras.saving.deserialize_keras_object(value)
            return value

        return cls(**{key: revive(value) for key, value in config.items()})

    @property
    def steps_trained(self) -> int:
        """Steps of training so far."""
        return int(ops.convert_to_numpy(self.training_steps))

    def hyperparameters(self) -> dict:
        """What a record tells of the defense: its arguments but for the models in it, as JSON values."""
        config = self.get_config()
        for name in ("name", "trainable", "dtype"):
            config.pop(name, None)
        found = {}
        for name, value in config.items():
            part = getattr(self, name)
            if isinstance(part, Defense):
                found[name] = {"name": type(part).__name__, **part.hyperparameters()}
            elif hasattr(part, "get_config") and not isinstance(part, keras.Model):
                found[name] = {"name": type(part).__name__, **part.get_config()}
            elif not isinstance(part, keras.Model):
                found[name] = value
        return found
