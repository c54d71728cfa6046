"""Files and directories that are there in full or not at all, and still are after a crash."""

import contextlib
import ctypes
import errno
import os
import pathlib
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator

import filelock

_LOOKS = 20  # at a directory that changes while it is read
_SUFFIX, _LOCK, _NEW, _OLD = ".partial", "lock", "new", "old"
_RANDOM = rf"\.[a-z0-9_]{{8}}{re.escape(_SUFFIX)}"  # how the name of a scratch folder ends


@contextlib.contextmanager
def scratch_beside(path: str | pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder beside `path`, to make in it what will take its place; removed at the end.

    It is left for the next writer where it has the old directory, which could not be put back.
    """
    path = pathlib.Path(path)
    sweep_beside(path)
    scratch, lock = _locked_folder(path)
    try:
        yield scratch
    finally:
        lock.release()
        if path.exists() or not (scratch / _OLD).exists():
            shutil.rmtree(scratch, ignore_errors=True)


def _locked_folder(path: pathlib.Path) -> tuple[pathlib.Path, filelock.BaseFileLock]:
    while True:
        name = tempfile.mkdtemp(prefix=f".{path.name}.", suffix=_SUFFIX, dir=path.parent)
        scratch = pathlib.Path(name)
        lock = filelock.FileLock(scratch / _LOCK)
        try:
            lock.acquire()
        except FileNotFoundError:
            continue  # somebody swept it before it was locked
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        if scratch.is_dir():
            return scratch, lock
        lock.release()


def is_scratch(path: pathlib.Path) -> bool:
    """Whether a path looks like a folder of `scratch_beside`."""
    return bool(re.fullmatch(rf"\..+{_RANDOM}", path.name)) and path.is_dir()


def sweep_beside(path: pathlib.Path) -> None:
    """Removes the folders that killed processes left beside `path`: a lock in each tells whether anybody works in it.

    An old directory that such a process had moved away comes back if nothing took its place.
    """
    own = re.compile(rf"\.{re.escape(path.name)}{_RANDOM}")
    for left in path.parent.glob(f".*{_SUFFIX}"):
        if not own.fullmatch(left.name):
            continue
        with contextlib.suppress(OSError, NotImplementedError, filelock.Timeout):
            lock = filelock.FileLock(left / _LOCK)
            with lock.acquire(blocking=False):
                if (left / _OLD).exists() and not path.exists():
                    (left / _OLD).rename(path)
                shutil.rmtree(left)


@contextlib.contextmanager
def replacing(path: str | pathlib.Path) -> Iterator[pathlib.Path]:
    """A file beside `path` to write, renamed into its place once it is on the disk; nothing is left on an error."""
    path = pathlib.Path(path)
    with scratch_beside(path) as scratch:
        partial = scratch / path.name
        yield partial
        flush(partial)
        partial.replace(path)
    _flush_entries(path.parent)


@contextlib.contextmanager
def atomic_directory(directory: pathlib.Path) -> Iterator[pathlib.Path]:
    """A directory to fill, put in the place of `directory` once it is on the disk; nothing is left on an error.

    What cannot be cleaned up afterwards is no error: the new directory is in its place. A link is followed.
    """
    directory = pathlib.Path(os.path.realpath(directory))
    directory.parent.mkdir(parents=True, exist_ok=True)
    with scratch_beside(directory) as scratch:
        partial = scratch / _NEW
        partial.mkdir()
        yield partial
        for left in partial.glob(
            f".*{_SUFFIX}"
        ):  # of a file in it, whose scratch folder could not be removed
            shutil.rmtree(left)
        for path in partial.iterdir():
            flush(path)
        _flush_entries(partial)
        replace_directory(partial, directory)
    _flush_entries(directory.parent)


@contextlib.contextmanager
def snapshot(directory: pathlib.Path, names: Iterable[str]) -> Iterator[pathlib.Path]:
    """A copy of a directory with those of the files `names` that it has, all from before or all from after a replacement.

    Raises:
        OSError: a file that cannot be read, or a directory that changes all the time.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        copy = pathlib.Path(folder)
        for _ in range(_LOOKS):
            before = _version(directory)
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    if (directory / name).is_file():
                        shutil.copyfile(directory / name, copy / name)
            if before is not None and _version(directory) == before:
                break
            for path in copy.iterdir():
                path.unlink()
            time.sleep(0.01)
        else:
            raise OSError(errno.EBUSY, "it is not there, or changes all the time", str(directory))
        yield copy


def _version(directory: pathlib.Path) -> tuple[int, ...] | None:
    """What changes when a directory is replaced, or a file in it is."""
    try:
        seen = directory.stat()
    except FileNotFoundError:  # between two steps of a replacement
        return None
    return seen.st_dev, seen.st_ino, seen.st_mtime_ns


def flush(path: pathlib.Path) -> None:
    """Waits until a file's contents, or a directory's entries, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_entries(directory: pathlib.Path) -> None:
    """`flush` of a directory, which not every file system can do; after a rename what fails does not undo it."""
    with contextlib.suppress(OSError):
        flush(directory)


def write_bytes(path: str | pathlib.Path, data: bytes) -> None:
    """Writes a file in the place of `path`; OSError if what the disk gives back is not what was written."""
    with replacing(path) as partial:
        partial.write_bytes(data)
        check_written(partial, data)


def check_written(path: pathlib.Path, data: bytes) -> None:
    """Raises OSError unless a file holds `data`."""
    if path.read_bytes() != data:
        raise OSError(errno.EIO, "what was read back is not what was written", str(path))


def write_text(path: str | pathlib.Path, text: str) -> None:
    """Writes UTF-8 text in the place of `path`."""
    write_bytes(path, text.encode())


def replace_directory(new: pathlib.Path, directory: pathlib.Path) -> None:
    """Puts `new` in the place of `directory`, which need not exist; what was there is left beside `new`.

    One step where the system can exchange two directories (Linux, most local file systems). Elsewhere the
    old one is moved away first, so for a moment there is none, and comes back if the second step fails.

    Raises:
        OSError: it cannot be done; the message says where the old one lies if it could not be put back.
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
    old = new.with_name(_OLD)
    directory.rename(old)
    try:
        new.rename(directory)
    except BaseException:
        try:
            old.rename(directory)
        except OSError as error:
            text = f"{error.strerror}, and what was there lies in {str(old)!r} until the next writer puts it back"
            raise OSError(error.errno, text, str(directory)) from error
        raise


def _exchange(one: pathlib.Path, other: pathlib.Path) -> bool:
    """Swaps two directories in one step; False where that is not possible."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0
