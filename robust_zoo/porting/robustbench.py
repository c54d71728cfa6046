"""Models that others published and that can be ported: ports.json, made of RobustBench's lists."""

import difflib
import functools
import json
import pathlib
from typing import Any

import pydantic

from robust_zoo.porting.tensors import PortError

_FILE = pathlib.Path(__file__).parents[1] / "ports.json"
_SCHEME = "robustbench:"
_NON_COMMERCIAL = ("ding2020mma",)


class Published(pydantic.BaseModel):
    """A model as its authors published it.

    Attributes:
        name: RobustBench's, of one dataset and norm.
        dataset: that it was trained on.
        norm: of its threat model.
        epsilon: of its threat model, in [0, 1] pixel units.
        architecture: that `port` makes.
        options: of the architecture.
        entry: of the file, see `read_file`.
        parameters: that were trained.
        license: of the weights.
        clean: accuracy in percent.
        autoattack: accuracy in percent.
        central_crop: share of an image's sides that was measured on, see `open_dataset`; default 1.
        tolerance: points by which clean accuracy may differ; default 0.05, and 3 where theirs is of a sample of the split.
        extra_data: whether more than the dataset's own images were used.
        sources: where the file lies, on the Hugging Face hub (hf://owner/repository:file) or elsewhere.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    name: str
    dataset: str
    norm: str
    epsilon: float
    architecture: str
    options: dict[str, Any]
    entry: str = ""
    parameters: int
    license: str
    clean: float
    autoattack: float
    central_crop: float = 1.0
    tolerance: float = 0.05
    extra_data: str
    sources: tuple[str, ...]

    @property
    def handle(self) -> str:
        """What `find_published` finds this model by, and no other."""
        return f"{_SCHEME}{self.dataset}/{self.norm}/{self.name}"


@functools.cache
def published() -> tuple[Published, ...]:
    """All of them."""
    return tuple(
        Published.model_validate(part)
        for part in json.loads(_FILE.read_text(encoding="utf-8"))["models"]
    )


def find_published(handle: str) -> Published:
    """A published model by "robustbench:NAME", in capitals or not, or by "robustbench:DATASET/NORM/NAME" where several have the name.

    Of several the one of CIFAR-10 in linf is meant, as RobustBench has it.

    Raises:
        PortError: none of that name, with those that are closest, or several.
    """
    if not handle.startswith(_SCHEME):
        raise PortError(
            f"handle must be {_SCHEME}NAME, such as {_SCHEME}Rice2020Overfitting, got {handle!r}."
        )
    name = _spelling(handle.removeprefix(_SCHEME))
    found = [
        part
        for part in published()
        if name in (_spelling(part.name), _spelling(part.handle.partition(":")[2]))
    ]
    usual = [part for part in found if (part.dataset, part.norm) == ("cifar10", "linf")]
    if len(found) == 1 or usual:
        return (usual or found)[0]
    if found:
        handles = " or ".join(part.handle for part in found)
        raise PortError(
            f"handle must say which of the models of that name: {handles}, got {handle!r}."
        )
    if name.rpartition("/")[2] in _NON_COMMERCIAL:
        raise PortError(
            f"{handle.rpartition(':')[2]} is left out: the license of its weights forbids commercial use."
        )
    names = {_spelling(part.name): part.name for part in published()}
    near = difflib.get_close_matches(name, sorted(names), n=3, cutoff=0.5)
    close = [names[each] for each in near]
    raise PortError(
        f"handle must be one of {len(published())} published models"
        + (f", such as {', '.join(close)}" if close else "")
        + f", got {handle!r}."
    )


def _spelling(name: str) -> str:
    """Names have no fixed spelling: capitals are small letters, and "-" is "_"."""
    return name.lower().replace("-", "_")
