"""A hash of what a value does: for functions and objects of code, not only of data."""

import contextlib
import functools
import hashlib
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

_PLAIN = (bool, int, float, complex, str, bytes, type(None), np.generic, np.dtype)
OMITTED = object()
_LARGEST = 10_000  # values looked at; an object that reaches more is told apart by those


def fingerprint(*values: object, array: Callable[[Any], Any] = lambda value: None) -> str:
    """Hexadecimal SHA-256 of values and all that they refer to: equal for equal ones, in another process too.

    Of a function: its code, constants, defaults, what it closes over and the globals that it names. Of an object of
    other people's classes: its attributes, and the code of its class. What is a library's stands for its name, and its
    configuration if it has one.

    Args:
        *values: anything.
        array: maps a value that is to be looked at as an array to one, or to `OMITTED`; other values to None.
    """
    digest, kept = hashlib.sha256(), []
    seen: dict[int, int] = {}

    def add(value: object) -> None:
        if isinstance(value, _PLAIN):
            digest.update(f"{type(value).__name__} {value!r};".encode())
            return
        if id(value) in seen or len(seen) > _LARGEST:
            digest.update(f"again {seen.get(id(value))};".encode())
            return
        seen[id(value)] = len(seen)
        kept.append(value)  # an identity is used again once its value is gone
        found = array(value)
        if found is OMITTED:
            return
        value = value if found is None else found
        digest.update(f"{type(value).__name__}(".encode())
        if isinstance(value, np.ndarray):
            digest.update(f"{value.dtype}{value.shape}".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
        elif isinstance(value, dict):
            for key, item in value.items():
                add(key)
                add(item)
        elif isinstance(value, (set, frozenset)):
            for item in sorted(value, key=repr):
                add(item)
        elif isinstance(value, (list, tuple)):
            for item in value:
                add(item)
        else:
            for part in _parts(value):
                add(part)
        digest.update(b")")

    for value in values:
        add(value)
    return digest.hexdigest()


def _parts(value: object) -> Iterator[object]:
    """What makes a value that is no plain data."""
    if isinstance(value, types.CodeType):
        yield value.co_code
        yield value.co_names
        yield from value.co_consts
    elif isinstance(value, types.FunctionType):
        yield value.__code__
        yield value.__defaults__
        yield value.__kwdefaults__
        yield [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        yield from (value.__globals__.get(name) for name in sorted(_names(value.__code__)))
    elif isinstance(value, types.MethodType):
        yield value.__func__
        yield value.__self__
    elif isinstance(value, functools.partial):
        yield from (value.func, value.args, value.keywords)
    elif isinstance(value, type):
        yield f"{value.__module__} {value.__qualname__}"
        yield from _class_parts(value)
    elif _is_theirs(type(value)):
        yield type(value)
        yield getattr(value, "__dict__", None)
    else:
        yield f"{type(value).__module__} {getattr(value, '__name__', type(value).__qualname__)}"
        if hasattr(value, "get_config") and not isinstance(value, type):
            with contextlib.suppress(Exception):  # of an object that is not made yet, say
                yield value.get_config()


def _class_parts(kind: type) -> Iterator[object]:
    """The functions and plain values of a class and of those that it is made of."""
    for base in kind.__mro__:
        if _is_theirs(base):
            for name, part in sorted(vars(base).items()):
                own = name == "__call__" or not name.startswith("__")
                if own and isinstance(part, (types.FunctionType, *_PLAIN)):
                    yield part


def _is_theirs(kind: type) -> bool:
    """Whether a class may change from one run to the next: it is none of a library's."""
    package = kind.__module__.partition(".")[0]
    return package not in ("builtins", "keras", "tensorflow", "torch", "jax", "numpy", "robust_zoo")


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _names(code: types.CodeType) -> set[str]:
    """The global names that code and the code inside it may use."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names(constant)
    return names
