"""A disk that fails at a chosen moment: the process dies there, or the operation reports an error."""

import builtins
import io
import itertools
import os
import pathlib

import pytest

from robust_zoo import files

_OPERATIONS = ("rename", "replace", "unlink", "remove", "rmdir", "mkdir", "fsync")


class KilledError(BaseException):
    """Nothing after it reached the disk, as if the process had died."""


class Disk:
    """Counts what is done to files, and fails at one point.

    Operations are those of the `os` module that change a directory or wait for the disk, opening to write, each
    write, and the exchange of two directories. Files outside `folder` are left alone where an operation tells their
    path.

    Args:
        folder: the part of the disk that may fail.
        monkeypatch: pytest's.
    """

    def __init__(self, folder: pathlib.Path, monkeypatch):
        self.folder, self._monkeypatch = os.fspath(folder), monkeypatch
        self.count, self.failed, self._at, self._how = 0, 0, None, None

    def run(self, act, at: int | None = None, how="kill") -> BaseException | None:
        """Calls `act`; the operation number `at` fails. What it raised, if that was the kill or an OSError."""
        self.count, self._at, self._how = 0, at, how
        with self._monkeypatch.context() as patch:
            for name in _OPERATIONS:
                patch.setattr(os, name, self._checked(getattr(os, name)))
            patch.setattr(os, "open", self._checked(os.open, lambda path, flags: flags & 3))
            for module in (io, builtins):
                patch.setattr(module, "open", self._opening(module.open))
            patch.setattr(files, "_exchange", self._checked(files._exchange))
            try:
                act()
            except (KilledError, OSError) as error:
                return error
        return None

    def _checked(self, function, counts=lambda *args: True):
        def checked(path, *args, **options):
            if self._is_inside(path) and counts(path, *args[:1]):
                self._point()
            return function(path, *args, **options)

        return checked

    def _is_inside(self, path) -> bool:
        if isinstance(path, int):  # a file that is open
            return True
        path = os.fspath(path)
        return not os.path.isabs(path) or path.startswith(self.folder)

    def _opening(self, function):
        def opening(path, mode="r", *args, **options):
            writes = not isinstance(path, int) and set(mode) & set("wax+") and self._is_inside(path)
            if not writes:
                return function(path, mode, *args, **options)
            self._point()
            return _File(function(path, mode, *args, **options), self._point)

        return opening

    def _point(self) -> None:
        number, self.count = self.count, self.count + 1
        if self._at is None or number < self._at:
            return
        self.failed += number == self._at
        if self._how == "kill":
            raise KilledError
        if number == self._at:
            raise OSError(self._how, os.strerror(self._how))


class _File:
    """An open file; where writing fails, half of what was to be written is there."""

    def __init__(self, file, point):
        self._file, self._point = file, point

    def write(self, data):
        try:
            self._point()
        except BaseException:
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            raise
        return self._file.write(data)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()

    def __iter__(self):
        return iter(self._file)

    def __getattr__(self, name):
        return getattr(self._file, name)


@pytest.fixture
def disk(tmp_path, monkeypatch, record_property):
    disk = Disk(tmp_path, monkeypatch)
    yield disk
    record_property("points", disk.failed)


def pytest_terminal_summary(terminalreporter):
    reports = itertools.chain.from_iterable(terminalreporter.stats.values())
    noted = [each for report in reports for each in getattr(report, "user_properties", ())]
    if points := sum(number for name, number in noted if name == "points"):
        terminalreporter.write_line(f"{points} operations on files failed or were the last")
