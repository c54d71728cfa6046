"""The command `port`."""

import ast
import pathlib
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robust_zoo.cli.common import needs_epsilon, parse_attack, print_record, quiet
from robust_zoo.cli.evaluate import (
    Count,
    Seed,
    SkipCorrupt,
    Split,
    check_asked,
    open_data,
    planned,
)
from robust_zoo.typing import LICENSE_FORM

if TYPE_CHECKING:
    import keras

    from robust_zoo.attacks import Attack
    from robust_zoo.porting import Published
    from robust_zoo.record import Accuracy

_FIRST = ("depth", "width")  # what may stand behind the architecture without its name
_ALLOWED = 0.5  # points of accuracy between what is claimed and what is measured, unless --from knows better


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
            help="To measure on, for the record that has the license: a TFDS name, an .npz file or a folder of images."
        ),
    ],
    split: Split = "test",
    central_crop: Annotated[
        float | None,
        typer.Option(
            help="Share of the sides of pictures of several sizes that is kept, in the middle, before they are resized; "
            "by default 0.875 (224 of 256) of ImageNet's with --from, else 1."
        ),
    ] = None,
    skip_corrupt: SkipCorrupt = False,
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
    attack: Annotated[
        list[str] | None,
        typer.Option(
            help="As in `evaluate`, such as autoattack or pgd:steps=100. Repeatable; by default none, and the record has "
            "clean accuracy alone."
        ),
    ] = None,
    epsilon: Annotated[
        str | None,
        typer.Option(help="Radius of the ball, such as 8/255; --from says its own."),
    ] = None,
    norm: Annotated[
        str | None, typer.Option(help="linf, l2, l1 or l0, by default linf; --from says its own.")
    ] = None,
    n: Count = None,
    seed: Seed = 0,
) -> None:
    """Writes others' weights as a checkpoint: compared with the network in PyTorch, measured, with their license."""
    if bool(source) == bool(architecture):
        raise ValueError("--architecture or --from is needed, and not both.")
    if source and (settings or expect_clean is not None or license or epsilon or norm):
        raise ValueError(
            "--from says the architecture's settings, clean accuracy, license, epsilon and norm: give none of them."
        )
    if not attack:
        unused = {"--epsilon": epsilon, "--norm": norm, "--n": n, "--seed": seed or None}
        for option in (option for option, given in unused.items() if given is not None):
            raise ValueError(f"{option} is for attacks: give --attack, too.")
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
    allowed = _ALLOWED
    if known is not None:
        name, options, entry = known.architecture, known.options, entry or known.entry
        if weights is None:
            weights = next((place for place in known.sources if place.startswith("hf://")), None)
        if weights is None:
            raise ValueError(
                f"FILE is needed: download {' or '.join(known.sources)} in a browser, and give the file."
            )
        label = f"{known.handle.partition(':')[2]} of RobustBench"
        origin = f"{label}, from {' or '.join(known.sources)}"
        claims = {"clean": known.clean, "AutoAttack": known.autoattack}
        license, allowed = known.license, known.tolerance
        if known.central_crop != 1 and not dataset.endswith(".npz"):
            central_crop = central_crop or known.central_crop
    else:
        name, options = read_architecture(architecture, settings or [])
        if weights is None:
            raise ValueError("FILE is needed without --from.")
        label = weights if weights.startswith("hf://") else pathlib.Path(weights).name
        origin = ""
        claims = {} if expect_clean is None else {"clean": expect_clean}
    with quiet():
        import robust_zoo as rz
        from robust_zoo.record import Reported
    given = {"entry": entry, "license": license or "unknown", "origin": origin, **options}
    model = _ported(weights, name, known, given)
    data = open_data(
        model, str(output), dataset, split, central_crop=central_crop, skip_corrupt=skip_corrupt
    )
    told: dict[str, Any] = {
        "name": output.name,
        "architecture": name,
        "reported": [
            Reported(source=label, setting=setting, accuracy=round(percent / 100, 6))
            for setting, percent in claims.items()
        ],
    }
    record = None
    if claims or not attack:
        record = rz.evaluate(model, data, checks=not attack, **told)
        _check_clean(record.clean, claims.get("clean"), allowed)
    if attack:
        attacks = _attacks(model, attack, epsilon, norm, known)
        record = rz.evaluate(model, data, attacks=attacks, n=n, seed=seed, **told)
    assert record is not None  # one or the other was measured
    print_record(record)
    if not claims:
        print(
            "Not checked, since no tensor tells them: the mean and deviation by which images are normalised, and other "
            "settings of the architecture (--set). Give the clean accuracy that is published: --expect-clean."
        )
    print(f"written to {rz.save_model(model, output, record)}")


def _ported(
    weights: str, architecture: str, known: "Published | None", arguments: dict[str, Any]
) -> "keras.Model":
    """The model of `rz.port`, whose report is printed and whose advice is given in flags."""
    import robust_zoo as rz
    from robust_zoo.porting import PortError, call_of

    try:
        model, report = rz.port(weights, architecture, **arguments)
    except PortError as error:
        message = str(error)
        for fit, options in error.fits:
            settings = [f"--set {name}={value}" for name, value in options.items()]
            message = message.replace(
                call_of(fit, options), " ".join(["--architecture", fit, *settings])
            )
        others = [place for place in known.sources if place != weights] if known else []
        if weights.startswith("hf://") and others:
            message += f" It is also at {' and '.join(others)}: download it in a browser, and give the file."
        raise ValueError(message) from None
    read = f" of entry {report.entry!r}" if report.entry else ""
    copies = f" (not read: {', '.join(report.copies)})" if report.copies else ""
    print(
        f"{report.used} tensors{read} in {report.layout}'s names, {report.dropped} of no use{copies}; "
        + (
            "PyTorch is not installed: not compared"
            if report.difference is None
            else f"logits within {report.difference:.1g} of PyTorch's"
        )
    )
    return model


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


def _check_clean(found: "Accuracy", claimed: float | None, allowed: float) -> None:
    """Refuses a clean accuracy that is far from what is claimed."""
    percent = 100 * found.accuracy
    print(f"clean accuracy {percent:.2f}% of {found.n_examples:,} images")
    if claimed is not None and abs(percent - claimed) > allowed:
        raise ValueError(
            f"the clean accuracy that is claimed, {claimed:g}%, is not within {allowed:g} of the {percent:.2f}% that "
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
