"""evaluate(): from a model and data to a RobustnessRecord."""

import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from robust_zoo.attacks import Attack
from robust_zoo.certification import Smoothing
from robust_zoo.datasets import Examples
from robust_zoo.evaluation.curve import Evidence
from robust_zoo.evaluation.engines import measure_tasks
from robust_zoo.evaluation.merging import merged
from robust_zoo.evaluation.plan import (
    TASK_SIZE,
    check_rising,
    plan_evaluation,
)
from robust_zoo.record import (
    BaseModelInfo,
    DefenseInfo,
    Reported,
    RobustnessRecord,
    ThreatModel,
    Training,
)
from robust_zoo.typing import Precision


def evaluate(
    model: keras.Model,
    data: "Examples | str | tuple[np.ndarray, np.ndarray] | Any",
    *,
    attacks: Sequence[Attack] = (),
    dataset: str | None = None,
    n: "int | Sequence[int | None] | None" = None,
    seed: int = 0,
    batch_size: int = 128,
    precision: Precision = "float32",
    task_size: int = TASK_SIZE,
    checks: bool = True,
    certify: Sequence[str] = (),
    skip_certified: bool = False,
    smoothing: Smoothing | None = None,
    threat_models: Sequence[ThreatModel] = (),
    progress: bool = True,
    state_directory: str | pathlib.Path | None = None,
    engine: str = "process",
    workers: int | None = None,
    address: str | None = None,
    name: str | None = None,
    architecture: str | None = None,
    defense: "DefenseInfo | Any | None" = None,
    reported: Sequence[Reported] = (),
    training: Training | None = None,
    base_model: BaseModelInfo | None = None,
    license: str | None = None,
    notice: str = "",
) -> RobustnessRecord:
    """Measures a classifier, in float32, and returns the numbers with their evidence.

    Args:
        model: classifier, images in [0, 1] to logits. If it carries the record of the very weights it
            now has, name, architecture, defense, reported numbers, training, base model, license and notice are
            taken from there.
        data: a `Dataset` or `StoredDataset`; a name for `open_dataset` (its test split; images of a folder, or of
            several sizes, are resized to the model's input); arrays (images, labels); or a stream of batches of them,
            a tf.data.Dataset or a `PyDataset`, of which the first `n` examples are taken (all by default). Of large
            datasets, a process holds the images of one task at a time in memory.
        dataset: name of arrays or a stream, for the record; by default "arrays" or "stream".
        attacks: fixed-budget attacks of one norm and epsilon, the threat model, and minimum-norm attacks. For a random
            model, all of them with the same `samples`, see `robust_zoo.attacks.EOT`: clean accuracy is then by the majority
            of as many draws, too.
        n: number of examples, drawn with `seed`: one for everything, or one for each attack (clean accuracy then uses
            the largest). None (default) is all. A smaller sample is a prefix of a larger one.
        seed: integer seed for the sample and for all randomness of the attacks, in [0, 2**64); default 0.
        batch_size: images in a batch, an integer >= 1; default 128. No count depends on it, but of a random model.
        precision: of the attacks' steps, "float32" (default) or "bfloat16", see `Attack.run`; stored in the record.
            Clean accuracy, checks and what counts as a success are float32 in both.
        task_size: images in a task, the unit of work that is measured and resumed, see `plan_evaluation`; default 256.
        checks: whether to run the gradient-masking checks, and measure accuracy against epsilon under PGD on up
            to 512 examples.
        certify: methods of `robust_zoo.certify`, "ibp" or "crown-ibp" or both, by which the images of the sample are
            certified within the threat model, which must be of norm linf; by default none. Worst-case accuracy is then
            between `record.certificate` and what the attacks leave.
        skip_certified: whether attacks with a budget leave out the images that are certified, which nothing breaks, and
            count them as robust; the record says how many. Default False.
        smoothing: how the smoothed classifier (`robust_zoo.smooth`) is certified, on how many images, at which L2
            radii; by default not.
        threat_models: further balls, `robust_zoo.record.ThreatModel(norm="l2", epsilon=0.5)`, in each of which all attacks
            with a budget run, too, a step size in proportion. `record.union` is accuracy under the worst of them and of
            the attacks' own, image by image. The curve, the checks and the worst case are those of the attacks' own.
        progress: whether to show progress bars (on a terminal only).
        state_directory: folder, made if need be, that keeps what is measured, and how far the attack at work is (see
            `Attack.run`), so that an interrupted evaluation resumes when it is called again with the same arguments.
        engine: "process" (default), or "ray" for a Ray cluster (extra `ray`). The record is the same.
        workers: how many processes measure at once, each on one core or GPU: by default one, and on Ray as many as the
            cluster has GPUs or, without any, CPUs. New processes import the script that called: let it call only
            under `if __name__ == "__main__":`.
        address: of the Ray cluster, "auto" for the one around this machine; by default one is started here, which
            stays, with its workers and what they compiled, for the next evaluation of this process.
        name: of the model; by default `model.name`.
        architecture: its architecture; by default `model.name`.
        defense: how it was trained: the trainer itself, or a `DefenseInfo`. By default what the defense noted on
            the model when its `fit` ended, if the weights are still those.
        reported: numbers that others published, for comparison.
        training: how, where and how long it was trained.
        base_model: what it was fine-tuned from; by default what `load_model` made it of, if its weights are
            no longer those.
        license: of the weights, an SPDX identifier such as "MIT"; by default that of what it was fine-tuned from, and
            "Apache-2.0" for weights of one's own.
        notice: what must go with weights of others, a line of text, for the checkpoint's file NOTICE; by default that of what it was
            fine-tuned from.

    Raises:
        TypeError, ValueError: a model, images or labels that `robust_zoo.contract` refuses; attacks of different threat
            models, or aimed at the given labels; an argument out of range; a dataset that cannot be opened
            (`DatasetError`); a `state_directory` of another evaluation; a model that computes other logits once
            compiled; a layer without an interval rule (`NoRuleError`) to certify; or a Ray cluster that cannot be reached.
        ImportError: Ray is not installed.

    Example:
        >>> attack = PGD(epsilon=0.1, steps=40, step_size=0.01)
        >>> record = evaluate(model, "digits", attacks=[attack], n=100, seed=0)
        >>> record.clean.accuracy, record.worst_case.n_examples
        (1.0, 100)
    """
    plan = plan_evaluation(
        model,
        data,
        attacks=attacks,
        dataset=dataset,
        n=n,
        seed=seed,
        batch_size=batch_size,
        precision=precision,
        task_size=task_size,
        checks=checks,
        certify=certify,
        skip_certified=skip_certified,
        smoothing=smoothing,
        threat_models=threat_models,
        name=name,
        architecture=architecture,
        defense=defense,
        reported=reported,
        training=training,
        base_model=base_model,
        license=license,
        notice=notice,
    )
    where: dict[str, Any] = {"engine": engine, "workers": workers, "address": address}
    parts = measure_tasks(plan, plan.tasks, folder=state_directory, progress=progress, **where)
    return merged(plan, parts)[0]


def evaluate_at(
    model: keras.Model,
    data: "Examples | str | tuple[np.ndarray, np.ndarray] | Any",
    *,
    plans: Sequence[Sequence[Attack]],
    progress: bool = True,
    state_directory: str | pathlib.Path | None = None,
    engine: str = "process",
    workers: int | None = None,
    address: str | None = None,
    **options: Any,
) -> list[RobustnessRecord]:
    """Measures a classifier at several epsilons: a record each.

    An image that was broken within one ball counts as broken within every larger one, so that accuracy never rises
    with epsilon.

    Args:
        model: see `evaluate`.
        data: see `evaluate`.
        plans: attacks for each epsilon, all of one norm; the epsilons rise.
        progress: see `evaluate`.
        state_directory: see `evaluate`; each epsilon has a folder in it.
        engine: see `evaluate`.
        workers: see `evaluate`.
        address: see `evaluate`.
        **options: all else that `evaluate` takes.

    Raises:
        TypeError, ValueError: as `evaluate`, or plans whose epsilons do not rise.
    """
    made = [plan_evaluation(model, data, attacks=attacks, **options) for attacks in plans]
    if len(plans) > 1:
        check_rising([plan.threat_model for plan in made])
    where: dict[str, Any] = {"engine": engine, "workers": workers, "address": address}
    records: list[RobustnessRecord] = []
    evidence: list[Evidence] = []
    for plan in made:
        folder = state_directory
        if folder is not None and len(plans) > 1:
            assert plan.threat_model is not None  # or `check_rising` has refused the plans
            folder = pathlib.Path(folder) / f"epsilon_{plan.threat_model.epsilon:.6g}"
        parts = measure_tasks(plan, plan.tasks, folder=folder, progress=progress, **where)
        record, found = merged(plan, parts, evidence)
        records.append(record)
        evidence += found
    return records
