"""Types of arguments that have none of their own."""

from typing import Any, TypeAlias

Tensor: TypeAlias = Any
"""A tensor of the backend, of which Keras tells a type checker nothing."""
