"""The commands `plot ...`: pictures of models of one dataset."""

import pathlib
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from robust_zoo.cli.common import (
    check_writable,
    needs_epsilon,
    number,
    numbers,
    parse_attack,
    quiet,
    read_attack,
)

if TYPE_CHECKING:
    import keras

    from robust_zoo.attacks import FixedBudgetAttack
    from robust_zoo.datasets import Dataset
    from robust_zoo.record import RobustnessRecord

# What every picture takes.
_Models = Annotated[list[str], typer.Argument(help="Names, directories or handles.")]
_Output = Annotated[pathlib.Path, typer.Option(help="Picture to write: .png, .pdf or .svg.")]
_Seed = Annotated[
    int, typer.Option(help="Integer seed for the sample and for all randomness of the attack.")
]
_N = Annotated[
    int | None, typer.Option(help="Test examples, from 1 to the size of the test split.")
]
_Attack = Annotated[str, typer.Option(help="As in evaluate, such as pgd:steps=40.")]
_Epsilons = Annotated[str, typer.Option(help="Magnitudes, such as 2/255,4/255,8/255.")]


def curves(models: _Models, output: _Output) -> None:
    """Accuracy against epsilon, from the models' records."""
    _check_picture(output)
    with quiet():
        from robust_zoo import zoo
        from robust_zoo.report import plots
    records = [zoo.load_record(handle) for handle in models]
    print(plots.compare_models(records, output))


def radii(models: _Models, output: _Output) -> None:
    """Certified accuracy of smoothed classifiers against L2 radius, from the models' records."""
    _check_picture(output)
    with quiet():
        from robust_zoo import zoo
        from robust_zoo.report import plots
    records = [zoo.load_record(handle) for handle in models]
    print(plots.certified_radii(records, output))


def corruptions(
    model: Annotated[str, typer.Argument(help="Name, directory or handle.")], output: _Output
) -> None:
    """Accuracy under common corruptions, from the model's record."""
    _check_picture(output)
    with quiet():
        from robust_zoo import zoo
        from robust_zoo.report import plots
    print(plots.corruptions(zoo.load_record(model), output))


def landscape(
    models: _Models,
    output: _Output,
    epsilon: Annotated[str, typer.Option(help="Radius of the linf ball, such as 8/255.")],
    index: Annotated[int, typer.Option(help="Which test image.")] = 0,
    steps: Annotated[int, typer.Option(help="PGD steps.")] = 100,
    restarts: Annotated[int, typer.Option(help="Random starts.")] = 20,
    seed: _Seed = 0,
) -> None:
    """The loss along PGD from several starts, around one test image."""
    _check_picture(output)
    radius = number(epsilon, "--epsilon")
    with quiet():
        from robust_zoo import evaluation
        from robust_zoo.report import plots

        loaded, data = _models_and_data(models, None, seed)
        if not 0 <= index < len(data):
            raise ValueError(f"--index must be in 0..{len(data) - 1}, got {index}.")
        found = {
            handle: evaluation.loss_landscape(
                model,
                data.images[index],
                data.labels[index],
                epsilon=radius,
                steps=steps,
                restarts=restarts,
                seed=seed,
            )
            for handle, model in loaded.items()
        }
    print(plots.landscapes(found, output, title=f"{data.name}, test image {index}"))


def transfer(
    models: _Models,
    output: _Output,
    epsilon: Annotated[str, typer.Option(help="Radius of the ball, such as 8/255.")],
    attack: _Attack = "fgsm",
    n: _N = 1000,
    seed: _Seed = 0,
) -> None:
    """How adversarial images made on each model do on the others."""
    _check_picture(output)
    _check_budget(attack)
    radius = number(epsilon, "--epsilon")
    with quiet():
        from robust_zoo import evaluation
        from robust_zoo.report import plots

        made = _with_budget(attack, radius)
        loaded, data = _models_and_data(models, n, seed)
        matrices = evaluation.transfer_matrices(made, loaded, data.images, data.labels, seed=seed)
    print(plots.transfer(matrices, output, title=f"{attack}, epsilon {epsilon}"))


def roll_off(
    models: _Models,
    output: _Output,
    epsilons: _Epsilons,
    attack: _Attack = "fgsm",
    n: _N = 1000,
    seed: _Seed = 0,
) -> None:
    """Accuracy over the whole range of an attack, and the area under it."""
    _check_picture(output)
    _check_budget(attack)
    magnitudes = numbers(epsilons, "--epsilons")
    with quiet():
        from robust_zoo import evaluation
        from robust_zoo.report import plots

        loaded, data = _models_and_data(models, n, seed)
        curves = {
            handle: evaluation.roll_off(
                lambda epsilon: _with_budget(attack, epsilon),
                model,
                data.images,
                data.labels,
                magnitudes,
                seed=seed,
            )
            for handle, model in loaded.items()
        }
    print(plots.roll_offs(curves, output, title=data.name, magnitude=f"magnitude of {attack}"))


def top_k(
    models: _Models,
    output: _Output,
    epsilons: _Epsilons,
    attack: _Attack = "fgsm",
    k: Annotated[
        list[int] | None,
        typer.Option(help="Most likely classes; by default 1, and 5 of more. Repeatable."),
    ] = None,
    n: _N = 1000,
    seed: _Seed = 0,
) -> None:
    """Top-k accuracy against epsilon."""
    _check_picture(output)
    _check_budget(attack)
    magnitudes = numbers(epsilons, "--epsilons")
    with quiet():
        from robust_zoo import evaluation
        from robust_zoo.report import plots

        loaded, data = _models_and_data(models, n, seed)
        found = {
            handle: evaluation.top_k(
                lambda epsilon: _with_budget(attack, epsilon),
                model,
                data.images,
                data.labels,
                epsilons=magnitudes,
                k=k or [count for count in (1, 5) if count < model.output_shape[1]],
                seed=seed,
            )
            for handle, model in loaded.items()
        }
    print(plots.top_k(found, output, title=f"{data.name}, {attack}"))


def fooling(
    models: _Models,
    output: _Output,
    epsilons: _Epsilons,
    n: Annotated[int, typer.Option(help="Noise images.")] = 1000,
    temperature: Annotated[
        float, typer.Option(help="Softmax temperature that logits are divided by.")
    ] = 1.0,
    threshold: Annotated[
        float, typer.Option(help="Probability that the target class must reach.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Integer seed of the noise.")] = 0,
) -> None:
    """How often one step turns noise into a class, and the margin."""
    _check_picture(output)
    magnitudes = numbers(epsilons, "--epsilons")
    with quiet():
        from robust_zoo import evaluation, zoo
        from robust_zoo.report import plots

        options: dict[str, Any] = {
            "n": n,
            "temperature": temperature,
            "threshold": threshold,
            "seed": seed,
        }
        found = {
            handle: evaluation.rubbish_test(zoo.load_model(handle), magnitudes, **options)
            for handle in models
        }
    print(plots.fooling(found, output, title=f"uniform noise, temperature {temperature:g}"))


def fooling_images(
    models: _Models,
    output: _Output,
    steps: Annotated[int, typer.Option(help="Number of sign steps.")] = 50,
    step_size: Annotated[float, typer.Option(help="Change of each value in a step.")] = 5e-3,
    seed: Annotated[int, typer.Option(help="Integer seed of the noise.")] = 0,
) -> None:
    """Noise that steps turn into each class, with its probability."""
    _check_picture(output)
    with quiet():
        from robust_zoo import evaluation, zoo
        from robust_zoo.report import plots

        options: dict[str, Any] = {"steps": steps, "step_size": step_size, "seed": seed}
        found = {
            handle: evaluation.fooling_images(zoo.load_model(handle), **options)
            for handle in models
        }
    print(plots.fooling_images(found, output, title=f"{steps} steps of {step_size:g} from noise"))


def robustness_curve(
    models: _Models,
    output: _Output,
    attack: Annotated[
        str, typer.Option(help="Minimum-norm attack of the records, by its class.")
    ] = "DeepFool",
    accuracy: Annotated[
        float | None,
        typer.Option(help="Also prints each method's distance at this clean accuracy."),
    ] = None,
) -> None:
    """Clean accuracy against distance to adversarial examples, from the models' records, a line a method.

    Models of one architecture, defense and attack in training are of one method.
    """
    _check_picture(output)
    with quiet():
        from robust_zoo import evaluation, zoo
        from robust_zoo.report import plots
    by_method: dict[str, list] = {}
    for handle in models:
        record = zoo.load_record(handle)
        by_method.setdefault(_method(record), []).append(record)
    curves = {
        name: evaluation.robustness_curve(records, attack=attack)
        for name, records in by_method.items()
    }
    print(plots.robustness_curves(curves, output, distance=f"mean distance, {attack}"))
    if accuracy is not None:
        for name, curve in curves.items():
            distance = curve.distance_at(accuracy)
            print(f"{name}: {'not reached' if distance is None else f'{distance:.4g}'}")


def _method(record: "RobustnessRecord") -> str:
    if record.defense is None:
        return f"{record.architecture}, natural training"
    attack = record.defense.config.get("attack")
    trained_on = [attack["name"]] if isinstance(attack, dict) else []
    return ", ".join([record.architecture, record.defense.name, *trained_on])


def capacity(
    comparison: Annotated[
        pathlib.Path,
        typer.Argument(
            help="What `reproduce madry-capacity --json` printed, or madry-capacity-workshop."
        ),
    ],
    output: _Output,
) -> None:
    """The capacity study of Madry et al."""
    _check_picture(output)
    with quiet():
        from robust_zoo.papers.comparison import Comparison
        from robust_zoo.papers.madry.tables import by_scale
        from robust_zoo.report import plots
    try:
        found = Comparison.model_validate_json(comparison.read_text(encoding="utf-8"))
        scales = by_scale(found)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"COMPARISON must be a file of what `reproduce madry-capacity --json` printed, got {str(comparison)!r}."
        ) from error
    print(plots.capacity(scales, output, title=found.title))


def training(models: _Models, output: _Output) -> None:
    """Loss and accuracies by epoch, of models that recipes trained."""
    _check_picture(output)
    with quiet():
        from robust_zoo import zoo
        from robust_zoo.report import plots
    histories = {handle: zoo.load_history(handle) for handle in models}
    print(plots.training(histories, output))


def _check_picture(output: pathlib.Path) -> None:
    """Raises before any work for a picture that could not be written."""
    check_writable(output, "--output")
    with quiet():
        from robust_zoo.report.plots import picture_format
    picture_format(output)


def _check_budget(attack: str) -> None:
    """Raises before any work for an attack that is none, or has no epsilon."""
    read_attack(attack)
    if not needs_epsilon(attack):
        raise ValueError(f"--attack must be one with an epsilon here, got {attack!r}.")


def _with_budget(attack: str, epsilon: float) -> "FixedBudgetAttack":
    """An attack that `_check_budget` lets pass, within epsilon."""
    return cast("FixedBudgetAttack", parse_attack(attack, epsilon, None))


def _models_and_data(
    handles: list[str], n: int | None, seed: int
) -> tuple[dict[str, "keras.Model"], "Dataset"]:
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
