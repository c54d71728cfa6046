"""Random numbers from explicit keys, the same on TensorFlow, JAX and torch.

A key is two 32-bit words. Every draw takes one key an example, so an example's numbers depend on the
seed and on its own index alone: not on the batch it happens to be in, on the batch size, on the
replica that computes it, or on the backend. Nothing touches a global random state.

The generator is Threefry-2x32-20 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3"
(SC 2011), which JAX uses as well.
"""

import math
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from robust_zoo.backend.selected import backend
from robust_zoo.typing import Tensor

_MASK = 0xFFFFFFFF
_PARITY = 0x1BD11BDA
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))

# torch has no arithmetic on uint32: there a word is the low half of an int64.
_WORD = "int64" if keras.config.backend() == "torch" else "uint32"


def _word(value: Tensor | int) -> Tensor:
    if isinstance(value, int):
        value = np.asarray(value & _MASK, "uint32").astype(_WORD)
    return ops.cast(ops.convert_to_tensor(value), _WORD)


def _wrap(value: Tensor) -> Tensor:
    return ops.bitwise_and(value, _word(_MASK)) if _WORD == "int64" else value


def _rotate_left(value: Tensor, bits: int) -> Tensor:
    # A left shift is a multiplication and the two halves do not overlap, so that one slow
    # bit operation is left of three.
    high = _wrap(value * _word(1 << bits))
    return high + ops.bitwise_right_shift(value, _word(32 - bits))


@backend.traced_once
def _rounds(key: Tensor, other: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """The 20 rounds of Threefry-2x32 on the counters `first`, `second` under the two words of a key."""
    schedule = (key, other, ops.bitwise_xor(ops.bitwise_xor(key, other), _word(_PARITY)))
    first, second = _wrap(first + schedule[0]), _wrap(second + schedule[1])
    for block in range(5):
        for bits in _ROTATIONS[block % 2]:
            first = _wrap(first + second)
            second = ops.bitwise_xor(_rotate_left(second, bits), first)
        first = _wrap(first + schedule[(block + 1) % 3])
        second = _wrap(second + schedule[(block + 2) % 3] + _word(block + 1))
    return first, second


def _threefry(key: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Threefry-2x32 of the counters `first`, `second` under `key` (..., 2)."""
    return _rounds(key[..., 0], key[..., 1], first, second)


def key(seed: int) -> Tensor:
    """The key of an integer seed in [0, 2**64): two words, shape (2,)."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**64:
        raise ValueError(f"seed must be an integer in [0, 2**64), got {seed!r}.")
    return ops.stack([_word(int(seed) >> 32), _word(int(seed))])


def fold_in(key: Tensor, data: Tensor | int) -> Tensor:
    """A new key made of `key` (..., 2) and `data`, an int or an integer tensor that broadcasts to (...).

    Folding a vector of example indices (batch,) into one key (2,) gives one key an example, (batch, 2).
    """
    data = _word(data)
    return ops.stack(_threefry(key, data, ops.zeros_like(data)), axis=-1)


def _bits(keys: Tensor, count: int) -> Tensor:
    """Random words of shape (batch, count) from `keys` (batch, 2)."""
    half = -(-count // 2)
    counters = _word(np.arange(half, dtype="uint32")[None].astype(_WORD))
    # The second counter, 1 here and 0 in `fold_in`, keeps draws apart from derived keys.
    pair = _threefry(keys[:, None], counters, ops.ones_like(counters))
    return ops.concatenate(pair, axis=1)[:, :count]


def uniform(keys: Tensor, shape: Sequence[int], minval: float = 0.0, maxval: float = 1.0) -> Tensor:
    """Uniform numbers in [minval, maxval), float32 of shape (batch, *shape), from `keys` (batch, 2)."""
    bits = _bits(keys, math.prod(shape))
    unit = ops.cast(ops.bitwise_right_shift(bits, _word(8)), "float32") * 2.0**-24
    return minval + (maxval - minval) * ops.reshape(unit, (-1, *shape))


def normal(keys: Tensor, shape: Sequence[int]) -> Tensor:
    """Standard normal numbers (Box-Muller), float32 of shape (batch, *shape), from `keys` (batch, 2)."""
    count = math.prod(shape)
    radius, angle = ops.split(uniform(keys, (2 * count,)), 2, axis=1)
    # 1 - u lies in (0, 1], where the logarithm is finite.
    values = ops.sqrt(-2.0 * ops.log(1.0 - radius)) * ops.cos(2.0 * math.pi * angle)
    return ops.reshape(values, (-1, *shape))


def truncated_normal(keys: Tensor, shape: Sequence[int]) -> Tensor:
    """Standard normal numbers conditioned on [-2, 2], float32 of shape (batch, *shape)."""
    # By inversion: erf(2 / sqrt(2)) is the probability of that interval.
    inside = math.erf(math.sqrt(2.0))
    values = math.sqrt(2.0) * ops.erfinv(uniform(keys, shape, -inside, inside))
    return ops.clip(values, -2.0, 2.0)


def integers(keys: Tensor, maxval: int) -> Tensor:
    """One integer in [0, maxval) an example, int32 of shape (batch,), from `keys` (batch, 2)."""
    return ops.cast(ops.floor(uniform(keys, ()) * maxval), "int32")
