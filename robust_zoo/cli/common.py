"""What the commands share: quiet start, arguments in words, tables."""

import contextlib
import json
import logging
import math
import os
import pathlib
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from robust_zoo.attack_names import HYPERPARAMETERS, NAMES, check_epsilon, check_settings, outside
from robust_zoo.sentences import one_line
from robust_zoo.typing import BOUNDS

if TYPE_CHECKING:
    from rich.console import Console

    from robust_zoo.attacks import Attack
    from robust_zoo.certification import Smoothing
    from robust_zoo.record import RobustnessRecord, ThreatModel
    from robust_zoo.zoo.index import IndexEntry

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps what TensorFlow says while it starts out of our output; shown if it cannot start. Our warnings are shown."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with tempfile.TemporaryFile() as said, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", UserWarning)
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            yield
        except ImportError:
            said.seek(0)
            os.write(stderr, said.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            for warning in warned:  # ours, not those of libraries
                if pathlib.Path(warning.filename).is_relative_to(_PACKAGE):
                    print(f"robust-zoo: warning: {one_line(warning.message, 500)}", file=sys.stderr)


def console() -> "Console":
    """Where tables go."""
    from rich.console import Console

    # Text of records is shown as it is, whatever brackets and colons it has.
    options: dict[str, Any] = {"markup": False, "emoji": False}
    console = Console(**options)
    # A pipe has no width of its own, and a cut table is of no use in it.
    return console if console.is_terminal else Console(width=200, **options)


def number(text: str, option: str) -> float:
    """A number written as 0.3 or 8/255; `option` is the flag that it was given to."""
    numerator, _, denominator = text.partition("/")
    try:
        return float(numerator) / float(denominator or 1)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{option} must be a number such as 0.3 or 8/255, got {text!r}.") from None


def numbers(text: str, option: str) -> list[float]:
    """Numbers with commas between them, as `number` reads them."""
    return [number(part, option) for part in text.split(",")]


def read_attack(text: str) -> tuple[str, dict]:
    """The name and the settings of an attack, from "name" or "name:key=value,...", before any backend starts.

    Raises:
        ValueError: an unknown attack or hyperparameter, an epsilon of its own, a hyperparameter given twice, or
            values that are not allowed, alone or together.
    """
    name, _, settings = text.partition(":")
    name = name.lower()
    if name not in (known := [*NAMES, *outside()]):
        raise ValueError(
            f"--attack: unknown attack {name!r}: it must be one of {', '.join(known)}."
        )
    allowed, values = _hyperparameters(text), {}
    for setting in filter(None, settings.split(",")):
        key, _, value = setting.partition("=")
        if key not in allowed:
            raise ValueError(
                f"--attack: {name!r} has no {key!r}: it must be one of {', '.join(allowed)}."
            )
        if key == "epsilon":
            raise ValueError(
                f"--attack: epsilon is set by --epsilon or --epsilons, not in the attack, got {text!r}."
            )
        if key in values:
            raise ValueError(f"--attack: {key} of {name!r} is given twice, got {text!r}.")
        values[key] = _value(name, key, value, allowed[key])
    if name not in NAMES:
        return name, values
    try:
        check_settings(name, values)
    except ValueError as error:
        raise ValueError(f"--attack: {error} Got {text!r}.") from None
    return name, values


def _value(attack: str, key: str, text: str, allowed: Any) -> Any:
    """A hyperparameter's value; ValueError if it is not among those allowed."""
    where = f"--attack: {key} of {attack!r}"
    if isinstance(allowed, tuple):
        if text not in allowed:
            raise ValueError(f"{where} must be one of {', '.join(allowed)}, got {text!r}.")
        return text
    if allowed is str:
        return text
    if allowed is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{where} must be true or false, got {text!r}.")
        return text.lower() == "true"
    if allowed.kind is int:
        value = int(text) if text.isdecimal() else math.nan
    else:
        value = number(text, where)
    if value not in allowed:
        raise ValueError(f"{where} must be {allowed}, got {text!r}.")
    return value


def parse_attack(text: str, epsilon: float | None, norm: str | None) -> "Attack":
    """An attack from "name" or "name:key=value,...", such as "pgd:steps=100,restarts=20,step_size=0.01".

    Args:
        text: what was asked for.
        epsilon: of fixed-budget attacks.
        norm: unless their name or settings say otherwise; None for their own, which minimum-norm attacks
            that do not have `norm` keep.

    Raises:
        ValueError: what `read_attack` refuses, or values that do not fit.
    """
    from robust_zoo.attacks.registry import attack_of

    name, settings = read_attack(text)
    values: dict[str, Any] = {"epsilon": epsilon} if needs_epsilon(text) else {}
    fits = needs_epsilon(text) or norm in norms_of(text)
    if norm is not None and fixed_norm(text) is None and fits:
        values["norm"] = norm
    return attack_of(name, **(values | settings))


def check_certify(methods: Sequence[str], skip: bool) -> None:
    """Refuses methods of certificates that there are not, and skipping what is not certified."""
    if not set(methods) <= set(BOUNDS) or len(set(methods)) < len(methods):
        raise ValueError(
            f"--certify must be one of {', '.join(BOUNDS)}, each once, got {', '.join(methods)}."
        )
    if skip and not methods:
        raise ValueError("--skip-certified needs --certify, which says what is certified.")


def parse_smoothing(text: str | None) -> "Smoothing | None":
    """How to smooth, from "sigma=0.25,n=10000,images=500,radii=0:0.25:0.5"; None stays None.

    Raises:
        ValueError: a setting that there is not, or a value out of range.
    """
    if text is None:
        return None
    from robust_zoo.certification import Smoothing

    def radii(values: str) -> list[float]:
        return [float(value) for value in values.split(":")]

    kinds: dict[str, Callable[[str], Any]] = {
        "sigma": float, "n0": int, "n": int, "alpha": float, "images": int, "radii": radii,
    }  # fmt: skip
    what: dict[Any, str] = {
        int: "an integer",
        float: "a number",
        radii: "numbers such as 0:0.25:0.5",
    }
    values: dict[str, Any] = {}
    for setting in text.split(","):
        key, _, value = setting.partition("=")
        if key not in kinds or key in values:
            raise ValueError(
                f"--smoothing must be settings such as sigma=0.25,n=10000, each of {', '.join(kinds)} once, got {text!r}."
            )
        try:
            values[key] = kinds[key](value)
        except ValueError:
            raise ValueError(
                f"--smoothing: {key} must be {what[kinds[key]]}, got {value!r}."
            ) from None
    if "sigma" not in values:
        raise ValueError(f"--smoothing needs sigma, the deviation of the noise, got {text!r}.")
    try:
        return Smoothing(**values)
    except ValueError as error:
        raise ValueError(f"--smoothing: {error}") from None


def parse_threat_model(text: str) -> "ThreatModel":
    """A ball, from "norm:epsilon" such as "l2:0.5" or "linf:8/255"; ValueError for anything else."""
    from robust_zoo.record import ThreatModel

    norm, _, radius = text.partition(":")
    if norm not in ("linf", "l2", "l1", "l0") or not radius:
        raise ValueError(
            f"--threat-model must be a norm and a radius, such as l2:0.5 or linf:8/255, got {text!r}."
        )
    epsilon = number(radius, "--threat-model")
    try:
        return ThreatModel.model_validate({"norm": norm, "epsilon": check_epsilon(epsilon, norm)})
    except ValueError as error:
        raise ValueError(f"--threat-model: {error}") from None


def needs_epsilon(text: str) -> bool:
    """Whether an attack has a budget."""
    return "epsilon" in _hyperparameters(text)


def norms_of(text: str) -> tuple[str, ...]:
    """The norms that an attack can have."""
    return _hyperparameters(text)["norm"]


def fixed_norm(text: str) -> str | None:
    """The norm that an attack's name or settings give it, if they do."""
    name, settings = read_attack(text)
    return settings.get("norm", NAMES[name][1].get("norm") if name in NAMES else None)


def _hyperparameters(text: str) -> dict:
    name = text.partition(":")[0].lower()
    if name in NAMES:
        return HYPERPARAMETERS[NAMES[name][0]]
    from robust_zoo.attacks.registry import outside_hyperparameters  # starts a backend

    return outside_hyperparameters(name)


def check_count(value: int | None, option: str) -> None:
    """ValueError for a number of things below 1; None is no number."""
    if value is not None and value < 1:
        raise ValueError(f"{option} must be an integer >= 1, got {value}.")


def is_model_file(handle: str) -> bool:
    """Whether a name is that of a Keras model file, in any letter case."""
    return handle.lower().endswith((".keras", ".h5", ".hdf5"))


def in_flags(sentence: str, options: Iterable[str]) -> str:
    """An error's sentence with the command's flags where it names Python's arguments."""

    def flag(match: re.Match[str]) -> str:
        value = match[2].strip("'\"()").replace(", ", ",")
        return f"--{match[1].replace('_', '-')} {value}"

    sentence = re.sub(
        r"(?:robust_zoo\.|rz\.)?as_classifier\((?:model, )?(\w+)=('[^']*'|\([^)]*\))\)",
        flag,
        sentence,
    )
    for option in options:
        flag_name = f"--{option.replace('_', '-')}"
        sentence = re.sub(rf"^{option}s?(?= (?:must|is needed|needs|is for))", flag_name, sentence)
    return sentence


class InterruptedRunError(Exception):
    """Ctrl-C, with a sentence on what is kept and how to resume."""


@contextlib.contextmanager
def interruptible(sentence: str) -> Iterator[None]:
    """Turns Ctrl-C into `InterruptedRunError`."""
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedRunError(sentence) from None


def check_writable(path: pathlib.Path | None, option: str) -> None:
    """Raises OSError for a file that could not be written; None is none."""
    if path is None:
        return
    if not path.resolve().parent.is_dir():
        raise FileNotFoundError(
            f"{option}: no directory {str(path.parent)!r} to write {path.name!r} into."
        )
    if path.is_dir():
        raise IsADirectoryError(f"{option} must be a file, got the directory {str(path)!r}.")


def fitting_table(columns: dict[str, list[str]], width: int, style: str) -> tuple[str, list[str]]:
    """A table that cuts and wraps no cell, and the headings of the columns that found no room in `width`.

    Columns are left out from the right, the first one never. The last one alone wraps, in 24 characters or more.
    `style` is a table format of tabulate's.
    """
    # rich's tables take ten times as long: a second for a thousand rows.
    import tabulate
    from wcwidth import wcswidth

    tabulate.MIN_PADDING = 0  # it widens columns for their headings
    sizes = {
        heading: max(map(wcswidth, [heading, *cells])) + 3 for heading, cells in columns.items()
    }
    last = list(columns)[-1]
    whole, sizes[last] = sizes[last], min(sizes[last], 27)
    shown = list(columns)
    while len(shown) > 1 and sum(sizes[heading] for heading in shown) + 1 > width:
        shown.pop()
    room = width - 1 - sum(sizes[heading] for heading in shown if heading != last)
    wraps = last in shown and room < whole
    table = tabulate.tabulate(
        {heading: columns[heading] for heading in shown},
        headers="keys",
        tablefmt=style,
        disable_numparse=True,
        maxcolwidths=[None] * (len(shown) - 1) + [room - 3] if wraps else None,
    )
    return table, list(columns)[len(shown) :]


def print_entries(entries: Sequence["IndexEntry"]) -> None:
    """Prints one table of models, a row each."""
    from robust_zoo.describe import bracket, describe_threat, percent

    worst = [entry.worst_case for entry in entries]
    columns = {
        "model": [entry.name + ("*" if entry.failed_checks else "") for entry in entries],
        "worst case": [bracket(entry.worst_case, entry.certificate) for entry in entries],
        "clean": [percent(entry.clean.accuracy) for entry in entries],
        "dataset": [entry.dataset for entry in entries],
        "threat model": [describe_threat(entry) for entry in entries],
        "n": [str(part.n_examples) if part else "" for part in worst],
        "attacks": [", ".join(entry.attacks) for entry in entries],
    }
    out = console()
    style = "rounded_outline" if out.encoding.startswith("utf") else "outline"
    table, left_out = fitting_table(columns, out.width, style)
    print(table)
    if left_out:
        out.print(f"a wider terminal also shows: {', '.join(left_out)}")


def print_ranking(records: Iterable["RobustnessRecord"]) -> None:
    """Prints one table of records, the most robust first within a dataset and a threat model."""
    from robust_zoo.zoo.index import IndexEntry, ranked

    print_entries(ranked(IndexEntry.of(record, None) for record in records))


def as_json_list(records: Iterable["RobustnessRecord"]) -> str:
    """Records as a JSON array."""
    return json.dumps([json.loads(record.to_json()) for record in records], indent=2) + "\n"


def print_against_epsilon(records: "Sequence[RobustnessRecord]") -> None:
    """Prints the accuracies of one model at several epsilons as one table."""
    from rich.table import Table

    from robust_zoo.describe import accuracies, accuracy_of, describe_threat, interval

    out = console()
    balls = [describe_threat(record) for record in records]
    table = Table("", *balls, title=f"{records[0].name}, accuracy", title_justify="left")
    rows: dict[str, dict[int, str]] = {}
    for place, record in enumerate(records):
        for metric in accuracies(record):
            cell = f"{accuracy_of(metric.found)} ({interval(metric.found)})"
            rows.setdefault(metric.name, {})[place] = cell
        failed = [check.name for check in record.failed_checks]
        rows.setdefault("failed checks", {})[place] = ", ".join(failed) or "none"
    failed_checks = rows.pop("failed checks")
    for name, cells in [*rows.items(), ("failed checks", failed_checks)]:
        table.add_row(name, *(cells.get(place, "") for place in range(len(records))))
    out.print(table)
    ns = ", ".join(str(record.worst_case.n_examples) for record in records if record.worst_case)
    out.print(f"95% intervals; n {ns}. --json FILE writes the records.")


def print_record(record: "RobustnessRecord") -> None:
    """Prints a record as tables."""
    from rich.table import Table

    from robust_zoo.describe import (
        FAILED,
        accuracies,
        accuracy_of,
        check_rows,
        corruption_heading,
        corruption_rows,
        distance_rows,
        facts,
        interval,
        percent,
        smoothing_heading,
        smoothing_rows,
    )

    out = console()
    about = Table(title=record.name, show_header=False, title_justify="left")
    for fact in facts(record):
        about.add_row(*fact)
    out.print(about)

    results = Table("attack", "accuracy", "95% interval", "n")
    for metric in accuracies(record):
        part = metric.found
        results.add_row(metric.name, accuracy_of(part), interval(part), str(part.n_examples))
        for component, accuracy in getattr(part, "components", {}).items():
            results.add_row(f"  after {component}", percent(accuracy), "", "")
        if skipped := getattr(part, "skipped", 0):
            results.add_row(f"  {skipped} certified, not attacked", "", "", "")
    out.print(results)

    if heading := smoothing_heading(record):
        out.print(heading)
        smoothed = Table("l2 radius", "certified", "95% interval", "n")
        for row in smoothing_rows(record):
            smoothed.add_row(*row)
        out.print(smoothed)

    if heading := corruption_heading(record):
        out.print(f"corrupted images: {heading}")
        assert record.corruptions is not None  # or it has no heading
        levels = map(str, record.corruptions.severities)
        corrupted = Table("corruption, by severity", *levels, "mean")
        for row in corruption_rows(record):
            corrupted.add_row(*row)
        out.print(corrupted)

    if record.minimum_norm:
        distances = Table("closest adversarial example", "norm", "found", "mean", "median", "rho")
        for row in distance_rows(record):
            distances.add_row(*row)
        out.print(distances)

    if record.checks:
        checks = Table("check", "", "value")
        for name, verdict, value, _ in check_rows(record):
            checks.add_row(name, verdict.upper() if verdict == FAILED else verdict, value)
        out.print(checks)
        for check in record.failed_checks:
            out.print(f"{check.name}: {check.explanation}")
