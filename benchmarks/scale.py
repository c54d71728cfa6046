"""What more processes, fewer bits and data on disk do to time and memory.

    pip install 'robust-zoo[cpu,ray]'
    python benchmarks/scale.py workers checks memory hosts
    python benchmarks/scale.py precision --n 500 --json precision.json

- workers: PGD-40 on 1,000 images and AutoAttack on 64 of a robust model, by this process, by two processes of
  `evaluate(workers=2)` and by Ray with one and with two workers. Workers have one thread each; their start counts.
- checks: `evaluate` of PGD-40 on the 500 test digits and an MLP, with its gradient-masking checks and without.
- precision: each component of AutoAttack by itself on --n images, in float32 and then in bfloat16, once and compiled
  before: accuracy within epsilon, seconds (FAB's are of its whole search for the nearest example) and, of the images on
  which the two disagree, how many each left (exact McNemar test).
- memory: peak resident memory of `evaluate`, PGD-2, on one batch of pictures of 224 pixels and on --stored ones read
  from disk; in processes of their own.
- hosts: a step of Madry training on 64 images a host, by one process and by two that talk over loopback, one thread
  each.

Compared calls run interleaved, round by round; ratios are medians of the ratios within a round (see `attacks.py`).
"""

import argparse
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from attacks import Row, environment, interleave
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

import robust_zoo
from robust_zoo import backend, evaluate, load_dataset, load_model
from robust_zoo.attacks import PGD, AutoAttack
from robust_zoo.defenses import AdversarialTraining

ROBUST, MLP = "madry_cnn.pgd_mnist", "mlp.pgd_digits"
PRECISION = {
    "madry_cnn.pgd_mnist": "mnist",
    "preact_resnet.pgd_cifar10": "cifar10",
    "mlp.deepdefense_mnist": "mnist",
}
PICTURE = (224, 224, 3)
CLASSES = 10
STEPS_TIMED = 20
WARM_UP = 8  # images

Results = dict[str, object]


def table_of(rows: list[Row], title: str) -> Table:
    table = Table(title=title)
    for heading in ("", "seconds", f"{rows[0].name} / it"):
        table.add_column(heading, justify="left" if not heading else "right")
    for row in rows:
        table.add_row(row.name, f"{row.median:.1f}", f"{1 / row.ratio(rows[0]):.2f}")
    return table


def compared(
    calls: dict[str, Callable[[], object]], arguments: argparse.Namespace, title: str
) -> tuple[Table, Results]:
    rows = [Row(name, seconds) for name, seconds in interleave(calls, arguments.rounds).items()]
    return table_of(rows, title), {row.name: row.seconds for row in rows}


def workers(arguments: argparse.Namespace) -> list[tuple[Table, Results]]:
    model = load_model(ROBUST)
    epsilon = model.robustness.threat_model.epsilon
    found = []
    for attack, n, size in (
        (PGD(epsilon=epsilon, steps=40, step_size=0.01), 1_000, 125),
        (AutoAttack(epsilon=epsilon), 64, 16),
    ):
        data = load_dataset("mnist", "test").sample(n, arguments.seed)
        options = {"attacks": [attack], "checks": False, "progress": False, "task_size": size}

        def measured(attack=attack, data=data, options=options, **where):
            return lambda: evaluate(model, data, **options, **where)

        calls = {
            "Ray, one worker": measured(engine="ray", workers=1),
            "this process": measured(),
            "two processes": measured(workers=2),
            "Ray, two workers": measured(engine="ray", workers=2),
        }
        calls["this process"]()
        found.append(compared(calls, arguments, f"{type(attack).__name__} on {n:,} images"))
    return found


def checks(arguments: argparse.Namespace) -> list[tuple[Table, Results]]:
    model, data = load_model(MLP), load_dataset("digits")
    attack = PGD(epsilon=model.robustness.threat_model.epsilon, steps=40)
    options = {"attacks": [attack], "progress": False}
    calls = {
        "without checks": lambda: evaluate(model, data, checks=False, **options),
        "with checks": lambda: evaluate(model, data, **options),
    }
    for call in calls.values():
        call()
    return [compared(calls, arguments, "evaluate, PGD-40 on 500 digits")]


def precision(arguments: argparse.Namespace) -> list[tuple[Table, Results]]:
    found = []
    for name, dataset in PRECISION.items():
        model = load_model(name)
        data = load_dataset(dataset, "test").sample(arguments.n, arguments.seed)
        attack = AutoAttack(epsilon=model.robustness.threat_model.epsilon)
        table, results = Table(title=f"{name}, {arguments.n} images"), {}
        for heading in (
            "component", "float32", "bfloat16", "only float32", "only bfloat16", "p", "seconds", "seconds", "ratio",
        ):  # fmt: skip
            table.add_column(heading, justify="left" if heading == "component" else "right")
        for part, component in attack.standard(CLASSES)[0].items():
            left, seconds = [], []
            for bits in ("float32", "bfloat16"):
                options = {"precision": bits, "progress": False, "seed": arguments.seed}
                component.run(model, data.images[:WARM_UP], data.labels[:WARM_UP], **options)
                result = component.run(model, data.images, data.labels, **options)
                left.append(~(result.success & (result.distance <= attack.allowed_distance)))
                seconds.append(result.seconds)
            only = [int((one & ~other).sum()) for one, other in (left, left[::-1])]
            p = binomtest(only[0], sum(only)).pvalue if sum(only) else 1.0
            accuracies, ratio = [100 * values.mean() for values in left], seconds[0] / seconds[1]
            cells = [f"{value:.1f}%" for value in accuracies] + [str(count) for count in only]
            cells += [f"{p:.2f}", *(f"{value:.1f}" for value in seconds), f"{ratio:.2f}"]
            table.add_row(part, *cells)
            results[part] = {"accuracy": accuracies, "only": only, "p": p, "seconds": seconds}
        found.append((table, {name: results}))
    return found


def store_pictures(folder: pathlib.Path, count: int) -> None:
    """A TFDS dataset of random pictures, sharing some of their pixels so that they take little room."""
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=PICTURE),
            "label": tfds.features.ClassLabel(num_classes=CLASSES),
        }
    )
    rng = np.random.default_rng(0)
    some = rng.integers(0, 256, (64, *PICTURE), "uint8")
    some[:, :, 16:] = some[:, :, 16:17]
    tfds.dataset_builders.store_as_tfds_dataset(
        name="pictures",
        version="1.0.0",
        data_dir=folder,
        features=features,
        split_datasets={
            "test": ((i, {"image": some[i % 64], "label": i % CLASSES}) for i in range(count))
        },
    )


def peak_memory(folder: pathlib.Path | None) -> float:
    """MiB of this process once a model of large pictures was measured: on one batch, or on all in a folder."""
    inputs = keras.Input(PICTURE)
    x = keras.layers.Conv2D(8, 7, strides=8, activation="relu")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(CLASSES, name="logits")(x))
    pgd = PGD(epsilon=0.01, steps=2)
    if folder is None:
        images = np.random.default_rng(0).random((128, *PICTURE), dtype="float32")
        data = images, np.arange(128) % CLASSES
    else:
        data = robust_zoo.open_dataset("pictures", "test", data_dir=folder)
    evaluate(model, data, attacks=[pgd], checks=False, progress=False)
    # Of this process alone: getrusage's maximum starts at that of the process that started it.
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def memory(arguments: argparse.Namespace) -> list[tuple[Table, Results]]:
    table, found = Table(title="peak resident memory of evaluate, PGD-2, 224 pixels"), {}
    for heading in ("pictures", "MiB", "seconds"):
        table.add_column(heading, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        for count in (None, arguments.stored // 10, arguments.stored):
            place = pathlib.Path(folder, str(count))
            if count:
                store_pictures(place, count)
            data = str(place) if count else "batch"
            command = [sys.executable, __file__, "--memory-of", data]
            started = time.perf_counter()
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            shown = f"{count:,}" if count else "one batch"
            found[shown] = float(done.stdout), time.perf_counter() - started
            table.add_row(shown, *(f"{value:,.0f}" for value in found[shown]))
    return [(table, {"MiB and seconds": found})]


def step_seconds() -> float:
    """Seconds of a step of Madry training on 64 images a host, after a first epoch."""
    with backend.devices(1, hosts="TF_CONFIG" in os.environ):
        hosts = backend.host()[1]
        keras.utils.set_random_seed(0)
        model = robust_zoo.architectures.madry_cnn((28, 28, 1))
        defense = AdversarialTraining(model, attack=PGD(epsilon=0.3, steps=7, step_size=0.1))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        defense.compile(keras.optimizers.Adam(1e-4), loss)
        data = load_dataset("mnist", "train")
        count = 64 * hosts * STEPS_TIMED
        options = {"batch_size": 64 * hosts, "shuffle": False, "verbose": 0}
        defense.fit(data.images[:count], data.labels[:count], **options)
        started = time.perf_counter()
        defense.fit(data.images[:count], data.labels[:count], **options)
        return (time.perf_counter() - started) / STEPS_TIMED


def seconds_of_hosts(count: int) -> float:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    one_thread = {
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    processes = []
    for index in range(count):
        task = {"type": "worker", "index": index}
        cluster = {"TF_CONFIG": json.dumps({"cluster": {"worker": addresses}, "task": task})}
        processes.append(
            subprocess.Popen(
                [sys.executable, __file__, "--step-seconds"],
                env={**os.environ, **one_thread, **(cluster if count > 1 else {})},
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    try:
        return max(float(process.communicate()[0]) for process in processes)
    finally:
        for process in processes:  # where another one failed
            process.kill()


def hosts(arguments: argparse.Namespace) -> list[tuple[Table, Results]]:
    rounds = [{count: seconds_of_hosts(count) for count in (1, 2)} for _ in range(arguments.rounds)]
    rows = [
        Row(name, tuple(each[count] for each in rounds))
        for count, name in ((1, "one host"), (2, "two hosts"))
    ]
    table = Table(title="a step of Madry training, madry_cnn, 64 images a host, PGD-7")
    for heading in ("", "seconds a step", "of one host's speed"):
        table.add_column(heading, justify="left" if not heading else "right")
    for row in rows:
        table.add_row(row.name, f"{row.median:.2f}", f"{1 / row.ratio(rows[0]):.2f}")
    return [(table, {row.name: row.seconds for row in rows})]


PARTS = {
    "workers": workers,
    "checks": checks,
    "precision": precision,
    "memory": memory,
    "hosts": hosts,
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=3, help="calls of each contestant")
    parser.add_argument("--n", type=int, default=500, help="images for precision")
    parser.add_argument("--stored", type=int, default=50_000, help="pictures for memory")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--json", type=pathlib.Path, metavar="FILE", help="all numbers, written here"
    )
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--step-seconds", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    if arguments.memory_of:
        print(
            peak_memory(
                None if arguments.memory_of == "batch" else pathlib.Path(arguments.memory_of)
            )
        )
        return
    if arguments.step_seconds:
        print(step_seconds())
        return
    console, report = Console(), {"environment": environment()}
    for part in arguments.parts or PARTS:
        report[part] = {}
        for table, results in PARTS[part](arguments):
            console.print(table)
            report[part][table.title] = results
            if arguments.json:
                arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
