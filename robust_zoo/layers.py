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


def split(model: keras.Model, name: str) -> tuple[keras.Model, keras.Model]:
    """A model up to one of its layers, that included, and all behind it; both share its layers.

    Args:
        model: functional.
        name: of a layer through which everything goes that reaches the output.

    Raises:
        ValueError: no such layer, or something that goes around it.
    """
    nodes = getattr(model, "_nodes_by_depth", {})  # a layer may have been called elsewhere, too
    found = [node for same in nodes.values() for node in same if node.operation.name == name]
    if len(found) != 1:
        names = [layer.name for layer in model.layers]
        raise ValueError(
            f"behind must be the name of a layer of a functional model, one of {names}, got {name!r}."
        )
    tensor = found[0].output_tensors[0]
    try:
        return keras.Model(model.inputs[0], tensor), keras.Model(tensor, model.outputs[0])
    except ValueError:
        raise ValueError(
            f"behind must be a layer that everything goes through, got {name!r}."
        ) from None
