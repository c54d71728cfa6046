import functools
import subprocess
import sys

import numpy as np
import pytest

from robust_zoo.fingerprint import OMITTED, fingerprint


def made(code):
    """The value of the last line of a module of its own."""
    space = {"__name__": "theirs", "np": np, "functools": functools}
    exec(code, space)
    return space["value"]


PAIRS = {
    "constant": ("value = lambda x: x + 1", "value = lambda x: x + 2"),
    "operation": ("value = lambda x: x + 1", "value = lambda x: x * 1"),
    "default": ("def value(x, k=1): return k", "def value(x, k=2): return k"),
    "keyword default": ("def value(x, *, k=1): return k", "def value(x, *, k=2): return k"),
    "global": ("k = 1\nvalue = lambda x: k", "k = 2\nvalue = lambda x: k"),
    "helper": (
        "def f(x): return x\nvalue = lambda x: f(x)",
        "def f(x): return -x\nvalue = lambda x: f(x)",
    ),
    "inner function": (
        "value = lambda x: (lambda y: y + 1)(x)",
        "value = lambda x: (lambda y: y + 2)(x)",
    ),
    "closed-over array": (
        "a = np.zeros(5000)\nvalue = (lambda a: lambda x: x + a)(a)",
        "a = np.zeros(5000); a[2500] = 1\nvalue = (lambda a: lambda x: x + a)(a)",
    ),
    "partial": ("value = functools.partial(max, 1)", "value = functools.partial(max, 2)"),
    "attribute": (
        "class C: pass\nvalue = C(); value.k = [1, {'a': 2}]",
        "class C: pass\nvalue = C(); value.k = [1, {'a': 3}]",
    ),
    "code of a class": (
        "class C:\n def __call__(self, x): return x\nvalue = C()",
        "class C:\n def __call__(self, x): return -x\nvalue = C()",
    ),
    "class attribute": ("class C: k = 1\nvalue = C()", "class C: k = 2\nvalue = C()"),
    "object of a method": (
        "class C:\n def __init__(s, k): s.k = k\n def f(s, x): return s.k\nvalue = C(1).f",
        "class C:\n def __init__(s, k): s.k = k\n def f(s, x): return s.k\nvalue = C(2).f",
    ),
    "dtype": ("value = np.zeros(3, 'float32')", "value = np.zeros(3, 'float64')"),
    "set": ("value = {1, 2}", "value = {1, 3}"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_equal_for_equals_and_for_nothing_else(name):
    one, other = PAIRS[name]
    assert fingerprint(made(one)) == fingerprint(made(one)) != fingerprint(made(other))


def test_a_comment_makes_no_difference():
    assert fingerprint(made("value = lambda x: x")) == fingerprint(
        made("# said\n\nvalue = lambda x: x")
    )


def test_the_same_in_another_process():
    code = (
        "import functools; from robust_zoo.fingerprint import fingerprint\n"
        "def f(x, k={'a', 'b', 'c'}): return helper(x)\n"
        "def helper(x): return 3 * x\n"
        "print(fingerprint(functools.partial(f, 1, z=(lambda y: f))))"
    )
    found = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
        for _ in range(2)
    }
    assert len(found) == 1
    assert len(found.pop().strip()) == 64


def test_rings_end_and_values_can_be_left_out():
    ring = [1]
    ring.append(ring)
    assert fingerprint(ring) == fingerprint(ring)

    def without_arrays(value):
        return OMITTED if isinstance(value, np.ndarray) else None

    one, other = ([np.zeros(3), 1], [np.ones(3), 1])
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(one, array=without_arrays) == fingerprint(other, array=without_arrays)
