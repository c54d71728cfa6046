"""The command `challenge`."""

import pathlib
from typing import Annotated

import typer

from robust_zoo.cli.common import check_count, check_writable, print_record, quiet


def challenge(
    model: Annotated[str, typer.Argument(help="Name, checkpoint directory, or handle on a hub.")],
    images: Annotated[
        pathlib.Path,
        typer.Argument(help="File (.npz) with adversarial images of the test split, in its order."),
    ],
    *,
    source: Annotated[str, typer.Option(help="Who made them, and where that is described.")],
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Dataset to use if the recorded name does not find it: a name, an .npz file or a folder."
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images in a batch.")] = 128,
    json_file: Annotated[
        pathlib.Path | None, typer.Option("--json", help="File to write the record to.")
    ] = None,
    save: Annotated[
        pathlib.Path | None, typer.Option(help="Checkpoint directory to write, with the record.")
    ] = None,
) -> None:
    """Checks somebody's adversarial images: in the ball, and misclassified? They lower the worst case."""
    check_count(batch_size, "--batch-size")
    check_writable(json_file, "--json")
    if save is not None:
        from robust_zoo.zoo.layout import check_target

        check_target(save)
    with quiet():
        import robust_zoo as rz
        from robust_zoo.datasets import options_of
        from robust_zoo.files import write_text

        loaded = rz.load_model(model)
    data = None
    if dataset is not None and loaded.robustness is not None:
        known = loaded.robustness.dataset
        options = options_of(known.preparation)
        shape = loaded.input_shape[1:]
        data = rz.open_dataset(dataset, known.split, image_shape=shape, **options)
    record = rz.challenge(loaded, images, source=source, data=data, batch_size=batch_size)
    print_record(record)
    found, before, after = record.external[-1], loaded.robustness.worst_case, record.worst_case
    assert after is not None  # it has been challenged
    print(
        f"these {found.images} images leave {found.correct} of {found.n_examples}, {found.outside} of them outside the "
        f"ball; the worst case was {before.correct} and is {after.correct}"
    )
    if json_file is not None:
        write_text(json_file, record.to_json())
    if save is not None:
        print(f"written to {rz.save_model(loaded, save, record)}")
