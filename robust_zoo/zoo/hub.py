"""Hubs: where models are published, and loaded from by a handle.

    hf://org/name[@revision]    a repository of the Hugging Face hub, or of the server that HF_ENDPOINT names
    file:///path/name           a checkpoint in a directory of checkpoints, on a disk or a mounted share

Behind either may stand "#" and the sha256 of the record, `RobustnessRecord.sha256`: another record is refused then.
Everything else sees a hub through `read`, `publish` and `records_on`.
"""

import contextlib
import fnmatch
import importlib
import pathlib
import re
import tempfile
import urllib.parse
import warnings
from collections.abc import Iterator

from robust_zoo.files import snapshot
from robust_zoo.places import checkpoints_directory
from robust_zoo.record import RecordError, RobustnessRecord
from robust_zoo.zoo.card import write_card
from robust_zoo.zoo.checkpoint import FILES, load_checkpoint
from robust_zoo.zoo.errors import CheckpointError, HubError
from robust_zoo.zoo.index import read_index, write_index
from robust_zoo.zoo.records import RECORD, read_record

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


def _hub_of(handle: str):
    scheme, separator, _ = handle.partition("://")
    if not separator or scheme not in _HUBS:
        raise ValueError(
            f"a hub's handle must begin with one of {[f'{name}://' for name in _HUBS]}, got {handle!r}."
        )
    return importlib.import_module(_HUBS[scheme])


def read(handle: str, files: tuple[str, ...], load):
    """`load(directory)` of a directory with those of `files` that the model has, and the handle pinned to its commit.

    What does not load is fetched once more if the fault is this machine's copy, which is removed from the cache.

    Raises:
        CheckpointError: what `load` finds wrong with it; it names the handle.
        ValueError: not a handle.
        HubError: no such model or revision, or a hub that does not answer and a cache that does not have it.
    """
    hub, handle = _hub_of(handle), _PIN.sub("", handle)
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


def publish(
    directory: str | pathlib.Path,
    handle: str,
    *,
    private: bool | None = None,
    tag: str | None = None,
) -> str:
    """Publishes a checkpoint directory with its evidence.

    Configuration, weights, record, recipe, card and picture go into one commit, so that no revision ever has
    the weights of one version and the record of another. An unchanged directory uploads nothing. The card is
    made anew, with the lines that load the model from where it is published, and replaces a README that is
    there. If the commit fails the hub keeps what it had (a repository that was made for it stays, empty).

    Args:
        directory: checkpoint directory with a record, from `save_model` or `robust-zoo train`.
        handle: "hf://org/name" or "file:///path/name". A repository that holds something other than a
            checkpoint is left alone. The token is the Hugging Face client's own: HF_TOKEN or `hf auth login`.
        private: whether only its owners see a repository that is made now; None is the owner's default. Must
            agree with one that exists. Not for "file://".
        tag: name for this version, such as "v1". One that exists must name the same content: tags do not move.
            It is set after the commit. Not for "file://".

    Returns:
        The handle pinned to what was published, its commit (hf://) and its record, for `load_model`.

    Raises:
        ValueError: not a handle, one with a revision, or an option that the hub does not have.
        CheckpointError: a directory without a record, a record of other weights, or anything that `load_model`
            refuses.
        HubError: the hub refused, did not answer, or changed meanwhile; or no space left to prepare it.

    Example:
        >>> publish("odd_digits", "hf://me/odd-digits", tag="v1")
        'hf://me/odd-digits@8f3c...#b01d...'
    """
    hub = _hub_of(handle)
    directory = pathlib.Path(directory)
    hub.check_publishable(handle, private=private, tag=tag)
    with _staged(directory, handle) as staged:
        pinned = hub.publish(staged, handle, private=private, tag=tag)
        return with_pin(pinned, read_record(staged))


def publish_zoo(hub: str, *, private: bool | None = None) -> Iterator[str]:
    """Publishes every model of the zoo under its own name, and notes the pinned handles in the index.

    What the hub has already is not sent again. Each handle is in the index before it is handed out, so that what is
    interrupted goes on with the next call.

    Args:
        hub: "hf://org" or "file:///path".
        private: see `publish`.

    Raises:
        CheckpointError: a model of the index that is not among the checkpoints here; see `publish`, too.
        HubError, ValueError: see `publish`.
    """
    entries = read_index()
    for number, entry in enumerate(entries):
        handle = f"{hub.rstrip('/')}/{entry.name}"
        pinned = publish(checkpoints_directory() / entry.name, handle, private=private)
        entries[number] = entry.model_copy(update={"handle": pinned})
        write_index(entries)
        yield pinned


@contextlib.contextmanager
def _staged(directory: pathlib.Path, handle: str) -> Iterator[pathlib.Path]:
    """A checked copy of the checkpoint, which nobody changes meanwhile, with the card as it is published."""
    if not directory.is_dir():
        raise CheckpointError(f"no checkpoint directory {str(directory)!r}.")
    with contextlib.ExitStack() as stack:
        try:
            staged = stack.enter_context(snapshot(directory, FILES))
            record = load_checkpoint(staged).robustness
            if record is None:
                raise CheckpointError(
                    f"{str(staged)!r} has no {RECORD}: measure the model with robust_zoo.evaluate and give the "
                    "record to save_model; nothing is published without its evidence."
                )
            write_card(staged, record, handle)
        except CheckpointError as error:
            raise CheckpointError(str(error).replace(str(staged), str(directory))) from error
        except OSError as error:
            raise HubError(
                f"{handle} cannot be prepared in {tempfile.gettempdir()!r}: {error.strerror or error}."
            ) from error
        yield staged


def records_on(hub: str, pattern: str = "*") -> Iterator[tuple[str, RobustnessRecord]]:
    """Handle and record of the models on a hub, "hf://org" or "file:///path", whose name fits the pattern.

    A model without a sound record, or one that cannot be reached, is left out with a warning.

    Raises:
        ValueError: not a hub.
        HubError: no such hub, or one that does not answer.
    """
    for handle in _hub_of(hub).handles(hub):
        name = urllib.parse.unquote(handle.rpartition("/")[2])
        if not fnmatch.fnmatchcase(name, pattern):
            continue
        try:
            record, _ = read(handle, (RECORD,), read_record)
        except (CheckpointError, HubError) as error:
            warnings.warn(f"left out: {error}", stacklevel=3)
        else:
            yield handle, record
