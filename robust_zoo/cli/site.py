"""The command `site`."""

import pathlib
import sys
import tempfile
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robust_zoo.cli.common import quiet

if TYPE_CHECKING:
    from robust_zoo.site import SiteModel


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
    examples: Annotated[
        int,
        typer.Option(
            help="Images of each model's record to show with what PGD-20 makes of them, at most 20; by default none. It "
            "loads every model, and the data that its record names.",
            min=0,
            max=20,
        ),
    ] = 0,
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
    with tempfile.TemporaryDirectory() as scratch:
        if examples:
            models = [
                model._replace(examples=_examples(model, examples, pathlib.Path(scratch), number))
                for number, model in enumerate(models)
            ]
        try:
            place = pages.make_site(directory, models)
        except ValueError as error:
            raise ValueError(str(error).replace("directory must", "DIRECTORY must", 1)) from None
    print(f"{len(models)} models, written to {place}")


def _examples(
    model: "SiteModel", count: int, folder: pathlib.Path, number: int
) -> pathlib.Path | None:
    """A picture of the record's first images under PGD-20; None, told on stderr, where that cannot be made."""
    threat = model.record.threat_model
    with quiet():
        import robust_zoo as rz
        from robust_zoo.attacks import PGD
        from robust_zoo.evaluation.verification import recorded_data
    if threat is None or threat.norm not in PGD.norms:
        return None
    try:
        loaded = rz.load_model(model.handle)
        sample = recorded_data(model.record).sample(count, model.record.seed).take(slice(None))
        attack = PGD(epsilon=threat.epsilon, norm=threat.norm, steps=20)
        found = attack.run(loaded, sample.images, sample.labels, progress=False)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"robust-zoo: no examples of {model.record.name}: {error}", file=sys.stderr)
        return None
    path = folder / f"{number}.png"
    return rz.plots.examples(loaded, sample.images, found.x_adv, path, y=sample.labels)
