"""Storing, finding and publishing models: the checkpoint directory, the registry, hubs, cards."""

from robust_zoo.zoo.checkpoint import save_model
from robust_zoo.zoo.errors import CheckpointError, HubError, UnknownModelError
from robust_zoo.zoo.hub import publish
from robust_zoo.zoo.registry import list_models, load_attack, load_model, load_record

__all__ = [
    "CheckpointError",
    "HubError",
    "UnknownModelError",
    "list_models",
    "load_attack",
    "load_model",
    "load_record",
    "publish",
    "save_model",
]
