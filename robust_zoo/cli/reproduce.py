"""The command `reproduce`."""

from typing import Annotated

import typer

from robust_zoo.cli.common import console, quiet
from robust_zoo.papers.table import find_table, names


def reproduce(
    name: Annotated[
        str,
        typer.Argument(help=f"{', '.join(names()[:-1])} or {names()[-1]}."),
    ],
    n: Annotated[
        int | None,
        typer.Option(help="Test examples; by default all, in madry-table1 and pgn-table3 1,000."),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Integer seed for the sample and for all randomness of the attacks.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown page.")] = False,
) -> None:
    """Measures the models of a paper's table, and prints its numbers beside ours."""
    find_table(name)  # refuses an unknown one before a backend starts
    with quiet():
        from robust_zoo.papers import comparison as comparisons

    found = comparisons.reproduce(name, n=n, seed=seed)
    if as_json:
        print(found.model_dump_json(indent=2))
        return
    if as_markdown:
        print(comparisons.markdown(found), end="")
        return
    from rich.table import Table

    header, *rows = comparisons.table(found)
    table = Table(title=found.title, title_justify="left")
    for number, heading in enumerate(header):
        table.add_column(heading, no_wrap=number == 0, overflow="fold")
    for row in rows:
        table.add_row(*row, end_section=row[1] == "ours")
    out = console()
    out.print(table)
    out.print(comparisons.footnote(found))
