"""The command `train`."""

import pathlib
import sys
from typing import Annotated, Any

import typer

from robust_zoo.cli.common import interruptible, print_record, quiet

_TEMPORARY_FAILURE = 75  # EX_TEMPFAIL: the same command, with --resume, continues


def train(
    recipe: Annotated[
        str, typer.Argument(help="Recipe file, or the name of a model that has one.")
    ],
    output: Annotated[
        pathlib.Path | None, typer.Option(help="Directory to write; by default the model's name.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value, such as epochs=5 or defense.beta=6. Repeatable."),
    ] = None,
    devices: Annotated[
        int, typer.Option(help="GPUs (logical CPUs without any) to use, on each host.")
    ] = 1,
    hosts: Annotated[
        bool,
        typer.Option(
            "--hosts",
            help="Train together with other hosts, all started with the same command: see training/README.md.",
        ),
    ] = False,
    resume: Annotated[bool, typer.Option(help="Resume from the last finished epoch.")] = False,
    overwrite: Annotated[
        bool, typer.Option(help="Replace a finished checkpoint at the output directory.")
    ] = False,
    max_minutes: Annotated[
        float | None,
        typer.Option(
            help="Time limit in minutes: stop after an epoch if another would exceed it, with exit status 75; --resume continues."
        ),
    ] = None,
) -> None:
    """Trains a model by its recipe, measures it and writes its checkpoint directory."""
    changes = {}
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        if not equals:
            raise typer.BadParameter(f"expected key=value, got {setting!r}.", param_hint="--set")
        changes[key] = value
    with quiet():
        from robust_zoo.recipe import TimeLimitError, load_recipe, run

        chosen, source = load_recipe(recipe, changes)
    directory = output or pathlib.Path(chosen.name)
    verbose = 1 if sys.stdout.isatty() else 2
    if directory.is_dir() and any(directory.iterdir()) and not overwrite:
        if not sys.stdin.isatty():
            raise FileExistsError(
                f"{str(directory)!r} is there already: give --overwrite to replace it, or another --output."
            )
        typer.confirm(f"Replace {str(directory)!r}?", abort=True)
    options: dict[str, Any] = {
        "devices": devices,
        "hosts": hosts,
        "resume": resume,
        "max_minutes": max_minutes,
    }
    kept = "interrupted; the last finished epoch is kept: the same command with --resume continues from there."
    try:
        with interruptible(kept):
            record = run(chosen, directory, source=source, verbose=verbose, **options)
    except TimeLimitError as error:
        print(f"robust-zoo: {error}", file=sys.stderr)
        raise typer.Exit(_TEMPORARY_FAILURE) from None
    if record is None:
        print(f"trained; the first host measures the model and writes {directory}")
        return
    print_record(record)
    handle = f"./{directory}" if directory.name == str(directory) else str(directory)
    print(f"written to {directory}: robust_zoo.load_model({handle!r}) loads it")
