"""Models by name or handle, with weights."""

import pathlib
import warnings

import keras

from robust_zoo.attacks import GeneratorAttack
from robust_zoo.copies import with_new_head
from robust_zoo.record import BaseModel, RobustnessRecord
from robust_zoo.zoo import generator
from robust_zoo.zoo import hub as hubs
from robust_zoo.zoo.checkpoint import MODEL_FILES, load_checkpoint, read_attack
from robust_zoo.zoo.records import RECORD
from robust_zoo.zoo.registry import is_handle, resolve


def load_attack(handle: str | pathlib.Path) -> GeneratorAttack:
    """The perturbation generator that a model of PGN was trained against, as an attack.

    Args:
        handle: of the model, see `load_model`.

    Raises:
        UnknownModelError: no such name.
        CheckpointError: a model without a generator, or one that is damaged, was tampered with, or asks for code
            outside the built-in layers.
        HubError: see `load_model`.

    Example:
        >>> load_attack("file:///hub/pgn").run(model, x, y).success.mean()
    """
    place = resolve(handle)
    if is_handle(place):
        return hubs.read(place, (*generator.FILES, *MODEL_FILES), read_attack)[0]
    return read_attack(place)


def load_model(handle: str | pathlib.Path, *, num_classes: int | None = None) -> keras.Model:
    """A pretrained robust model, ready to use.

    Args:
        handle: a name from `list_models`, which "zoo://" may stand before, a checkpoint directory, or a handle on a
            hub: "hf://org/name", "hf://org/name@revision" (branch, tag or commit) or "file:///path/name", each with
            "#" and the record's sha256 behind it if no other record will do. Downloads are kept in the Hugging Face
            client's cache, which also serves without a connection.
        num_classes: replaces the last layer by a fresh one of so many logits, for fine-tuning on other
            classes. The record does not hold for the new model and is dropped.

    Returns:
        Functional `keras.Model`, uncompiled: float32 images in [0, 1], NHWC, in; logits out. Its
        `robustness` is the `RobustnessRecord`, or None; its `base_model` says what this is, for the record
        of a model that is fine-tuned from it.

    Raises:
        UnknownModelError: no such name; the message has the closest ones.
        CheckpointError: truncated, tampered with, or asking for code outside the built-in layers.
        RecordError: an unreadable record.
        HubError: no such model or revision on the hub, or a hub that does not answer and nothing in the cache.

    The models of the zoo that are neither in the package nor in a checkout come from a hub: the one that the
    environment variable ROBUST_ZOO_HUB names, "hf://org" or "file:///path", else where they were published. Their
    records must be those of the package's index.

    Example:
        >>> model = load_model("mlp.pgd_digits")
        >>> model.robustness.worst_case.accuracy
    """
    place = resolve(handle)
    if is_handle(place):
        model, pinned = hubs.read(place, (*MODEL_FILES, RECORD), load_checkpoint)
        hubs.check_pin(place, model.robustness)
        if model.robustness is not None:
            pinned = hubs.with_pin(pinned, model.robustness)
    else:
        model, pinned = load_checkpoint(place), ""
    if model.robustness is None:
        warnings.warn(
            f"{handle} has no {RECORD}: its robustness was never measured, and nothing tells whether these are the "
            "weights that were saved.",
            stacklevel=2,
        )
    model.base_model = _as_base(model.robustness, pinned)
    if num_classes is None:
        return model
    fresh = with_new_head(model, num_classes)
    fresh.robustness, fresh.base_model = None, model.base_model
    if model.robustness is not None:
        warnings.warn(
            f"{model.robustness.name!r} got a new head of {num_classes} classes: its robustness record does "
            "not hold for it and is dropped. Measure the fine-tuned model with robust_zoo.evaluate.",
            stacklevel=2,
        )
    return fresh


def _as_base(record: RobustnessRecord | None, handle: str) -> BaseModel | None:
    if record is None:
        return None
    return BaseModel(name=record.name, weights_sha256=record.weights.sha256, handle=handle)
