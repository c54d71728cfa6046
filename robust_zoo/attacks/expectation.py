"""Attacks on random models: gradients, losses and logits averaged over draws of the model's randomness."""

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import keras
import numpy as np
from keras import ops
from keras.src.backend.common import global_state
from keras.src.random import seed_generator

from robust_zoo import backend
from robust_zoo.backend import random
from robust_zoo.contract import check_logits
from robust_zoo.inference import batch_sizes, batches, call, in_batches, logits_of, once, predict
from robust_zoo.typing import Tensor

if TYPE_CHECKING:
    from robust_zoo.attacks.attack import Attack

_Attack = TypeVar("_Attack", bound="Attack")

_SEED_GENERATOR = "seed_generator_state"  # what Keras calls the variable of each


def EOT(attack: _Attack, samples: int = 20) -> _Attack:  # noqa: N802  # the field's name
    """Expectation over transformation (Athalye et al., arXiv:1707.07397): an attack for models that are random.

    Args:
        attack: any attack.
        samples: over how many draws of the model's randomness each gradient, loss and logit is averaged, >= 1; default
            20, as in AutoAttack's version "rand".

    Returns:
        The attack with `samples` replaced. Of a fixed budget, it never stops early and keeps the candidate of highest mean
        loss. A minimum-norm attack ends on the boundary, where draws are of either side: what fresh ones do not confirm
        counts as not found. Draws follow from the images of a batch, so results depend on the batch size, too.

    Example:
        >>> EOT(PGD(epsilon=0.3), samples=10).samples
        10
    """
    return attack.replace(samples=samples)


class Expectation:
    """A random classifier as attacks see it: its logits are their mean over draws.

    A draw sets the state of every `keras.random.SeedGenerator` of the model, so it is a pure function of the images, its
    number and the key, on every backend, in compiled loops too. It is one of a whole batch, as layers draw: an image's
    depends on the others of its batch. Randomness that Keras does not seed is drawn anew.

    Args:
        model: the classifier.
        samples: how many draws.
        key: random key (2,), of draws that are to be others than an attack's.
    """

    def __init__(self, model: keras.Model, samples: int, key: Tensor | None = None) -> None:
        self.model, self.samples, self._key = model, samples, key
        self.output_shape = model.output_shape
        self._number: Tensor | int | None = None

    @contextlib.contextmanager
    def draw(self, number: Tensor | int) -> Iterator[None]:
        """Inside, the model's logits are those of one draw, by its number."""
        self._number = number
        try:
            yield
        finally:
            self._number = None

    def __call__(self, x: Tensor, training: bool = False) -> Tensor:
        if self._number is not None:
            return self._drawn(x, self._number)

        def add(number: Tensor, total: Tensor) -> Tensor:
            return total + self._drawn(x, number)

        total = ops.zeros((ops.shape(x)[0], self.output_shape[1]), "float32")
        return ops.fori_loop(0, self.samples, add, total) / self.samples

    def _drawn(self, x: Tensor, number: Tensor | int) -> Tensor:
        variables = [*self.model.variables, *_of_nobody()]
        generators = [variable for variable in variables if variable.name == _SEED_GENERATOR]
        if not generators:
            return ops.cast(self.model(x, training=False), "float32")
        key = random.fold_in(random.key(0) if self._key is None else self._key, _digest(x))
        key = random.fold_in(key, number)
        places = {id(variable): place for place, variable in enumerate(generators)}
        # All variables: a scope hides what one around it maps.
        values = [
            (
                variable,
                ops.cast(random.fold_in(key, places[id(variable)]), variable.dtype)
                if id(variable) in places
                else variable.value,
            )
            for variable in variables
        ]
        with keras.StatelessScope(state_mapping=values):
            return ops.cast(self.model(x, training=False), "float32")


def _of_nobody() -> list[keras.Variable]:
    """The state of the generator that Keras draws from where none is given, once there is one."""
    found = global_state.get_global_attribute("global_seed_generator")
    if found is None and keras.config.backend() == "torch":  # where building a model draws nothing
        found = seed_generator.global_seed_generator()
    return [] if found is None else [found.state]


def _digest(x: Tensor) -> Tensor:
    """An integer that changes as any pixel of a batch in [0, 1] does."""
    levels = ops.reshape(ops.cast(ops.stop_gradient(x) * 2.0**24, "int32"), (-1,))
    weights = 2 * ops.arange(ops.shape(levels)[0], dtype="int32") + 1
    return ops.sum(levels * weights)


def value_and_input_gradient(
    model: keras.Model | Expectation, fn: Callable[[Tensor], Any], x: Tensor, has_aux: bool = False
) -> tuple[Any, Tensor]:
    """`backend.value_and_input_gradient`, whose `fn` calls `model`; of an `Expectation` means over its draws."""
    if not isinstance(model, Expectation):
        return backend.value_and_input_gradient(fn, x, has_aux)

    def drawn(number: Tensor | int) -> tuple[Any, Tensor]:
        with model.draw(number):
            return backend.value_and_input_gradient(fn, x, has_aux)

    def add(number: Tensor, total: tuple[Any, Tensor]) -> tuple[Any, Tensor]:
        return keras.tree.map_structure(ops.add, total, drawn(number))

    total = ops.fori_loop(1, model.samples, add, drawn(0))
    return keras.tree.map_structure(lambda part: part / model.samples, total)


def expected_logits(
    model: keras.Model, x: np.ndarray, *, samples: int, batch_size: int
) -> np.ndarray:
    """The logits of a whole set of images as an attack sees them, float32 (n, classes): their mean over draws.

    Args:
        model: classifier, images in [0, 1] to logits.
        x: float32 (n, height, width, channels) in [0, 1].
        samples: how many draws; 1 for the model as it is.
        batch_size: images in a batch.

    Raises:
        ValueError: as `predict`.
    """
    if samples == 1:
        return predict(model, x, batch_size)
    reference = weakref.ref(model)
    compiled = once(
        model,
        x.shape[1:],
        ("expectation", samples),
        lambda: backend.function(lambda x: logits_of(Expectation(reference(), samples), x), model),
    )
    return check_logits(in_batches(compiled, batch_sizes(batch_size), x), model)


def share_right(
    model: keras.Model,
    x: np.ndarray,
    y: np.ndarray,
    *,
    samples: int,
    seed: int,
    batch_size: int,
) -> np.ndarray:
    """The share of fresh draws, see `predictions`, in which images are classified as `y` (n,): float64 (n,).

    With `samples` 1 that of the model as it is, 0 or 1.
    """
    if samples == 1:
        return (predict(model, x, batch_size).argmax(1) == y).astype("float64")
    drawn = predictions(model, x, samples=samples, seed=seed, batch_size=batch_size)
    return (drawn == y[:, None]).mean(axis=1)


def predictions(
    model: keras.Model, x: np.ndarray, *, samples: int, seed: int, batch_size: int
) -> np.ndarray:
    """The classes that a random model predicts in fresh draws, which no attack has seen: int32 (n, samples).

    Args:
        model: classifier, images in [0, 1] to logits.
        x: float32 (n, height, width, channels) in [0, 1].
        samples: how many draws.
        seed: integer seed of them.
        batch_size: images in a batch.
    """
    reference = weakref.ref(model)

    def predicted(x: Tensor, key: Tensor) -> Tensor:
        expectation = Expectation(reference(), samples, key)
        places = ops.arange(samples)[None]

        def one_more(number: Tensor, found: Tensor) -> Tensor:
            with expectation.draw(number):
                drawn = ops.cast(ops.argmax(expectation(x), axis=1), "int32")
            return ops.where(places == number, drawn[:, None], found)

        return ops.fori_loop(
            0, samples, one_more, ops.zeros((ops.shape(x)[0], samples), dtype="int32")
        )

    part = ("predictions", samples)
    compiled = once(model, x.shape[1:], part, lambda: backend.function(predicted, model))
    # Those of attacks are folded from key 0.
    key = random.fold_in(random.key(seed), 1)
    sizes = batch_sizes(batch_size)
    return np.concatenate(
        [call(lambda part: compiled(part, key), sizes, rows, x) for rows in batches(sizes, len(x))]
    )
