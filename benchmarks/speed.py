"""What the minimum-norm attacks and AutoAttack cost, each against what it should beat.

    pip install 'robust-zoo[cpu,bench]'
    python benchmarks/speed.py deepfool carlini-wagner dropping memory
    python benchmarks/speed.py share --n 1000

- deepfool, carlini-wagner: ours against Foolbox on the same Keras model and 128 MNIST images, with the
  same steps, candidates and search steps.
- dropping: AutoAttack on a model that it breaks, against its four components on all images to the end:
  the same code, but nothing leaves the working set and nothing is handed over.
- share: AutoAttack on --n images of a robust model: how much of its time its forward passes and gradients
  take by themselves, timed bare and compiled in between, at the batch sizes that occurred.
- memory: peak resident memory of `evaluate`, minus the images, for growing numbers of images, each in a
  process of its own.

Compared calls run in one process, interleaved round by round after one warm-up each (see `attacks.py`).
"""

import argparse
import collections
import itertools
import json
import math
import os
import pathlib
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar
from unittest import mock

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from attacks import BATCH_SIZE, Row, Task, environment, input_gradient, interleave, load_batch
from rich.console import Console
from rich.table import Table

import robust_zoo
from robust_zoo import backend
from robust_zoo.attacks import (
    APGD,
    FAB,
    PGD,
    AutoAttack,
    CarliniWagner,
    DeepFool,
    Square,
    autoattack,
)
from robust_zoo.attacks.working_set import WorkingSet
from robust_zoo.inference import predict

ROBUST, BROKEN = "madry_cnn.pgd_mnist", "madry_cnn.natural_mnist"
DEEPFOOL_STEPS, CANDIDATES, SEARCH_STEPS = 50, 10, 9
MEMORY_SIZES = (1_000, 4_000, 10_000)
WARM_UP = 8  # images
BARE_EVERY = 5  # calls of an attack's compiled steps

Call = Callable[[], object]


def timed(calls: dict[str, Call], rounds: int) -> list[Row]:
    for call in calls.values():
        call()
    return [Row(name, seconds) for name, seconds in interleave(calls, rounds).items()]


def batch_task() -> Task:
    x, y, _ = load_batch()
    return Task(robust_zoo.load_model(ROBUST), x, y)


def against_foolbox(ours, theirs: str, rounds: int, **settings) -> list[Row]:
    import foolbox

    task = batch_task()
    x, y = task.x.numpy(), task.y.numpy()
    model = foolbox.TensorFlowModel(task.model, bounds=(0, 1))
    attack = getattr(foolbox.attacks, theirs)(**settings)
    labels = tf.cast(task.y, tf.int64)  # EagerPy needs argmax's type under NumPy 2
    calls = {
        "robust_zoo": lambda: ours.run(task.model, x, y, batch_size=BATCH_SIZE, progress=False),
        "Foolbox": lambda: attack(model, task.x, labels, epsilons=None),
    }
    return timed(calls, rounds)


def deepfool(arguments: argparse.Namespace) -> list[Row]:
    return against_foolbox(
        DeepFool(steps=DEEPFOOL_STEPS, candidates=CANDIDATES),
        "L2DeepFoolAttack",
        arguments.rounds,
        steps=DEEPFOOL_STEPS,
        candidates=CANDIDATES,
    )


def carlini_wagner(arguments: argparse.Namespace) -> list[Row]:
    steps = arguments.cw_steps
    return against_foolbox(
        CarliniWagner(steps=steps, binary_search_steps=SEARCH_STEPS),
        "L2CarliniWagnerAttack",
        arguments.rounds,
        steps=steps,
        binary_search_steps=SEARCH_STEPS,
    )


@contextmanager
def nothing_dropped() -> Iterator[None]:
    with mock.patch.object(WorkingSet, "_resisting", lambda self, rows, window: rows):
        yield


def dropping(arguments: argparse.Namespace) -> list[Row]:
    model = robust_zoo.load_model(BROKEN)
    attack = AutoAttack(epsilon=model.robustness.threat_model.epsilon)
    data = robust_zoo.load_dataset("mnist", "test").sample(arguments.n, arguments.seed)
    options = {"batch_size": BATCH_SIZE, "progress": False, "seed": arguments.seed}

    def whole(n):
        components, _ = attack.ensemble(model.output_shape[1])
        with nothing_dropped():
            for component in components.values():
                component.run(model, data.images[:n], data.labels[:n], **options)

    calls = {
        "AutoAttack": lambda: attack.run(model, data.images, data.labels, **options),
        "nothing dropped": lambda: whole(arguments.n),
    }
    whole(WARM_UP)
    calls["AutoAttack"]()
    return [Row(name, seconds) for name, seconds in interleave(calls, arguments.rounds).items()]


class Bare:
    """The model by itself: seconds of a gradient and of a forward pass, compiled."""

    def __init__(self, model: keras.Model, classes: int):
        self._functions = {
            "gradient": backend.function(lambda x, y: input_gradient(model, x, y), model),
            "forward": backend.function(lambda x, y: model(x, training=False), model),
        }
        self._classes = classes

    def time(self, kind: str, x: tf.Tensor) -> float:
        y = tf.range(len(x), dtype=tf.int32) % self._classes
        started = time.perf_counter()
        np.asarray(self._functions[kind](x, y))
        return time.perf_counter() - started


@dataclass
class Tally:
    """What a component of AutoAttack did: passes through the model by kind and batch size, and seconds.

    Attributes:
        passes: how many, by (kind, batch size).
        bare: seconds of single ones by themselves, taken in between.
        compiled: seconds in the attack's compiled parts.
        seconds: all, without `bare`.
    """

    passes: collections.Counter = field(default_factory=collections.Counter)
    bare: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    compiled: float = 0.0
    seconds: float = 0.0

    @property
    def bare_seconds(self) -> float:
        return sum(map(sum, self.bare.values()))

    @property
    def model_seconds(self) -> float:
        return sum(count * np.median(self.bare[key]) for key, count in self.passes.items() if count)


class Counting(WorkingSet):
    """A working set that keeps a tally, and times the bare model now and then as it goes."""

    tallies: ClassVar[dict[str, Tally]]
    model_alone: ClassVar[Bare]

    def __init__(self, attack, *args, **kwargs):
        targeted = getattr(attack, "targets", 0) > 0
        name = {APGD: "apgd-t" if targeted else "apgd-ce", FAB: "fab-t", Square: "square"}
        self.tally = self.tallies[name[type(attack)]]
        self._per_step = {APGD: (1, 0), FAB: (1, 1), Square: (0, 1)}[type(attack)]
        self._at_start = int(targeted)
        super().__init__(attack, *args, **kwargs)
        for part in ("_start", "_follow", "_judge"):
            setattr(self, part, self._watched(part, getattr(self, part)))

    def _watched(self, part, function):
        calls = itertools.count()

        def call(*arrays):
            started = time.perf_counter()
            result = function(*arrays)
            keras.tree.map_structure(np.asarray, result)  # waits for it
            self.tally.compiled += time.perf_counter() - started
            passes = {"_start": (0, self._at_start), "_judge": (0, 1)}.get(part)
            if passes is None:
                passes = [int(arrays[-1]) * count for count in self._per_step]
            x, number = arrays[0], next(calls)
            for kind, count in zip(("gradient", "forward"), passes, strict=True):
                key = kind, len(x)
                self.tally.passes[key] += count
                if count and (number % BARE_EVERY == 0 or key not in self.tally.bare):
                    times = self.tally.bare.setdefault(key, [])
                    times.append(self.model_alone.time(kind, x))
            return result

        return call

    def run(self, *args):
        started, before = time.perf_counter(), self.tally.bare_seconds
        super().run(*args)
        spent = self.tally.bare_seconds - before
        self.tally.seconds += time.perf_counter() - started - spent


def share(arguments: argparse.Namespace) -> Table:
    model = robust_zoo.load_model(ROBUST)
    attack = AutoAttack(epsilon=model.robustness.threat_model.epsilon)
    data = robust_zoo.load_dataset("mnist", "test").sample(arguments.n, arguments.seed)
    options = {"batch_size": BATCH_SIZE, "seed": arguments.seed}
    attack.run(model, data.images[:WARM_UP], data.labels[:WARM_UP], progress=False, **options)
    Counting.model_alone = Bare(model, model.output_shape[1])
    for kind in ("gradient", "forward"):
        Counting.model_alone.time(kind, tf.constant(data.images[:WARM_UP]))

    Counting.tallies = collections.defaultdict(Tally)
    with mock.patch.object(autoattack, "WorkingSet", Counting):
        result = attack.run(model, data.images, data.labels, **options)

    table = Table(title=f"AutoAttack on {arguments.n} images, {ROBUST}")
    headings = ("gradients", "forward passes", "model alone", "compiled", "total", "share")
    table.add_column("component")
    for heading in headings:
        table.add_column(heading, justify="right")
    tallies = Counting.tallies.values()
    alone = sum(tally.model_seconds for tally in tallies)
    total = result.seconds - sum(tally.bare_seconds for tally in tallies)
    for name, tally in Counting.tallies.items():
        times = tally.model_seconds, tally.compiled, tally.seconds
        table.add_row(
            name,
            counted(tally, "gradient"),
            counted(tally, "forward"),
            *(f"{seconds:.1f} s" for seconds in times),
            f"{tally.model_seconds / tally.seconds:.1%}",
        )
    table.add_row("all", "", "", f"{alone:.1f} s", "", f"{total:.1f} s", f"{alone / total:.1%}")
    return table


def counted(tally: Tally, kind: str) -> str:
    """Passes of one kind and the median milliseconds of each, by batch size."""
    parts = (
        f"{count} x {size} ({1e3 * np.median(tally.bare[kind, size]):.1f} ms)"
        for (some, size), count in sorted(tally.passes.items())
        if some == kind and count
    )
    return ", ".join(parts) or "0"


def peak_memory(n: int) -> float:
    """MiB of this process beyond its `n` images, once `evaluate` is done with them."""
    model = robust_zoo.load_model(ROBUST)
    x = np.random.default_rng(0).random((n, *model.input_shape[1:]), dtype="float32")
    y = predict(model, x, BATCH_SIZE).argmax(1)
    pgd = PGD(epsilon=model.robustness.threat_model.epsilon, steps=3, step_size=0.01)
    robust_zoo.evaluate(model, (x, y), attacks=[pgd], checks=False, progress=False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB
    return (peak - x.nbytes) / 2**20


def memory(arguments: argparse.Namespace) -> Table:
    table = Table(title="peak resident memory of evaluate, PGD, minus the images")
    for heading in ("images", "their size", "memory beyond them"):
        table.add_column(heading, justify="right")
    for n in MEMORY_SIZES:
        command = [sys.executable, __file__, "--memory-of", str(n)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        images = n * math.prod((28, 28, 1)) * 4 / 2**20
        table.add_row(f"{n:,}", f"{images:.1f} MiB", f"{float(done.stdout):.1f} MiB")
    return table


def ratio_table(rows: list[Row], title: str) -> Table:
    first, second = rows
    table = Table(title=title, caption=f"{second.name} / {first.name} = {second.ratio(first):.2f}")
    table.add_column("contestant")
    table.add_column("median", justify="right")
    for row in rows:
        table.add_row(row.name, f"{row.median:.2f} s")
    return table


RATIOS = {"deepfool": deepfool, "carlini-wagner": carlini_wagner, "dropping": dropping}
TABLES = {"share": share, "memory": memory}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join({**RATIOS, **TABLES}))
    parser.add_argument("--rounds", type=int, default=5, help="calls of each contestant")
    parser.add_argument("--n", type=int, default=128, help="images for dropping and share")
    parser.add_argument("--cw-steps", type=int, default=100, help="of each Carlini-Wagner search")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="ratios, written here")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - {*RATIOS, *TABLES}
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    if arguments.memory_of:
        print(peak_memory(arguments.memory_of))
        return
    console, report = Console(), {"environment": environment()}
    for part in arguments.parts or [*RATIOS, "memory"]:
        if part in TABLES:
            console.print(TABLES[part](arguments))
            continue
        rows = RATIOS[part](arguments)
        console.print(ratio_table(rows, part))
        report[part] = {row.name: row.seconds for row in rows}
        report[part]["ratio"] = rows[1].ratio(rows[0])
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
