"""Targets that do not even answer properly: they hang, die, refuse and talk."""

from __future__ import annotations

import ctypes
import os
import sys
import time

import numpy as np
from scipy.special import expit


def hangs(x):
    while x.size:
        time.sleep(0.05)
    return x


def segfaults(x):
    """A kernel with a null pointer."""
    ctypes.string_at(0)
    return expit(x)


def leaves(x):
    """A worker that gives up the whole process."""
    os._exit(3)


def exits(x):
    sys.exit("bad input")


def refuses_bfloat16(x):
    if x.dtype not in (np.float16, np.float32, np.float64):
        raise NotImplementedError(f"no kernel for {x.dtype}")
    return (1 / (1 + np.exp(-x.astype(np.float64)))).astype(x.dtype)


def talks(x):
    """A print that was left in."""
    print("sigmoid", x.shape, x.min(initial=0), x.max(initial=0))
    return expit(x)


def gives_none(x):
    expit(x, out=np.empty_like(x))


def gives_pair(x):
    """The result and what it keeps for the backward pass."""
    s = expit(x)
    return s, x


def complains(x):
    raise ValueError("x must have 4 dimensions")


class Tensor:
    """An array type of its own."""

    def __init__(self, array):
        self.array = array


def wraps(x):
    return Tensor(expit(x))


not_callable = 3.0
