"""Storing, finding and publishing models: the checkpoint directory, the index, hubs, cards."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
