"""What a training step of each defense costs, against what it cannot do without.

    pip install 'robust-zoo[cpu,bench]'
    python benchmarks/training.py steps art pgn precision

- steps: one step of each defense on madry_cnn and 128 MNIST images in float32, against the passes
  through the model that it has to make, each timed by itself, bare and compiled. The table counts them: F a
  forward pass, I a gradient by the image, W one by the weights, B one by both, J a Jacobian of all classes by
  the image, S the gradient of a function of an input gradient by weights and image, G the generator's
  gradient by its weights, with "/2" on half the batch. The clean accuracy in the log costs F.
- art: PGD-10 adversarial training here and as ART's AdversarialTrainerMadryPGD, `fit` on the same Keras
  model and images.
- pgn: a PGN step with `detach` against a PGD-10 training step, ConvPool-CNN on CIFAR-10's shape.
- precision: a PGD-3 training step of ConvPool-CNN in mixed_bfloat16 against float32; and the robust
  accuracy, measured in float32, of a narrow one trained either way on --n CIFAR-10 images.

All run in one process, interleaved as in `attacks.py`.
"""

import argparse
import collections
import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from attacks import BATCH_SIZE, Row, interleave, load_batch
from rich.console import Console
from rich.table import Table

import robust_zoo
from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, NormalStartPGD
from robust_zoo.classifier import in_float32
from robust_zoo.defenses import (
    PGN,
    TRADES,
    AdversarialTraining,
    AdversarialWeightPerturbation,
    DeepDefense,
    FreeAdversarialTraining,
    NaturalTraining,
    ParsevalTraining,
)
from robust_zoo.inference import predict

EPSILON, STEP_SIZE = 0.3, 0.06
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@dataclass(frozen=True)
class Defended:
    """A defense, made of a classifier, and the passes that a step of it has to make."""

    make: Callable[[keras.Model], keras.Model]
    passes: dict[str, int]


def pgd(steps: int = 10) -> PGD:
    return PGD(epsilon=EPSILON, steps=steps, step_size=STEP_SIZE)


def trades(model: keras.Model) -> TRADES:
    settings = {"epsilon": EPSILON, "steps": 10, "step_size": STEP_SIZE}
    return TRADES(model, attack=NormalStartPGD(**settings, loss="kl_divergence"))


STEP_LL = FGSM(epsilon=EPSILON, labels="least_likely", targeted=True)
DEFENSES = {
    "natural": Defended(NaturalTraining, {"W": 1}),
    "Madry, PGD-10": Defended(
        lambda model: AdversarialTraining(model, attack=pgd()), {"I": 10, "W": 1, "F": 1}
    ),
    "fast": Defended(
        lambda model: AdversarialTraining(model, attack=pgd(1)), {"I": 1, "W": 1, "F": 1}
    ),
    "Kurakin, step l.l., half": Defended(
        lambda model: AdversarialTraining(model, attack=STEP_LL, fraction=0.5),
        {"I/2": 1, "F/2": 1, "W": 1, "F": 1},
    ),
    "TRADES, PGD-10": Defended(trades, {"I": 10, "F": 1, "W": 2}),
    "AWP around TRADES": Defended(
        lambda model: AdversarialWeightPerturbation(trades(model)), {"I": 10, "F": 1, "W": 4}
    ),
    "free, 4 replays": Defended(
        lambda model: FreeAdversarialTraining(
            model, attack=pgd(), batch_size=BATCH_SIZE, replays=4
        ),
        {"B": 4, "F": 1},
    ),
    "Parseval": Defended(ParsevalTraining, {"W": 1}),
    "DeepDefense, 5 steps": Defended(DeepDefense, {"J": 5, "F": 4, "S": 5, "W": 1}),
    "PGN, detached": Defended(
        lambda model: PGN(model, detach=True), {"I": 1, "B": 1, "G": 1, "F": 1}
    ),
}


def compiled_step(trainer: keras.Model, x, y) -> Callable[[], object]:
    """One training step as `fit` makes it."""
    trainer.compile(optimizer=keras.optimizers.SGD(1e-3), loss=LOSS)
    trainer.train_on_batch(x, y)  # builds the optimizer and the metrics
    batches = iter(tf.data.Dataset.from_tensors((x, y)).repeat())
    trainer.train_function(batches)
    return lambda: trainer.train_function(batches)


def bare_passes(model: keras.Model, x, y) -> dict[str, Callable[[], object]]:
    """Each kind of pass by itself, compiled."""
    generator = architectures.perturbation_generator(model.input_shape[1:], model.output_shape[1])

    def gradient(x, y, of_image: bool, of_weights: bool):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = LOSS(y, model(x, training=of_weights))
        sources = [x] * of_image + model.trainable_variables * of_weights
        return tape.gradient(loss, sources)

    def second(x, y):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(x)
                loss = tf.reduce_sum(model(x)[:, 0])
            length = tf.reduce_sum(tf.square(inner.gradient(loss, x)))
        return outer.gradient(length, [x, *model.trainable_variables])

    def jacobian(x, y):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            logits = model(x)
        return tape.batch_jacobian(logits, x)

    def of_generator(x, y):
        label = tf.one_hot(y, model.output_shape[1])
        with tf.GradientTape() as tape:
            made = tf.reduce_sum(generator([label, x, x]))
        return tape.gradient(made, generator.trainable_variables)

    kinds = {
        "F": lambda x, y: model(x),
        "I": lambda x, y: gradient(x, y, True, False),
        "W": lambda x, y: gradient(x, y, False, True),
        "B": lambda x, y: gradient(x, y, True, True),
        "S": second,
        "J": jacobian,
        "G": of_generator,
    }
    half = BATCH_SIZE // 2
    calls = {}
    for kind, function in kinds.items():
        compiled = tf.function(function)
        for name, part in ((kind, slice(None)), (f"{kind}/2", slice(half))):
            calls[name] = lambda f=compiled, part=part: f(x[part], y[part])
    return calls


def steps(arguments: argparse.Namespace) -> Table:
    x, y, _ = load_batch()
    table = Table(title=f"training steps, madry_cnn, batch {BATCH_SIZE}, float32")
    for heading in ("defense", "passes", "step", "passes alone", "step / passes"):
        table.add_column(heading, justify="left" if heading in ("defense", "passes") else "right")
    bare = bare_passes(architectures.madry_cnn(), x, y)
    for name, defended in DEFENSES.items():
        needed = {kind: bare[kind] for kind in defended.passes}
        calls = {"step": compiled_step(defended.make(architectures.madry_cnn()), x, y), **needed}
        for call in needed.values():
            call()
        seconds = interleave(calls, arguments.rounds)
        alone = sum(count * np.asarray(seconds[kind]) for kind, count in defended.passes.items())
        step, passes = Row(name, seconds["step"]), Row("passes", tuple(alone.tolist()))
        counted = " + ".join(
            f"{count} {kind}" if count > 1 else kind for kind, count in defended.passes.items()
        )
        times = (f"{1e3 * row.median:.0f} ms" for row in (step, passes))
        table.add_row(name, counted, *times, f"{step.ratio(passes):.2f}")
    return table


def ratio(title: str, calls: dict[str, Callable[[], object]], rounds: int) -> Table:
    """Two calls, and how much longer the second takes."""
    for call in calls.values():
        call()
    first, second = (Row(name, seconds) for name, seconds in interleave(calls, rounds).items())
    caption = f"{second.name} / {first.name} = {second.ratio(first):.2f}"
    table = Table("contestant", "median", title=title, caption=caption)
    for row in (first, second):
        table.add_row(row.name, f"{1e3 * row.median:.0f} ms")
    return table


def art(arguments: argparse.Namespace) -> Table:
    from art.defences.trainer import AdversarialTrainerMadryPGD
    from art.estimators.classification import TensorFlowV2Classifier

    data = robust_zoo.load_dataset("mnist", "train").sample(4 * BATCH_SIZE, arguments.seed)
    ours = AdversarialTraining(architectures.madry_cnn(), attack=pgd())
    ours.compile(optimizer=keras.optimizers.SGD(1e-3), loss=LOSS)
    classifier = TensorFlowV2Classifier(
        architectures.madry_cnn(),
        nb_classes=10,
        input_shape=(28, 28, 1),
        loss_object=LOSS,
        optimizer=keras.optimizers.SGD(1e-3),
        clip_values=(0, 1),
    )
    theirs = AdversarialTrainerMadryPGD(
        classifier,
        nb_epochs=1,
        batch_size=BATCH_SIZE,
        eps=EPSILON,
        eps_step=STEP_SIZE,
        max_iter=10,
        num_random_init=1,
    )
    one_hot = np.eye(10, dtype="float32")[data.labels]
    options = {"batch_size": BATCH_SIZE, "verbose": 0}
    calls = {
        "robust_zoo": lambda: ours.fit(data.images, data.labels, **options),
        "ART": lambda: theirs.fit(data.images, one_hot),
    }
    return ratio("PGD-10 adversarial training, 4 batches of 128", calls, arguments.rounds)


def noise(shape) -> tuple[tf.Tensor, tf.Tensor]:
    rng = np.random.default_rng(0)
    x = rng.random((BATCH_SIZE, *shape), dtype="float32")
    return tf.constant(x), tf.constant(rng.integers(10, size=BATCH_SIZE), tf.int32)


def pgn(arguments: argparse.Namespace) -> Table:
    x, y = noise((32, 32, 3))
    calls = {
        "PGN": compiled_step(PGN(architectures.allconv(), detach=True), x, y),
        "PGD-10 training": compiled_step(
            AdversarialTraining(architectures.allconv(), attack=pgd()), x, y
        ),
    }
    return ratio("training steps, ConvPool-CNN, batch 128, float32", calls, arguments.rounds)


@contextlib.contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


POLICIES = ("mixed_bfloat16", "float32")


def precision(arguments: argparse.Namespace) -> Table:
    x, y = noise((32, 32, 3))
    attack = PGD(epsilon=8 / 255, steps=3)
    calls = {}
    for policy in POLICIES:
        with dtype_policy(policy):
            trainer = AdversarialTraining(architectures.allconv(), attack=attack)
            calls[policy] = compiled_step(trainer, x, y)
    table = ratio("PGD-3 training step, ConvPool-CNN, batch 128", calls, arguments.rounds)
    Console().print(table)
    return robust_accuracy_by_policy(arguments)


def robust_accuracy_by_policy(arguments: argparse.Namespace) -> Table:
    train = robust_zoo.load_dataset("cifar10", "train").sample(arguments.n, arguments.seed)
    held = robust_zoo.load_dataset("cifar10", "validation").sample(2000, arguments.seed)
    table = Table("policy", "seed", "clean", "PGD-20, 8/255", title="ConvPool-CNN, 16 filters")
    found = collections.defaultdict(list)
    for seed in range(arguments.seed, arguments.seed + 2):
        for policy in POLICIES:
            keras.utils.set_random_seed(seed)
            with dtype_policy(policy):
                model = architectures.allconv(filters=16)
                trainer = AdversarialTraining(
                    model, attack=PGD(epsilon=8 / 255, steps=3), ramp_steps=200
                )
                trainer.compile(optimizer=keras.optimizers.Adam(1e-3), loss=LOSS)
            options = {"batch_size": BATCH_SIZE, "epochs": arguments.epochs, "verbose": 0}
            trainer.fit(train.images, train.labels, **options)
            clean = np.mean(
                predict(in_float32(model), held.images, BATCH_SIZE).argmax(1) == held.labels
            )
            attack = PGD(epsilon=8 / 255, steps=20, step_size=2 / 255)
            result = attack.run(model, held.images, held.labels, progress=False)
            found[policy].append(1 - result.success.mean())
            table.add_row(policy, str(seed), f"{clean:.1%}", f"{found[policy][-1]:.1%}")
    return table


PARTS = {"steps": steps, "art": art, "pgn": pgn, "precision": precision}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=5, help="calls of each contestant")
    parser.add_argument("--n", type=int, default=10_000, help="training images for precision")
    parser.add_argument("--epochs", type=int, default=5, help="for precision")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    keras.utils.set_random_seed(arguments.seed)
    for part in arguments.parts or PARTS:
        Console(width=120).print(PARTS[part](arguments))


if __name__ == "__main__":
    main()
