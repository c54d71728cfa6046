"""JAX: attacks and single-network defenses. See `robust_zoo.backend.tensorflow` for the contracts."""

import contextlib

import jax
import keras
from jax import numpy as jnp

version = str(jax.__version__)


def value_and_input_gradient(fn, x, has_aux=False):
    """See `robust_zoo.backend.tensorflow.value_and_input_gradient`."""
    if has_aux:
        value, pullback, aux = jax.vjp(fn, x, has_aux=True)
        return (value, aux), pullback(jnp.ones_like(value))[0]
    value, pullback = jax.vjp(fn, x)
    return value, pullback(jnp.ones_like(value))[0]


def input_jacobian(fn, x, has_aux=False):
    """See `robust_zoo.backend.tensorflow.input_jacobian`."""
    outputs, pullback, *aux = jax.vjp(fn, x, has_aux=has_aux)
    # Examples do not mix, so that one cotangent an output serves the whole batch.
    rows = jnp.eye(outputs.shape[1], dtype=outputs.dtype)
    jacobian = jax.vmap(lambda row: pullback(jnp.broadcast_to(row, outputs.shape))[0])(rows)
    return (outputs, *aux) if has_aux else outputs, jnp.moveaxis(jacobian, 0, 1)


def function(fn, model):
    """See `robust_zoo.backend.tensorflow.function`.

    The model's variables travel as arguments: closed over, they would be compiled in as constants.
    """
    variables = model.variables

    @jax.jit
    def compiled(values, *args):
        with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)):
            return fn(*args)

    def call(*args):
        return compiled([variable.value for variable in variables], *args)

    return call


def gpu_count() -> int:
    """See `robust_zoo.backend.tensorflow.gpu_count`."""
    return sum(device.platform == "gpu" for device in jax.devices())


@contextlib.contextmanager
def devices(count: int):
    """Runs what is inside; ValueError unless `count` is 1."""
    if count != 1:
        raise ValueError(
            f"devices must be 1 on jax: several devices need TensorFlow, got {count!r}."
        )
    yield


def replica_id():
    """Always 0: under `keras.distribution` JAX sees the global batch."""
    return 0


def check_scope(model, trainer):
    """Nothing to check: JAX has no strategy scopes."""


class DefenseSteps:
    """See `robust_zoo.backend.tensorflow.DefenseSteps`; here the variables come in as arguments."""

    def train_step(self, state, data):
        variables = self.trainable_variables + self.non_trainable_variables
        variables += self.optimizer.variables
        values = [value for part in state[:3] for value in part]
        with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)):
            data = self.prepare(data, training=True)
        return super().train_step(state, data)

    def test_step(self, state, data):
        variables = self.trainable_variables + self.non_trainable_variables
        values = [value for part in state[:2] for value in part]
        with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)):
            data = self.prepare(data, training=False)
        return super().test_step(state, data)
