"""Files that are there in full or not at all."""

import os
import pathlib
import tempfile


def write_text(path: str | pathlib.Path, text: str) -> None:
    """Writes UTF-8 text beside `path` and renames it into place."""
    path = pathlib.Path(path)
    handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(partial, 0o644)  # mkstemp's own mode would keep others from reading it
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise
