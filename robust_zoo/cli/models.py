"""Commands about models that are there: list, show, publish, cards."""

import pathlib
from typing import Annotated

import typer

from robust_zoo.cli.common import as_json_list, console, print_record, quiet


def list_models(
    pattern: Annotated[str, typer.Argument(help="Wildcards over names, such as '*mnist*'.")] = "*",
    dataset: Annotated[str | None, typer.Option(help="Only models measured on it.")] = None,
    norm: Annotated[str | None, typer.Option(help="Only this norm: linf or l2.")] = None,
    defense: Annotated[str | None, typer.Option(help="Only this defense, such as pgd.")] = None,
    hub: Annotated[
        str | None, typer.Option(help="Of hf://org or file:///path instead of the zoo.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All records as JSON.")] = False,
) -> None:
    """Lists the models of the zoo, or of a hub."""
    with quiet():
        from robust_zoo import zoo
    records = zoo.list_models(pattern, hub=hub, dataset=dataset, norm=norm, defense=defense)
    if as_json:
        print(as_json_list(records), end="")
        return
    if not records:
        raise ValueError(
            f"no model matches {pattern!r}{' with these options' if dataset or norm or defense else ''}: "
            "robust-zoo list shows all."
        )
    from rich.table import Table

    from robust_zoo.describe import describe_attack, describe_threat, percent

    table = Table("model", "dataset", "threat model", "clean", "worst case", "n", "attacks")
    for record in records:
        worst = record.worst_case
        table.add_row(
            record.name,
            record.dataset.name,
            describe_threat(record),
            percent(record.clean.accuracy),
            percent(worst.accuracy) if worst else "",
            str(worst.n_examples) if worst else "",
            ", ".join(describe_attack(outcome) for outcome in record.attacks),
        )
    console().print(table)


def show(
    model: Annotated[str, typer.Argument(help="Name, checkpoint directory, or handle on a hub.")],
    as_json: Annotated[bool, typer.Option("--json", help="The whole record as JSON.")] = False,
) -> None:
    """Shows a model's record."""
    with quiet():
        from robust_zoo.zoo import load_record
    record = load_record(model)
    if as_json:
        print(record.to_json(), end="")
    else:
        print_record(record)


def publish(
    directory: Annotated[
        pathlib.Path,
        typer.Argument(help="Checkpoint directory with a record, such as train writes."),
    ],
    handle: Annotated[str, typer.Argument(help="hf://org/name or file:///path/name.")],
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Of a new repository; by default the owner's."),
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Name for this version, such as v1.")] = None,
) -> None:
    """Publishes a model with its record, recipe and card; prints the handle that loads just this version.

    The token is the Hugging Face client's: HF_TOKEN, or what `hf auth login` stored.
    """
    with quiet():
        from robust_zoo import zoo
    print(zoo.publish(directory, handle, private=private, tag=tag))


def cards(
    directory: Annotated[
        pathlib.Path, typer.Argument(help="Folder of checkpoint directories.")
    ] = pathlib.Path("checkpoints"),
) -> None:
    """Regenerates every card, and beside the folder MODEL_CARDS.md and the tables of the READMEs."""
    with quiet():
        from robust_zoo.zoo.cards import write_cards

        written = write_cards(directory)
    print(f"{len(written)} cards and {directory.resolve().parent / 'MODEL_CARDS.md'} written")
