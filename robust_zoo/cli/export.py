"""The command `export`."""

import pathlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robust_zoo.cli.common import (
    check_count,
    check_writable,
    console,
    needs_epsilon,
    quiet,
)
from robust_zoo.cli.evaluate import (
    BatchSize,
    CentralCrop,
    DatasetName,
    Epsilon,
    NormName,
    Seed,
    SkipCorrupt,
    check_asked,
    open_data,
    planned,
)

if TYPE_CHECKING:
    from robust_zoo.exporting import ExportFigures


def export(
    model: Annotated[str, typer.Argument(help="Name, checkpoint directory, or handle on a hub.")],
    *,
    to: Annotated[str, typer.Option(help="onnx, litert, tf_saved_model or torch.")],
    output: Annotated[
        pathlib.Path,
        typer.Option(
            help="File to write (.onnx, .tflite, .pt2), or the directory of a SavedModel."
        ),
    ],
    quantized: Annotated[
        bool, typer.Option("--quantized", help="Weights in 8 bits (litert only).")
    ] = False,
    verify: Annotated[
        int | None,
        typer.Option(
            help="Images on which the file is measured, clean and adversarial, beside the model; the figures go to "
            "OUTPUT.json, the images to OUTPUT.npz."
        ),
    ] = None,
    attack: Annotated[
        str, typer.Option(help="Attack on the model that makes the adversarial images.")
    ] = "pgd",
    epsilon: Epsilon = None,
    norm: NormName = None,
    dataset: DatasetName = None,
    central_crop: CentralCrop = None,
    skip_corrupt: SkipCorrupt = False,
    seed: Seed = 0,
    batch_size: BatchSize = 128,
) -> None:
    """Writes a model for another runtime, and measures what is left of its robustness there."""
    check_count(verify, "--verify")
    if verify is None:
        unused = {
            "--epsilon": epsilon,
            "--norm": norm,
            "--dataset": dataset,
            "--seed": seed or None,
        }
        unused |= {"--attack": None if attack == "pgd" else attack}
        for option in (option for option, given in unused.items() if given is not None):
            raise ValueError(f"{option} is for measuring: give --verify, too.")
    check_asked(model, [attack], epsilon, None, norm, verify, batch_size, "float32")
    if not needs_epsilon(attack):
        raise ValueError(f"--attack must be one with a budget, got {attack!r}.")
    figures_file, images_file, notice_file = (
        output.with_name(f"{output.name}.{end}") for end in ("json", "npz", "NOTICE")
    )
    if verify is not None:
        check_writable(figures_file, "--output")
    with quiet():
        import numpy as np

        import robust_zoo as rz
        from robust_zoo import exporting
        from robust_zoo.exporting.formats import check_export
        from robust_zoo.exporting.runtimes import check_runtime
        from robust_zoo.files import replacing, write_text
    try:
        check_export(output, to, quantized=quantized)
    except (ValueError, OSError) as error:
        sentence = str(error).replace("path must", "--output must", 1)
        raise type(error)(sentence.replace("quantized is", "--quantized is", 1)) from None
    if verify is not None:
        check_runtime(to)
    with quiet():
        opened = rz.load_model(model)
    if verify is not None:
        made = planned(opened, model, [attack], epsilon, None, norm)[1][0][0]
        data = open_data(
            opened, model, dataset, "test", central_crop=central_crop, skip_corrupt=skip_corrupt
        )
        if verify > len(data):
            raise ValueError(
                f"--verify must be at most {len(data)}, the test images, got {verify}."
            )
    with quiet():
        exporting.export(opened, output, to=to, quantized=quantized)
    for old in (figures_file, images_file, notice_file):  # of the file that was replaced
        old.unlink(missing_ok=True)
    print(f"written to {output}")
    if opened.robustness is not None and opened.robustness.notice:
        write_text(notice_file, f"{opened.robustness.notice}\n")
        print(f"what must go with weights of others is in {notice_file}")
    if verify is None:
        return
    figures, images = exporting.measure_export(
        output, opened, data, attack=made, n=verify, seed=seed, batch_size=batch_size
    )
    named: dict[str, Any] = dict(images)
    with replacing(images_file) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **named)
    write_text(figures_file, figures.to_json())
    _print(figures)


def _print(figures: "ExportFigures") -> None:
    from rich.table import Table

    from robust_zoo.describe import percent

    table = Table("", "model", figures.file)
    for name in ("clean", "adversarial"):
        of_model, of_file = getattr(figures, name)
        table.add_row(name, percent(of_model.accuracy), percent(of_file.accuracy))
    console().print(table)
    print(
        f"{figures.clean[0].n_examples} images, adversarial ones by {figures.attack['name']} on the model; the same "
        f"predictions on {percent(figures.same_predictions)} of all, logits within {figures.largest_difference:.2g}"
    )
