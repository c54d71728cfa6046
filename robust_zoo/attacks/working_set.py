"""The working set: images that still resist, packed into batches of a few fixed sizes."""

import json
import weakref

import keras
import numpy as np
from keras import ops

from robust_zoo import backend
from robust_zoo.backend import random
from robust_zoo.contract import check_batch_size, check_logits

_CHUNK = 10  # steps between two looks at which images are fooled
_WINDOW = 16  # full batches whose state is held at once


# What was compiled for a model goes when the model does: nothing in it refers to the model itself.
_COMPILED: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _once(model, image_shape, part, compile_part):
    """What `compile_part()` gives, made once for a part, an image shape and a model as it now is."""
    try:
        structure = json.dumps(model.get_config(), default=str)
    except NotImplementedError:  # a layer that cannot tell how it was made, nor whether it changed
        return compile_part()
    variables = tuple(id(variable) for variable in model.variables)
    key = (part, image_shape, structure, variables)
    parts = _COMPILED.setdefault(model, {})
    if key not in parts:
        parts[key] = compile_part()
    return parts[key]


def _predict(model, x):
    return ops.cast(model(x, training=False), "float32")


def compiled_prediction(model, image_shape):
    """The model's float32 logits of images of one shape as a compiled function."""
    reference = weakref.ref(model)
    return _once(
        model,
        image_shape,
        "predict",
        lambda: backend.function(lambda x: _predict(reference(), x), model),
    )


def _compile(attack, model):
    """The compiled parts of an attack on a model: start, advance, judge."""
    reference = weakref.ref(model)

    def start(x, y, keys, epsilon):
        return attack.start(reference(), x, y, keys, epsilon)

    def advance(x, y, state, epsilon, count):
        def body(_, carry):
            state, fooled, found = carry
            candidate = state["x_adv"]
            state, logits = attack.step(reference(), x, state, epsilon)
            new = ops.logical_and(attack.succeeded(logits, y), ops.logical_not(fooled))
            mask = ops.reshape(new, (-1,) + (1,) * (len(x.shape) - 1))
            return state, ops.logical_or(fooled, new), ops.where(mask, candidate, found)

        return ops.fori_loop(0, count, body, (state, ops.zeros_like(y, dtype="bool"), x))

    def judge(state, y):
        logits = _predict(reference(), state["x_adv"])
        return attack.succeeded(logits, y), attack.loss_value(logits, state)

    return tuple(backend.function(part, model) for part in (start, advance, judge))


class WorkingSet:
    """Runs one attack over all images. See `Attack.run`, its only caller.

    Work goes on window by window, restart by restart, a few steps at a time. After these the fooled
    images are dropped and the others repacked, so that all batches of a window but the last are full.
    The last is padded to the batch size, a quarter or a sixteenth of it: nothing is compiled for any
    other shape.
    """

    def __init__(self, attack, model, x, y, *, seed: int, batch_size: int):
        batch_size = check_batch_size(batch_size)
        self.attack, self.x = attack, x
        self._epsilon = np.asarray(attack.epsilon, "float32")
        self._sizes = sorted({max(batch_size >> shift, 1) for shift in (0, 2, 4)})
        self._key = random.key(seed)
        unit, shape = attack.at_unit_epsilon(), x.shape[1:]
        self._start, self._advance, self._judge = _once(
            model, shape, unit, lambda: _compile(unit, model)
        )
        predict = compiled_prediction(model, shape)

        n = len(x)
        logits = np.concatenate([self._call(predict, rows, x) for rows in self._batches(n)])
        check_logits(logits, model)
        self.y = logits.argmax(1).astype("int32") if y is None else y
        self.x_adv = x.copy()
        self.success = np.concatenate(
            [self._call(attack.succeeded, rows, logits, self.y) for rows in self._batches(n)]
        )
        self.queries = np.ones(n, "int64")
        self.work = int((~self.success).sum()) * attack.steps * attack.restarts

    def _batches(self, rows):
        """Row numbers, or all below a count, in batches no longer than the largest fixed size."""
        rows = np.arange(rows) if isinstance(rows, int) else rows
        return (rows[i : i + self._sizes[-1]] for i in range(0, len(rows), self._sizes[-1]))

    def _call(self, function, rows, *arrays):
        """`function` of some rows of the (nested) arrays, padded to a fixed size; NumPy, cut again.

        Numbers are handed on as they are.
        """
        size = next(size for size in self._sizes if size >= len(rows))
        padded = np.concatenate([rows, np.full(size - len(rows), rows[0])])

        def take(leaf):
            return ops.convert_to_tensor(leaf[padded] if leaf.ndim else leaf)

        result = function(*keras.tree.map_structure(take, arrays))
        return keras.tree.map_structure(
            lambda leaf: ops.convert_to_numpy(leaf)[: len(rows)], result
        )

    def run(self, tick) -> None:
        """Attacks everything; `tick(count)` is told of image-steps as they are done or saved."""
        resisting = np.flatnonzero(~self.success)
        length = _WINDOW * self._sizes[-1]
        for first in range(0, len(resisting), length):
            self._run_window(resisting[first : first + length], tick)

    def _run_window(self, window: np.ndarray, tick) -> None:
        """All restarts on the images `window`; positions below count within the window."""
        attack, x, y = self.attack, self.x[window], self.y[window]
        keys = random.fold_in(self._key, window)
        x_adv, worst = x.copy(), np.full(len(window), -np.inf)
        alive = np.arange(len(window))
        queries = np.zeros(len(window), "int64")
        success = np.zeros(len(window), bool)

        for restart in range(attack.restarts):
            restart_keys = ops.convert_to_numpy(random.fold_in(keys, restart))
            state = None
            for rows in self._batches(alive):
                state = _scatter(
                    state, rows, self._call(self._start, rows, x, y, restart_keys, self._epsilon), x
                )
            left = (attack.restarts - restart) * attack.steps
            for done in range(0, attack.steps, _CHUNK):
                count = min(_CHUNK, attack.steps - done)
                for rows in self._batches(alive):
                    new_state, fooled, found = self._call(
                        self._advance, rows, x, y, state, self._epsilon, np.asarray(count, "int32")
                    )
                    state = _scatter(state, rows, new_state, x)
                    x_adv[rows[fooled]], success[rows[fooled]] = found[fooled], True
                    queries[rows] += count
                    tick(count * len(rows) + (left - done - count) * int(fooled.sum()))
                alive = alive[~success[alive]]
            for rows in self._batches(alive):
                fooled, loss = self._call(self._judge, rows, state, y)
                success[rows] = fooled
                queries[rows] += 1
                better = fooled | (loss > worst[rows])
                x_adv[rows[better]] = state["x_adv"][rows[better]]
                worst[rows] = np.maximum(worst[rows], loss)
                tick((left - attack.steps) * int(fooled.sum()))
            alive = alive[~success[alive]]
            if not len(alive):
                break

        self.x_adv[window], self.success[window] = x_adv, success
        self.queries[window] += queries


def _scatter(state, rows, new, x):
    """`new` written to `rows` of `state`, arrays as long as `x`; made on the first call."""
    if state is None:
        state = keras.tree.map_structure(
            lambda leaf: np.zeros((len(x), *leaf.shape[1:]), leaf.dtype), new
        )
    for target, source in zip(keras.tree.flatten(state), keras.tree.flatten(new), strict=True):
        target[rows] = source
    return state
