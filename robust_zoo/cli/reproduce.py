"""The command `reproduce`."""

from typing import Annotated

import typer

from robust_zoo.cli.common import console, quiet


def reproduce(
    name: Annotated[
        str,
        typer.Argument(
            help="deepdefense-table1, galloway-logistic, kurakin-leaking, madry-capacity or madry-table1."
        ),
    ],
    n: Annotated[
        int | None, typer.Option(help="Test examples; by default all, in madry-table1 1,000.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the sample and the attacks.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Measures the models of a paper's table, and prints its numbers beside ours."""
    with quiet():
        from robust_zoo.reproduce import reproduce as measure

    found = measure(name, n=n, seed=seed)
    if as_json:
        print(found.model_dump_json(indent=2))
        return
    from rich.table import Table

    table = Table("", "", *found.columns, title=found.title, title_justify="left")
    for row, (paper, ours) in found.rows.items():
        if any(value is not None for value in paper):
            table.add_row(row, "paper", *map(_cell, paper))
            row = ""
        table.add_row(row, "ours", *map(_cell, ours), end_section=True)
    out = console()
    out.print(table)
    out.print(f"Paper: {found.source}. Ours: {found.n_examples} test examples, seed {found.seed}.")
    if found.missing:
        out.print(f"Not in the zoo: {', '.join(found.missing)}.")


def _cell(value) -> str:
    """A number, None, or an accuracy with its 95% interval, in percent."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    low, high = value.ci95
    return f"{100 * value.accuracy:.2f} ({100 * low:.1f}-{100 * high:.1f})"
