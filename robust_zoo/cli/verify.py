"""The command `verify`."""

import pathlib
import re
from typing import Annotated

import typer

from robust_zoo.cli.common import check_count, console, interruptible, quiet


def verify(
    model: Annotated[str, typer.Argument(help="Name, checkpoint directory, or handle on a hub.")],
    n: Annotated[
        int, typer.Option(help="Recorded examples to measure again, at most, for each attack.")
    ] = 200,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Dataset to use if the recorded name does not find it: a name, an .npz file or a folder."
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images in a batch.")] = 128,
    state: Annotated[
        pathlib.Path | None,
        typer.Option(help="Folder that keeps the state; the same command resumes from it."),
    ] = None,
) -> None:
    """Measures a model again as its record says, and tells whether the numbers agree."""
    check_count(n, "--n")
    check_count(batch_size, "--batch-size")
    with quiet():
        import robust_zoo as rz
        from robust_zoo.datasets import options_of
        from robust_zoo.describe import percent
    from rich.table import Table

    loaded = rz.load_model(model)
    if loaded.robustness is None:
        raise ValueError(f"{model!r} has no record: there is nothing to verify.")
    split = loaded.robustness.dataset.split
    shape = loaded.input_shape[1:]
    options = options_of(loaded.robustness.dataset.preparation)
    data = (
        None if dataset is None else rz.open_dataset(dataset, split, image_shape=shape, **options)
    )
    kept = "nothing is kept: give --state FOLDER"
    if state is not None:
        kept = "the same command resumes from there"
    with interruptible(f"interrupted; {kept}."):
        try:
            found = rz.verify(loaded, data=data, n=n, batch_size=batch_size, state_directory=state)
        except ValueError as error:
            raise ValueError(re.sub("^data must", "--dataset must", str(error))) from None
    table = Table("", "recorded", "n", "measured", "n", "")
    for part in found:
        row = []
        for count, size in (part.recorded, part.measured):
            row += [percent(count / size), str(size)]
        table.add_row(part.name, *row, "agrees" if part.agrees else "DISAGREES")
    console().print(table)
    wrong = [part.name for part in found if not part.agrees]
    if wrong:
        raise ValueError(
            f"the record of {model!r} does not hold: {', '.join(wrong)} came out otherwise."
        )
