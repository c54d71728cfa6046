"""Other people's files on the Hugging Face hub."""

import pathlib

from robust_zoo.porting.tensors import KINDS, PortError
from robust_zoo.sentences import one_line


def local_file(place: str | pathlib.Path) -> pathlib.Path:
    """A file of this machine, or one of the hub in its client's cache.

    Args:
        place: a path, "hf://owner/repository:file", or "hf://owner/repository" where one file alone can be ported.

    Raises:
        PortError: a place that is not there, or a repository of which a file is to be named.
    """
    if not str(place).startswith("hf://"):
        return pathlib.Path(place)
    import huggingface_hub

    repository, _, name = str(place).removeprefix("hf://").partition(":")
    try:
        if not name:
            there = huggingface_hub.list_repo_files(repository)
            files = [part for part in there if part.lower().endswith(KINDS)]
            if len(files) != 1:
                raise PortError(
                    f"file must be one of those in {place}, as hf://owner/repository:file: "
                    f"{', '.join(map(one_line, files)) or 'none of them can be ported'}."
                )
            (name,) = files
        return pathlib.Path(huggingface_hub.hf_hub_download(repository, name))
    except PortError:
        raise
    except Exception as error:  # of whatever the client stumbles over on the way
        raise PortError(
            f"file must be one that can be downloaded, got {str(place)!r}: {one_line(error)}."
        ) from error
