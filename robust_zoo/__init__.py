"""A Keras model zoo of image classifiers that withstand adversarial attack."""
__version__ = "0.1.0"
