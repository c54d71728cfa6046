"""Files that are there in full or not at all."""

import contextlib
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
