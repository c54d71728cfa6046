"""JAX: attacks and single-network defenses. See `robust_zoo.backend.tensorflow` for the contracts."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import keras
import numpy as np
from jax import numpy as jnp
from jax.experimental import multihost_utils

from robust_zoo.sentences import one_line
from robust_zoo.typing import Tensor

version = str(jax.__version__)


def value_and_input_gradient(
    fn: Callable[[Tensor], Any], x: Tensor, has_aux: bool = False
) -> tuple[Any, Tensor]:
    """See `robust_zoo.backend.tensorflow.value_and_input_gradient`."""
    if has_aux:
        value, pullback, aux = jax.vjp(fn, x, has_aux=True)
        return (value, aux), pullback(jnp.ones_like(value))[0]
    value, pullback = jax.vjp(fn, x)
    return value, pullback(jnp.ones_like(value))[0]


def input_jacobian(
    fn: Callable[[Tensor], Any], x: Tensor, has_aux: bool = False
) -> tuple[Any, Tensor]:
    """See `robust_zoo.backend.tensorflow.input_jacobian`."""
    outputs, pullback, *aux = jax.vjp(fn, x, has_aux=has_aux)
    # Examples do not mix, so that one cotangent an output serves the whole batch.
    rows = jnp.eye(outputs.shape[1], dtype=outputs.dtype)
    jacobian = jax.vmap(lambda row: pullback(jnp.broadcast_to(row, outputs.shape))[0])(rows)
    return (outputs, *aux) if has_aux else outputs, jnp.moveaxis(jacobian, 0, 1)


def function(fn: Callable[..., Any], *models: keras.Model) -> Callable[..., Any]:
    """See `robust_zoo.backend.tensorflow.function`.

    The models' variables travel as arguments: closed over, they would be compiled in as constants. Products of
    float32 are in full precision, as JAX's default on a GPU is not.
    """
    variables = [variable for model in models for variable in model.variables]

    @jax.jit
    def compiled(values: list[Tensor], *args: Any) -> Any:
        state = keras.StatelessScope(state_mapping=zip(variables, values, strict=True))
        with state, full_precision():
            return fn(*args)

    def call(*args: Any) -> Any:
        return compiled([variable.value for variable in variables], *args)

    return call


def traced_once(fn: Callable[..., Any]) -> Callable[..., Any]:
    """See `robust_zoo.backend.tensorflow.traced_once`: once for all calls of the same shapes."""
    return jax.jit(fn)


def full_precision() -> contextlib.AbstractContextManager[None]:
    """See `robust_zoo.backend.tensorflow.full_precision`."""
    return jax.default_matmul_precision("float32")


def gpus() -> list[str]:
    """See `robust_zoo.backend.tensorflow.gpus`."""
    return [device.device_kind for device in jax.devices() if device.platform == "gpu"]


@contextlib.contextmanager
def devices(count: int, hosts: bool = False) -> Iterator[None]:
    """See `robust_zoo.backend.tensorflow.devices`; here under `keras.distribution.DataParallel`.

    With `hosts`, the cluster is what `keras.distribution.initialize` finds in its environment variables, or JAX in those
    of Slurm, Kubernetes or Open MPI.
    """
    if count == 1 and not hosts:
        yield
        return
    # RuntimeError: JAX runs already and keeps the devices that it has.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", count)
    joined = hosts and _join_hosts()
    here = jax.local_devices()
    if not 1 <= count <= len(here):
        raise ValueError(
            f"devices must be in 1..{len(here)}, the {here[0].platform.upper()}s there are, got {count!r}."
        )
    by_host: dict[int, list[str]] = {}
    for device in jax.devices():
        name = f"{device.platform}:{device.id}"
        by_host.setdefault(device.process_index, []).append(name)
    chosen = [name for _, names in sorted(by_host.items()) for name in names[:count]]
    # Every host is given its rows of a batch, see `local_rows`.
    with keras.distribution.DataParallel(devices=chosen, auto_shard_dataset=False).scope():
        yield
    if joined:
        jax.distributed.shutdown()  # so that none waits, when it ends, for what another does alone


def _join_hosts() -> bool:
    """Connects the hosts; False if they are already."""
    if jax.distributed.is_initialized():
        return False
    try:
        keras.distribution.initialize()
    except Exception as error:
        raise ValueError(
            "hosts must be named by the environment variables KERAS_DISTRIBUTION_JOB_ADDRESSES, _NUM_PROCESSES and "
            "_PROCESS_ID, or by a Slurm job, and all be started within 5 minutes and reach each other, but: "
            f"{one_line(error)}."
        ) from error
    return True


def replica_id() -> int:
    """Always 0: under `keras.distribution` JAX sees the global batch."""
    return 0


def check_scope(model: keras.Model, trainer: keras.Model) -> None:
    """Nothing to check: JAX has no strategy scopes."""


def replica_count(trainer: keras.Model) -> int:
    """Always 1: under `keras.distribution` JAX sees the global batch."""
    return 1


def host(trainer: keras.Model | None = None) -> tuple[int, int]:
    """See `robust_zoo.backend.tensorflow.host`."""
    if keras.distribution.distribution() is None:
        return 0, 1
    return jax.process_index(), jax.process_count()


def lost_host(error: Exception) -> bool:
    """See `robust_zoo.backend.tensorflow.lost_host`; in most cases JAX ends the process instead of raising anything."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "Gloo" in str(error)


def from_first_host(trainer: keras.Model, values: np.ndarray) -> np.ndarray:
    """See `robust_zoo.backend.tensorflow.from_first_host`."""
    if host(trainer)[1] == 1:
        return values
    # As bytes: JAX computes in float32 unless told otherwise.
    told = np.ascontiguousarray(values, "float64")
    bits = multihost_utils.broadcast_one_to_all(told.view("uint8"))
    return np.asarray(bits).view("float64").reshape(told.shape)


def local_rows(batch_size: int) -> slice:
    """See `robust_zoo.backend.tensorflow.local_rows`: the rows of this host's devices."""
    number, hosts = host()
    size = batch_size // hosts
    return slice(number * size, (number + 1) * size)


def device_count(trainer: keras.Model) -> int:
    """See `robust_zoo.backend.tensorflow.device_count`."""
    distribution = keras.distribution.distribution()
    return 1 if distribution is None else int(distribution.device_mesh.devices.size)


def shards(trainer: keras.Model) -> int:
    """See `robust_zoo.backend.tensorflow.shards`."""
    return device_count(trainer) // host(trainer)[1]


def replica_sum(values: Any) -> Any:
    """The values themselves: there is one replica."""
    return values


def gradients(
    fn: Callable[[], tuple[tuple[Tensor, ...], Any]],
    groups: Sequence[Sequence[keras.Variable]],
    variables: Sequence[keras.Variable],
) -> tuple[tuple[Tensor, ...], Any, list[list[Tensor]]]:
    """See `robust_zoo.backend.tensorflow.gradients`."""
    positions = {id(variable): index for index, variable in enumerate(variables)}
    groups = [[positions[id(variable)] for variable in group] for group in groups]
    chosen = sorted(set().union(*groups))
    before = [variable.value for variable in variables]

    def call(values: list[Tensor]) -> tuple[tuple[Tensor, ...], tuple[Any, dict[int, Tensor]]]:
        inside = list(before)
        for index, value in zip(chosen, values, strict=True):
            inside[index] = value
        mapping = zip(variables, inside, strict=True)
        with keras.StatelessScope(state_mapping=mapping) as scope:
            losses, aux = fn()
        after = [scope.get_current_value(variable) for variable in variables]
        changed = {i: after[i] for i in range(len(after)) if after[i] is not inside[i]}
        return losses, (aux, changed)

    losses, pullback, (aux, changed) = jax.vjp(
        call, [before[index] for index in chosen], has_aux=True
    )
    for index, value in changed.items():
        variables[index].assign(value)
    found = []
    for number, group in enumerate(groups):
        (cotangents,) = pullback(
            tuple(
                jnp.ones_like(loss) if i == number else jnp.zeros_like(loss)
                for i, loss in enumerate(losses)
            )
        )
        found.append([cotangents[chosen.index(index)] for index in group])
    return losses, aux, found


@contextlib.contextmanager
def _state(
    trainer: keras.Model, state: tuple[list[Tensor], ...]
) -> Iterator[Callable[[], tuple[list[Tensor], ...]]]:
    """Inside, the trainer's variables have the values of a step's `state`."""
    groups: tuple[Any, ...] = (trainer.trainable_variables, trainer.non_trainable_variables)
    if len(state) > 3:  # a training step's
        groups += (trainer.optimizer.variables,)
    groups += (trainer.metrics_variables,)
    pairs = [
        pair
        for group, values in zip(groups, state, strict=True)
        for pair in zip(group, values, strict=True)
    ]
    with keras.StatelessScope(state_mapping=pairs) as scope:
        yield lambda: tuple([scope.get_current_value(v) for v in group] for group in groups)


if TYPE_CHECKING:
    from keras import Model as _Trainer  # before which these classes stand among a trainer's bases
else:
    _Trainer = object


class PreparedSteps(_Trainer):
    """See `robust_zoo.backend.tensorflow.PreparedSteps`; here the variables come in as arguments."""

    def train_step(
        self, state: tuple[list[Tensor], ...], data: Any
    ) -> tuple[dict[str, Tensor], tuple[list[Tensor], ...]]:
        with _state(self, state):
            data = self.prepare(data, training=True)
        logs, state = super().train_step(state, data)
        with _state(self, state) as current:
            for variable, value in [*self.after_update(), *self.counted()]:
                variable.assign(value)
            return logs, current()

    def test_step(
        self, state: tuple[list[Tensor], ...], data: Any
    ) -> tuple[dict[str, Tensor], tuple[list[Tensor], ...]]:
        with _state(self, state):
            data = self.prepare(data, training=False)
        return super().test_step(state, data)


class UpdateSteps(PreparedSteps):
    """See `robust_zoo.backend.tensorflow.UpdateSteps`."""

    def train_step(
        self, state: tuple[list[Tensor], ...], data: Any
    ) -> tuple[dict[str, Tensor], tuple[list[Tensor], ...]]:
        with _state(self, state) as current:
            logs = self.update(data)
            for variable, value in self.counted():
                variable.assign(value)
            return logs, current()
