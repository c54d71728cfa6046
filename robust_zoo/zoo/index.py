"""The index of the zoo: what there is, without opening a record, and with which hashes.

index.json has one model a line, as `robust-zoo index` writes it from the checkpoints' records. A model's role and its
handle on a hub are decided by people and by `publish`: they stay as they are in the file.
"""

import fnmatch
import json
import pathlib
import re
from collections.abc import Iterable
from typing import Literal, get_args

import pydantic
from pydantic import Field

from robust_zoo.describe import describe_attack
from robust_zoo.files import write_text
from robust_zoo.places import RECORD
from robust_zoo.record import Accuracy, Certified, Norm, RobustnessRecord, ThreatModel, WorstCase
from robust_zoo.sentences import html_table
from robust_zoo.zoo.errors import CheckpointError

INDEX = pathlib.Path(__file__).with_name("index.json")

Role = Literal["robust", "baseline", "study"]
ROLES = get_args(Role)
_SHA256 = "^[0-9a-f]{64}$"


class IndexEntry(pydantic.BaseModel):
    """A model in the index; `load_record(entry.name)` is its evidence in full.

    Attributes:
        name: what `load_model` takes.
        role: "robust" (for users), "baseline" (natural training and rival defenses, the other side of a table) or
            "study" (capacity, copies, failures that prove a point); None on a hub, which does not tell.
        architecture: its name.
        parameters: how many.
        dataset: that it was measured on.
        defense: class of the defense, "natural" without one, or "not recorded".
        threat_model: norm and epsilon, or None where no attack had a budget.
        clean: accuracy.
        worst_case: accuracy under all attacks together, or None where there were none.
        certificate: what is proven within the threat model, or None.
        attacks: in words, each.
        failed_checks: names of the checks that did not pass.
        weights_sha256: of the weights file.
        weights_bytes: size of it.
        record_sha256: of the record, `RobustnessRecord.sha256`.
        handle: on a hub, pinned; "" where it is on none.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    role: Role | None
    architecture: str
    parameters: int
    dataset: str
    defense: str
    threat_model: ThreatModel | None
    clean: Accuracy
    worst_case: WorstCase | None
    certificate: Certified | None = None
    attacks: tuple[str, ...]
    failed_checks: tuple[str, ...]
    weights_sha256: str = Field(pattern=_SHA256)
    weights_bytes: int
    record_sha256: str = Field(pattern=_SHA256)
    handle: str = ""

    @classmethod
    def of(
        cls, record: RobustnessRecord, role: Role | None, *, name: str = "", handle: str = ""
    ) -> "IndexEntry":
        """The entry of a record, under its own name or another one."""
        natural = "natural" if record.training else "not recorded"
        return cls(
            name=name or record.name,
            role=role,
            architecture=record.architecture,
            parameters=record.parameters,
            dataset=record.dataset.name,
            defense=record.defense.name if record.defense else natural,
            threat_model=record.threat_model,
            clean=record.clean,
            worst_case=record.worst_case,
            certificate=record.certificate,
            attacks=tuple(map(describe_attack, record.attacks)),
            failed_checks=tuple(check.name for check in record.failed_checks),
            weights_sha256=record.weights.sha256,
            weights_bytes=record.weights.bytes,
            record_sha256=record.sha256,
            handle=handle,
        )

    @property
    def defense_names(self) -> set[str]:
        """What `list_models` finds it by: of mlp.step_ll_digits step, step_ll and the class, in small letters."""
        whole = self.name.partition(".")[2].rpartition("_")[0]
        return {whole.partition("_")[0].lower(), whole.lower(), self.defense.lower()} - {""}


class ModelList(list[IndexEntry]):
    """Entries of the index, which a notebook shows as a table."""

    def _repr_html_(self) -> str:
        rows = []
        for entry in self:
            threat, worst = entry.threat_model, entry.worst_case
            rows.append(
                (
                    entry.name + ("*" if entry.failed_checks else ""),
                    entry.dataset,
                    f"{threat.norm} {threat.epsilon:.6g}" if threat else "",
                    f"{entry.clean.accuracy:.2%}",
                    f"{worst.accuracy:.2%}" if worst else "",
                    f"{entry.certificate.accuracy:.2%}" if entry.certificate else "",
                    f"{entry.parameters:,}",
                    entry.defense,
                )
            )
        headings = (
            "model", "dataset", "threat model", "clean", "worst case", "certified", "parameters", "defense",
        )  # fmt: skip
        flagged = any(entry.failed_checks for entry in self)
        return html_table(headings, rows, below="* a check did not pass" if flagged else "")


_ENTRIES = pydantic.TypeAdapter(list[IndexEntry])


def read_index(path: pathlib.Path = INDEX) -> list[IndexEntry]:
    """The entries of an index file."""
    return _ENTRIES.validate_json(path.read_bytes())


def make_index(
    directory: pathlib.Path, known: Iterable[IndexEntry], roles: dict[str, Role] | None = None
) -> list[IndexEntry]:
    """The index of a folder of checkpoint directories, in natural order of the names.

    Args:
        directory: the folder.
        known: the index so far, whose roles and handles stay; the handle only with the record it names.
        roles: of some models, by name. A model that is new and has none here is a baseline if it was trained
            naturally, and robust otherwise.

    Raises:
        CheckpointError: no records in `directory`, or a role for a model that is not there.
        RecordError: an unreadable one.
    """
    records = {
        path.parent.name: RobustnessRecord.read(path) for path in directory.glob(f"*/{RECORD}")
    }
    if not records:
        raise CheckpointError(f"no checkpoints with a {RECORD} in {str(directory)!r}.")
    roles = roles or {}
    for name in roles.keys() - records.keys():
        raise CheckpointError(f"role {name}: no such checkpoint in {str(directory)!r}.")
    earlier = {entry.name: entry for entry in known}
    made = []
    for name in sorted(records, key=natural_order):
        record, before = records[name], earlier.get(name)
        usual: Role | None = before.role if before else "robust" if record.defense else "baseline"
        handle = ""
        if before is not None and before.record_sha256 == record.sha256:
            handle = before.handle
        made.append(IndexEntry.of(record, roles.get(name, usual), name=name, handle=handle))
    return made


def write_index(entries: Iterable[IndexEntry], path: pathlib.Path = INDEX) -> None:
    """Writes an index file, atomically: one entry a line."""
    lines = (json.dumps(entry.model_dump(mode="json")) for entry in entries)
    write_text(path, "[\n" + ",\n".join(lines) + "\n]\n")


def natural_order(name: str) -> list:
    """A key to sort names by: mlp.x9 before mlp.x10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def ranked(entries: Iterable[IndexEntry]) -> list[IndexEntry]:
    """By worst-case accuracy, the highest first, within dataset and threat model."""

    def key(entry: IndexEntry) -> tuple[str, tuple[str, float], float, list]:
        threat, worst = entry.threat_model, entry.worst_case
        budget = (threat.norm, threat.epsilon) if threat else ("~", 0.0)
        return entry.dataset, budget, -worst.accuracy if worst else 1.0, natural_order(entry.name)

    return sorted(entries, key=key)


def chosen(
    entries: Iterable[IndexEntry],
    pattern: str = "*",
    *,
    role: str = "all",
    dataset: str | None = None,
    norm: str | None = None,
    defense: str | None = None,
) -> list[IndexEntry]:
    """The entries that fit, ranked; see `list_models`."""
    if role not in (*ROLES, "all"):
        raise ValueError(f"role must be one of {', '.join((*ROLES, 'all'))}, got {role!r}.")
    if norm not in (None, *get_args(Norm)):
        raise ValueError(f"norm must be one of {', '.join(get_args(Norm))}, got {norm!r}.")
    found = [entry for entry in entries if fnmatch.fnmatchcase(entry.name, pattern)]
    filters = (
        ("dataset", dataset, lambda entry: {entry.dataset}),
        ("norm", norm, lambda entry: {entry.threat_model.norm} if entry.threat_model else set()),
        ("defense", defense and defense.lower(), lambda entry: entry.defense_names),
    )
    for argument, wanted, of in filters:
        there = set().union(*map(of, found))
        if wanted is not None and found and wanted not in there and argument != "norm":
            known = ", ".join(sorted(there))
            raise ValueError(f"{argument} must be one that a model has, {known}, got {wanted!r}.")
        found = [entry for entry in found if wanted is None or wanted in of(entry)]
    return ranked(entry for entry in found if role == "all" or entry.role in (None, role))
