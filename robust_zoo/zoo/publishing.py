"""Publishing checkpoint directories on hubs."""

import contextlib
import pathlib
import tempfile
from collections.abc import Iterator

from robust_zoo.files import snapshot
from robust_zoo.places import EVAL_RESULTS, FILES, NOTICE, RECORD, checkpoints_directory
from robust_zoo.record import RobustnessRecord
from robust_zoo.report.card import write_card
from robust_zoo.report.eval_results import eval_results
from robust_zoo.zoo.checkpoint import load_checkpoint
from robust_zoo.zoo.errors import CheckpointError, HubError
from robust_zoo.zoo.hub import hub_of, with_pin
from robust_zoo.zoo.index import read_index, write_index
from robust_zoo.zoo.layout import read_record

# SPDX identifiers of licenses under which everybody may pass a work on, for any purpose.
_FREE = {
    *(
        "apache-2.0",
        "mit",
        "mit-0",
        "bsd-2-clause",
        "bsd-3-clause",
        "isc",
        "zlib",
        "0bsd",
        "unlicense",
        "bsl-1.0",
    ),
    *(
        "cc0-1.0",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "mpl-2.0",
        "eupl-1.2",
        "artistic-2.0",
    ),
    *(
        f"{name}{end}"
        for name in ("gpl-2.0", "gpl-3.0", "lgpl-2.1", "lgpl-3.0", "agpl-3.0")
        for end in ("", "-only", "-or-later")
    ),
}


def publish(
    directory: str | pathlib.Path,
    handle: str,
    *,
    private: bool | None = None,
    tag: str | None = None,
    accept_license: bool = False,
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
        accept_license: publishes weights whose license does not let everybody pass them on, such as a non-commercial
            or an unknown one: whoever sets this has looked into it. Default False.

    Returns:
        The handle pinned to what was published, its commit (hf://) and its record, for `load_model`.

    Raises:
        ValueError: not a handle, one with a revision, or an option that the hub does not have.
        CheckpointError: a directory without a record, a record of other weights, anything that `load_model`
            refuses, or a license that is to be accepted.
        HubError: the hub refused, did not answer, or changed meanwhile; or no space left to prepare it.

    Example:
        >>> publish("odd_digits", "hf://me/odd-digits", tag="v1")  # doctest: +SKIP
        'hf://me/odd-digits@8f3c...#b01d...'
    """
    hub = hub_of(handle)
    directory = pathlib.Path(directory)
    hub.check_publishable(handle, private=private, tag=tag)
    with _staged(directory, handle) as staged:
        found = read_record(staged).license
        if found.lower() not in _FREE and not accept_license:
            raise CheckpointError(
                f"the license of {str(directory)!r} must be one that lets everybody pass its weights on, such as MIT or "
                f"Apache-2.0, got {found!r}: if you may publish them all the same, give accept_license "
                "(--accept-license)."
            )
        pinned = hub.publish(staged, handle, private=private, tag=tag)
        return with_pin(pinned, read_record(staged))


def publish_zoo(hub: str, *, private: bool | None = None) -> Iterator[str]:
    """Publishes every model of the zoo under its own name, and notes the pinned handles in the index.

    Content that the hub already has is not uploaded again. Each handle is written to the index before it is yielded,
    so that an interrupted run resumes with the next call.

    Args:
        hub: "hf://org" or "file:///path".
        private: see `publish`.

    Yields:
        The pinned handle of each model.

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


def _write_eval_results(staged: pathlib.Path, record: RobustnessRecord, handle: str) -> None:
    """The record's numbers in the hub's own format, for a hub that reads it and a record of one of its tasks."""
    if handle.startswith("hf://"):
        text = eval_results(record, handle.removeprefix("hf://"))
        if text:
            (staged / EVAL_RESULTS).parent.mkdir()
            (staged / EVAL_RESULTS).write_text(text, encoding="utf-8")


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
            _write_eval_results(staged, record, handle)
            if record.notice:
                (staged / NOTICE).write_text(f"{record.notice}\n", encoding="utf-8")
        except CheckpointError as error:
            raise CheckpointError(str(error).replace(str(staged), str(directory))) from error
        except OSError as error:
            raise HubError(
                f"{handle} cannot be prepared in {tempfile.gettempdir()!r}: {error.strerror or error}."
            ) from error
        yield staged
