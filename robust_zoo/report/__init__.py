"""What is shown of a record: cards, pictures and citations."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, ["card", "citations", "plots"])
