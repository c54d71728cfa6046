"""Hubs: where models are published, and loaded from by a handle.

    hf://org/name[@revision]    a repository of the Hugging Face hub, or of the server that HF_ENDPOINT names
    file:///path/name           a checkpoint in a directory of checkpoints, on a disk or a mounted share

Behind either may stand "#" and the sha256 of the record, `RobustnessRecord.sha256`: another record is refused then.
Everything else sees a hub through `read`, `records_on` and `publish` (publishing.py).
"""

import fnmatch
import importlib
import pathlib
import re
import types
import urllib.parse
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

from robust_zoo.places import RECORD
from robust_zoo.record import RecordError, RobustnessRecord
from robust_zoo.zoo.errors import CheckpointError, HubError
from robust_zoo.zoo.layout import read_record

_T = TypeVar("_T")

# Imported on first use: the Hugging Face client takes a while.
_HUBS = {"hf": "robust_zoo.zoo.huggingface", "file": "robust_zoo.zoo.file_hub"}

_PIN = re.compile("#([0-9a-f]{64})$")


def with_pin(handle: str, record: RobustnessRecord) -> str:
    """The handle with the record's hash behind it."""
    return f"{_PIN.sub('', handle)}#{record.sha256}"


def check_pin(handle: str, record: RobustnessRecord | None) -> None:
    """Raises CheckpointError if the handle has a record's hash behind it, and it is not that of `record`."""
    pin = _PIN.search(handle)
    found = record and record.sha256
    if pin is not None and pin[1] != found:
        raise CheckpointError(
            f"{handle.partition('#')[0]} has {f'the record {found[:12]}' if found else 'no record'}, not "
            f"{pin[1][:12]} as the handle says: it was published anew, or tampered with."
        )


def hub_of(handle: str) -> types.ModuleType:
    """The module that serves a handle; ValueError for one of no hub."""
    scheme, separator, _ = handle.partition("://")
    if not separator or scheme not in _HUBS:
        raise ValueError(
            f"a hub's handle must begin with one of {[f'{name}://' for name in _HUBS]}, got {handle!r}."
        )
    return importlib.import_module(_HUBS[scheme])


def read(handle: str, files: tuple[str, ...], load: Callable[[pathlib.Path], _T]) -> tuple[_T, str]:
    """`load(directory)` of a directory with those of `files` that the model has, and the handle pinned to its commit.

    What does not load is fetched once more if the fault is this machine's copy, which is removed from the cache.

    Raises:
        CheckpointError: what `load` finds wrong with it; it names the handle.
        ValueError: not a handle.
        HubError: no such model or revision, or a hub that does not answer and a cache that does not have it.
    """
    hub, handle = hub_of(handle), _PIN.sub("", handle)
    for attempt in (1, 2):
        with hub.fetched(handle, files) as (directory, pinned):
            try:
                return load(directory), pinned
            except (CheckpointError, RecordError) as error:
                if attempt == 1 and hub.may_be_fetched_again(directory, files):
                    continue
                # Where the copy lies on this machine is of no interest.
                reason = str(error).replace(f"{directory}/", "").replace(repr(str(directory)), "it")
                raise CheckpointError(f"{handle}: {reason}") from error
            except OSError as error:
                raise HubError(f"{handle} cannot be read: {error.strerror or error}.") from error
    raise AssertionError  # the second attempt returns or raises


def records_on(hub: str, pattern: str = "*") -> Iterator[tuple[str, RobustnessRecord]]:
    """Handle and record of the models on a hub, "hf://org" or "file:///path", whose name fits the pattern.

    A model without a sound record, or one that cannot be reached, is left out with a warning.

    Raises:
        ValueError: not a hub.
        HubError: no such hub, or one that does not answer.
    """
    for handle in hub_of(hub).handles(hub):
        name = urllib.parse.unquote(handle.rpartition("/")[2])
        if not fnmatch.fnmatchcase(name, pattern):
            continue
        try:
            record, _ = read(handle, (RECORD,), read_record)
        except (CheckpointError, HubError) as error:
            warnings.warn(f"left out: {error}", stacklevel=3)
        else:
            yield handle, record
