"""The command `certify`."""

import json
import pathlib
from typing import Annotated

import typer

from robust_zoo.cli.common import check_count, check_writable, quiet
from robust_zoo.cli.evaluate import (
    BatchSize,
    CentralCrop,
    Count,
    DatasetName,
    Epsilon,
    Seed,
    SkipCorrupt,
    Split,
    check_asked,
    open_data,
    planned,
)
from robust_zoo.typing import BOUNDS


def certify(
    model: Annotated[str, typer.Argument(help="Name, checkpoint directory, or handle on a hub.")],
    *,
    epsilon: Epsilon = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="ibp or crown-ibp. Repeatable; by default both, and the better counts."),
    ] = None,
    n: Count = None,
    dataset: DatasetName = None,
    split: Split = "test",
    central_crop: CentralCrop = None,
    skip_corrupt: SkipCorrupt = False,
    seed: Seed = 0,
    batch_size: BatchSize = 64,
    json_file: Annotated[
        pathlib.Path | None, typer.Option("--json", help="File to write the figures to.")
    ] = None,
) -> None:
    """Proves of images that no perturbation in a linf ball changes their class: a lower bound of robust accuracy."""
    check_asked(model, ["pgd"], epsilon, None, "linf", n, batch_size, "float32")
    check_count(n, "--n")
    methods = tuple(method or BOUNDS)
    if not set(methods) <= set(BOUNDS) or len(set(methods)) < len(methods):
        raise ValueError(
            f"--method must be one of {', '.join(BOUNDS)}, each once, got {', '.join(methods)}."
        )
    if json_file is not None:
        check_writable(json_file, "--json")
    with quiet():
        import robust_zoo as rz
        from robust_zoo.describe import interval, percent
        from robust_zoo.files import write_text
    with quiet():
        opened = rz.load_model(model)
    record = opened.robustness
    if epsilon is None and record is not None and record.threat_model.norm != "linf":
        raise ValueError(
            f"--epsilon is needed: the record of {model!r} is of norm {record.threat_model.norm}, certificates of linf."
        )
    (budget,), _ = planned(opened, model, ["pgd"], epsilon, None, "linf")
    data = open_data(
        opened, model, dataset, split, central_crop=central_crop, skip_corrupt=skip_corrupt
    )
    if n is not None and n > len(data):
        raise ValueError(f"--n must be at most {len(data)}, the images of the split, got {n}.")
    some = data.sample(n, seed).take(slice(None))
    assert budget is not None  # pgd has one
    found = rz.certify(
        opened, some.images, some.labels, epsilon=budget, methods=methods, batch_size=batch_size
    )
    accuracy = found.accuracy
    print(
        f"certified: {percent(accuracy.accuracy)} ({interval(accuracy)}) of {accuracy.n_examples:,} images at linf "
        f"{budget:g}, by {' and '.join(methods)}"
    )
    if found.undecided:
        print(f"not decided in float32: {found.undecided}")
    if record is not None and record.worst_case is not None:
        threat = record.threat_model
        if (threat.norm, threat.epsilon) == ("linf", budget):
            print(f"attacks leave {percent(record.worst_case.accuracy)} in its record")
    if json_file is not None:
        told = {
            "model": model,
            "dataset": data.name,
            "split": data.split,
            "seed": seed,
            "norm": found.norm,
            "epsilon": found.epsilon,
            "methods": list(found.methods),
            "certified": accuracy.model_dump(mode="json"),
            "undecided": found.undecided,
        }
        write_text(json_file, json.dumps(told, indent=2) + "\n")
