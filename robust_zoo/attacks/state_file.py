"""State files: long attacks are saved and resumed."""

import contextlib
import hashlib
import json
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from robust_zoo import __version__
from robust_zoo.classifier import config_sha256, serialise, without_names
from robust_zoo.files import replacing
from robust_zoo.npz import read_npz
from robust_zoo.sentences import one_line
from robust_zoo.weights import describe_weights

if TYPE_CHECKING:
    from robust_zoo.attacks.attack import Attack

_SECONDS = 30.0  # between two writes
_IDENTITY, _SPENT = "identity", "seconds"


def _sha256(array: np.ndarray | None) -> str:
    if array is None:
        return ""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def identity(
    attack: "Attack",
    model: keras.Model,
    x: np.ndarray,
    y: np.ndarray | None,
    numbers: np.ndarray,
    seed: int,
    precision: str,
) -> dict:
    """What a state belongs to: all that the numbers of an attack depend on.

    The backend is not part of it: the same attack, begun on a GPU with JAX say, may be resumed with TensorFlow.
    """
    return {
        "attack": f"{type(attack).__name__} {json.dumps(attack.get_config(), sort_keys=True)}",
        "model": f"{config_sha256(without_names(serialise(model)))} {describe_weights(model).sha256}",
        "images": f"{x.shape} {_sha256(x)}",
        "labels": _sha256(y),
        "numbers": _sha256(numbers),
        "seed": str(int(seed)),
        "precision": precision,
        "version": __version__,
    }


class StateFile:
    """Arrays under names in an .npz file that is tied to what they belong to.

    Args:
        path: the file, or None to keep nothing.
        belongs_to: gives the identity of the run; called once, if there is a path.

    Raises:
        FileNotFoundError: no directory to write it into.
        ValueError: a path that does not end in .npz.
    """

    def __init__(self, path: str | pathlib.Path | None, belongs_to: Callable[[], dict]):
        self._path = None if path is None else pathlib.Path(path)
        self.seconds_before = 0.0  # spent before an interruption
        self._started = self._saved = time.monotonic()
        if self._path is None:
            return
        if self._path.suffix != ".npz":
            raise ValueError(f"state_file must end in .npz, got {str(path)!r}.")
        if not self._path.resolve().parent.is_dir():
            raise FileNotFoundError(
                f"state_file: no directory {str(self._path.parent)!r} to write {self._path.name!r} into."
            )
        self._identity = belongs_to()

    def load(self) -> dict[str, np.ndarray]:
        """What was saved, empty if nothing was; ValueError if it is damaged or belongs to something else."""
        if self._path is None or not self._path.exists():
            return {}
        try:
            arrays = read_npz(self._path)
            saved = json.loads(str(arrays.pop(_IDENTITY)))
            seconds = float(arrays.pop(_SPENT))
            if not isinstance(saved, dict) or not 0 <= seconds < float("inf"):
                raise ValueError("its identity or its seconds are none")
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise self.unreadable(error) from None
        for part, value in self._identity.items():
            if saved.get(part) != value:
                raise ValueError(
                    f"state_file {str(self._path)!r} belongs to another run: not the same {part}. Give the "
                    "same model, data, attack, seed, precision and version, or remove the file to start over."
                )
        self.seconds_before = seconds
        return arrays

    @contextlib.contextmanager
    def restoring(self) -> Iterator[None]:
        """Inside, a ValueError that tells why arrays are no state becomes one that names the file."""
        try:
            yield
        except ValueError as error:
            if str(error).startswith("state_file "):
                raise
            raise self.unreadable(error) from None

    def unreadable(self, reason: object) -> ValueError:
        """What to raise for a state that cannot be gone on with."""
        return ValueError(
            f"state_file {str(self._path)!r} is no readable state: {one_line(reason)}. Remove it to start over."
        )

    def save(self, snapshot: Callable[[], dict[str, np.ndarray]], *, now: bool = False) -> None:
        """Writes `snapshot()` in the file's place, at most once in half a minute unless `now`."""
        if self._path is None or not (now or time.monotonic() - self._saved > _SECONDS):
            return
        spent = self.seconds_before + time.monotonic() - self._started
        arrays: dict[str, Any] = {
            _IDENTITY: np.asarray(json.dumps(self._identity)),
            _SPENT: np.asarray(spent),
            **snapshot(),
        }
        with replacing(self._path) as partial, partial.open("wb") as file:
            np.savez(file, **arrays)
        self._saved = time.monotonic()
