"""A functional model as a list of layer calls, models inside included."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from robust_zoo.contract import graph_of
from robust_zoo.typing import Tensor


class Call(NamedTuple):
    """One call of a layer or an operation.

    Attributes:
        layer: what is called.
        sources: numbers of the tensors that it is given.
        target: number of the tensor that it makes.
        node: of Keras's graph, which knows how it is called.
    """

    layer: keras.Operation
    sources: tuple[int, ...]
    target: int
    node: Any

    def __call__(self, given: Sequence[Tensor], *, training: bool) -> Tensor:
        """What the layer makes of tensors, as in the model."""
        symbols = map(id, self.node.input_tensors)
        args, kwargs = self.node.arguments.fill_in(dict(zip(symbols, given, strict=True)))
        if getattr(self.layer, "_call_has_training_arg", False):
            kwargs["training"] = training
        return self.layer(*args, **kwargs)


class Graph(NamedTuple):
    """The calls of a model in an order in which they can be made.

    Attributes:
        calls: see `Call`.
        source: number of the images.
        target: number of the logits.
    """

    calls: list[Call]
    source: int
    target: int


def graph(model: keras.Model) -> Graph:
    """The calls of a functional or built sequential model of one input and one output.

    A layer that is called twice is in it twice; of a model inside only its layers are.

    Raises:
        ValueError: a layer that makes several tensors, or is given other things than tensors of the model.
    """
    calls: list[Call] = []
    count = 1

    def add(model: keras.Model, sources: list[int]) -> int:
        nonlocal count
        ends = graph_of(model)
        assert (
            ends is not None
        )  # `check_classifier` looked, or Keras made the model inside of others
        given = keras.tree.flatten(ends[0])
        numbers = dict(zip(map(id, given), sources, strict=True))
        nodes = getattr(keras.Model(*ends), "_nodes_by_depth")  # noqa: B009 (of Keras alone)
        for depth in sorted(nodes, reverse=True):
            for node in nodes[depth]:
                if node.is_input:
                    continue
                layer, made = node.operation, node.output_tensors
                read = [numbers[id(tensor)] for tensor in node.input_tensors]
                if isinstance(layer, keras.Model) and graph_of(layer) is not None:
                    numbers[id(made[0])] = add(layer, read)
                    continue
                if len(made) != 1 or not _is_plain(node):
                    raise ValueError(
                        f"model must have layers that map tensors to one tensor, but {layer.name!r} "
                        f"({type(layer).__name__}) is none: there is no interval rule for it."
                    )
                numbers[id(made[0])] = count
                calls.append(Call(layer, tuple(read), count, node))
                count += 1
        return numbers[id(keras.tree.flatten(ends[1])[0])]

    return Graph(calls, 0, add(model, [0]))


def _is_plain(node: Any) -> bool:
    """Whether a call is given tensors of the model alone: `x + y`, not `x + 1`."""
    leaves = keras.tree.flatten((node.arguments.args, node.arguments.kwargs))
    others = [
        leaf
        for leaf in leaves
        if not isinstance(leaf, keras.KerasTensor) and not isinstance(leaf, (bool, type(None)))
    ]
    return not others
