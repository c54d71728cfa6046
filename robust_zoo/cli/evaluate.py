"""The command `evaluate`."""

import json
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robust_zoo.attack_names import NAMES, check_epsilon
from robust_zoo.cli.common import (
    as_json_list,
    check_certify,
    check_count,
    check_writable,
    fixed_norm,
    interruptible,
    is_model_file,
    needs_epsilon,
    norms_of,
    number,
    numbers,
    parse_attack,
    parse_smoothing,
    parse_threat_model,
    print_against_epsilon,
    print_ranking,
    print_record,
    quiet,
    read_attack,
)
from robust_zoo.places import checkpoints_directory
from robust_zoo.sentences import one_line
from robust_zoo.typing import PRECISIONS

if TYPE_CHECKING:
    import keras

    from robust_zoo.attacks import Attack
    from robust_zoo.datasets import Examples
    from robust_zoo.record import RobustnessRecord, ThreatModel


Model = Annotated[
    str,
    typer.Argument(help="Name, checkpoint directory, handle on a hub, or any .keras or .h5 file."),
]
Attacks = Annotated[
    list[str] | None,
    typer.Option(
        "--attack",
        help="Such as autoattack, pgd, apgd-ce, fab-t, square, deepfool, carlini-wagner or jsma (an unknown "
        "name prints all), with settings after a colon: pgd:steps=100,restarts=20. Repeatable; by default pgd.",
    ),
]
Epsilon = Annotated[
    str | None, typer.Option(help="Radius of the ball, such as 8/255; by default the record's.")
]
NormName = Annotated[str | None, typer.Option(help="linf, l2, l1 or l0; by default the record's.")]
Count = Annotated[int | None, typer.Option("--n", help="Examples; by default the whole split.")]
DatasetName = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="digits, a TFDS name, an .npz file or a folder of images; by default the record's.",
    ),
]
CentralCrop = Annotated[
    float | None,
    typer.Option(
        help="Share of the sides of pictures of several sizes that is kept, in the middle, before they are resized: "
        "0.875 is ImageNet's 224 of 256. By default the record's, of its own dataset, else 1."
    ),
]
SkipCorrupt = Annotated[
    bool,
    typer.Option(
        "--skip-corrupt", help="Leave out pictures of a folder that cannot be read, and name them."
    ),
]
Split = Annotated[str, typer.Option(help="Split of the dataset.")]
Seed = Annotated[
    int,
    typer.Option(
        help="Integer seed for the sample and for all randomness of the attacks.",
        min=0,
        max=2**64 - 1,
    ),
]
BatchSize = Annotated[int, typer.Option(help="Images in a batch.")]
InputRange = Annotated[
    str | None, typer.Option(help="Pixel range of a model file, such as 0,255; by default 0,1.")
]
Output = Annotated[
    str | None,
    typer.Option(help="What a model file returns: logits (default), softmax or sigmoid."),
]
DataFormat = Annotated[
    str | None,
    typer.Option(help="Axis order of a model file: channels_last (default) or channels_first."),
]
PrecisionName = Annotated[
    str,
    typer.Option(
        "--precision",
        help="Precision of the attacks' steps: float32, or bfloat16, which is faster on some processors.",
    ),
]
Certify = Annotated[
    list[str] | None,
    typer.Option(
        help="Also certify by ibp or crown-ibp within the linf ball of the attacks. Repeatable: the better bound counts."
    ),
]
SkipCertified = Annotated[
    bool, typer.Option("--skip-certified", help="Attack only the images that are not certified.")
]
SmoothingSettings = Annotated[
    str | None,
    typer.Option(
        "--smoothing",
        help="Also certify the smoothed classifier, with settings: sigma=0.25,n=10000,images=500,radii=0:0.25:0.5; n0 and alpha, too.",
    ),
]
ThreatModels = Annotated[
    list[str] | None,
    typer.Option(
        "--threat-model",
        help="A further ball, such as l2:0.5, for accuracy under the worst of all. Repeatable.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(help="Processes to measure in, each on one core or GPU; by default one."),
]


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Names, checkpoint directories, handles on a hub, or any .keras or .h5 files; several make one table."
        ),
    ],
    attack: Attacks = None,
    epsilon: Epsilon = None,
    epsilons: Annotated[
        str | None,
        typer.Option(help="Several radii, such as 2/255,4/255,8/255: one record for each."),
    ] = None,
    norm: NormName = None,
    n: Count = None,
    dataset: DatasetName = None,
    split: Split = "test",
    central_crop: CentralCrop = None,
    skip_corrupt: SkipCorrupt = False,
    seed: Seed = 0,
    batch_size: BatchSize = 128,
    precision: PrecisionName = "float32",
    certify: Certify = None,
    skip_certified: SkipCertified = False,
    smoothing: SmoothingSettings = None,
    threat_model: ThreatModels = None,
    input_range: InputRange = None,
    output: Output = None,
    data_format: DataFormat = None,
    json_file: Annotated[
        pathlib.Path | None, typer.Option("--json", help="File to write the record to.")
    ] = None,
    plot: Annotated[
        pathlib.Path | None, typer.Option(help="Picture of accuracy against epsilon to write.")
    ] = None,
    state: Annotated[
        pathlib.Path | None,
        typer.Option(help="Folder that keeps the state; the same command resumes from it."),
    ] = None,
    workers: Workers = None,
    engine: Annotated[
        str, typer.Option(help="process, or ray for a Ray cluster (extra ray).")
    ] = "process",
    address: Annotated[
        str | None,
        typer.Option(
            help="Address of the Ray cluster; auto joins a running one; by default a local one is started."
        ),
    ] = None,
    save: Annotated[
        pathlib.Path | None,
        typer.Option(help="Checkpoint directory to write, with the record, for publish."),
    ] = None,
) -> None:
    """Measures the robustness of a model, or of several."""
    check_writable(json_file, "--json")
    check_writable(plot, "--plot")
    names = attack or ["pgd"]
    one = len(models) == 1 and epsilons is None
    if save is not None and not one:
        raise ValueError("--save keeps one record: give one model, and --epsilon, not --epsilons.")
    forms = []
    for model in models:
        check_asked(model, names, epsilon, epsilons, norm, n, batch_size, precision)
        forms.append(model_form(model, input_range, output, data_format))
    check_count(workers, "--workers")
    check_certify(certify or (), skip_certified)
    if engine not in ("process", "ray"):
        raise ValueError(f"--engine must be one of process, ray, got {engine!r}.")
    if save is not None:
        from robust_zoo.zoo.layout import check_target

        check_target(save)
    with quiet():
        import robust_zoo as rz
        from robust_zoo.files import write_text

        smoothed = parse_smoothing(smoothing)
        further = [parse_threat_model(text) for text in threat_model or ()]
        if plot is not None:
            rz.plots.picture_format(plot)
    if plot is not None and not all(map(needs_epsilon, names)):
        raise ValueError(
            "--plot draws accuracy against epsilon: it needs attacks with a budget only."
        )
    options: dict[str, Any] = {
        "n": n,
        "seed": seed,
        "batch_size": batch_size,
        "precision": precision,
        "certify": tuple(certify or ()),
        "skip_certified": skip_certified,
        "smoothing": smoothed,
        "threat_models": further,
        "workers": workers,
        "engine": engine,
        "address": address,
    }
    kept = (
        "interrupted; nothing is kept: give --state FOLDER to resume the next time."
        if state is None
        else f"interrupted; what was measured is kept in {str(state)!r}: the same command resumes from there."
    )
    measured: list[RobustnessRecord] = []
    for place, (model, form) in enumerate(zip(models, forms, strict=True)):
        with quiet():
            opened = open_model(model, form)
        budgets, plans = planned(opened, model, names, epsilon, epsilons, norm)
        data = open_data(
            opened, model, dataset, split, central_crop=central_crop, skip_corrupt=skip_corrupt
        )
        folder = state if state is None or len(models) == 1 else state / f"model_{place}"
        with interruptible(kept):
            found = _measured(opened, data, budgets, plans, state_directory=folder, **options)
        if len(found) == 1:
            print_record(found[0])
        else:
            print_against_epsilon(found)
        measured += found
        if save is not None:
            print(f"written to {rz.save_model(opened, save, found[0])}")
    if len(models) > 1:
        print_ranking(measured)
    if json_file is not None:
        write_text(json_file, measured[0].to_json() if one else as_json_list(measured))
    if plot is not None:
        rz.plots.accuracy_against_epsilon(measured, plot)


def _measured(
    model: "keras.Model",
    data: "Examples",
    budgets: Sequence[float | None],
    plans: list[list["Attack"]],
    **options: Any,
) -> list["RobustnessRecord"]:
    """A record for each budget."""
    from robust_zoo.evaluation import evaluate, evaluate_at

    if len(budgets) == 1:
        return [evaluate(model, data, attacks=plans[0], **options)]
    # Several budgets are numbers.
    order = sorted(range(len(budgets)), key=lambda i: budgets[i] or 0.0)
    rising = evaluate_at(model, data, plans=[plans[i] for i in order], **options)
    return [rising[order.index(i)] for i in range(len(budgets))]


def check_asked(
    model: str,
    names: list[str],
    epsilon: str | None,
    epsilons: str | None,
    norm: str | None,
    n: int | None,
    batch_size: int,
    precision: str,
) -> None:
    """Refuses what can be known to be wrong before TensorFlow starts."""
    for name in names:
        _check_targets(name, model)
    check_count(n, "--n")
    check_count(batch_size, "--batch-size")
    if precision not in PRECISIONS:
        raise ValueError(f"--precision must be one of {', '.join(PRECISIONS)}, got {precision!r}.")
    if norm not in (None, "linf", "l2", "l1", "l0"):
        raise ValueError(f"--norm must be one of linf, l2, l1, l0, got {norm!r}.")
    for name in names:
        if norm and needs_epsilon(name) and not fixed_norm(name) and norm not in norms_of(name):
            raise ValueError(
                f"--norm of {name!r} must be one of {', '.join(norms_of(name))}, got {norm!r}."
            )
    if epsilon is not None and epsilons is not None:
        raise ValueError("--epsilon and --epsilons cannot both be given.")
    for text, option in ((epsilon, "--epsilon"), (epsilons, "--epsilons")):
        for value in [] if text is None else numbers(text, option):
            for name in names:
                try:
                    check_epsilon(value, _expected_norm(name, norm, model))
                except ValueError as error:
                    raise ValueError(f"{option}: {error}") from None


def planned(
    opened: "keras.Model",
    model: str,
    names: list[str],
    epsilon: str | None,
    epsilons: str | None,
    norm: str | None,
) -> tuple[Sequence[float | None], list[list["Attack"]]]:
    """The budgets to measure at, and the attacks at each."""
    record = getattr(opened, "robustness", None)
    threat = record.threat_model if record else None
    budgets = _budgets(names, epsilon, epsilons, threat, model)
    plans = [
        [parse_attack(name, budget, norm or _own_norm(name, threat)) for name in names]
        for budget in budgets
    ]
    return budgets, plans


def open_data(
    opened: "keras.Model",
    model: str,
    dataset: str | None,
    split: str,
    *,
    central_crop: float | None = None,
    skip_corrupt: bool = False,
) -> "Examples":
    """The split to measure on, by default of the dataset that the model's record names, prepared as it says."""
    from robust_zoo.datasets import open_dataset, options_of

    if central_crop is not None and not 0 < central_crop <= 1:
        raise ValueError(f"--central-crop must be above 0 and at most 1, got {central_crop:g}.")
    record = getattr(opened, "robustness", None)
    if not dataset and record is None:
        raise ValueError(f"--dataset is needed: {model!r} has no record that says which.")
    options: dict[str, Any] = {"central_crop": central_crop or 1.0, "skip_corrupt": skip_corrupt}
    if not dataset:
        assert record is not None  # refused above
        dataset = record.dataset.name
        recorded = options_of(record.dataset.preparation)
        options = {
            "central_crop": central_crop or recorded["central_crop"],
            "skip_corrupt": skip_corrupt or recorded["skip_corrupt"],
        }
    try:
        return open_dataset(dataset, split, image_shape=opened.input_shape[1:], **options)
    except ValueError as error:
        sentence = str(error).replace("central_crop", "--central-crop")
        raise type(error)(sentence.replace("skip_corrupt is", "--skip-corrupt is")) from None


def model_form(
    handle: str, input_range: str | None, output: str | None, data_format: str | None
) -> dict:
    """How `as_classifier` is to take a model file; what can be wrong with it is said before TensorFlow starts."""
    if not is_model_file(handle):
        if input_range or output or data_format:
            raise ValueError(
                "--input-range, --output and --data-format are for .keras and .h5 files: zoo models need none of "
                "them."
            )
        return {}
    if os.path.isdir(handle):
        raise IsADirectoryError(f"{handle!r} is a directory, not a model file.")
    if not os.path.isfile(handle):
        raise FileNotFoundError(f"no model file {handle!r}.")
    outputs, formats = ("logits", "softmax", "sigmoid"), ("channels_last", "channels_first")
    if output not in (None, *outputs):
        raise ValueError(f"--output must be one of {', '.join(outputs)}, got {output!r}.")
    if data_format not in (None, *formats):
        raise ValueError(f"--data-format must be one of {', '.join(formats)}, got {data_format!r}.")
    bounds = tuple(numbers(input_range or "0,1", "--input-range"))
    if len(bounds) != 2 or not bounds[0] < bounds[1]:
        raise ValueError(
            f"--input-range must be two rising numbers such as 0,255, got {input_range!r}."
        )
    return {
        "input_range": bounds,
        "output": output or "logits",
        "data_format": data_format or "channels_last",
    }


def open_model(handle: str, form: dict) -> "keras.Model":
    """The classifier of a zoo name, a directory, a hub's handle, or anybody's model file."""
    import robust_zoo as rz

    if not form:
        return rz.load_model(handle)
    import keras

    path = pathlib.Path(handle).resolve()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        # Keras knows its files by an ending in small letters, which may be the wrong one.
        link = pathlib.Path(scratch) / f"model{'.keras' if zipfile.is_zipfile(path) else '.h5'}"
        link.symlink_to(path)
        try:
            model = keras.saving.load_model(link, compile=False)
        except Exception as error:  # whatever a file that is no model makes Keras stumble over
            reason = one_line(str(error).replace(str(link), handle))
            raise ValueError(f"{handle!r} cannot be loaded as a Keras model: {reason}.") from error
    return rz.as_classifier(model, **form)


def _expected_norm(name: str, norm: str | None, model: str) -> str:
    """The norm that an attack will have: as asked for, else that of the record if it is at hand, else linf."""
    if not needs_epsilon(name):
        return ""
    own = norms_of(name)
    found = fixed_norm(name) or norm or (own[0] if len(own) == 1 else None)
    if found is not None:
        return found
    if is_model_file(model):
        return "linf"
    record = _record_at_hand(model)
    threat = record.get("threat_model")
    if isinstance(threat, dict):
        return str(threat.get("norm", "linf"))
    return "linf" if record else ""


def _record_at_hand(model: str) -> dict[str, Any]:
    """What a model's record says, not validated, if it is on this machine; else nothing."""
    for folder in (pathlib.Path(model), checkpoints_directory() / model):
        try:
            record = json.loads((folder / "robustness.json").read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(record, dict):
            return record
    return {}


def _check_targets(name: str, model: str) -> None:
    """Refuses an attack on more classes than the model's record has, beside the true one."""
    kind, settings = read_attack(name)
    targets = {**(NAMES[kind][1] if kind in NAMES else {}), **settings}.get("targets", 0)
    classes = _record_at_hand(model).get("num_classes")
    if isinstance(classes, int) and isinstance(targets, int) and targets >= classes:
        raise ValueError(
            f"--attack: targets must be at most {classes - 1}, the other classes of {model!r}, got {targets} in {name!r}."
        )


def _own_norm(name: str, threat: "ThreatModel | None") -> str | None:
    """The norm to give an attack when none is asked for: that of the record, for an attack with a budget."""
    if threat is None or not needs_epsilon(name) or threat.norm not in norms_of(name):
        return None
    return threat.norm


def _budgets(
    names: list[str],
    epsilon: str | None,
    epsilons: str | None,
    threat: "ThreatModel | None",
    model: str,
) -> Sequence[float | None]:
    """The epsilons to measure at; one None if no attack has a budget."""
    if epsilons is not None:
        without = [name for name in names if not needs_epsilon(name)]
        if without:
            raise ValueError(
                f"--epsilons is for attacks with a budget, but {', '.join(without)} has none: measure it by itself."
            )
        return numbers(epsilons, "--epsilons")
    if epsilon is not None:
        return [number(epsilon, "--epsilon")]
    if threat is not None:
        return [threat.epsilon]
    if any(map(needs_epsilon, names)):
        raise ValueError(f"--epsilon is needed: {model!r} has no record that says which.")
    return [None]
