"""Accuracy under common corruptions (Hendrycks and Dietterich, arXiv:1903.12261)."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

import keras
import numpy as np

from robust_zoo.copies import in_float32
from robust_zoo.datasets import Dataset, Examples, sample_places
from robust_zoo.evaluation.measuring import evaluate
from robust_zoo.evaluation.outcomes import is_recorded
from robust_zoo.evaluation.plan import as_dataset
from robust_zoo.inference import predict
from robust_zoo.progress import progress_bar
from robust_zoo.record import Corruptions, RobustnessRecord
from robust_zoo.sentences import one_line

CORRUPTIONS = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
    "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
"""The benchmark's 15."""
HELD_OUT = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""Four more, for choosing by."""
SEVERITIES = (1, 2, 3, 4, 5)
ALEXNET = dict(zip(CORRUPTIONS, (
    0.886428, 0.894468, 0.922640, 0.819880, 0.826268, 0.785948, 0.798360, 0.866816, 0.826572, 0.819324, 0.564592,
    0.853204, 0.646056, 0.717840, 0.606500,
), strict=True))  # fmt: skip
"""Errors of AlexNet on ImageNet-C, by which the paper divides those of others: means over the five severities."""

_LIBRARY = "imagecorruptions-imaug"
_SEEDED = ("impulse_noise", "glass_blur")  # do not use NumPy's global generator
_LEAST_SIDE = 32
_AT_ONCE = 512  # images that are held in memory


def evaluate_corruptions(
    model: keras.Model,
    data: "Examples | str | tuple[np.ndarray, np.ndarray] | Any",
    *,
    corruptions: Sequence[str] = CORRUPTIONS,
    severities: Sequence[int] = SEVERITIES,
    files: str | pathlib.Path | None = None,
    baseline: "Mapping[str, float] | RobustnessRecord | None" = None,
    n: int | None = None,
    seed: int = 0,
    batch_size: int = 128,
    progress: bool = True,
) -> RobustnessRecord:
    """A model's record with its accuracy under common corruptions, of each kind and severity.

    Corrupted images are made by the library `imagecorruptions-imaug` (extra `corruptions`), with the parameters of
    ImageNet-C, whatever the images' size, and noise of their own for each image, kind and severity. Numbers to compare with
    those of others need the published `files`.

    Args:
        model: classifier, images in [0, 1] to logits. If it carries the record of its weights, that is what is completed;
            otherwise clean accuracy is measured.
        data: see `evaluate`; images of at least 32 x 32, grey or in colour.
        corruptions: which, of `CORRUPTIONS` (default, all 15) and `HELD_OUT`.
        severities: which, of 1 to 5, rising; default all.
        files: folder with a published set such as CIFAR-10-C: NAME.npy with uint8 images of the whole split, severity after
            severity, and labels.npy. Default: images are generated.
        baseline: errors to divide by, for the mean corruption error: a mean over the severities for each kind, such as
            `ALEXNET`, or a record with the same kinds and severities. Default: none, as is usual on CIFAR.
        n: number of examples, drawn with `seed`; None (default) is all.
        seed: integer seed for the sample and the noise; default 0.
        batch_size: images in a batch, >= 1; default 128.
        progress: whether to show a progress bar (on a terminal only).

    Returns:
        The record, with `corruptions`.

    Raises:
        ImportError: images are to be generated, and the library is not installed.
        TypeError, ValueError: other data than those of the model's record, a kind or severity that there is not, images
            that are too small, files that are not of this split, a baseline that lacks a kind, or what `evaluate` refuses.
    """
    names, levels = _checked(corruptions, severities)
    divided = None if baseline is None else _baseline(baseline, names, levels)
    opened = as_dataset(data, model, None, n)
    record = _own_record(model, opened)
    sample = opened.sample(n, seed)
    make = _from_files(files, opened, seed) if files is not None else _generated(sample, seed)
    measured, correct = in_float32(model), {name: [0] * len(levels) for name in names}
    work = len(names) * len(levels) * len(sample)
    with progress_bar("corruptions", work, enabled=progress) as advance:
        for first in range(0, len(sample), _AT_ONCE):
            part = sample.take(slice(first, first + _AT_ONCE))
            numbers = np.arange(first, first + len(part))
            for name in names:
                for place, level in enumerate(levels):
                    x = make(part, numbers, name, level)
                    right = predict(measured, x, batch_size).argmax(1) == part.labels
                    correct[name][place] += int(right.sum())
                    advance(len(part))
    source = f"generated by {_library()}"
    if files is not None:
        source = f"published files {pathlib.Path(files).resolve().name}"
    errors = {name: 1 - np.mean(counts) / len(sample) for name, counts in correct.items()}
    mce = None
    if divided is not None:
        mce = float(np.mean([errors[name] / divided[name] for name in names]))
    found = Corruptions(
        source=source,
        seed=seed,
        n_examples=len(sample),
        severities=levels,
        correct={name: tuple(counts) for name, counts in correct.items()},
        accuracy=float(1 - np.mean(list(errors.values()))),
        baseline="" if baseline is None else _name_of(baseline),
        mce=mce,
    )
    if record is None:
        record = evaluate(model, sample, n=len(sample), seed=seed, checks=False, progress=False)
    told = {name: getattr(record, name) for name in type(record).model_fields}
    return RobustnessRecord(**{**told, "corruptions": found})


def _own_record(model: keras.Model, data: Examples) -> RobustnessRecord | None:
    """The record that is to be completed: of the model as it is now; ValueError where it is of other data."""
    record: RobustnessRecord | None = getattr(model, "robustness", None)
    if record is None or not is_recorded(model, record):
        return None
    known = record.dataset
    if (data.name, data.split) != (known.name, known.split):
        raise ValueError(
            f"data must be those of the model's record, {one_line(known.name)!r} {known.split!r}, got "
            f"{one_line(data.name)!r} {data.split!r}."
        )
    return record


def _checked(
    corruptions: Sequence[str], severities: Sequence[int]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    names = (corruptions,) if isinstance(corruptions, str) else tuple(corruptions)
    known = (*CORRUPTIONS, *HELD_OUT)
    if not names or not set(names) <= set(known) or len(set(names)) < len(names):
        raise ValueError(
            f"corruptions must be some of {', '.join(known)}, each once, got {one_line(', '.join(map(str, names)))!r}."
        )
    levels = (severities,) if isinstance(severities, int) else tuple(severities)
    whole = all(isinstance(level, int) and not isinstance(level, bool) for level in levels)
    if not levels or not whole or sorted(set(levels) & set(SEVERITIES)) != list(levels):
        raise ValueError(f"severities must be rising integers in 1..5, got {severities!r}.")
    return names, levels


def _baseline(
    baseline: "Mapping[str, float] | RobustnessRecord", names: Sequence[str], levels: Sequence[int]
) -> Mapping[str, float]:
    """Errors by kind; ValueError where one is missing, or measured at other severities."""
    if isinstance(baseline, RobustnessRecord):
        found = baseline.corruptions
        if found is None or found.severities != tuple(levels):
            raise ValueError(
                f"baseline must be a record with corruptions at the severities {list(levels)}, got that of {baseline.name!r}."
            )
        errors = {name: 1 - found.accuracy_of(name) for name in found.correct}
    else:
        errors = dict(baseline)
        if tuple(levels) != SEVERITIES:
            raise ValueError(
                f"baseline errors are means over the severities 1 to 5, got severities {list(levels)}."
            )
    missing = [name for name in names if not errors.get(name, 0) > 0]
    if missing:
        raise ValueError(f"baseline must have an error above 0 for {', '.join(missing)}.")
    return errors


def _name_of(baseline: "Mapping[str, float] | RobustnessRecord") -> str:
    if isinstance(baseline, RobustnessRecord):
        return baseline.name
    return "AlexNet" if baseline == ALEXNET else "errors that were given"


_Make = Callable[[Dataset, np.ndarray, str, int], np.ndarray]


def _library() -> str:
    return f"{_LIBRARY} {metadata.version(_LIBRARY)}"


def _generated(sample: Examples, seed: int) -> _Make:
    """Makes the images of a part of the sample, float32 in [0, 1]."""
    try:
        from imagecorruptions import corrupt
    except ImportError as error:
        raise ImportError(
            "corrupted images are made by imagecorruptions-imaug: pip install 'robust-zoo[corruptions]', or give the "
            "folder of a published set as `files`."
        ) from error
    height, width, channels = sample.take(slice(0, 1)).images.shape[1:]
    if min(height, width) < _LEAST_SIDE or channels not in (1, 3):
        raise ValueError(
            f"images must be of at least {_LEAST_SIDE} x {_LEAST_SIDE}, grey or in colour, to be corrupted, got "
            f"{(height, width, channels)}."
        )

    def make(part: Dataset, numbers: np.ndarray, name: str, level: int) -> np.ndarray:
        kind = (*CORRUPTIONS, *HELD_OUT).index(name)
        found = np.empty(part.images.shape, "float32")
        for row, number in enumerate(numbers):
            pixels = np.round(part.images[row] * 255).astype("uint8")
            (state,) = np.random.SeedSequence([seed, int(number), kind, level]).generate_state(1)
            with _numpy_seeded(int(state)):
                options = {"seed": int(state)} if name in _SEEDED else {}
                made = corrupt(pixels, level, name, **options)
            if channels == 1:
                made = np.round(made.mean(axis=2, keepdims=True))
            found[row] = made / np.float32(255)
        return found

    return make


@contextlib.contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """NumPy's global generator seeded, which the library draws from, and as it was before afterwards."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)


def _from_files(folder: str | pathlib.Path, data: Examples, seed: int) -> _Make:
    """Reads the images of a part of the sample from a published set."""
    folder = pathlib.Path(folder)
    chosen = sample_places(data, None, seed)
    labels = _array(folder / "labels.npy").ravel()

    def make(part: Dataset, numbers: np.ndarray, name: str, level: int) -> np.ndarray:
        if len(labels) < len(data) or (labels[chosen[numbers]] != part.labels).any():
            raise ValueError(
                f"files must be of the split that is measured, {data.name!r} {data.split!r}, whose labels those in "
                f"{str(folder / 'labels.npy')!r} are not."
            )
        images = _array(folder / f"{name}.npy")
        expected = (len(SEVERITIES) * len(data), *part.images.shape[1:])
        if images.shape != expected or images.dtype != np.uint8:
            raise ValueError(
                f"{str(folder / name)!r}.npy must be uint8 of shape {expected}, got {images.dtype} {images.shape}."
            )
        rows = (level - 1) * len(data) + chosen[numbers]
        return images[rows].astype("float32") / 255

    return make


def _array(path: pathlib.Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"files must be a folder with {path.name!r}: no {str(path)!r}."
        ) from None
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{str(path)!r} cannot be read: {one_line(error)}.") from None
