"""The hub on a disk or a mounted share: file:///path is a directory of checkpoint directories."""

import contextlib
import filecmp
import os
import pathlib
import shutil
import urllib.parse
import urllib.request
from collections.abc import Iterator

from robust_zoo.files import atomic_directory, sweep_beside
from robust_zoo.places import FILES, RECORD
from robust_zoo.zoo.errors import CheckpointError, HubError
from robust_zoo.zoo.layout import check_target


def _path(handle: str) -> pathlib.Path:
    parts = urllib.parse.urlsplit(handle)
    if parts.netloc not in ("", "localhost") or not parts.path.strip("/"):
        raise ValueError(
            f"a file handle must be file:///path with an absolute path, got {handle!r}."
        )
    if "?" in handle or "#" in handle:
        raise ValueError(f"write ? as %3F and # as %23 in a file handle, got {handle!r}.")
    return pathlib.Path(urllib.request.url2pathname(parts.path))


@contextlib.contextmanager
def fetched(handle: str, files: tuple[str, ...]) -> Iterator[tuple[pathlib.Path, str]]:
    """The directory itself, and the handle: nothing is pinned."""
    directory = _path(handle)
    if not directory.is_dir():
        raise HubError(f"there is no model at {handle}: no directory {str(directory)!r}.")
    yield directory, handle


def may_be_fetched_again(directory: pathlib.Path, files: tuple[str, ...]) -> bool:
    """Never: it is read where it lies."""
    return False


def check_publishable(handle: str, *, private: bool | None, tag: str | None) -> None:
    """Raises for what needs no look at the checkpoint to be refused."""
    for name, value in (("private", private), ("tag", tag)):
        if value is not None:
            raise ValueError(
                f"{name} is for hf:// only, but {handle!r} was given {name}={value!r}."
            )
    directory = _path(handle)
    if directory.is_dir() and not any(directory.iterdir()):
        raise CheckpointError(
            f"{str(directory)!r} is an empty directory, not a model: to publish into it, add the model's name, "
            f"as in {handle.rstrip('/')}/NAME."
        )
    check_target(directory)


def publish(staged: pathlib.Path, handle: str, *, private: None, tag: None) -> str:
    """Puts a copy of `staged` in the place of `handle`, whole or not at all, unless it is there already."""
    directory = _path(handle)
    sweep_beside(directory)
    names = {path.name for path in staged.iterdir()}
    here = {name for name in FILES if (directory / name).is_file()}
    _, changed, missing = filecmp.cmpfiles(staged, directory, names | here, shallow=False)
    if changed or missing:
        try:
            with atomic_directory(directory) as partial:
                for name in names:
                    shutil.copyfile(staged / name, partial / name)
        except OSError as error:
            state = "and is as it was: " if directory.exists() or not here else ""
            raise HubError(
                f"{handle} cannot be written, {state}{error.strerror or error}."
            ) from error
    return handle


def handles(hub: str) -> Iterator[str]:
    """The handles of the checkpoints with a record in the directory of `hub`, by name."""
    directory = _path(hub)
    if not directory.is_dir():
        raise HubError(f"there is no hub at {hub}: no directory {str(directory)!r}.")
    for path in sorted(directory.glob(f"*/{RECORD}")):
        yield f"{hub.rstrip('/')}/{urllib.parse.quote(os.fsencode(path.parent.name))}"
