"""PGD here and in other libraries, timed side by side.

    pip install 'robust-zoo[cpu,bench]'
    python benchmarks/attacks.py --model madry_cnn.pgd_mnist --rounds 10 --json attacks.json

PGD-40 (linf, epsilon 0.3, step 0.01, random start) on 128 MNIST test images and madry_cnn in float32,
against the bare gradient loop, which is the least that anyone must do, and against the same attack in
Foolbox, ART and CleverHans, each called as its documentation says.

All run in one process on the TensorFlow backend, interleaved: after one warm-up call of each, every
round calls all of them once and starts with another one. Times are medians over the rounds; a ratio
is the median of the ratios within a round, so that it survives a machine whose speed drifts.
`PGD.run` drops the images that it has fooled. Without --model the
network is untrained: the times of the others mean the same, but hardly an image is left to `run`.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

import robust_zoo
from robust_zoo import architectures, attacks, backend

BATCH_SIZE = 128
EPSILON, STEPS, STEP_SIZE = 0.3, 40, 0.01
BARE, OURS, RUN = "bare gradient loop", "robust_zoo PGD", "robust_zoo PGD.run"

Call = Callable[[], Any]


@dataclass(frozen=True)
class Task:
    """The batch that every contestant attacks: x float32 (128, 28, 28, 1), y int32 (128,)."""

    model: keras.Model
    x: tf.Tensor
    y: tf.Tensor

    def accuracy(self, x) -> float:
        predicted = np.argmax(self.model(x, training=False), axis=1)
        return float(np.mean(predicted == self.y.numpy()))


@dataclass(frozen=True)
class Row:
    """One line of a table: seconds of every round, or the reason why there are none."""

    name: str
    seconds: tuple[float, ...] = ()
    accuracy: float | None = None
    reason: str | None = None

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    def ratio(self, other: "Row") -> float:
        """How many times longer this took than `other`."""
        return float(np.median(np.divide(self.seconds, other.seconds)))


def cross_entropy(model: keras.Model, x, y, training: bool) -> tf.Tensor:
    logits = model(x, training=training)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)


def input_gradient(model: keras.Model, x, y) -> tf.Tensor:
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        loss = cross_entropy(model, x, y, training=False)
    return tape.gradient(loss, x)


def bare_loop(task: Task) -> Call:
    # Inlined into the loop, a graph with cycles, the pooling gradients are missed by TensorFlow's
    # oneDNN pass in some builds and not in others: the same loop is then a third slower.
    gradient = tf.function(input_gradient, experimental_attributes={"_noinline": True})

    def attack(x, y, seed):
        lower, upper = tf.maximum(x - EPSILON, 0.0), tf.minimum(x + EPSILON, 1.0)
        noise = tf.random.stateless_uniform(tf.shape(x), seed, -EPSILON, EPSILON)

        def step(x_adv):
            moved = x_adv + STEP_SIZE * tf.sign(gradient(task.model, x_adv, y))
            return (tf.clip_by_value(moved, lower, upper),)

        start = tf.clip_by_value(x + noise, lower, upper)
        return tf.while_loop(lambda _: True, step, (start,), maximum_iterations=STEPS)[0]

    compiled, seed = backend.function(attack, task.model), tf.constant([0, 0])
    return lambda: compiled(task.x, task.y, seed)


def our_pgd() -> attacks.PGD:
    return attacks.PGD(epsilon=EPSILON, steps=STEPS, step_size=STEP_SIZE)


def our_call(task: Task) -> Call:
    attack, key = our_pgd(), backend.random.key(0)
    compiled = backend.function(lambda x, y, key: attack(task.model, x, y, key=key), task.model)
    return lambda: compiled(task.x, task.y, key)


def our_run(task: Task) -> Call:
    attack, x, y = our_pgd(), task.x.numpy(), task.y.numpy()
    return lambda: attack.run(task.model, x, y, batch_size=BATCH_SIZE, progress=False).x_adv


def foolbox_call(task: Task) -> Call:
    import foolbox

    model = foolbox.TensorFlowModel(task.model, bounds=(0, 1))
    attack = foolbox.attacks.LinfPGD(steps=STEPS, abs_stepsize=STEP_SIZE, random_start=True)
    # Labels of any type but argmax's make EagerPy call what NumPy 2 no longer has.
    y = tf.cast(task.y, tf.int64)
    return lambda: attack(model, task.x, y, epsilons=EPSILON)[1]


def art_call(task: Task) -> Call:
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import TensorFlowV2Classifier

    classifier = TensorFlowV2Classifier(
        task.model,
        nb_classes=task.model.output_shape[1],
        input_shape=task.model.input_shape[1:],
        loss_object=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        clip_values=(0, 1),
    )
    attack = ProjectedGradientDescent(
        classifier,
        eps=EPSILON,
        eps_step=STEP_SIZE,
        max_iter=STEPS,
        num_random_init=1,
        batch_size=BATCH_SIZE,
        verbose=False,
    )
    x, y = task.x.numpy(), task.y.numpy()
    return lambda: attack.generate(x, y)


def cleverhans_call(task: Task) -> Call:
    from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

    return lambda: projected_gradient_descent(
        task.model,
        task.x,
        eps=EPSILON,
        eps_iter=STEP_SIZE,
        nb_iter=STEPS,
        norm=np.inf,
        clip_min=0,
        clip_max=1,
        y=task.y,
        rand_init=True,
    )


CONTESTANTS: dict[str, Callable[[Task], Call]] = {
    BARE: bare_loop,
    OURS: our_call,
    "Foolbox": foolbox_call,
    "ART": art_call,
    "CleverHans": cleverhans_call,
    RUN: our_run,
}


def interleave(calls: dict[str, Call], rounds: int) -> dict[str, tuple[float, ...]]:
    """Seconds of every call in every round."""
    seconds = {name: [] for name in calls}
    names = list(calls)
    for _ in range(rounds):
        for name in names:
            tf.test.experimental.sync_devices()
            started = time.perf_counter()
            calls[name]()
            tf.test.experimental.sync_devices()
            seconds[name].append(time.perf_counter() - started)
        names = names[1:] + names[:1]
    return {name: tuple(values) for name, values in seconds.items()}


def measure_attacks(task: Task, rounds: int) -> list[Row]:
    calls, accuracies, reasons = {}, {}, {}
    for name, prepare in CONTESTANTS.items():
        try:
            call = prepare(task)
            accuracies[name] = task.accuracy(call())
        except Exception as error:  # another library's trouble is a row, not ours
            if name in (BARE, OURS, RUN):
                raise
            reasons[name] = f"{type(error).__name__}: {error}".splitlines()[0]
        else:
            calls[name] = call
    seconds = interleave(calls, rounds)
    return [
        Row(name, seconds.get(name, ()), accuracies.get(name), reasons.get(name))
        for name in CONTESTANTS
    ]


def load_batch() -> tuple[tf.Tensor, tf.Tensor, str]:
    """MNIST test images, or uniform noise where MNIST is not prepared; labels; which it was."""
    try:
        data = robust_zoo.load_dataset("mnist", "test")
        x, y, source = data.images[:BATCH_SIZE], data.labels[:BATCH_SIZE], "MNIST test"
    except robust_zoo.datasets.DatasetError:
        rng = np.random.default_rng(0)
        x = rng.random((BATCH_SIZE, 28, 28, 1), dtype="float32")
        y, source = rng.integers(10, size=BATCH_SIZE), "uniform noise"
    return tf.constant(x), tf.constant(y, tf.int32), source


def version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def environment() -> dict[str, Any]:
    libraries = ("foolbox", "adversarial-robustness-toolbox", "cleverhans")
    return {
        "robust_zoo": robust_zoo.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        **{name: version(name) for name in libraries},
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "gpus": backend.gpus(),
        "load_average": os.getloadavg()[0],
    }


def attack_table(rows: list[Row], title: str) -> Table:
    ours = next(row for row in rows if row.name == OURS)
    bare = next(row for row in rows if row.name == BARE)
    table = Table(title=title, caption=f"ours / bare = {ours.ratio(bare):.3f}")
    for heading in ("contestant", "median", "time / ours", "accuracy left"):
        table.add_column(heading, justify="left" if heading == "contestant" else "right")
    for row in rows:
        if row.reason is not None:
            table.add_row(f"{row.name}: not measured: {row.reason}")
        else:
            cells = (f"{1e3 * row.median:.1f} ms", f"{row.ratio(ours):.3f}", f"{row.accuracy:.2%}")
            table.add_row(row.name, *cells)
    return table


def as_json(rows: list[Row], reference: str) -> list[dict[str, Any]]:
    """The rows with their medians, and ratios to the row named `reference`."""
    by = next(row for row in rows if row.name == reference)
    measured = {
        row.name: {"median": row.median, "ratio": row.ratio(by)} for row in rows if row.seconds
    }
    return [{**vars(row), **measured.get(row.name, {})} for row in rows]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", metavar="NAME", help="zoo name or checkpoint directory")
    parser.add_argument("--rounds", type=int, default=10, help="calls of each contestant")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="also written here")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    keras.utils.set_random_seed(0)
    x, y, source = load_batch()
    model = robust_zoo.load_model(arguments.model) if arguments.model else architectures.madry_cnn()
    task = Task(model, x, y)
    clean = task.accuracy(x)
    about = f"{arguments.model or 'untrained madry_cnn'}, {source}, clean accuracy {clean:.2%}"
    console = Console()

    attack_rows = measure_attacks(task, arguments.rounds)
    console.print(attack_table(attack_rows, f"PGD-{STEPS}, batch {BATCH_SIZE}: {about}"))

    if arguments.json:
        report = {
            "environment": environment(),
            "task": about,
            "rounds": arguments.rounds,
            "attacks": as_json(attack_rows, OURS),
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
