"""The command `reproduce`."""

import re
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
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Where the images of kurakin-imagenet and kurakin-imagenet-transfer lie: a folder of ImageNet's classes."
        ),
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

    try:
        found = comparisons.reproduce(name, n=n, seed=seed, dataset=dataset)
    except ValueError as error:
        raise ValueError(re.sub("^dataset of", "--dataset of", str(error))) from None
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
