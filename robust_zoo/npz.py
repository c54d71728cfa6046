"""Reading .npz files that may be damaged, or be somebody's who wants to harm: bounded, and without tracebacks."""

import math
import pathlib
import struct
import tokenize
import zipfile
import zlib

import numpy as np

MOST_BYTES = 2**30
_MOST_UNPACKED = 20  # times its size, for what is small
_SMALL = 2**26  # bytes
# What zipfile, zlib and NumPy raise for what is no archive of arrays.
_UNREADABLE = (
    OSError, ValueError, TypeError, EOFError, KeyError, RuntimeError, NotImplementedError, MemoryError, SyntaxError,
    zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError,
)  # fmt: skip


def read_npz(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by their names; nothing in it is run, and no more memory taken than is stored.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be read; the message says why, without the path.
    """
    try:
        # Opened here: np.load leaves the file open when it is no archive.
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            _check_sizes(archive)
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
    except FileNotFoundError:
        raise
    except _UNREADABLE as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _check_sizes(archive: zipfile.ZipFile) -> None:
    """Raises ValueError for arrays that claim more than is there, or unpack to very much more than they take."""
    stored = sum(member.compress_size for member in archive.infolist())
    unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > min(MOST_BYTES, max(_SMALL, _MOST_UNPACKED * stored)) and unpacked > 2 * stored:
        raise ValueError(f"it unpacks from {stored:,} bytes to {unpacked:,}")
    for member in archive.infolist():
        with archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
            shape, _, dtype = read.get(version[0], read[2])(file)
            claimed = math.prod(shape) * dtype.itemsize
            if any(side < 0 for side in shape) or claimed > member.file_size:
                raise ValueError(
                    f"{member.filename} claims shape {shape}, {claimed:,} bytes, and has {member.file_size:,}"
                )
