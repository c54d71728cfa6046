"""The command `port`."""

import ast
import pathlib
from typing import Annotated, Any

import typer

from robust_zoo.cli.common import quiet

_FIRST = ("depth", "width")  # what may stand behind the architecture without its name
_ALLOWED = 0.5  # points of accuracy between what is claimed and what is measured


def port(
    file: Annotated[
        pathlib.Path,
        typer.Argument(
            help="A .pt, .pth, .th, .tar, .ckpt, .bin, .safetensors, .npz or .onnx file."
        ),
    ],
    architecture: Annotated[
        str,
        typer.Option(
            help="wide_resnet, preact_resnet or resnet, with depth and width after a colon: wide_resnet:28,10."
        ),
    ],
    output: Annotated[pathlib.Path, typer.Option(help="Checkpoint directory to write.")],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Of the architecture, such as activation=silu, border=end, mean=0.49,0.48,0.45 or num_classes=100. "
            "Repeatable.",
        ),
    ] = None,
    entry: Annotated[
        str,
        typer.Option(help="Of a file with several dictionaries of tensors, the one that is meant."),
    ] = "",
    dataset: Annotated[
        str, typer.Option(help="To measure clean accuracy on; with --expect-clean.")
    ] = "",
    expect_clean: Annotated[
        float | None,
        typer.Option(help="Clean accuracy in percent that is claimed: refused if it is not found."),
    ] = None,
) -> None:
    """Writes a PyTorch network's weights as a checkpoint, compared with the network in PyTorch; then evaluate --save."""
    name, options = read_architecture(architecture, settings or [])
    if (expect_clean is None) != (not dataset):
        raise ValueError("--expect-clean and --dataset go together: give both, or neither.")
    if expect_clean is not None and not 0 < expect_clean <= 100:
        raise ValueError(
            f"--expect-clean must be percent, above 0 and up to 100, got {expect_clean:g}."
        )
    from robust_zoo.zoo.layout import check_target

    check_target(output)
    with quiet():
        import robust_zoo as rz
    model, report = rz.port(file, name, entry=entry, **options)
    print(
        f"{report.used} tensors in {report.layout}'s names, {report.dropped} of no use; "
        + (
            "PyTorch is not installed: not compared"
            if report.difference is None
            else f"logits within {report.difference:.1g} of PyTorch's"
        )
    )
    if expect_clean is not None:
        data = rz.load_dataset(dataset, "test")
        found = rz.evaluation.clean_accuracy(model, data.images, data.labels)
        print(f"clean accuracy {100 * found.accuracy:.2f}% of {len(data):,} images")
        if abs(100 * found.accuracy - expect_clean) > _ALLOWED:
            raise ValueError(
                f"--expect-clean must be within {_ALLOWED:g} of the {100 * found.accuracy:.2f}% that are measured, got "
                f"{expect_clean:g}: the normalisation (mean, deviation), or what else no tensor tells, is another."
            )
    print(f"written to {rz.save_model(model, output)}")


def read_architecture(text: str, settings: list[str]) -> tuple[str, dict[str, Any]]:
    """The name, and the arguments: depth and width from behind the colon, others from --set.

    Raises:
        ValueError: what is not of that form.
    """
    name, _, behind = text.partition(":")
    numbers = behind.split(",") if behind else []
    if len(numbers) > len(_FIRST) or not all(part.strip().isdigit() for part in numbers):
        raise ValueError(
            f"--architecture must be a name, or name:depth or name:depth,width, such as wide_resnet:28,10, got {text!r}."
        )
    options: dict[str, Any] = dict(zip(_FIRST, map(int, numbers), strict=False))
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.isidentifier() or not value:
            raise ValueError(f"--set must be NAME=VALUE, such as activation=silu, got {setting!r}.")
        try:
            options[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[key] = value
    return name, options
