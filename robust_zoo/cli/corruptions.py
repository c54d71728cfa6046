"""The command `corruptions`."""

import pathlib
from typing import Annotated

import typer

from robust_zoo.cli.common import check_count, check_writable, print_record, quiet
from robust_zoo.cli.evaluate import (
    BatchSize,
    CentralCrop,
    Count,
    DatasetName,
    Seed,
    SkipCorrupt,
    Split,
    open_data,
)


def corruptions(
    model: Annotated[str, typer.Argument(help="Name, checkpoint directory, or handle on a hub.")],
    *,
    corruption: Annotated[
        list[str] | None,
        typer.Option(
            help="Kind, such as gaussian_noise. Repeatable; by default the 15 of the benchmark."
        ),
    ] = None,
    severity: Annotated[
        list[int] | None, typer.Option(min=1, max=5, help="Repeatable; by default all five.")
    ] = None,
    files: Annotated[
        pathlib.Path | None,
        typer.Option(help="Folder of a published set, such as CIFAR-10-C; by default generated."),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Model with corruptions in its record, or alexnet (of ImageNet), whose errors to divide by."
        ),
    ] = None,
    n: Count = None,
    dataset: DatasetName = None,
    split: Split = "test",
    central_crop: CentralCrop = None,
    skip_corrupt: SkipCorrupt = False,
    seed: Seed = 0,
    batch_size: BatchSize = 128,
    json_file: Annotated[
        pathlib.Path | None, typer.Option("--json", help="File to write the record to.")
    ] = None,
    plot: Annotated[pathlib.Path | None, typer.Option(help="Picture to write.")] = None,
    save: Annotated[
        pathlib.Path | None, typer.Option(help="Checkpoint directory to write, with the record.")
    ] = None,
) -> None:
    """Measures a model under common corruptions of each kind and severity: noise, blur, weather, compression."""
    check_count(n, "--n")
    check_count(batch_size, "--batch-size")
    check_writable(json_file, "--json")
    check_writable(plot, "--plot")
    if save is not None:
        from robust_zoo.zoo.layout import check_target

        check_target(save)
    with quiet():
        import robust_zoo as rz
        from robust_zoo.evaluation.corruptions import ALEXNET, CORRUPTIONS, SEVERITIES
        from robust_zoo.files import write_text

        if plot is not None:
            rz.plots.picture_format(plot)
        loaded = rz.load_model(model)
    divided = None
    if baseline is not None:
        divided = ALEXNET if baseline == "alexnet" else rz.load_record(baseline)
    data = open_data(
        loaded, model, dataset, split, central_crop=central_crop, skip_corrupt=skip_corrupt
    )
    record = rz.evaluate_corruptions(
        loaded,
        data,
        corruptions=corruption or CORRUPTIONS,
        severities=sorted(set(severity or SEVERITIES)),
        files=files,
        baseline=divided,
        n=n,
        seed=seed,
        batch_size=batch_size,
    )
    print_record(record)
    if json_file is not None:
        write_text(json_file, record.to_json())
    if plot is not None:
        rz.plots.corruptions(record, plot)
    if save is not None:
        print(f"written to {rz.save_model(loaded, save, record)}")
