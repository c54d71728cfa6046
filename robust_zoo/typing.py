"""Types of arguments that have none of their own, and the values that some may have."""

from typing import Any, Final, Literal, TypeAlias, get_args

Tensor: TypeAlias = Any
"""A tensor of the backend, of which Keras tells a type checker nothing."""

Precision = Literal["float32", "bfloat16"]
"""What the steps of an attack compute in."""
PRECISIONS: tuple[str, ...] = get_args(Precision)
BOUNDS: Final = ("ibp", "crown-ibp")
"""Methods of certificates that bound a model's logits."""
SMOOTHING: Final = "smoothing"
"""The method of certificates that are about a smoothed classifier."""
LICENSE_FORM = r"^[A-Za-z0-9][A-Za-z0-9.+-]{0,63}$"  # of an SPDX identifier
