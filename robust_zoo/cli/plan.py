"""The commands plan, measure and merge: one evaluation on many machines."""

import pathlib
import re
from typing import Annotated, Any

import typer

from robust_zoo.cli.common import (
    check_certify,
    check_count,
    check_writable,
    parse_smoothing,
    parse_threat_model,
    print_record,
    quiet,
)
from robust_zoo.cli.evaluate import (
    Attacks,
    BatchSize,
    CentralCrop,
    Certify,
    Count,
    DataFormat,
    DatasetName,
    Epsilon,
    InputRange,
    Model,
    NormName,
    Output,
    PrecisionName,
    Seed,
    SkipCertified,
    SkipCorrupt,
    SmoothingSettings,
    Split,
    ThreatModels,
    Workers,
    check_asked,
    model_form,
    open_data,
    open_model,
    planned,
)

PlanFile = Annotated[pathlib.Path, typer.Argument(help="File that plan wrote.")]


def plan(
    model: Model,
    out: Annotated[pathlib.Path, typer.Option(help="File (.json) to write the plan to.")],
    attack: Attacks = None,
    epsilon: Epsilon = None,
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
    task_size: Annotated[int, typer.Option(help="Images in a task.")] = 256,
    input_range: InputRange = None,
    output: Output = None,
    data_format: DataFormat = None,
) -> None:
    """Plans an evaluation, for measure and merge on one machine or many."""
    check_writable(out, "--out")
    names = attack or ["pgd"]
    check_asked(model, names, epsilon, None, norm, n, batch_size, precision)
    check_count(task_size, "--task-size")
    check_certify(certify or (), skip_certified)
    form = model_form(model, input_range, output, data_format)
    with quiet():
        import robust_zoo as rz
        from robust_zoo.files import write_text

        opened = open_model(model, form)
    _, (attacks,) = planned(opened, model, names, epsilon, None, norm)
    data = open_data(
        opened, model, dataset, split, central_crop=central_crop, skip_corrupt=skip_corrupt
    )
    options: dict[str, Any] = {
        "seed": seed,
        "batch_size": batch_size,
        "precision": precision,
        "certify": tuple(certify or ()),
        "skip_certified": skip_certified,
        "smoothing": parse_smoothing(smoothing),
        "threat_models": [parse_threat_model(text) for text in threat_model or ()],
    }
    made = rz.plan_evaluation(opened, data, attacks=attacks, n=n, task_size=task_size, **options)
    write_text(
        out,
        made.model_copy(update={"handle": model, "form": form, "source": dataset or ""}).to_json(),
    )
    print(f"{len(made.tasks)} tasks in {out}: robust-zoo measure {out} --out FOLDER measures them")


def measure(
    plan: PlanFile,
    out: Annotated[pathlib.Path, typer.Option(help="Folder to write the parts into.")],
    shard: Annotated[
        str, typer.Option(help="Share of the tasks to measure, such as 3/16: the third of sixteen.")
    ] = "1/1",
    workers: Workers = None,
) -> None:
    """Measures the tasks of a plan, or a share of them. Those that are there already are not measured again."""
    number, count = _shard(shard)
    check_count(workers, "--workers")
    with quiet():
        from robust_zoo.datasets import options_of
        from robust_zoo.evaluation.engines import measure_tasks
        from robust_zoo.evaluation.plan import EvaluationPlan

        read = EvaluationPlan.from_json(plan.read_bytes(), str(plan))
        model = open_model(read.handle, read.form)
    source = read.source or read.dataset.name
    asked = options_of(read.dataset.preparation)
    data = open_data(model, read.handle, source, read.dataset.split, **asked)
    bound = read.bind(model, data)
    tasks = bound.tasks[number - 1 :: count]
    parts = measure_tasks(bound, tasks, folder=out, workers=workers)
    print(f"{len(parts)} of {len(bound.tasks)} parts are in {out}")


def merge(
    plan: PlanFile,
    parts: Annotated[pathlib.Path, typer.Argument(help="Folder that measure wrote into.")],
    json_file: Annotated[
        pathlib.Path | None, typer.Option("--json", help="File to write the record to.")
    ] = None,
) -> None:
    """Makes the record of a plan from all its parts."""
    check_writable(json_file, "--json")
    with quiet():
        from robust_zoo.evaluation import EvaluationPlan, Part
        from robust_zoo.evaluation import merge as merge_parts
        from robust_zoo.files import write_text

        read = EvaluationPlan.from_json(plan.read_bytes(), str(plan))
        files = [path for task in read.tasks if (path := Part.place(parts, task)).exists()]
        record = merge_parts(read, map(Part.load, files))
    print_record(record)
    if json_file is not None:
        write_text(json_file, record.to_json())


def _shard(text: str) -> tuple[int, int]:
    """The number, from 1, and the count of shards."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    number, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= number <= count:
        raise ValueError(f"--shard must be a number of a count, such as 3/16, got {text!r}.")
    return number, count
