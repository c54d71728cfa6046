"""The command `port`."""

import ast
import pathlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robust_zoo.cli.common import needs_epsilon, parse_attack, print_record, quiet
from robust_zoo.cli.evaluate import (
    Attacks,
    Count,
    Epsilon,
    NormName,
    Seed,
    check_asked,
    open_data,
    planned,
)
from robust_zoo.typing import LICENSE_FORM

if TYPE_CHECKING:
    import keras

    from robust_zoo.attacks import Attack
    from robust_zoo.porting import Published
    from robust_zoo.record import Accuracy, Reported

_FIRST = ("depth", "width")  # what may stand behind the architecture without its name
_ALLOWED = 0.5  # points of accuracy between what is claimed and what is measured


def port(
    weights: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]",
            help="A .pt, .pth, .th, .tar, .ckpt, .bin, .safetensors, .npz or .onnx file, or hf://owner/repository:file on "
            "the Hugging Face hub; may be left out with --from where the hub has it.",
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
            help="To measure on, with the record that has the license: a TFDS name, an .npz file or a folder of images. "
            "Needed with --from, --license and --attack."
        ),
    ] = "",
    expect_clean: Annotated[
        float | None,
        typer.Option(help="Clean accuracy in percent that is claimed; --from says its own."),
    ] = None,
    license: Annotated[
        str | None,
        typer.Option(
            help="Of the weights, an SPDX identifier such as MIT; unknown by default. --from says its own."
        ),
    ] = None,
    attack: Attacks = None,
    epsilon: Epsilon = None,
    norm: NormName = None,
    n: Count = None,
    seed: Seed = 0,
) -> None:
    """Writes others' weights as a checkpoint: compared with the network in PyTorch, measured, with their license.

    Attacks are those that are asked for (--attack), as in `evaluate`; without any the record has clean accuracy alone.
    """
    if bool(source) == bool(architecture):
        raise ValueError("--architecture or --from is needed, and not both.")
    if source and (settings or expect_clean is not None or license or epsilon or norm):
        raise ValueError(
            "--from says the architecture's settings, clean accuracy, license, epsilon and norm: give none of them."
        )
    if not dataset:
        asked = {
            "--from": bool(source),
            "--license": bool(license),
            "--attack": bool(attack),
            "--expect-clean": expect_clean is not None,
            "--n": n is not None,
        }
        for option in (option for option, given in asked.items() if given):
            raise ValueError(f"{option} needs --dataset, to measure on.")
    if expect_clean is not None and not 0 < expect_clean <= 100:
        raise ValueError(
            f"--expect-clean must be percent, above 0 and up to 100, got {expect_clean:g}."
        )
    if license and not re.fullmatch(LICENSE_FORM, license):
        raise ValueError(f"--license must be an SPDX identifier such as MIT, got {license!r}.")
    check_asked("", attack or [], epsilon, None, norm, n, 1, "float32")
    from robust_zoo.zoo.layout import check_target

    check_target(output)
    known = _known(source) if source else None
    if known is not None:
        name, options, entry = known.architecture, known.options, entry or known.entry
        if weights is None:
            weights = next((place for place in known.sources if place.startswith("hf://")), None)
        if weights is None:
            raise ValueError(
                f"FILE is needed: download {' or '.join(known.sources)} in a browser, and give the file."
            )
        claims = _Claims(
            source=f"{known.handle.partition(':')[2]} of RobustBench",
            license=known.license,
            clean=known.clean,
            autoattack=known.autoattack,
            places=known.sources,
        )
    else:
        name, options = read_architecture(architecture, settings or [])
        if weights is None:
            raise ValueError("FILE is needed without --from.")
        on_hub = weights.startswith("hf://")
        claims = _Claims(
            weights if on_hub else pathlib.Path(weights).name, license or "unknown", expect_clean
        )
    with quiet():
        import robust_zoo as rz
    model, report = rz.port(weights, name, entry=entry, **options)
    print(
        f"{report.used} tensors in {report.layout}'s names, {report.dropped} of no use; "
        + (
            "PyTorch is not installed: not compared"
            if report.difference is None
            else f"logits within {report.difference:.1g} of PyTorch's"
        )
    )
    record = None
    if dataset:
        data = open_data(model, str(output), dataset, "test")
        names = attack or []
        told: dict[str, Any] = {
            "seed": seed,
            "name": output.name,
            "architecture": name,
            "reported": claims.reported(),
            "license": claims.license,
            "notice": claims.notice(report.file, report.sha256),
        }
        record = rz.evaluate(
            model, data, checks=not names, n=n if claims.clean is None else None, **told
        )
        _check_clean(record.clean, claims.clean)
        if names:
            attacks = _attacks(model, names, epsilon, norm, known)
            record = rz.evaluate(model, data, attacks=attacks, n=n, **told)
        print_record(record)
    print(f"written to {rz.save_model(model, output, record)}")


@dataclass(frozen=True)
class _Claims:
    """What is said of weights: by whom, under what license they are, and with which accuracies in percent."""

    source: str
    license: str
    clean: float | None = None
    autoattack: float | None = None
    places: tuple[str, ...] = ()

    def reported(self) -> list["Reported"]:
        from robust_zoo.record import Reported

        said = {"clean": self.clean, "AutoAttack": self.autoattack}
        return [
            Reported(source=self.source, setting=setting, accuracy=round(value / 100, 6))
            for setting, value in said.items()
            if value is not None
        ]

    def notice(self, file: str, digest: str) -> str:
        where = f", from {' or '.join(self.places)}" if self.places else ""
        return (
            f"These weights were not trained by whoever made this checkpoint: they are those of {self.source}{where}, file "
            f"{file} with sha256 {digest}, in another layout. Their license is {self.license}."
        )


def _attacks(
    model: "keras.Model",
    names: list[str],
    epsilon: str | None,
    norm: str | None,
    known: "Published | None",
) -> list["Attack"]:
    if known is None:
        return planned(model, model.name, names, epsilon, None, norm)[1][0]
    return [
        parse_attack(name, known.epsilon, known.norm if needs_epsilon(name) else None)
        for name in names
    ]


def _known(source: str) -> "Published":
    from robust_zoo.porting.robustbench import find_published

    try:
        return find_published(source)
    except ValueError as error:
        raise ValueError(str(error).replace("handle must", "--from must", 1)) from None


def _check_clean(found: "Accuracy", claimed: float | None) -> None:
    """Refuses a clean accuracy that is far from what is claimed."""
    percent = 100 * found.accuracy
    print(f"clean accuracy {percent:.2f}% of {found.n_examples:,} images")
    if claimed is not None and abs(percent - claimed) > _ALLOWED:
        raise ValueError(
            f"the clean accuracy that is claimed, {claimed:g}%, is not within {_ALLOWED:g} of the {percent:.2f}% that "
            "are measured: the normalisation (mean, deviation), or what else no tensor tells, is another."
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
