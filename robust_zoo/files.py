"""Files and directories that are there in full or not at all."""

import contextlib
import ctypes
import os
import pathlib
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def replacing(path: str | pathlib.Path) -> Iterator[pathlib.Path]:
    """A file beside `path` to write, renamed into its place at the end; nothing is left on an error."""
    path = pathlib.Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    partial = pathlib.Path(name)
    try:
        yield partial
        partial.chmod(0o644)  # mkstemp's own mode would keep others from reading it
        partial.replace(path)
    except BaseException:
        partial.unlink()
        raise


def write_text(path: str | pathlib.Path, text: str) -> None:
    """Writes UTF-8 text in the place of `path`."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def replace_directory(new: pathlib.Path, directory: pathlib.Path) -> None:
    """Puts `new` in the place of `directory`, which need not exist; what was there is left beside `new`.

    One step where the system can exchange two directories (Linux, most local file systems). Elsewhere the
    old one is moved away first, so for a moment there is none, and comes back if the second step fails.
    """
    if not directory.exists():
        try:
            new.rename(directory)
            return
        except OSError:
            if not directory.exists():  # nobody else was faster: a real failure
                raise
    if _exchange(new, directory):
        return
    old = new.with_name("old")
    directory.rename(old)
    try:
        new.rename(directory)
    except BaseException:
        old.rename(directory)
        raise


def _exchange(one: pathlib.Path, other: pathlib.Path) -> bool:
    """Swaps two directories in one step; False where that is not possible."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0
