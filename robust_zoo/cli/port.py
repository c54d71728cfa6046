"""The command `port`."""

import ast
import pathlib
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from robust_zoo.cli.common import quiet

_FIRST = ("depth", "width")  # what may stand behind the architecture without its name
_ALLOWED = 0.5  # points of accuracy between what is claimed and what is measured


def port(
    file: Annotated[
        pathlib.Path | None,
        typer.Argument(
            help="A .pt, .pth, .th, .tar, .ckpt, .bin, .safetensors, .npz or .onnx file; may be left out with --from "
            "where the hub has it.",
        ),
    ] = None,
    *,
    output: Annotated[pathlib.Path, typer.Option(help="Checkpoint directory to write.")],
    source: Annotated[
        str,
        typer.Option(
            "--from",
            help="Published model that the file is, such as robustbench:Rice2020Overfitting: it says all else.",
        ),
    ] = "",
    architecture: Annotated[
        str,
        typer.Option(
            help="Such as wide_resnet, preact_resnet or resnet, with depth and width after a colon: wide_resnet:28,10; "
            "another name lists them all."
        ),
    ] = "",
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
        str,
        typer.Option(
            help="To measure clean accuracy on, which must be that of --expect-clean or --from."
        ),
    ] = "",
    expect_clean: Annotated[
        float | None, typer.Option(help="Clean accuracy in percent that is claimed.")
    ] = None,
) -> None:
    """Writes a PyTorch network's weights as a checkpoint, compared with the network in PyTorch; then evaluate --save."""
    if bool(source) == bool(architecture):
        raise ValueError("--architecture or --from is needed, and not both.")
    if source and (settings or expect_clean is not None):
        raise ValueError(
            "--from says the architecture's settings and clean accuracy: give neither."
        )
    if expect_clean is not None and not dataset:
        raise ValueError("--expect-clean needs --dataset, to measure on.")
    if dataset and expect_clean is None and not source:
        raise ValueError("--dataset needs --expect-clean or --from, to compare with.")
    if expect_clean is not None and not 0 < expect_clean <= 100:
        raise ValueError(
            f"--expect-clean must be percent, above 0 and up to 100, got {expect_clean:g}."
        )
    from robust_zoo.zoo.layout import check_target

    check_target(output)
    if source:
        from robust_zoo.porting.robustbench import find_published

        try:
            known = find_published(source)
        except ValueError as error:
            raise ValueError(str(error).replace("handle must", "--from must", 1)) from None
        name, options, entry = known.architecture, known.options, entry or known.entry
        expect_clean = known.clean if dataset else None
        file = file or _downloaded(known.sources)
    else:
        name, options = read_architecture(architecture, settings or [])
    if file is None:
        raise ValueError("FILE is needed without --from.")
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
                f"the clean accuracy that is claimed, {expect_clean:g}%, is not within {_ALLOWED:g} of the "
                f"{100 * found.accuracy:.2f}% that are measured: the normalisation (mean, deviation), or what else no "
                "tensor tells, is another."
            )
    print(f"written to {rz.save_model(model, output)}")


def _downloaded(sources: Sequence[str]) -> pathlib.Path:
    """A file that is on the Hugging Face hub, in its client's cache.

    Raises:
        ValueError: it is not there; with what is to be downloaded.
    """
    for place in sources:
        if place.startswith("hf://"):
            from huggingface_hub import hf_hub_download

            repository, _, name = place.removeprefix("hf://").partition(":")
            return pathlib.Path(hf_hub_download(repository, name))
    raise ValueError(
        f"FILE is needed: download {' or '.join(sources)} in a browser, and give the file."
    )


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
