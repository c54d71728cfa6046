"""The command `reproduce`."""

import dataclasses
import json
from typing import Annotated

import typer

from robust_zoo.cli.common import console, quiet


def reproduce(
    name: Annotated[str, typer.Argument(help="Such as deepdefense-table1 or galloway-logistic.")],
    n: Annotated[int | None, typer.Option(help="Test examples; by default all.")] = None,
    seed: Annotated[int, typer.Option(help="Of the sample and the attacks.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Measures the models of a paper's table, and prints its numbers beside ours."""
    with quiet():
        from robust_zoo.reproduce import reproduce as measure

    found = measure(name, n=n, seed=seed)
    if as_json:
        print(json.dumps(dataclasses.asdict(found), indent=2))
        return
    from rich.table import Table

    table = Table("model", "", *found.columns, title=found.title, title_justify="left")
    for model, (paper, ours) in found.rows.items():
        table.add_row(model, "paper", *map(_cell, paper))
        table.add_row("", "ours", *map(_cell, ours), end_section=True)
    out = console()
    out.print(table)
    out.print(f"Paper: {found.source}. Ours: {found.n_examples} test examples, seed {seed}.")
    if found.missing:
        out.print(f"Not in the zoo: {', '.join(found.missing)}.")


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
