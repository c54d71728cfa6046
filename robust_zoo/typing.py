"""Types of arguments that have none of their own."""

from typing import Any, Literal, TypeAlias, get_args

Tensor: TypeAlias = Any
"""A tensor of the backend, of which Keras tells a type checker nothing."""

Precision = Literal["float32", "bfloat16"]
"""What the steps of an attack compute in."""
PRECISIONS: tuple[str, ...] = get_args(Precision)
LICENSE_FORM = r"^[A-Za-z0-9][A-Za-z0-9.+-]{0,63}$"  # of an SPDX identifier
