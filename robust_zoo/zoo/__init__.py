"""Storing and finding models: the checkpoint directory, the registry, the cards."""

from robust_zoo.zoo.checkpoint import CheckpointError, save_model
from robust_zoo.zoo.registry import list_models, load_model, load_record

__all__ = ["CheckpointError", "list_models", "load_model", "load_record", "save_model"]
