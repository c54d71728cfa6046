"""The layers of a model, of which Keras only lists the outermost."""

from collections.abc import Iterator

import keras


def layers_of(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """A layer, or a model, and all layers in it, those of models inside included; inner ones come in no order."""
    yield from layer._flatten_layers()  # Keras has it for itself alone


def layers_in_order(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a model and of those in it, but for these models, as they follow each other."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from layers_in_order(layer)
        else:
            yield layer
