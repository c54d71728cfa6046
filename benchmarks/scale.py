"""What more processes, fewer bits and data on disk do to time and memory.

    pip install 'robust-zoo[cpu,ray]'
    python benchmarks/scale.py workers checks memory hosts
    python benchmarks/scale.py precision --n 500 --json precision.json
    python benchmarks/scale.py reference       # needs torch and torchattacks, too

- workers: PGD-40 on 1,000 images and AutoAttack on 64 of a robust model, by this process, by two processes of
  `evaluate(workers=2)` and by Ray with one and with two workers. Workers have one thread each; their start counts.
- checks: `evaluate` of PGD-40 on 1,000 images of MNIST and an MLP, with its gradient-masking checks and without.
- precision: each component of AutoAttack by itself on --n images, in float32 and then in bfloat16, once and compiled
  before: accuracy within epsilon, seconds (FAB's are of its whole search for the nearest example) and, of the images on
  which the two disagree, how many each left (exact McNemar test).
- reference: AutoAttack on 64 images of a robust model, in float32 and in bfloat16, and its authors' attacks with the
  same settings (`torchattacks`, which took over their code) on the same network in PyTorch: seconds and CPU seconds,
  and the images on which the verdicts differ.
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
from collections.abc import Callable, Iterator
from typing import Any

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
from robust_zoo.inference import predict

ROBUST, MLP = "madry_cnn.pgd_mnist", "mlp.deepdefense_mnist"
PRECISION = {  # dataset and epsilon
    "mlp.deepdefense_mnist": ("mnist", 0.1),
    "galloway_cnn.natural_l2_cifar10": ("cifar10", 1 / 255),
    "madry_cnn.pgd_mnist": ("mnist", 0.3),
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
        for name in ("this process", "Ray, two workers"):
            calls[name]()  # which compiles, and starts workers that stay
        found.append(compared(calls, arguments, f"{type(attack).__name__} on {n:,} images"))
    return found


def checks(arguments: argparse.Namespace) -> list[tuple[Table, Results]]:
    model, data = load_model(MLP), load_dataset("mnist", "test").sample(1_000, arguments.seed)
    attack = PGD(epsilon=model.robustness.threat_model.epsilon, steps=40)
    options = {"attacks": [attack], "progress": False}
    calls = {
        "without checks": lambda: evaluate(model, data, checks=False, **options),
        "with checks": lambda: evaluate(model, data, **options),
    }
    for call in calls.values():
        call()
    return [compared(calls, arguments, "evaluate, PGD-40 on 1,000 images of MNIST")]


def precision(arguments: argparse.Namespace) -> Iterator[tuple[Table, Results]]:
    for name, (dataset, epsilon) in PRECISION.items():
        model = load_model(name)
        data = load_dataset(dataset, "test").sample(arguments.n, arguments.seed)
        attack = AutoAttack(epsilon=epsilon)
        table, results = Table(title=f"{name}, {arguments.n} images"), {}
        for heading in (
            "component", "float32", "bfloat16", "only float32", "only bfloat16", "p", "seconds", "seconds", "ratio",
        ):  # fmt: skip
            table.add_column(heading, justify="left" if heading == "component" else "right")
        for part, component in attack.ensemble(CLASSES)[0].items():
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
        yield table, {name: results}


def in_torch(model: keras.Model) -> Any:
    """madry_cnn as a PyTorch module of images (n, 1, 28, 28)."""
    import torch

    first, second, hidden, last = (
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.Dense | keras.layers.Conv2D)
    )

    def convolution(layer: keras.layers.Conv2D) -> torch.nn.Conv2d:
        kernel, bias = map(torch.from_numpy, layer.get_weights())
        made = torch.nn.Conv2d(kernel.shape[2], kernel.shape[3], kernel.shape[0], padding="same")
        made.load_state_dict({"weight": kernel.permute(3, 2, 0, 1), "bias": bias})
        return made

    def dense(layer: keras.layers.Dense) -> torch.nn.Linear:
        kernel, bias = map(torch.from_numpy, layer.get_weights())
        made = torch.nn.Linear(*kernel.shape)
        made.load_state_dict({"weight": kernel.T, "bias": bias})
        return made

    class Rows(torch.nn.Module):
        """Flattens as Keras does, channels last."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.permute(0, 2, 3, 1).flatten(1)

    def block(layer: keras.layers.Conv2D) -> list[torch.nn.Module]:
        return [convolution(layer), torch.nn.ReLU(), torch.nn.MaxPool2d(2)]

    parts = [*block(first), *block(second), Rows(), dense(hidden), torch.nn.ReLU(), dense(last)]
    return torch.nn.Sequential(*parts).eval()


def reference(arguments: argparse.Namespace) -> list[tuple[Table, Results]]:
    import torch
    import torchattacks

    model = load_model(ROBUST)
    theirs, epsilon = in_torch(model), model.robustness.threat_model.epsilon
    data = load_dataset("mnist", "test").sample(64, arguments.seed)
    x, y = torch.from_numpy(data.images).permute(0, 3, 1, 2), torch.from_numpy(data.labels).long()
    with torch.no_grad():
        logits = theirs(x).numpy()
    np.testing.assert_allclose(logits, predict(model, data.images, 64), atol=1e-3)
    budget = {"norm": "Linf", "eps": epsilon, "seed": arguments.seed}
    attack = AutoAttack(epsilon=epsilon)

    def authors(count: int) -> np.ndarray:
        components = [
            torchattacks.APGD(theirs, steps=100, **budget),
            torchattacks.APGDT(theirs, steps=100, **budget),
            torchattacks.FAB(theirs, steps=100, multi_targeted=True, **budget),
            torchattacks.Square(theirs, n_queries=5000, **budget),
        ]
        right = (logits.argmax(1) == data.labels)[:count]
        wrong = ~right
        x_adv = torchattacks.MultiAttack(components)(x[:count][right], y[:count][right])
        with torch.no_grad():
            wrong[right] = (theirs(x_adv).argmax(1) != y[:count][right]).numpy()
        return wrong

    def ours(bits: str) -> Callable[[int], np.ndarray]:
        options = {"seed": arguments.seed, "precision": bits, "progress": False}
        return lambda count: (
            attack.run(model, data.images[:count], data.labels[:count], **options).success
        )

    calls = {"authors'": authors, "float32": ours("float32"), "bfloat16": ours("bfloat16")}
    for call in calls.values():
        call(WARM_UP)
    seconds, broken = {name: [] for name in calls}, {}
    for _ in range(arguments.rounds):
        for name, call in calls.items():
            started = time.perf_counter(), time.process_time()
            broken[name] = call(len(x))
            now = time.perf_counter(), time.process_time()
            seconds[name].append(np.subtract(now, started).tolist())
    table = Table(title=f"AutoAttack on {len(x)} images, {ROBUST}")
    for heading in (
        "",
        "seconds",
        "CPU seconds",
        "authors' / it",
        "in CPU seconds",
        "other verdicts",
    ):
        table.add_column(heading, justify="right" if heading else "left")
    for name, found in seconds.items():
        ratios = np.median(np.divide(seconds["authors'"], found), axis=0)
        cells = [*(f"{value:.1f}" for value in np.median(found, axis=0))]
        cells += [
            *(f"{ratio:.2f}" for ratio in ratios),
            str((broken[name] != broken["authors'"]).sum()),
        ]
        table.add_row(name, *cells)
    verdicts = {name: found.tolist() for name, found in broken.items()}
    return [(table, {"seconds": seconds, "broken": verdicts})]


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
    "reference": reference,
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
