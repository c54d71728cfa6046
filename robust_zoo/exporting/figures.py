"""What an exported file makes of clean images, and of adversarial ones of the model that it was made of."""

import hashlib
import json
import pathlib
from typing import Any

import keras
import numpy as np
import pydantic

from robust_zoo.attacks import Attack
from robust_zoo.contract import check_batch_size
from robust_zoo.copies import in_float32
from robust_zoo.datasets import Examples
from robust_zoo.exporting.runtimes import open_export
from robust_zoo.inference import predict
from robust_zoo.record import Accuracy
from robust_zoo.weights import describe_weights, sha256


class ExportFigures(pydantic.BaseModel):
    """An exported file beside its model, on the same images.

    Attributes:
        file: its name.
        file_sha256: of the file, or of a directory's files in the order of their names.
        model: its name.
        weights_sha256: of the model's weights, as in its record.
        dataset: of the images, and its split.
        seed: of the sample and of the attack.
        attack: its name and settings; it sees the model, not the file.
        clean: accuracy of the model, then of the file.
        adversarial: the same on the attack's images.
        same_predictions: share of all these images on which both agree.
        largest_difference: of their logits, absolute.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    file: str
    file_sha256: str
    model: str
    weights_sha256: str
    dataset: tuple[str, str]
    seed: int
    attack: dict[str, Any]
    clean: tuple[Accuracy, Accuracy]
    adversarial: tuple[Accuracy, Accuracy]
    same_predictions: float
    largest_difference: float

    def to_json(self) -> str:
        """JSON text, indented, ending in a newline."""
        return json.dumps(self.model_dump(mode="json"), indent=2) + "\n"


def measure_export(
    path: str | pathlib.Path,
    model: keras.Model,
    data: Examples,
    *,
    attack: Attack,
    n: int | None = None,
    seed: int = 0,
    batch_size: int = 128,
) -> tuple[ExportFigures, dict[str, np.ndarray]]:
    """Measures an exported file on clean images, and on adversarial ones that are made with its model.

    A file without gradients, or with quantised ones, cannot be attacked as the model can: what fools the model shows what
    fools the file.

    Args:
        path: what `export` wrote.
        model: that it was made of.
        data: a `Dataset` or `StoredDataset`.
        attack: with a budget, of the model.
        n: images, drawn with `seed` and held in memory; None (default) is all.
        seed: of the sample and of the attack.
        batch_size: images in a batch.

    Returns:
        The figures; and the images that they are of, "images", "adversarial" and "labels", to measure the file elsewhere.

    Raises:
        FileNotFoundError, ValueError, ImportError: see `open_export`, `Attack.run`.
    """
    check_batch_size(batch_size)
    run = open_export(path)
    sample = data.sample(n, seed).take(slice(None))
    plain = in_float32(model)
    found = attack.run(plain, sample.images, sample.labels, seed=seed, batch_size=batch_size)
    images = {"images": sample.images, "adversarial": found.x_adv, "labels": sample.labels}
    pairs: list[tuple[Accuracy, Accuracy]] = []
    same: list[np.ndarray] = []
    largest = 0.0
    for name in ("images", "adversarial"):
        expected = predict(plain, images[name], batch_size)
        got = np.concatenate(
            [
                run(np.ascontiguousarray(images[name][start : start + batch_size]))
                for start in range(0, len(sample), batch_size)
            ]
        )
        verdicts = [logits.argmax(1) for logits in (expected, got)]
        counts = [int((verdict == sample.labels).sum()) for verdict in verdicts]
        of_model, of_file = (Accuracy.count(count, len(sample)) for count in counts)
        pairs.append((of_model, of_file))
        same.append(verdicts[0] == verdicts[1])
        largest = max(largest, float(np.abs(expected - got).max()))
    record = getattr(model, "robustness", None)
    figures = ExportFigures(
        file=pathlib.Path(path).name,
        file_sha256=_sha256(pathlib.Path(path)),
        model=record.name if record is not None else model.name,
        weights_sha256=describe_weights(plain).sha256,
        dataset=(sample.name, sample.split),
        seed=seed,
        attack={"name": type(attack).__name__, **attack.get_config()},
        clean=pairs[0],
        adversarial=pairs[1],
        same_predictions=float(np.concatenate(same).mean()),
        largest_difference=largest,
    )
    return figures, images


def _sha256(path: pathlib.Path) -> str:
    """Of a file, or of the names and hashes of all that are in a directory."""
    if path.is_file():
        return sha256(path)
    digest = hashlib.sha256()
    for file in sorted(part for part in path.rglob("*") if part.is_file()):
        digest.update(f"{file.relative_to(path)} {sha256(file)}\n".encode())
    return digest.hexdigest()
