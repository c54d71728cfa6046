"""torch: loads models and runs attacks. See `robust_zoo.backend.tensorflow` for the contracts."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import torch

from robust_zoo.typing import Tensor

version = str(torch.__version__)


def value_and_input_gradient(
    fn: Callable[[Tensor], Any], x: Tensor, has_aux: bool = False
) -> tuple[Any, Tensor]:
    """See `robust_zoo.backend.tensorflow.value_and_input_gradient`."""
    recorded = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x if recorded and x.requires_grad else x.detach().requires_grad_()
        result = fn(x)
        value = result[0] if has_aux else result
        gradient = _gradient(value, x, create_graph=recorded)
    return result, gradient


def _gradient(value: Tensor, x: Tensor, **options: bool) -> Tensor:
    """Of the sum of `value`; zeros where it does not depend on `x`."""
    if not value.requires_grad:
        return torch.zeros_like(x)
    options |= {"allow_unused": True, "materialize_grads": True}
    return torch.autograd.grad(value.sum(), x, **options)[0]


def input_jacobian(
    fn: Callable[[Tensor], Any], x: Tensor, has_aux: bool = False
) -> tuple[Any, Tensor]:
    """See `robust_zoo.backend.tensorflow.input_jacobian`."""
    recorded = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x if recorded and x.requires_grad else x.detach().requires_grad_()
        result = fn(x)
        outputs = result[0] if has_aux else result
        rows = [
            _gradient(outputs[:, k], x, create_graph=recorded, retain_graph=True)
            for k in range(outputs.shape[1])
        ]
    return result, torch.stack(rows, dim=1)


def function(fn: Callable[..., Any], *models: keras.Model) -> Callable[..., Any]:
    """`fn` as it is, recording no gradients of its own, with products of float32 in full precision on GPUs."""

    def call(*args: Any) -> Any:
        with torch.no_grad(), full_precision():
            return fn(*args)

    return call


def traced_once(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` itself: nothing is traced."""
    return fn


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """See `robust_zoo.backend.tensorflow.full_precision`."""
    parts = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [part.allow_tf32 for part in parts]
    for part in parts:
        part.allow_tf32 = False
    try:
        yield
    finally:
        for part, value in zip(parts, before, strict=True):
            part.allow_tf32 = value


def gpus() -> list[str]:
    """See `robust_zoo.backend.tensorflow.gpus`."""
    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


@contextlib.contextmanager
def devices(count: int, hosts: bool = False) -> Iterator[None]:
    """Runs what is inside; ValueError unless `count` is 1 and `hosts` False."""
    if count != 1:
        raise ValueError(
            f"devices must be 1 on torch: several need TensorFlow or JAX, got {count!r}."
        )
    if hosts:
        raise ValueError("hosts must be off on torch: several need TensorFlow or JAX.")
    yield


def replica_id() -> int:
    """Always 0: torch runs on one device."""
    return 0


def check_scope(model: keras.Model, trainer: keras.Model) -> None:
    """Nothing to check: torch has no strategy scopes."""


def replica_count(trainer: keras.Model) -> int:
    """Always 1: torch runs on one device."""
    return 1


def host(trainer: keras.Model | None = None) -> tuple[int, int]:
    """Always (0, 1): torch runs in one process."""
    return 0, 1


def lost_host(error: Exception) -> bool:
    """Always False: there is one host."""
    return False


def from_first_host(trainer: keras.Model, values: np.ndarray) -> np.ndarray:
    """The values themselves: there is one host."""
    return values


def local_rows(batch_size: int) -> slice:
    """All rows of a batch: there is one host."""
    return slice(batch_size)


def device_count(trainer: keras.Model) -> int:
    """Always 1: torch runs on one device."""
    return 1


def shards(trainer: keras.Model) -> int:
    """Always 1: torch runs on one device."""
    return 1


def replica_sum(values: Any) -> Any:
    """The values themselves: there is one replica."""
    return values


def gradients(
    fn: Callable[[], tuple[tuple[Tensor, ...], Any]],
    groups: Sequence[Sequence[keras.Variable]],
    variables: Sequence[keras.Variable],
) -> tuple[tuple[Tensor, ...], Any, list[list[Tensor]]]:
    """See `robust_zoo.backend.tensorflow.gradients`."""
    sources = [[variable.value for variable in group] for group in groups]
    frozen = [value for group in sources for value in group if not value.requires_grad]
    try:
        with torch.enable_grad():
            for value in frozen:
                value.requires_grad_()
            losses, aux = fn()
            found = [
                torch.autograd.grad(loss, group, retain_graph=True, materialize_grads=True)
                for loss, group in zip(losses, sources, strict=True)
            ]
    finally:
        for value in frozen:
            value.requires_grad_(False)
    losses, aux = keras.tree.map_structure(
        lambda value: value.detach() if torch.is_tensor(value) else value, (losses, aux)
    )
    return losses, aux, [list(group) for group in found]


if TYPE_CHECKING:
    from keras import Model as _Trainer  # before which these classes stand among a trainer's bases
else:
    _Trainer = object


class PreparedSteps(_Trainer):
    """See `robust_zoo.backend.tensorflow.PreparedSteps`."""

    def train_step(self, data: Any) -> dict[str, Tensor]:
        with torch.no_grad():
            data = self.prepare(data, training=True)
        logs = super().train_step(data)
        with torch.no_grad():
            for variable, value in [*self.after_update(), *self.counted()]:
                variable.assign(value)
        return logs

    def test_step(self, data: Any) -> dict[str, Tensor]:
        with torch.no_grad():
            data = self.prepare(data, training=False)
        return super().test_step(data)


class UpdateSteps(PreparedSteps):
    """See `robust_zoo.backend.tensorflow.UpdateSteps`."""

    def train_step(self, data: Any) -> dict[str, Tensor]:
        with torch.no_grad():
            logs = self.update(data)
            for variable, value in self.counted():
                variable.assign(value)
        return logs
