"""TensorFlow: the home backend. See `robust_zoo.backend`."""

import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework import ops

from robust_zoo.sentences import one_line
from robust_zoo.typing import Tensor

version = str(tf.__version__)

_MINUTES_FOR_HOSTS = 5  # to be started, all of them, as long as JAX waits


def value_and_input_gradient(
    fn: Callable[[Tensor], Any], x: Tensor, has_aux: bool = False
) -> tuple[Any, Tensor]:
    """`fn(x)` and the gradient of its sum with respect to `x`.

    Args:
        fn: maps `x` to one value an example, (batch,); with `has_aux`, to such values and anything else.
        x: tensor (batch, ...).
        has_aux: whether `fn` returns a pair, of which only the first is differentiated.

    Returns:
        What `fn` returned, and the gradient in the shape of `x`. Differentiable again when an outer
        gradient records it.
    """

    def gradient(x: Tensor) -> tuple[Any, Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            result = fn(x)
            value = result[0] if has_aux else result
        return result, tape.gradient(value, x, unconnected_gradients="zero")

    if tf.executing_eagerly():
        return gradient(x)
    # A function of its own inside an attack's loop: with the loop's cycle around it, TensorFlow at times
    # misses oneDNN's kernel of the pooling gradient, and such a build is up to twice as slow.
    apart = tf.function(gradient, autograph=False, experimental_attributes={"_noinline": True})
    return apart.get_concrete_function(tf.TensorSpec(x.shape, x.dtype))(x)


def input_jacobian(
    fn: Callable[[Tensor], Any], x: Tensor, has_aux: bool = False
) -> tuple[Any, Tensor]:
    """Outputs (batch, k) of `fn` and their Jacobian with respect to `x`, (batch, k, *x.shape[1:]).

    With `has_aux`, `fn` returns a pair, of which only the first is differentiated.
    """
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(x)
        result = fn(x)
        columns = tf.unstack(result[0] if has_aux else result, axis=1)
    # For ten classes of a convolutional network on a CPU, 1.3 to 1.6 times as fast as batch_jacobian.
    return result, tf.stack([tape.gradient(column, x) for column in columns], axis=1)


def function(fn: Callable[..., Any], *models: keras.Model) -> Callable[..., Any]:
    """`fn` compiled, for any number of examples.

    Args:
        fn: maps (nested) tensors, each a scalar or with the examples along its first axis, to such
            tensors. Ranks, dtypes and the other sides are fixed by the first call.
        models: all that `fn` calls; their variables may change between calls.

    Products of float32 are in full precision: not in TF32, which GPUs compute with by default.
    """
    compiled = None

    def spec(tensor: Tensor) -> tf.TensorSpec:
        shape = [None, *tensor.shape[1:]] if tensor.shape.rank else []
        return tf.TensorSpec(shape, tensor.dtype)

    def call(*args: Any) -> Any:
        nonlocal compiled
        args = tf.nest.map_structure(tf.convert_to_tensor, args)
        if compiled is None:
            # On a CPU, XLA's convolutions are several times slower than TensorFlow's own.
            traced = tf.function(fn, autograph=False, jit_compile=bool(gpus()) or None)
            compiled = traced.get_concrete_function(*tf.nest.map_structure(spec, args))
        with full_precision():
            return compiled(*args)

    return call


def traced_once(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn`, which maps tensors to tensors, as a function that graphs call instead of having its operations each.

    Traced once for all calls of the same shapes and dtypes.
    """
    traced = tf.function(fn, autograph=False)

    def call(*args: Any) -> Any:
        args = tuple(tf.convert_to_tensor(tensor) for tensor in args)
        with tf.init_scope():
            specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in args]
            compiled = traced.get_concrete_function(*specs)
        return compiled(*args)

    return call


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Inside, products of float32 are in float32, not in TF32, which GPUs compute with by default."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def gpus() -> list[str]:
    """What the GPUs that the backend sees are called."""
    found = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    return [details.get("device_name", "GPU") for details in found]


@contextlib.contextmanager
def devices(count: int, hosts: bool = False) -> Iterator[None]:
    """Runs what is inside on `count` GPUs, or logical CPUs where there is no GPU; ValueError if it cannot.

    More than one work under `tf.distribute.MirroredStrategy`. With `hosts`, this process and those that TF_CONFIG names
    work together, each with `count` GPUs or one CPU, under `tf.distribute.MultiWorkerMirroredStrategy`.
    """
    if count == 1 and not hosts:
        yield
        return
    strategy = _multi_worker(count) if hosts else _mirrored(count)
    with strategy.scope():
        yield


def _mirrored(count: int) -> tf.distribute.Strategy:
    kind = "GPU" if gpus() else "CPU"
    if kind == "CPU":
        parts = [tf.config.LogicalDeviceConfiguration()] * count
        # RuntimeError: TensorFlow runs already and keeps the devices that it has.
        with contextlib.suppress(RuntimeError):
            tf.config.set_logical_device_configuration(
                tf.config.list_physical_devices("CPU")[0], parts
            )
    _check_count(count, len(tf.config.list_logical_devices(kind)), kind)
    return tf.distribute.MirroredStrategy([f"{kind}:{index}" for index in range(count)])


def _check_count(count: int, available: int, kind: str) -> None:
    if not 1 <= count <= available:
        raise ValueError(
            f"devices must be in 1..{available}, the {kind}s there are, got {count!r}."
        )


def _multi_worker(count: int) -> tf.distribute.Strategy:
    own, others = _addresses(os.environ.get("TF_CONFIG", ""))
    physical = tf.config.list_physical_devices("GPU")
    _check_count(count, len(physical) or 1, "GPU" if physical else "CPU")
    # TensorFlow itself waits for an hour, without a word, and holds Python's lock.
    _wait_for(others, own)
    try:
        if physical:
            tf.config.set_visible_devices(physical[:count], "GPU")
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, tf.errors.OpError) as error:
        raise ValueError(
            f"hosts must be joined before TensorFlow computes anything in this process, but: {one_line(error)}."
        ) from error


def _wait_for(others: list[str], own: str) -> None:
    """Returns when all others answer, at Python's or TensorFlow's ports; ValueError if they take too long."""
    deadline, silent = time.monotonic() + 60 * _MINUTES_FOR_HOSTS, others
    try:
        with socket.create_server(("", int(own.rpartition(":")[2]))):
            while silent := [address for address in silent if not _answers(address)]:
                if time.monotonic() > deadline:
                    raise ValueError(
                        f"hosts must all be started within {_MINUTES_FOR_HOSTS} minutes and reach each other, but nothing "
                        f"answers at {', '.join(silent)}."
                    )
                time.sleep(0.2)
    except OSError as error:
        raise ValueError(f"hosts must have a free port at {own}, but: {error}.") from error


def _answers(address: str) -> bool:
    name, _, port = address.rpartition(":")
    try:
        socket.create_connection((name, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def _addresses(text: str) -> tuple[str, list[str]]:
    """The addresses of this host and of the others, of what TF_CONFIG says; ValueError if it says none."""
    form = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
    try:
        told = json.loads(text)
        cluster, kind, index = told["cluster"], told["task"]["type"], int(told["task"]["index"])
        tasks = {part: list(cluster.get(part, ())) for part in ("chief", "worker")}
        addresses = [address for part in tasks.values() for address in part]
        if not all(re.fullmatch(r"\S+:\d{1,5}", address) for address in addresses):
            raise ValueError("addresses must be host:port")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"hosts must be named by the environment variable TF_CONFIG, of the form {form}, got {one_line(repr(text))} "
            f"({one_line(error)})."
        ) from None
    found = tasks.get(kind, [])
    if not 0 <= index < len(found):
        raise ValueError(
            f"hosts must have a task for this process, but TF_CONFIG's cluster has {len(found)} of type {kind!r}, and "
            f"this is index {index}."
        )
    return found[index], [address for address in addresses if address != found[index]]


def replica_id() -> Tensor | int:
    """The number of the replica that runs this code under a distribution strategy, else 0."""
    context = tf.distribute.get_replica_context()
    return context.replica_id_in_sync_group if context is not None else 0


def check_scope(model: keras.Model, trainer: keras.Model) -> None:
    """Raises ValueError unless `model` was built inside the scope of the strategies that will train it.

    These are the one that `trainer`, a keras.Model, was built in and, inside a scope, that one.
    """
    strategies = [trainer.distribute_strategy]
    if tf.distribute.has_strategy():
        strategies.append(tf.distribute.get_strategy())
    for strategy in strategies:
        for variable in model.variables:
            if not strategy.extended.variable_created_in_scope(variable.value):
                raise ValueError(
                    f"classifier {model.name!r} was built outside the scope of {type(strategy).__name__}: "
                    "build or load it and its defense inside the same `with strategy.scope():`, or make a "
                    "copy there with keras.models.clone_model and set_weights."
                )


def replica_count(trainer: keras.Model) -> int:
    """How many replicas share a step of a keras.Model: 1 unless it was built under a strategy."""
    return trainer.distribute_strategy.num_replicas_in_sync


def _is_multi_worker(strategy: tf.distribute.Strategy) -> bool:
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def host(trainer: keras.Model | None = None) -> tuple[int, int]:
    """The number of this process, and how many train a keras.Model together: (0, 1) if it is alone.

    Without one, in the strategy's scope around this code.
    """
    strategy = trainer.distribute_strategy if trainer else tf.distribute.get_strategy()
    if not _is_multi_worker(strategy):
        return 0, 1
    resolver = strategy.cluster_resolver
    cluster = resolver.cluster_spec()
    chiefs = cluster.num_tasks("chief") if "chief" in cluster.jobs else 0
    number = resolver.task_id + (chiefs if resolver.task_type == "worker" else 0)
    return number, chiefs + cluster.num_tasks("worker")


def lost_host(error: Exception) -> bool:
    """Whether an error means that another host has failed, or was ended."""
    return isinstance(error, tf.errors.OpError) and "Collective ops is aborted" in str(error)


def from_first_host(trainer: keras.Model, values: np.ndarray) -> np.ndarray:
    """The values that host 0 gave, float64 of one shape on all hosts; all of them have to call this."""
    number, hosts = host(trainer)
    if hosts == 1:
        return values
    strategy = trainer.distribute_strategy
    given = tf.constant(values if number == 0 else np.zeros_like(values), "float64")

    def from_first() -> Tensor:
        return given if replica_id() == 0 else tf.zeros_like(given)

    return strategy.reduce("SUM", strategy.run(from_first), axis=None).numpy()


def local_rows(batch_size: int) -> slice:
    """What `fit` has to be given, in this process, of a batch of all: all of it, since TensorFlow divides it."""
    return slice(batch_size)


def device_count(trainer: keras.Model) -> int:
    """How many devices, of all hosts together, share a step of a keras.Model."""
    return replica_count(trainer)


def shards(trainer: keras.Model) -> int:
    """How many devices share the batches that `fit` is given in this process."""
    return replica_count(trainer)


def replica_sum(values: Any) -> Any:
    """Each of the tensors summed over the replicas that run this code."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    return context.all_reduce(tf.distribute.ReduceOp.SUM, values)


def gradients(
    fn: Callable[[], tuple[tuple[Tensor, ...], Any]],
    groups: Sequence[Sequence[keras.Variable]],
    variables: Sequence[keras.Variable],
) -> tuple[tuple[Tensor, ...], Any, list[list[Tensor]]]:
    """Losses and their gradients with respect to Keras variables.

    Args:
        fn: called without arguments; returns a tuple of scalar losses and anything else. What it assigns
            to variables stays assigned.
        groups: for each loss a list of the variables to differentiate it by, trainable or not.
        variables: all that `fn` reads or assigns (JAX needs them).

    Returns:
        The losses, what else `fn` returned, and for each loss the list of its gradients.
    """
    sources = [[variable.value for variable in group] for group in groups]
    with tf.GradientTape(persistent=len(groups) > 1) as tape:
        for group in sources:
            tape.watch(group)
        losses, aux = fn()
    found = [
        tape.gradient(loss, group, unconnected_gradients="zero")
        for loss, group in zip(losses, sources, strict=True)
    ]
    return losses, aux, found


if TYPE_CHECKING:
    from keras import Model as _Trainer  # before which these classes stand among a trainer's bases
else:
    _Trainer = object


@contextlib.contextmanager
def _graphs_released() -> Iterator[None]:
    """Lets go of the graphs that were traced inside, once nobody else holds them.

    TensorFlow registers the gradient of every all-reduce in a graph for good, and with it the graph.
    """
    registered = ops.gradient_registry._registry
    before = set(registered)
    try:
        yield
    finally:
        for name in set(registered) - before:
            if name.startswith("CustomGradient-"):
                del registered[name]


def _copy(tensor: Tensor) -> Tensor:
    return tf.raw_ops.DeepCopy(x=tensor)


class PreparedSteps(_Trainer):
    """Training and evaluation steps of a trainer that makes its batches itself.

    A batch becomes what `self.prepare` makes of it; the update is Keras's. What `self.after_update` and
    `self.counted` then return, pairs of variables and values, is assigned.

    Under `MultiWorkerMirroredStrategy`, too, which Keras's own steps fail under (keras-team/keras#20585).
    """

    def fit(
        self, x: Any = None, *args: Any, validation_data: Any = None, **kwargs: Any
    ) -> keras.callbacks.History:
        x, validation_data = self._in_own_memory(x), self._in_own_memory(validation_data)
        with _graphs_released():
            return super().fit(x, *args, validation_data=validation_data, **kwargs)

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        return super().evaluate(self._in_own_memory(x), *args, **kwargs)

    def _in_own_memory(self, data: Any) -> Any:
        """A stream whose batches are copies: under a strategy, a step computes in the memory of a generator's arrays."""
        if replica_count(self) == 1 or not isinstance(data, tf.data.Dataset):
            return data
        return data.map(lambda *batch: tf.nest.map_structure(_copy, batch))

    def train_step(self, data: Any) -> dict[str, Tensor]:
        logs = super().train_step(self.prepare(data, training=True))
        for variable, value in [*self.after_update(), *self.counted()]:
            variable.assign(value)
        return self._reducible(logs)

    def test_step(self, data: Any) -> dict[str, Tensor]:
        return self._reducible(super().test_step(self.prepare(data, training=False)))

    def _reducible(self, logs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Logs that Keras can average: between hosts it does so along an axis, which scalars lack."""
        if not _is_multi_worker(self.distribute_strategy):
            return logs
        return {name: tf.reshape(value, [1]) for name, value in logs.items()}

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Keras's, but without a strategy, too: variables that a step creates are why it is traced twice.

        Keras averages the first batch over the replicas, and cannot do so between hosts.
        """
        strategy = self._distribute_strategy
        if strategy is None and iterator is not None:
            batch = iterator._get_iterator().element_spec
            specs = keras.tree.flatten(batch)
            # Images, labels and weights, a tensor each; `prepare` refuses what else there may be.
            usual = isinstance(batch, tuple) and len(batch) == len(specs) > 1
            known = all(
                isinstance(spec, tf.TensorSpec) and spec.shape.rank is not None for spec in specs
            )
            if usual and known and not self.run_eagerly:
                self._symbolic_build(data_batch=tuple(specs))
            return
        if iterator is not None and _is_multi_worker(strategy):
            _, _, batches = next(iter(iterator))
            data_batch = keras.tree.map_structure(
                lambda values: strategy.experimental_local_results(values)[0], next(batches)
            )
            iterator = None
        super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)


class UpdateSteps(PreparedSteps):
    """`PreparedSteps` of a trainer whose update is its own: all of a training step is `self.update`."""

    def train_step(self, data: Any) -> dict[str, Tensor]:
        logs = self.update(data)
        for variable, value in self.counted():
            variable.assign(value)
        return self._reducible(logs)
