"""The strength of our attacks next to those of Foolbox, ART, torchattacks and adversarial-library: same model, images,
settings.

    python benchmarks/parity.py --python-torch ../torch/bin/python --output benchmarks/parity.md

Every library attacks the same checkpoint in a process of its own, one after the other, since a process
has one Keras backend: Foolbox and ART under --python-tensorflow, torchattacks and adversarial-library under
--python-torch, where the very same Keras model is a torch module. Either environment needs what robust_zoo needs and the
libraries (extra `bench`); one that lacks a library gets a row that says so. Images travel in .npz files.

Whatever a library says of its images, our model judges them here, in float32: an image counts as broken
if it was right on the clean image, is wrong now, lies in [0, 1] and, for attacks with a budget, in the
ball (1e-5 relative tolerance). "As strong" means a robust accuracy at most 0.5 points above the other's,
or a mean distance at most 2 % above it over the images that both broke and a success rate at most 0.5
points below.
"""

import argparse
import functools
import importlib.metadata
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import robust_zoo
from robust_zoo import attacks, backend
from robust_zoo.attacks.norms import get_norm
from robust_zoo.inference import predict

BATCH_SIZE = 128
TOLERANCE = 1e-5
ACCURACY_MARGIN, DISTANCE_MARGIN, SIGNIFICANCE = 0.005, 0.02, 0.05
PGD_STEPS, MOMENTUM_STEPS, APGD_STEPS, FAB_STEPS, DEEPFOOL_STEPS = 40, 10, 100, 100, 50
CLOSEST_STEPS, CLOSEST_GAMMA, SPARSE_STEPS = 100, 0.05, 300
OVERSHOOT, CW_SEARCH, CW_RATE, CW_CONSTANT = 0.02, 9, 0.01, 1e-3
HEADINGS = (
    "attack", "library", "n", "measure", "ours", "theirs", "ours - theirs",
    "only ours / only theirs broke", "as strong",
)  # fmt: skip

Search = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Task:
    """What every library is told: the model, the budgets and the lengths of the long attacks."""

    model: str
    epsilon: float
    epsilon_l2: float
    classes: int
    queries: int
    cw_steps: int
    few: int
    seed: int
    only: tuple[str, ...] = ()

    @property
    def step_size(self) -> float:
        return self.epsilon / 30

    @property
    def step_size_l2(self) -> float:
        return self.epsilon_l2 / 20


@dataclass(frozen=True)
class Case:
    """An attack that is compared: ours, what to measure, and whether it is long."""

    ours: attacks.Attack
    settings: str
    long: bool = False

    @property
    def has_budget(self) -> bool:
        return isinstance(self.ours, attacks.FixedBudgetAttack)


def cases(task: Task) -> dict[str, Case]:
    linf = {"epsilon": task.epsilon}
    l2 = {"epsilon": task.epsilon_l2, "norm": "l2"}
    targets = task.classes - 1
    iterations = {"steps": PGD_STEPS, "step_size": task.step_size}
    momentum = {"steps": MOMENTUM_STEPS, "step_size": task.epsilon / MOMENTUM_STEPS}
    search = {"binary_search_steps": CW_SEARCH, "step_size": CW_RATE}
    search |= {"steps": task.cw_steps, "initial_constant": CW_CONSTANT}
    queries = f"{task.queries} queries, no rescaled schedule"
    deepfool = f"{DEEPFOOL_STEPS} steps, overshoot {OVERSHOOT}, all classes"
    apgd = f"{APGD_STEPS} steps, one random start"
    every = {
        "FGSM": Case(attacks.FGSM(**linf), "one step of epsilon"),
        "PGD linf": Case(
            attacks.PGD(**linf, **iterations),
            f"{PGD_STEPS} steps of epsilon / 30, one random start",
        ),
        "PGD l2": Case(
            attacks.PGD(**l2, steps=PGD_STEPS, step_size=task.step_size_l2),
            f"{PGD_STEPS} steps of epsilon / 20, one random start",
        ),
        "basic iterative": Case(
            attacks.BasicIterative(**linf, **iterations), f"{PGD_STEPS} steps of epsilon / 30"
        ),
        "momentum iterative": Case(
            attacks.MomentumIterative(**linf, **momentum),
            f"{MOMENTUM_STEPS} steps of epsilon / {MOMENTUM_STEPS}, decay 1",
        ),
        "APGD-CE linf": Case(attacks.APGD(**linf, steps=APGD_STEPS), apgd),
        "APGD-CE l2": Case(attacks.APGD(**l2, steps=APGD_STEPS), apgd),
        "APGD-DLR linf": Case(attacks.APGD(**linf, steps=APGD_STEPS, loss="dlr"), apgd),
        "APGD-T linf": Case(
            attacks.APGD(**linf, steps=APGD_STEPS, loss="dlr", targets=targets),
            f"targeted DLR, {targets} targets, {apgd} each",
            long=True,
        ),
        "Square linf": Case(attacks.Square(**linf, steps=task.queries), queries, long=True),
        "Square l2": Case(attacks.Square(**l2, steps=task.queries), queries, long=True),
        "FAB-T linf": Case(
            attacks.FAB(steps=FAB_STEPS, targets=targets),
            f"{FAB_STEPS} steps for each of {targets} targets, the closest of all",
            long=True,
        ),
        "DeepFool l2": Case(
            attacks.DeepFool(
                steps=DEEPFOOL_STEPS, overshoot=OVERSHOOT, candidates=task.classes
            ),
            deepfool,
            long=True,
        ),
        "DeepFool linf": Case(
            attacks.DeepFool(
                norm="linf", steps=DEEPFOOL_STEPS, overshoot=OVERSHOOT, candidates=task.classes
            ),
            deepfool,
            long=True,
        ),
        "Carlini-Wagner l2": Case(
            attacks.CarliniWagner(**search),
            f"{task.cw_steps} steps, {CW_SEARCH} search steps, rate {CW_RATE}, "
            f"constant {CW_CONSTANT}, abort early",
            long=True,
        ),
        "DDN l2": Case(
            attacks.DDN(steps=CLOSEST_STEPS, gamma=CLOSEST_GAMMA),
            f"{CLOSEST_STEPS} steps, gamma {CLOSEST_GAMMA}, first epsilon 1, no rounding to levels",
            long=True,
        ),
        **{
            f"FMN {norm}": Case(
                attacks.FMN(norm=norm, steps=CLOSEST_STEPS, step_size=1.0, gamma=CLOSEST_GAMMA),
                f"{CLOSEST_STEPS} steps of length 1 falling to 0.01, gamma {CLOSEST_GAMMA}",
                long=True,
            )
            for norm in ("linf", "l2", "l1", "l0")
        },
        "sigma-zero l0": Case(
            attacks.SigmaZero(steps=SPARSE_STEPS),
            f"{SPARSE_STEPS} steps, sigma 0.001, threshold 0.3 moved by 0.01",
            long=True,
        ),
    }  # fmt: skip
    return {name: case for name, case in every.items() if not task.only or name in task.only}


def foolbox_searches(task: Task, model: keras.Model) -> dict[str, Search]:
    import foolbox
    import tensorflow as tf
    from foolbox import attacks as theirs

    wrapped = foolbox.TensorFlowModel(model, bounds=(0, 1))

    def search(attack, epsilon: float | None) -> Search:
        def run(x, y):
            # Labels of any type but argmax's make EagerPy call what NumPy 2 no longer has.
            labels = tf.constant(y, tf.int64)
            raw, clipped, _ = attack(wrapped, tf.constant(x), labels, epsilons=epsilon)
            return (raw if epsilon is None else clipped).numpy()

        return run

    iterations = {"steps": PGD_STEPS, "abs_stepsize": task.step_size}
    deepfool = {"steps": DEEPFOOL_STEPS, "overshoot": OVERSHOOT, "candidates": task.classes}
    carlini_wagner = search(
        theirs.L2CarliniWagnerAttack(
            binary_search_steps=CW_SEARCH,
            steps=task.cw_steps,
            stepsize=CW_RATE,
            initial_const=CW_CONSTANT,
        ),
        None,
    )

    def without_blanks(x, y):
        """A failure comes back as a black image, which the model may well misclassify."""
        found = carlini_wagner(x, y)
        return np.where(found.any(axis=(1, 2, 3), keepdims=True), found, x)

    return {
        "FGSM": search(theirs.LinfFastGradientAttack(), task.epsilon),
        "PGD linf": search(theirs.LinfPGD(**iterations), task.epsilon),
        "PGD l2": search(
            theirs.L2PGD(steps=PGD_STEPS, abs_stepsize=task.step_size_l2), task.epsilon_l2
        ),
        "basic iterative": search(theirs.LinfBasicIterativeAttack(**iterations), task.epsilon),
        "DeepFool l2": search(theirs.L2DeepFoolAttack(**deepfool), None),
        "DeepFool linf": search(theirs.LinfDeepFoolAttack(**deepfool), None),
        "Carlini-Wagner l2": without_blanks,
        "DDN l2": search(theirs.DDNAttack(steps=CLOSEST_STEPS, gamma=CLOSEST_GAMMA), None),
        **{
            f"FMN {norm}": search(
                attack(steps=CLOSEST_STEPS, max_stepsize=1.0, gamma=CLOSEST_GAMMA), None
            )
            for norm, attack in {
                "linf": theirs.LInfFMNAttack,
                "l2": theirs.L2FMNAttack,
                "l1": theirs.L1FMNAttack,
                "l0": theirs.L0FMNAttack,
            }.items()
        },
    }


def art_searches(task: Task, model: keras.Model) -> dict[str, Search]:
    from art.attacks import evasion
    from art.estimators.classification import TensorFlowV2Classifier

    classifier = TensorFlowV2Classifier(
        model,
        nb_classes=task.classes,
        input_shape=model.input_shape[1:],
        loss_object=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        clip_values=(0, 1),
    )
    quiet = {"batch_size": BATCH_SIZE, "verbose": False}
    linf = {"eps": task.epsilon, "eps_step": task.step_size, "max_iter": PGD_STEPS, **quiet}
    l2 = {**linf, "norm": 2, "eps": task.epsilon_l2, "eps_step": task.step_size_l2}
    momentum = {"eps_step": task.epsilon / MOMENTUM_STEPS, "max_iter": MOMENTUM_STEPS, "decay": 1.0}
    theirs = {
        "FGSM": evasion.FastGradientMethod(classifier, eps=task.epsilon, batch_size=BATCH_SIZE),
        "PGD linf": evasion.ProjectedGradientDescent(classifier, num_random_init=1, **linf),
        "PGD l2": evasion.ProjectedGradientDescent(classifier, num_random_init=1, **l2),
        "basic iterative": evasion.BasicIterativeMethod(classifier, **linf),
        "momentum iterative": evasion.MomentumIterativeMethod(classifier, **{**linf, **momentum}),
    }
    return {name: attack.generate for name, attack in theirs.items()}


def torch_module(model: keras.Model):
    """The model for images with their channels first, on Keras's torch backend."""
    import torch

    class ChannelsFirst(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.classifier = model.requires_grad_(False)

        def forward(self, images):
            return self.classifier(images.permute(0, 2, 3, 1), training=False)

    return ChannelsFirst().eval()


def torch_search(attack) -> Search:
    """What a library's attack (images, labels) finds, of NumPy images with their channels last."""
    import torch

    def run(x, y):
        images = torch.tensor(x.transpose(0, 3, 1, 2))
        found = attack(images, torch.tensor(y, dtype=torch.int64))
        return found.detach().numpy().transpose(0, 2, 3, 1)

    return run


def adversarial_library_searches(task: Task, model: keras.Model) -> dict[str, Search]:
    from adv_lib import attacks as theirs

    module = torch_module(model)
    closest = {"steps": CLOSEST_STEPS, "γ": CLOSEST_GAMMA, "levels": None}  # noqa: RUF001
    norms = {"linf": math.inf, "l2": 2, "l1": 1, "l0": 0}
    built = {
        "DDN l2": lambda x, y: theirs.ddn(module, x, y, **closest),
        "sigma-zero l0": lambda x, y: theirs.sigma_zero(module, x, y, num_steps=SPARSE_STEPS),
    }
    for name, order in norms.items():
        options = {"norm": order, "steps": CLOSEST_STEPS}
        options |= {"α_init": 1.0, "γ_init": CLOSEST_GAMMA}  # noqa: RUF001
        built[f"FMN {name}"] = functools.partial(
            lambda x, y, options: theirs.fmn(module, x, y, **options), options=options
        )
    return {name: torch_search(attack) for name, attack in built.items()}


def torchattacks_searches(task: Task, model: keras.Model) -> dict[str, Search]:
    import torch
    import torchattacks as theirs

    module = torch_module(model)
    linf = {"eps": task.epsilon, "seed": task.seed}
    l2 = {"norm": "L2", "eps": task.epsilon_l2, "seed": task.seed}
    iterations = {"eps": task.epsilon, "alpha": task.step_size, "steps": PGD_STEPS}
    momentum = {"alpha": task.epsilon / MOMENTUM_STEPS, "steps": MOMENTUM_STEPS, "decay": 1.0}
    square = {"n_queries": task.queries, "resc_schedule": False}
    fab = theirs.FAB(
        module, eps=task.epsilon, steps=FAB_STEPS, multi_targeted=True, n_classes=task.classes
    )

    def closest_of_all(images, labels):
        """Its own loop over targets leaves out what is broken within epsilon already."""
        best, found = torch.full((len(images),), math.inf), images.clone()
        for target in range(2, task.classes + 1):
            fab.target_class = target
            with torch.no_grad():
                tried = fab.attack_single_run_targeted(images, labels)
                distance = (tried - images).abs().flatten(1).amax(1)
                closer = (module(tried).argmax(1) != labels) & (distance < best)
            found[closer], best[closer] = tried[closer], distance[closer]
        return found

    built = {
        "FGSM": theirs.FGSM(module, eps=task.epsilon),
        "PGD linf": theirs.PGD(module, **iterations),
        "PGD l2": theirs.PGDL2(
            module, eps=task.epsilon_l2, alpha=task.step_size_l2, steps=PGD_STEPS
        ),
        "basic iterative": theirs.BIM(module, **iterations),
        "momentum iterative": theirs.MIFGSM(module, eps=task.epsilon, **momentum),
        "APGD-CE linf": theirs.APGD(module, **linf, steps=APGD_STEPS),
        "APGD-CE l2": theirs.APGD(module, **l2, steps=APGD_STEPS),
        "APGD-DLR linf": theirs.APGD(module, **linf, steps=APGD_STEPS, loss="dlr"),
        "APGD-T linf": theirs.APGDT(module, **linf, steps=APGD_STEPS, n_classes=task.classes),
        "Square linf": theirs.Square(module, **linf, **square),
        "Square l2": theirs.Square(module, **l2, **square),
        "FAB-T linf": closest_of_all,
    }
    return {name: torch_search(attack) for name, attack in built.items()}


LIBRARIES = {
    "Foolbox": ("tensorflow", "foolbox", foolbox_searches),
    "ART": ("tensorflow", "adversarial-robustness-toolbox", art_searches),
    "torchattacks": ("torch", "torchattacks", torchattacks_searches),
    "adversarial-library": ("torch", "adv-lib", adversarial_library_searches),
}
"""Libraries by name: the Keras backend, the distribution, and what makes its attacks."""


def in_batches(search: Search, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    starts = range(0, len(x), BATCH_SIZE)
    return np.concatenate([search(x[i : i + BATCH_SIZE], y[i : i + BATCH_SIZE]) for i in starts])


def work(library: str, directory: pathlib.Path) -> None:
    """Runs one library on what lies in `directory`, and leaves what it found there."""
    task = Task(**json.loads((directory / "task.json").read_text()))
    data = np.load(directory / "data.npz")
    keras.utils.set_random_seed(task.seed)
    _, distribution, prepare = LIBRARIES[library]
    searches = prepare(task, robust_zoo.load_model(task.model))
    versions = {distribution: importlib.metadata.version(distribution)}
    report = {"versions": {**versions, backend.name: backend.version}, "reasons": {}}
    found, all_cases = {}, cases(task)
    for name, search in searches.items():
        if name not in all_cases:
            continue
        n = task.few if all_cases[name].long else len(data["x"])
        started = time.perf_counter()
        try:
            found[name] = in_batches(search, data["x"][:n], data["y"][:n])
        except Exception as error:  # another library's trouble is a row, not ours
            report["reasons"][name] = f"{type(error).__name__}: {error}".splitlines()[0]
        say(f"{library}, {name}", started)
    np.savez(directory / f"{library}.npz", **found)
    (directory / f"{library}.json").write_text(json.dumps(report))


def say(what: str, started: float) -> None:
    print(f"{what}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)


def ask(library: str, python: str, directory: pathlib.Path) -> dict:
    """What a library reports, {"absent": reason} if it could not start."""
    root = str(pathlib.Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    surroundings = {**os.environ, "KERAS_BACKEND": LIBRARIES[library][0], "PYTHONPATH": path}
    command = [python, __file__, "--worker", library, "--directory", str(directory)]
    last = "no message"
    try:
        with subprocess.Popen(
            command, env=surroundings, stderr=subprocess.PIPE, text=True
        ) as process:
            for line in process.stderr:
                print(line, end="", file=sys.stderr, flush=True)
                last = line.strip() or last
    except OSError as error:
        return {"absent": f"not started: {error}"}
    if process.returncode == 0:
        return json.loads((directory / f"{library}.json").read_text())
    absent = last.startswith("ModuleNotFoundError")
    return {"absent": "not installed" if absent else f"failed: {last}"}


@dataclass(frozen=True)
class Judge:
    """The model that decides, and the clean images: x float32 (n, ...), y int32 (n,)."""

    model: keras.Model
    x: np.ndarray
    y: np.ndarray
    right: np.ndarray

    def verdict(self, case: Case, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which images are broken, bool (n,), and how far all are, float64 (n,)."""
        n = len(found)
        distance = get_norm(case.ours.norm).distance(found, self.x[:n])
        flat = found.reshape(n, -1)
        valid = np.isfinite(flat).all(1) & (flat.min(1) >= 0) & (flat.max(1) <= 1)
        if case.has_budget:
            valid &= distance <= case.ours.epsilon * (1 + TOLERANCE)
        usable = np.where(valid[:, None, None, None], found, self.x[:n]).astype("float32")
        wrong = predict(self.model, usable, BATCH_SIZE).argmax(1) != self.y[:n]
        return self.right[:n] & valid & wrong, distance


def measure(judge: Judge, task: Task, directory: pathlib.Path, pythons: dict[str, str]):
    """The lines of a model's table, and the versions that made them."""
    (directory / "task.json").write_text(json.dumps(asdict(task)))
    np.savez(directory / "data.npz", x=judge.x, y=judge.y)
    all_cases, ours = cases(task), {}
    for name, case in all_cases.items():
        n = task.few if case.long else len(judge.x)
        started = time.perf_counter()
        result = case.ours.run(
            judge.model, judge.x[:n], judge.y[:n],
            seed=task.seed, batch_size=BATCH_SIZE, progress=False,
        )  # fmt: skip
        ours[name] = judge.verdict(case, result.x_adv)
        say(f"robust_zoo, {name}", started)
    versions, lines = {}, {name: [] for name in all_cases}
    for library in LIBRARIES:
        report = ask(library, pythons[LIBRARIES[library][0]], directory)
        if "absent" in report:
            lines[library] = [(f"{report['absent']}", library, *[""] * (len(HEADINGS) - 2))]
            continue
        versions |= report["versions"]
        for name, reason in report["reasons"].items():
            lines[name].append((name, library, "", reason, *[""] * (len(HEADINGS) - 4)))
        for name, found in np.load(directory / f"{library}.npz").items():
            case = all_cases[name]
            pair = ours[name], judge.verdict(case, found)
            lines[name] += compare(name, library, case, judge.right, task, *pair)
    return [line for some in lines.values() for line in some], versions


def compare(name, library, case: Case, right, task: Task, ours, theirs) -> list[tuple[str, ...]]:
    """One line; two for an attack without a budget whose norm has one in this comparison."""
    (broken, distance), (broken_too, distance_too) = ours, theirs
    if case.has_budget:
        return [accuracy_line(name, library, right, broken, broken_too)]
    lines = [distance_line(name, library, right, ours, theirs)]
    if case.ours.norm == "linf":
        limit = task.epsilon * (1 + TOLERANCE)
        within = broken & (distance <= limit), broken_too & (distance_too <= limit)
        lines.append(accuracy_line(f"{name}, within epsilon", library, right, *within))
    return lines


def chance(only_ours: int, only_theirs: int) -> float:
    """How likely so few of the images that one alone broke are ours, if each is so by the toss of a coin."""
    total = only_ours + only_theirs
    return sum(math.comb(total, k) for k in range(only_ours + 1)) / 2**total


def accuracy_line(name, library, right, broken, broken_too) -> tuple[str, ...]:
    n = len(broken)
    mine, other = ((right[:n] & ~some).mean() for some in (broken, broken_too))
    alone = int((broken & ~broken_too).sum()), int((broken_too & ~broken).sum())
    if mine - other <= ACCURACY_MARGIN + 1e-9:
        strong = "yes"
    else:
        p = chance(*alone)
        strong = f"within sampling error (p = {p:.2f})" if p > SIGNIFICANCE else "**no**"
    return (
        name,
        library,
        str(n),
        "robust accuracy",
        f"{mine:.2%}",
        f"{other:.2%}",
        f"{100 * (mine - other):+.2f} points",
        f"{alone[0]} / {alone[1]}",
        strong,
    )


def distance_line(name, library, right, ours, theirs) -> tuple[str, ...]:
    (broken, distance), (broken_too, distance_too) = ours, theirs
    n, both = len(broken), broken & broken_too
    rates = [some.sum() / right[:n].sum() for some in (broken, broken_too)]
    if not both.any():
        means = medians = [math.nan, math.nan]
    else:
        means = [values[both].mean() for values in (distance, distance_too)]
        medians = [np.median(values[both]) for values in (distance, distance_too)]
    excess = means[0] / means[1] - 1
    strong = excess <= DISTANCE_MARGIN and rates[0] - rates[1] >= -ACCURACY_MARGIN - 1e-9
    cells = (
        f"{mean:.4f} ({median:.4f}), {rate:.1%}"
        for mean, median, rate in zip(means, medians, rates, strict=True)
    )
    return (
        name,
        library,
        str(n),
        "mean (median) distance, success",
        *cells,
        f"{excess:+.2%}",
        f"{(broken & ~broken_too).sum()} / {(broken_too & ~broken).sum()}",
        "yes" if strong else "**no**",
    )


def markdown(lines: list[tuple[str, ...]], headings: tuple[str, ...] = HEADINGS) -> str:
    rule = tuple("---" for _ in headings)
    return "\n".join(f"| {' | '.join(line)} |" for line in (headings, rule, *lines))


def section(task: Task, judge: Judge, lines: list[tuple[str, ...]], dataset: str) -> str:
    about = (
        f"{len(judge.x)} images of the {dataset} test split ({task.few} for the long attacks), seed "
        f"{task.seed}, clean accuracy {judge.right.mean():.2%}. Epsilon: linf {task.epsilon:g}, "
        f"l2 {task.epsilon_l2:.4g}."
    )
    settings = [(name, case.settings) for name, case in cases(task).items()]
    table = markdown(settings, ("attack", "settings"))
    return f"## {task.model}\n\n{about}\n\n{markdown(lines)}\n\n{table}\n"


INTRODUCTION = """# Strength of attacks, side by side

Made by `benchmarks/parity.py`: the same checkpoint, images and settings in every library, and every
image judged by our model in float32, whatever the library says: in [0, 1], in the ball (1e-5
relative tolerance), right on the clean image and wrong on the adversarial one. "As strong" is a
robust accuracy at most 0.5 points above the other's, or a mean distance at most 2 % above it (over the
images that both broke) and a success rate (of the images that are right to begin with) at most 0.5
points below. Where ours is more than 0.5 points above, "within sampling error" says that the images that
only one of the two broke could as well be divided by tosses of a coin (one-sided sign test, p > 0.05).
Ours counts any iterate that fools the model; Foolbox, ART and torchattacks return the
last one of FGSM, PGD, basic and momentum iterative. Random starts differ, so do the last digits.
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        nargs="+",
        default=["madry_cnn.pgd_mnist", "mlp.pgd_digits"],
        metavar="NAME",
        help="zoo names or checkpoint directories; epsilon and data are those of the record",
    )
    parser.add_argument("--n", type=int, default=500, help="images")
    parser.add_argument("--few", type=int, default=128, help="images for the long attacks")
    parser.add_argument("--queries", type=int, default=1000, help="of the Square attack")
    parser.add_argument("--cw-steps", type=int, default=200, help="of each Carlini-Wagner search")
    parser.add_argument("--only", nargs="+", default=[], metavar="ATTACK", help="by default all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--python-tensorflow", default=sys.executable, metavar="PATH")
    parser.add_argument("--python-torch", default=sys.executable, metavar="PATH")
    parser.add_argument(
        "--output", type=pathlib.Path, metavar="FILE", help="Markdown, written here"
    )
    parser.add_argument("--worker", choices=tuple(LIBRARIES), help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=pathlib.Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.worker:
        work(arguments.worker, arguments.directory)
        return
    pythons = {"tensorflow": arguments.python_tensorflow, "torch": arguments.python_torch}
    versions = {"robust_zoo": robust_zoo.__version__, "keras": keras.__version__}
    versions |= {"numpy": np.__version__, backend.name: backend.version}
    sections = []
    for name in arguments.model:
        model = robust_zoo.load_model(name)
        record = model.robustness
        data = robust_zoo.load_dataset(record.dataset.name, "test")
        data = data.sample(min(arguments.n, len(data)), arguments.seed)
        right = predict(model, data.images, BATCH_SIZE).argmax(1) == data.labels
        judge = Judge(model, data.images, data.labels, right)
        epsilon = record.threat_model.epsilon
        task = Task(
            model=name,
            epsilon=epsilon,
            epsilon_l2=epsilon * math.sqrt(data.images[0].size) / 4,
            classes=record.num_classes,
            queries=arguments.queries,
            cw_steps=arguments.cw_steps,
            few=min(arguments.few, len(data)),
            seed=arguments.seed,
            only=tuple(arguments.only),
        )
        with tempfile.TemporaryDirectory() as directory:
            lines, used = measure(judge, task, pathlib.Path(directory), pythons)
        versions |= used
        sections.append(section(task, judge, lines, record.dataset.name))
    made_with = ", ".join(f"{name} {version}" for name, version in versions.items())
    text = "\n".join([INTRODUCTION, f"Versions: {made_with}. Two CPU cores.\n", *sections])
    print(text)
    if arguments.output:
        arguments.output.write_text(text)


if __name__ == "__main__":
    main()
