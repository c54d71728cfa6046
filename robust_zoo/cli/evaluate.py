"""The command `evaluate`."""

import os
import pathlib
from typing import Annotated

import typer

from robust_zoo.cli.common import (
    as_json_list,
    check_writable,
    needs_epsilon,
    number,
    parse_attack,
    print_record,
    quiet,
)


def evaluate(
    model: Annotated[
        str,
        typer.Argument(help="Name, checkpoint directory, handle on a hub, or any .keras file."),
    ],
    attack: Annotated[
        list[str] | None,
        typer.Option(
            help="Such as autoattack, pgd, apgd-ce, fab-t, square, deepfool, carlini-wagner or jsma (an unknown "
            "name prints all), with settings after a colon: pgd:steps=100,restarts=20. Repeatable; by default pgd."
        ),
    ] = None,
    epsilon: Annotated[
        str | None, typer.Option(help="Such as 8/255; by default the record's.")
    ] = None,
    epsilons: Annotated[
        str | None,
        typer.Option(help="Several, such as 2/255,4/255,8/255, each measured by itself."),
    ] = None,
    norm: Annotated[
        str | None, typer.Option(help="linf, l2 or l0; by default the record's.")
    ] = None,
    n: Annotated[int | None, typer.Option(help="Examples; by default the whole split.")] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="digits, a TFDS name or an .npz file; by default the record's."),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the dataset.")] = "test",
    seed: Annotated[int, typer.Option(help="Of the sample and the attacks.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Images in a batch.")] = 128,
    input_range: Annotated[
        str | None, typer.Option(help="Pixel range of a .keras model, such as 0,255.")
    ] = None,
    output: Annotated[
        str | None, typer.Option(help="What a .keras model returns: logits or softmax.")
    ] = None,
    json_file: Annotated[
        pathlib.Path | None, typer.Option("--json", help="File to write the record to.")
    ] = None,
    plot: Annotated[
        pathlib.Path | None, typer.Option(help="Picture of accuracy against epsilon to write.")
    ] = None,
    state: Annotated[
        pathlib.Path | None,
        typer.Option(help="Folder to keep the state in; the same command goes on from it."),
    ] = None,
) -> None:
    """Measures a model's robustness."""
    check_writable(json_file, "--json")
    check_writable(plot, "--plot")
    with quiet():
        import robust_zoo as rz
        from robust_zoo.files import write_text

        if plot is not None:
            rz.plots.picture_format(plot)
        opened = _open_model(model, input_range, output)
    record = getattr(opened, "robustness", None)
    threat = record.threat_model if record else None
    if dataset is None and record is None:
        raise ValueError(f"--dataset is needed: {model!r} has no record that says which.")
    names = attack or ["pgd"]
    if plot is not None and not all(map(needs_epsilon, names)):
        raise ValueError(
            "--plot draws accuracy against epsilon: it needs attacks with a budget only."
        )
    budgets = _budgets(names, epsilon, epsilons, threat, model)
    plans = [
        [parse_attack(name, budget, norm or _own_norm(name, threat)) for name in names]
        for budget in budgets
    ]
    data = rz.load_dataset(dataset or record.dataset.name, split)
    measured = []
    for budget, attacks in zip(budgets, plans, strict=True):
        folder = state / f"epsilon_{budget:.6g}" if state and len(budgets) > 1 else state
        options = {"n": n, "seed": seed, "batch_size": batch_size, "state_directory": folder}
        measured.append(rz.evaluate(opened, data, attacks=attacks, **options))
    for result in measured:
        print_record(result)
    if json_file is not None:
        text = measured[0].to_json() if epsilons is None else as_json_list(measured)
        write_text(json_file, text)
    if plot is not None:
        rz.plots.accuracy_against_epsilon(measured, plot)


def _open_model(handle: str, input_range: str | None, output: str | None):
    """The classifier of a zoo name, a directory, or anybody's .keras file."""
    import robust_zoo as rz

    if not handle.endswith(".keras"):
        if input_range or output:
            raise ValueError(
                "--input-range and --output are for .keras files; zoo models need neither."
            )
        return rz.load_model(handle)
    import keras

    if not os.path.isfile(handle):
        raise FileNotFoundError(f"no model file {handle!r}.")
    model = keras.saving.load_model(handle, compile=False)
    bounds = tuple(number(bound) for bound in (input_range or "0,1").split(","))
    if len(bounds) != 2:
        raise ValueError(f"--input-range must be two numbers such as 0,255, got {input_range!r}.")
    return rz.as_classifier(model, input_range=bounds, output=output or "logits")


def _own_norm(name: str, threat) -> str | None:
    """The norm to give an attack when none is asked for: that of the record, for an attack with a budget."""
    from robust_zoo.attacks import ATTACKS

    attack = ATTACKS.get(name.partition(":")[0])
    fits = threat and attack and needs_epsilon(name) and threat.norm in attack.func.norms
    return threat.norm if fits else None


def _budgets(names: list[str], epsilon, epsilons, threat, model: str) -> list[float | None]:
    """The epsilons to measure at; one None if no attack has a budget."""
    if epsilon is not None and epsilons is not None:
        raise ValueError("--epsilon and --epsilons cannot both be given.")
    if epsilons is not None:
        without = [name for name in names if not needs_epsilon(name)]
        if without:
            raise ValueError(
                f"--epsilons is for attacks with a budget, but {', '.join(without)} has none: measure it by itself."
            )
        return [number(part) for part in epsilons.split(",")]
    if epsilon is not None:
        return [number(epsilon)]
    if threat is not None:
        return [threat.epsilon]
    if any(map(needs_epsilon, names)):
        raise ValueError(f"--epsilon is needed: {model!r} has no record that says which.")
    return [None]
