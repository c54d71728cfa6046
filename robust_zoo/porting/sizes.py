"""Networks of one size of images: their authors average so many pixels at the end, not all there are."""

from collections.abc import Mapping
from typing import Any

from robust_zoo.porting.tensors import PortError

_SIDE = 32
_FIXED = {
    ("wide_resnet", "TRADES"),
    ("wide_resnet", "DeepMind"),
    ("preact_resnet", "Rice"),
    ("preact_resnet", "DeepMind"),
    ("resnet", "CIFAR-10"),
}  # by architecture and layout
# Depths of a resnet with the small stem that averages all pixels all the same.
_ANY = (20, 32, 44, 56)


def check_size(architecture: str, layout: str, options: Mapping[str, Any]) -> None:
    """Refuses images of another size than the network of a file is for.

    Args:
        architecture: with a layout.
        layout: whose names the file has.
        options: of the architecture, all of them.

    Raises:
        PortError: another size.
    """
    if (architecture, layout) not in _FIXED:
        return
    if architecture == "resnet" and (options["stem"] == "large" or options["depth"] in _ANY):
        return
    shape = tuple(options["input_shape"])
    if shape[:2] != (_SIDE, _SIDE):
        raise PortError(
            f"input_shape must be {(_SIDE, _SIDE, *shape[2:])}, since on larger or smaller images a {architecture} of "
            f"{layout}'s is another network than here, got {shape}."
        )
