"""Commands about models that are there: list, show, publish, index, cards."""

import json
import pathlib
from typing import Annotated, Any

import typer

from robust_zoo.cli.common import print_entries, print_record, quiet


def list_models(
    pattern: Annotated[str, typer.Argument(help="Wildcards over names, such as '*mnist*'.")] = "*",
    every: Annotated[
        bool, typer.Option("--all", help="Also baselines and the models of studies.")
    ] = False,
    role: Annotated[
        str | None, typer.Option(help="Role: robust (default), baseline, study or all.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Only models measured on it.")] = None,
    norm: Annotated[str | None, typer.Option(help="Only this norm: linf, l2, l1 or l0.")] = None,
    defense: Annotated[str | None, typer.Option(help="Only this defense, such as pgd.")] = None,
    hub: Annotated[
        str | None, typer.Option(help="List a hub, hf://org or file:///path, instead of the zoo.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The index's entries as JSON.")] = False,
) -> None:
    """Lists the robust models of the zoo, or the models of a hub, the most robust first."""
    from robust_zoo.zoo import registry

    if every and role not in (None, "all"):
        raise ValueError(f"--all lists every role: leave out --role {role}.")
    role = "all" if every else role or "robust"
    filters: dict[str, Any] = {"role": role, "dataset": dataset, "norm": norm, "defense": defense}
    with quiet():
        entries = registry.list_models(pattern, hub=hub, **filters)
    if as_json:
        print(json.dumps([entry.model_dump(mode="json") for entry in entries], indent=2))
        return
    if not entries:
        kind = "" if role == "all" else f"{role} "
        options = " with these options" if dataset or norm or defense else ""
        raise ValueError(
            f"no {kind}model matches {pattern!r}{options}: robust-zoo list --all shows all."
        )
    print_entries(entries)
    if any(entry.failed_checks for entry in entries):
        print("* a check did not pass: robust-zoo show NAME says which")


def show(
    model: Annotated[str, typer.Argument(help="Name, checkpoint directory, or handle on a hub.")],
    as_json: Annotated[bool, typer.Option("--json", help="The whole record as JSON.")] = False,
) -> None:
    """Shows a model's record."""
    from robust_zoo.zoo import registry

    with quiet():
        record = registry.load_record(model)
    if as_json:
        print(record.to_json(), end="")
    else:
        print_record(record)


def index(
    directory: Annotated[
        pathlib.Path, typer.Argument(help="Folder of checkpoint directories.")
    ] = pathlib.Path("checkpoints"),
    role: Annotated[
        list[str] | None,
        typer.Option(help="NAME=ROLE, where ROLE is robust, baseline or study. Repeatable."),
    ] = None,
) -> None:
    """Regenerates the zoo's index from the records; roles and published handles stay.

    A new model is a baseline if it was trained naturally, and robust otherwise.
    """
    from robust_zoo.zoo import index

    roles: dict[str, Any] = dict(text.partition("=")[::2] for text in role or ())
    for name, given in roles.items():
        if given not in index.ROLES:
            raise ValueError(
                f"--role must be NAME=ROLE with one of {', '.join(index.ROLES)}, got {f'{name}={given}'!r}."
            )
    entries = index.make_index(directory, index.read_index(), roles)
    index.write_index(entries)
    print(f"{len(entries)} models in {index.INDEX}")


def publish(
    directory: Annotated[
        str,
        typer.Argument(
            help="Checkpoint directory with a record, such as train writes; with --all, the hub."
        ),
    ],
    handle: Annotated[
        str | None, typer.Argument(help="hf://org/name or file:///path/name.")
    ] = None,
    every: Annotated[
        bool,
        typer.Option("--all", help="Every model of the zoo, to the hub hf://org or file:///path."),
    ] = False,
    private: Annotated[
        bool | None,
        typer.Option(
            "--private/--public",
            help="Visibility of a new repository; by default the hub's default for its owner.",
        ),
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Name for this version, such as v1.")] = None,
    accept_license: Annotated[
        bool,
        typer.Option(
            "--accept-license",
            help="Publish weights whose license does not let everybody pass them on.",
        ),
    ] = False,
) -> None:
    """Publishes a model with its record, recipe and card; prints the handle that loads just this version.

    With --all, every model of the zoo goes to one hub under its name, and the index notes the handles.

    The token is the Hugging Face client's: HF_TOKEN, or what `hf auth login` stored.
    """
    with quiet():
        from robust_zoo.zoo import publishing
    if not every:
        if handle is None:
            raise ValueError("HANDLE must be given, hf://org/name or file:///path/name.")
        pinned = publishing.publish(
            directory, handle, private=private, tag=tag, accept_license=accept_license
        )
        print(pinned)
        return
    if handle is not None or tag is not None or accept_license:
        raise ValueError(
            "--all takes one argument, the hub, and neither --tag nor --accept-license."
        )
    for pinned in publishing.publish_zoo(directory, private=private):
        print(pinned, flush=True)


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
