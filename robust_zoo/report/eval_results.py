"""Accuracies in the hub's own format, `.eval_results/*.yaml`, which the leaderboard of a benchmark collects."""

from robust_zoo.describe import describe_attack, describe_certified, interval
from robust_zoo.record import Accuracy, RobustnessRecord

BENCHMARK = "robust-zoo/robustness-benchmark"
"""The dataset repository, of which benchmark/ is the content."""

# Each task of its eval.yaml: dataset, norm and epsilon.
TASKS: dict[str, tuple[str, str, float]] = {
    "cifar10-linf-8-255": ("cifar10", "linf", 8 / 255),
    "cifar10-l2-0.5": ("cifar10", "l2", 0.5),
    "cifar100-linf-8-255": ("cifar100", "linf", 8 / 255),
    "imagenet-linf-4-255": ("imagenet2012", "linf", 4 / 255),
    "mnist-linf-0.3": ("mnist", "linf", 0.3),
    "mnist-linf-0.1": ("mnist", "linf", 0.1),
}


def task_of(record: RobustnessRecord) -> str:
    """The task that a record is of, "" if it is of none: another dataset, split or threat model."""
    threat = record.threat_model
    if threat is None or record.dataset.split not in ("test", "validation"):
        return ""
    for task, (dataset, norm, epsilon) in TASKS.items():
        same = (record.dataset.name, threat.norm) == (dataset, norm)
        if same and abs(threat.epsilon - epsilon) < 1e-6:
            return task
    return ""


def eval_results(record: RobustnessRecord, repository: str) -> str:
    """The content of the file, YAML; "" for a record of no task.

    Worst-case accuracy, clean accuracy and, where there is one, what is certified, in percent, each with the attacks, the
    interval and the seed by which it can be verified.

    Args:
        record: of the model.
        repository: of the model on the hub, "org/name".
    """
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    task = task_of(record)
    if not task or record.worst_case is None:
        return ""

    def entry(kind: str, part: Accuracy, how: str) -> EvalResultEntry:
        return EvalResultEntry(
            dataset_id=BENCHMARK,
            task_id=f"{task}-{kind}",
            value=round(100 * part.accuracy, 4),
            date=record.created.isoformat(),
            source_url=f"https://huggingface.co/{repository}/blob/main/robustness.json",
            source_name="robustness.json",
            notes=f"{how}; n {part.n_examples}, 95% interval {interval(part)}, seed {record.seed}",
        )

    attacks = ", ".join(map(describe_attack, record.attacks))
    entries = [
        entry("robust", record.worst_case, f"worst case of {attacks}"),
        entry("clean", record.clean, "clean images"),
    ]
    if record.certificate is not None:
        entries.append(
            entry("certified", record.certificate, describe_certified(record.certificate))
        )
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)
