"""Models by name or handle, with weights."""

import pathlib
import warnings

import keras

from robust_zoo.copies import with_new_head
from robust_zoo.places import MODEL_FILES, RECORD, checkpoints_directory
from robust_zoo.record import LICENSE, BaseModelInfo, RobustnessRecord
from robust_zoo.zoo import hub
from robust_zoo.zoo.checkpoint import load_checkpoint
from robust_zoo.zoo.registry import check_indexed, resolve


def load_model(handle: str | pathlib.Path, *, num_classes: int | None = None) -> keras.Model:
    """A pretrained robust model, ready to use.

    The models of the zoo that are neither in the package nor in a checkout come from a hub: the one that the
    environment variable ROBUST_ZOO_HUB names, "hf://org" or "file:///path", else where they were published. Their
    records must be those of the package's index.

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
        CheckpointError: no such directory, a name that is also a directory here, a record other than that of the index
            or the handle, or a checkpoint that is truncated, tampered with, or asks for code outside Keras.
        RecordError: an unreadable record.
        HubError: no such model or revision on the hub, or a hub that does not answer and nothing in the cache.
        ValueError: a bad handle, `num_classes` below 2, or a model whose logits come from no Dense or Conv2D layer.
        OSError: files that cannot be read.

    Example:
        >>> model = load_model("mlp.pgd_digits")
        >>> model.robustness.worst_case.accuracy
        0.868
    """
    place = resolve(handle)
    if isinstance(place, str):  # a handle
        model, pinned = hub.read(place, (*MODEL_FILES, RECORD), load_checkpoint)
        hub.check_pin(place, model.robustness)
        if model.robustness is not None:
            pinned = hub.with_pin(pinned, model.robustness)
    else:
        model, pinned = load_checkpoint(place), ""
        own = str(handle).removeprefix("zoo://")
        if isinstance(handle, str) and "/" not in own and place == checkpoints_directory() / own:
            check_indexed(place, model.robustness)  # what was read, not what lay there before
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


def _as_base(record: RobustnessRecord | None, handle: str) -> BaseModelInfo | None:
    if record is None:
        return None
    others = bool(record.notice) or record.license != LICENSE
    return BaseModelInfo(
        name=record.name,
        weights_sha256=record.weights.sha256,
        handle=handle,
        license=record.license if others else "",
        notice=record.notice,
    )
