"""A Keras model zoo of image classifiers that withstand adversarial attack.

Load a robust model with its robustness measured and attached, attack and measure any Keras
classifier, and fine-tune or harden it with `fit`. See `robust_zoo.load_model`, `evaluate`, `attacks`
and `defenses`.
"""

import lazy_loader

__version__ = "0.1.0"

# The public names are in __init__.pyi and imported on first use: importing the package stays cheap, and the command
# line can quieten TensorFlow before it starts.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
