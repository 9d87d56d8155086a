"""The table of transforms of JAX: its columns, and the page that the outcomes of their tests make.

``python tests/_jax_transforms.py`` runs every cell and writes docs/jax-transforms.md.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import jax
from _jax_rows import ROWS
from _jax_truth import Variant
from _table import DOCS, Table

__all__ = ["COSTLY", "TABLE", "WIDE", "column", "load"]

COSTLY = ("gated_unit",)
"""The rows whose cells in a column that takes seconds a row every run of the suite tests."""

WIDE = ("swish", "gated_unit", "gated_ffn")
"""The same where it is less."""

_GROUPS: Mapping[str, str] = {
    "Orders and modes": "in float64",
    "Batches": "in float64",
    "Compilation and control flow": "in float64",
    "Numbers and settings": "dtypes, shapes, and the switches of `jax.config`",
}

_HEAD = """# Every transform of JAX

Which function of `gated.jax_impl` goes through which transform. *yes* is the outcome of a test, written by
`python tests/_jax_transforms.py`, which runs every cell in all variants of its row (activations, layouts, axes, shapes
of beta), or in one where the legend ends with (1); so does `pytest -m transforms tests/test_jax_transforms.py`. Every
run of the suite tests each row in several columns, and each column but *third order, mixed* and *check_grads* in
several rows, in one variant: the rows that a column names in the tests as `usual`. A dot stands where there is no test,
for a reason at the end of the page.

What is exact: derivatives of any order by Taylor arithmetic on balls (`tests/_jets.py`), in which no formula of a
derivative is written down. A float64 result must be within 256 unit roundoffs of the sum of the magnitudes of its
terms, in every element of every argument, whatever the size; points, directions and cotangents are random. Every
argument is differentiated, biases and beta too. A module is a function of its input and its parameters: `nnx.split` and
`nnx.merge`, or `apply`. Everything runs on the CPU: no GPU or TPU has run this page."""

_TAIL = """
## Where there is no test

- Of the projected forms, the modules, `vjp` and `jvp` the third order has two nestings of the modes in place of eight:
  the rules that they go by are those of the units. `check_grads`, a minute a row, runs the activations and
  `gated_unit`: it says nothing that the exact derivatives do not. `vjp` and `jvp` are tested on `swiglu`.
- `static_argnames`: the row's call has arrays alone. `weak types`: it has one array, or is a module, whose parameters
  have their own dtype; `vjp` and `jvp` take weak arrays as the functions do. `checking_leaks` runs the functions.

## check_grads

`jax.test_util.check_grads` compares with central differences, and multiplies its tolerance by the size of an array.
Here it is given a function of one number, the cotangent times the function along a line, divided by the largest reach
of its first five derivatives: no size multiplies anything, and the tolerance, 128 * 2.5^3 step^2 / 6 for a step of
2^-13, is the error of the differences (`tests/_jax_derivatives.py` derives it).

## What the table does not say

- **float64 where x64 is off** is JAX's own affair: `jnp.asarray` and the arguments of a transform are float32 then. An
  array that was made while x64 was on is computed in float32, and JAX warns that it truncates.
- **NumPy arrays and Python lists** are refused, with a `TypeError` that names the argument. A transform makes arrays of
  NumPy arguments (`jax.jit(silu)(numpy_array)` is fine); what it does not transform, it passes on as it is: an argument
  of `vmap` with `in_axes=None`, a closed-over NumPy array.
- **Wrong shapes and dtypes of tracers** are the contract's errors, at trace time, with the shapes of one example under
  `vmap`, `scan` and `lax.map`.
- **Weak types** give way to the dtype of the first array. Results are never weak; a cotangent is what its argument is.
- **Any argument may be a tracer that a function closes over**, beta too.
- **An int beta** has no derivative, as in JAX: its cotangent from `jax.vjp` is `float0`; that of `gated.jax_impl.vjp`
  is an array of the dtype of x.

## What JAX refuses

- `jax.linear_transpose` of a function that is linear in an argument, such as `gated_unit` in its value: it reads the
  code, which takes floats apart, and ends in an `AssertionError`. The transpose of what `jax.linearize` gives is in the
  table.
- `jax.experimental.jet` has no rule for `jax.checkpoint`, and ends in a `KeyError`. Nested `jvp` gives derivatives of
  any order.
"""

TABLE = Table(DOCS / "jax-transforms.md", ROWS, _GROUPS, _HEAD, _TAIL)

Test = Callable[[Variant], None]


@functools.wraps(TABLE.column)
def column(*arguments, **keywords):  # type: ignore[no-untyped-def]
    """Registers a test, which runs with x64 on, as a column."""
    register = TABLE.column(*arguments, **keywords)

    def decorate(test: Test) -> Test:
        @functools.wraps(test)
        def in_float64(variant: Variant) -> None:
            with jax.enable_x64(True):
                test(variant)

        register(in_float64)
        return test

    return decorate


def load() -> Table:
    """The table with its columns."""
    import _jax_derivatives
    import _jax_settings
    import _jax_uses

    del _jax_derivatives, _jax_settings, _jax_uses
    return TABLE


if __name__ == "__main__":
    # As a module, so that the columns register with it and not with __main__.
    import _jax_transforms

    raise SystemExit(_jax_transforms.load().main())
