"""The `robust-zoo` command."""

import contextlib
import dataclasses
import json
import logging
import os
import pathlib
import sys
import tempfile
from typing import Annotated

import typer

app = typer.Typer(
    help="A Keras model zoo of image classifiers that withstand adversarial attack.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)


plot_app = typer.Typer(no_args_is_help=True, help="Draws pictures of models of one dataset.")
app.add_typer(plot_app, name="plot")

# What every picture takes.
_Models = Annotated[list[str], typer.Argument(help="Names, directories or handles.")]
_Output = Annotated[pathlib.Path, typer.Option(help="Picture to write: .png, .pdf or .svg.")]
_Seed = Annotated[int, typer.Option(help="Of the sample and the attack.")]


@contextlib.contextmanager
def _quiet():
    """Keeps what TensorFlow says while it starts out of our output; shown if it cannot start."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with tempfile.TemporaryFile() as said:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            yield
        except ImportError:
            said.seek(0)
            os.write(stderr, said.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _console():
    from rich.console import Console

    console = Console()
    # A pipe has no width of its own, and a cut table is of no use in it.
    return console if console.is_terminal else Console(width=200)


def number(text: str) -> float:
    """A number written as 0.3 or 8/255."""
    numerator, _, denominator = text.partition("/")
    try:
        return float(numerator) / float(denominator or 1)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"expected a number such as 0.3 or 8/255, got {text!r}.") from None


def parse_attack(text: str, epsilon: float | None, norm: str | None):
    """An attack from "name" or "name:key=value,...", such as "pgd:steps=100,restarts=20,step_size=0.01".

    Args:
        text: what was asked for.
        epsilon: of fixed-budget attacks.
        norm: unless their name or settings say otherwise; None for their own, which minimum-norm attacks
            that do not have `norm` keep.

    Raises:
        ValueError: an unknown attack or hyperparameter, or a value that does not fit.
    """
    from robust_zoo.attacks import ATTACKS, FixedBudgetAttack

    name, _, settings = text.partition(":")
    if name not in ATTACKS:
        raise ValueError(f"unknown attack {name!r}: it must be one of {', '.join(ATTACKS)}.")
    kind = ATTACKS[name].func
    allowed = [field.name for field in dataclasses.fields(kind)]
    budget = issubclass(kind, FixedBudgetAttack)
    values = {"epsilon": epsilon} if budget else {}
    if norm is not None and "norm" not in ATTACKS[name].keywords and (budget or norm in kind.norms):
        values["norm"] = norm
    for setting in filter(None, settings.split(",")):
        key, _, value = setting.partition("=")
        if key not in allowed:
            raise ValueError(
                f"attack {name!r} has no {key!r}: it must be one of {', '.join(allowed)}."
            )
        try:
            values[key] = json.loads(value)
        except ValueError:
            values[key] = number(value) if "/" in value else value
    return ATTACKS[name](**values)


def _needs_epsilon(text: str) -> bool:
    """Whether an attack has a budget (an unknown one has: what it is will be said later)."""
    from robust_zoo.attacks import ATTACKS, MinimumNormAttack

    attack = ATTACKS.get(text.partition(":")[0])
    return attack is None or not issubclass(attack.func, MinimumNormAttack)


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


def _writable(path: pathlib.Path | None, option: str) -> None:
    if path is None:
        return
    if not path.resolve().parent.is_dir():
        raise FileNotFoundError(
            f"{option}: no directory {str(path.parent)!r} to write {path.name!r} into."
        )
    if path.is_dir():
        raise IsADirectoryError(f"{option} must be a file, got the directory {str(path)!r}.")


def _as_json(records) -> str:
    return json.dumps([json.loads(record.to_json()) for record in records], indent=2) + "\n"


def _print_record(record) -> None:
    from rich.table import Table

    from robust_zoo.describe import (
        describe_attack,
        describe_threat,
        distance_rows,
        interval,
        percent,
    )

    console = _console()
    facts = Table(title=record.name, show_header=False, title_justify="left")
    facts.add_row("architecture", f"{record.architecture}, {record.parameters:,} parameters")
    facts.add_row("defense", record.defense.name if record.defense else "none")
    facts.add_row("threat model", describe_threat(record))
    dataset = record.dataset
    facts.add_row("measured on", f"{dataset.name} {dataset.version}, split {dataset.split}")
    facts.add_row("weights", f"{record.weights.dtype}, sha256 {record.weights.sha256[:16]}")
    console.print(facts)

    results = Table("attack", "accuracy", "95% interval", "n")
    results.add_row(
        "clean",
        percent(record.clean.accuracy),
        interval(record.clean),
        str(record.clean.n_examples),
    )
    for outcome in record.attacks:
        results.add_row(
            describe_attack(outcome),
            percent(outcome.accuracy),
            interval(outcome),
            str(outcome.n_examples),
        )
        for component, accuracy in outcome.components.items():
            results.add_row(f"  after {component}", percent(accuracy), "", "")
    if record.worst_case:
        worst = record.worst_case
        results.add_row(
            "worst case of all attacks",
            percent(worst.accuracy),
            interval(worst),
            str(worst.n_examples),
        )
    console.print(results)

    if record.minimum_norm:
        distances = Table("closest adversarial example", "norm", "found", "mean", "median", "rho")
        for row in distance_rows(record):
            distances.add_row(*row)
        console.print(distances)

    if record.checks:
        checks = Table("check", "", "value")
        for check in record.checks:
            checks.add_row(check.name, "passed" if check.passed else "FAILED", f"{check.value:.6g}")
        console.print(checks)
        for check in record.checks:
            if not check.passed:
                console.print(f"{check.name}: {check.explanation}")


@app.command("list")
def list_command(
    pattern: Annotated[str, typer.Argument(help="Wildcards over names, such as '*mnist*'.")] = "*",
    dataset: Annotated[str | None, typer.Option(help="Only models measured on it.")] = None,
    norm: Annotated[str | None, typer.Option(help="Only this norm: linf or l2.")] = None,
    defense: Annotated[str | None, typer.Option(help="Only this defense, such as pgd.")] = None,
    hub: Annotated[
        str | None, typer.Option(help="Of hf://org or file:///path instead of the zoo.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All records as JSON.")] = False,
) -> None:
    """Lists the models of the zoo, or of a hub."""
    with _quiet():
        from robust_zoo.zoo import list_models
    records = list_models(pattern, hub=hub, dataset=dataset, norm=norm, defense=defense)
    if as_json:
        print(_as_json(records), end="")
        return
    from rich.table import Table

    from robust_zoo.describe import describe_attack, describe_threat, percent

    table = Table("model", "dataset", "threat model", "clean", "worst case", "n", "attacks")
    for record in records:
        worst = record.worst_case
        table.add_row(
            record.name,
            record.dataset.name,
            describe_threat(record),
            percent(record.clean.accuracy),
            percent(worst.accuracy) if worst else "",
            str(worst.n_examples) if worst else "",
            ", ".join(describe_attack(outcome) for outcome in record.attacks),
        )
    _console().print(table)


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="Name, checkpoint directory, or handle on a hub.")],
    as_json: Annotated[bool, typer.Option("--json", help="The whole record as JSON.")] = False,
) -> None:
    """Shows a model's record."""
    with _quiet():
        from robust_zoo.zoo import load_record
    record = load_record(model)
    if as_json:
        print(record.to_json(), end="")
    else:
        _print_record(record)


@app.command()
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
    _writable(json_file, "--json")
    _writable(plot, "--plot")
    with _quiet():
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
    if plot is not None and not all(map(_needs_epsilon, names)):
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
        _print_record(result)
    if json_file is not None:
        text = measured[0].to_json() if epsilons is None else _as_json(measured)
        write_text(json_file, text)
    if plot is not None:
        rz.plots.accuracy_against_epsilon(measured, plot)


def _own_norm(name: str, threat) -> str | None:
    """The norm to give an attack when none is asked for: that of the record, for an attack with a budget."""
    from robust_zoo.attacks import ATTACKS

    attack = ATTACKS.get(name.partition(":")[0])
    fits = threat and attack and _needs_epsilon(name) and threat.norm in attack.func.norms
    return threat.norm if fits else None


def _budgets(names: list[str], epsilon, epsilons, threat, model: str) -> list[float | None]:
    """The epsilons to measure at; one None if no attack has a budget."""
    if epsilon is not None and epsilons is not None:
        raise ValueError("--epsilon and --epsilons cannot both be given.")
    if epsilons is not None:
        without = [name for name in names if not _needs_epsilon(name)]
        if without:
            raise ValueError(
                f"--epsilons is for attacks with a budget, but {', '.join(without)} has none: measure it by itself."
            )
        return [number(part) for part in epsilons.split(",")]
    if epsilon is not None:
        return [number(epsilon)]
    if threat is not None:
        return [threat.epsilon]
    if any(map(_needs_epsilon, names)):
        raise ValueError(f"--epsilon is needed: {model!r} has no record that says which.")
    return [None]


@app.command()
def train(
    recipe: Annotated[
        str, typer.Argument(help="Recipe file, or the name of a model that has one.")
    ],
    output: Annotated[
        pathlib.Path | None, typer.Option(help="Directory to write; by default the model's name.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, such as epochs=5. Repeatable.")
    ] = None,
    devices: Annotated[int, typer.Option(help="GPUs (logical CPUs without any) to use.")] = 1,
    resume: Annotated[bool, typer.Option(help="Go on from the last finished epoch.")] = False,
) -> None:
    """Trains a model by its recipe, measures it and writes its checkpoint directory."""
    changes = {}
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        if not equals:
            raise typer.BadParameter(f"expected key=value, got {setting!r}.", param_hint="--set")
        changes[key] = value
    with _quiet():
        from robust_zoo.recipe import load_recipe, run

        chosen, source = load_recipe(recipe)
        chosen = chosen.override(changes)
    directory = output or pathlib.Path(chosen.name)
    verbose = 1 if sys.stdout.isatty() else 2
    record = run(chosen, directory, source=source, devices=devices, resume=resume, verbose=verbose)
    _print_record(record)
    print(f"written to {directory}")


@app.command()
def publish(
    directory: Annotated[
        pathlib.Path,
        typer.Argument(help="Checkpoint directory with a record, such as train writes."),
    ],
    handle: Annotated[str, typer.Argument(help="hf://org/name or file:///path/name.")],
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Of a new repository; by default the owner's."),
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Name for this version, such as v1.")] = None,
) -> None:
    """Publishes a model with its record, recipe and card; prints the handle that loads just this version.

    The token is the Hugging Face client's: HF_TOKEN, or what `hf auth login` stored.
    """
    with _quiet():
        from robust_zoo import zoo
    print(zoo.publish(directory, handle, private=private, tag=tag))


def _check_picture(output: pathlib.Path) -> None:
    """Raises before any work for a picture that could not be written."""
    _writable(output, "--output")
    with _quiet():
        from robust_zoo.plots import picture_format
    picture_format(output)


def _models_and_data(handles: list[str], n: int | None, seed: int):
    """Models by handle, and test examples of the dataset that all their records name."""
    from robust_zoo.datasets import load_dataset
    from robust_zoo.zoo import load_model

    models = {handle: load_model(handle) for handle in handles}
    records = {handle: model.robustness for handle, model in models.items()}
    datasets = {record.dataset.name if record else "none" for record in records.values()}
    if len(datasets) != 1 or "none" in datasets:
        raise ValueError(f"the models must have records of one dataset, got {sorted(datasets)}.")
    data = load_dataset(datasets.pop())
    return models, data if n is None else data.sample(n, seed)


@plot_app.command("curves")
def plot_curves(models: _Models, output: _Output) -> None:
    """Accuracy against epsilon, from the models' records."""
    _check_picture(output)
    with _quiet():
        from robust_zoo import plots, zoo
    records = [zoo.load_record(handle) for handle in models]
    print(plots.compare_models(records, output))


@plot_app.command("landscape")
def plot_landscape(
    models: _Models,
    output: _Output,
    epsilon: Annotated[str, typer.Option(help="Radius of the linf ball, such as 8/255.")],
    index: Annotated[int, typer.Option(help="Which test image.")] = 0,
    steps: Annotated[int, typer.Option(help="Of PGD.")] = 100,
    restarts: Annotated[int, typer.Option(help="Random starts.")] = 20,
    seed: _Seed = 0,
) -> None:
    """The loss along PGD from several starts, around one test image."""
    _check_picture(output)
    with _quiet():
        from robust_zoo import evaluation, plots

        loaded, data = _models_and_data(models, None, seed)
        if not 0 <= index < len(data):
            raise ValueError(f"--index must be in 0..{len(data) - 1}, got {index}.")
        found = {
            handle: evaluation.loss_landscape(
                model,
                data.images[index],
                data.labels[index],
                epsilon=number(epsilon),
                steps=steps,
                restarts=restarts,
                seed=seed,
            )
            for handle, model in loaded.items()
        }
    print(plots.landscapes(found, output, title=f"{data.name}, test image {index}"))


@plot_app.command("transfer")
def plot_transfer(
    models: _Models,
    output: _Output,
    epsilon: Annotated[str, typer.Option(help="Such as 8/255.")],
    attack: Annotated[str, typer.Option(help="As in evaluate, such as pgd:steps=40.")] = "fgsm",
    n: Annotated[int | None, typer.Option(help="Test examples; by default all.")] = 1000,
    seed: _Seed = 0,
) -> None:
    """How adversarial images made on each model do on the others."""
    _check_picture(output)
    with _quiet():
        from robust_zoo import evaluation, plots

        made = parse_attack(attack, number(epsilon), None)
        loaded, data = _models_and_data(models, n, seed)
        matrices = evaluation.transfer_matrices(made, loaded, data.images, data.labels, seed=seed)
    print(plots.transfer(matrices, output, title=f"{attack}, epsilon {epsilon}"))


@plot_app.command("roll-off")
def plot_roll_off(
    models: _Models,
    output: _Output,
    epsilons: Annotated[str, typer.Option(help="Magnitudes, such as 2/255,4/255,8/255.")],
    attack: Annotated[str, typer.Option(help="As in evaluate, such as pixel-swap.")] = "fgsm",
    n: Annotated[int | None, typer.Option(help="Test examples; by default all.")] = 1000,
    seed: _Seed = 0,
) -> None:
    """Accuracy over the whole range of an attack, and the area under it."""
    _check_picture(output)
    with _quiet():
        from robust_zoo import evaluation, plots

        magnitudes = [number(part) for part in epsilons.split(",")]
        loaded, data = _models_and_data(models, n, seed)
        curves = {
            handle: evaluation.roll_off(
                lambda epsilon: parse_attack(attack, epsilon, None),
                model,
                data.images,
                data.labels,
                magnitudes,
                seed=seed,
            )
            for handle, model in loaded.items()
        }
    print(plots.roll_offs(curves, output, title=data.name, magnitude=f"magnitude of {attack}"))


@app.command()
def reproduce(
    name: Annotated[str, typer.Argument(help="Such as deepdefense-table1 or galloway-logistic.")],
    n: Annotated[int | None, typer.Option(help="Test examples; by default all.")] = None,
    seed: Annotated[int, typer.Option(help="Of the sample and the attacks.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Measures the models of a paper's table, and prints its numbers beside ours."""
    with _quiet():
        from robust_zoo.reproduce import reproduce as measure

    found = measure(name, n=n, seed=seed)
    if as_json:
        print(json.dumps(dataclasses.asdict(found), indent=2))
        return
    from rich.table import Table

    table = Table("model", "", *found.columns, title=found.title, title_justify="left")
    for model, (paper, ours) in found.rows.items():
        table.add_row(model, "paper", *map(_cell, paper))
        table.add_row("", "ours", *map(_cell, ours), end_section=True)
    console = _console()
    console.print(table)
    console.print(f"Paper: {found.source}. Ours: {found.n_examples} test examples, seed {seed}.")
    if found.missing:
        console.print(f"Not in the zoo: {', '.join(found.missing)}.")


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


@app.command()
def cards(
    directory: Annotated[
        pathlib.Path, typer.Argument(help="Folder of checkpoint directories.")
    ] = pathlib.Path("checkpoints"),
) -> None:
    """Regenerates the card of every checkpoint, and MODEL_CARDS.md beside the folder."""
    with _quiet():
        from robust_zoo.zoo.cards import write_cards

        written = write_cards(directory)
    print(f"{len(written)} cards and {directory.resolve().parent / 'MODEL_CARDS.md'} written")


def main() -> None:
    """Runs the command: 0 done, 1 failed with one sentence on stderr, 2 wrong usage."""
    try:
        app()
    except Exception as error:
        sentence = " ".join(str(error).split()) or type(error).__name__
        print(f"robust-zoo: {sentence}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
