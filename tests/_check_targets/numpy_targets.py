"""Targets of NumPy alone, right and wrong."""

from __future__ import annotations

import numpy as np


def identity(x):
    return x


def product(gate, value):
    return gate * value


def product_gradient(gate, value, dy):
    return dy * value, dy * gate


def silu(x):
    return x / (1 + np.exp(-x))


def overwrites(gate, value):
    gate *= value
    return gate


def gradient_overwrites(gate, value, dy):
    d_gate, d_value = dy * value, dy * gate
    value[...] = 0
    dy[...] = 0
    return d_gate, d_value


def gives_a_list(x):
    return [x]


def gives_objects(x):
    return x.astype(object)


def gives_float64(x):
    return x.astype(np.float64)


def gives_one_row(x):
    return x[:1]


def raises(x):
    raise ValueError("not this\nnor that")


class NotAFunction:
    """Classes are no functions of arrays."""


number = 3


class Nested:
    """Holds a target."""

    class Inner:
        """Holds it deeper."""

        silu = staticmethod(silu)
