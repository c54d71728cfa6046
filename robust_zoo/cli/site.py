"""The command `site`."""

import pathlib
from typing import Annotated, Any

import typer

from robust_zoo.cli.common import quiet


def site(
    directory: Annotated[
        pathlib.Path, typer.Argument(help="Folder to write: new, empty, or a site to replace.")
    ],
    pattern: Annotated[
        str, typer.Option(help="Wildcards over names, such as '*mnist*'; by default all models.")
    ] = "*",
    role: Annotated[
        str, typer.Option(help="Role: all (default), robust, baseline or study.")
    ] = "all",
    hub: Annotated[
        str | None, typer.Option(help="Models of a hub, hf://org or file:///path, not of the zoo.")
    ] = None,
) -> None:
    """Writes the leaderboard: static pages, which need no server and no network."""
    with quiet():
        from robust_zoo import site as pages
        from robust_zoo.zoo import registry

        filters: dict[str, Any] = {"hub": hub, "role": role}
        entries = registry.list_models(pattern, **filters)
    if not entries:
        raise ValueError(f"--pattern and --role must fit a model, got {pattern!r} and {role!r}.")
    models = []
    for entry in entries:
        handle = entry.handle or entry.name
        try:
            history = registry.load_history(handle)
        except ValueError:  # of a model that no recipe trained
            history = []
        record = registry.load_record(handle)
        models.append(pages.SiteModel(record, entry.role or "", handle, history))
    try:
        place = pages.make_site(directory, models)
    except ValueError as error:
        raise ValueError(str(error).replace("directory must", "DIRECTORY must", 1)) from None
    print(f"{len(models)} models, written to {place}")
