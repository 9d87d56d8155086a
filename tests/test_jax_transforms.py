"""Every function and module of the JAX backend through every transform: the cells of docs/jax-transforms.md."""

from __future__ import annotations

import re

import numpy as np
import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("flax")
pytest.importorskip("flint")

import _jax_transforms as transforms  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from jax import lax  # noqa: E402

import gated.jax_impl as G  # noqa: E402 - G as the design has it
from gated.jax_impl import linen, nnx  # noqa: E402

TABLE = transforms.load()


@pytest.mark.parametrize(("row", "column"), TABLE.usual())
def test_cell(row: str, column: str) -> None:
    TABLE.columns[column].test(TABLE.variants(row, column)[0])


@pytest.mark.transforms
@pytest.mark.parametrize(("row", "column"), TABLE.cells())
def test_cell_in_all_its_variants(row: str, column: str) -> None:
    for variant in TABLE.variants(row, column):
        TABLE.columns[column].test(variant)


def test_the_page_is_what_the_tests_give() -> None:
    # Each cell is the outcome of its test, which runs above, and none of which may be skipped or expected to fail.
    assert TABLE.page.read_text() == TABLE.text(dict.fromkeys(TABLE.cells(), "yes"))
    assert "**no**" not in TABLE.page.read_text()


def test_every_run_tests_each_column_and_each_row() -> None:
    usual = TABLE.usual()
    # Those that take several seconds a cell, and are for -m transforms: others try the same rules in the same orders.
    left = {"third order, mixed", "check_grads", "hessian", "second order", "checking_leaks", "disable_jit"}
    assert {column for _, column in usual} == set(TABLE.columns) - left
    assert {row for row, _ in usual} == set(TABLE.rows)


def test_the_page_has_a_row_for_each_public_name_in_each_table() -> None:
    modules = {f"{library}.{name}" for library, one in (("nnx", nnx), ("linen", linen)) for name in one.__all__}
    for table in TABLE.page.read_text().split("\n## ")[1 : len(TABLE.groups) + 1]:
        assert {*G.__all__, *modules} <= set(re.findall(r"^\| `([\w.]+)", table, flags=re.MULTILINE))


# What a table does not say


def test_a_gated_recurrence_by_associative_scan_is_the_one_by_scan() -> None:
    """h_t = s(g_t) h_(t-1) + v_t, in a tree and one after the other: value and gradient.

    Every h is a sum of at most 8 products of numbers below 1 and one below 3, each with at most 8 roundings of s, whose
    error is 5 ulp, 7 products and 7 sums; the gradient has as many factors again.
    """
    with jax.enable_x64(True):
        rng = np.random.default_rng(3)
        gate, value = (jnp.asarray(rng.uniform(-3, 3, (8, 2))) for _ in range(2))

        def combine(a, b):  # type: ignore[no-untyped-def]
            return a[0] * b[0], a[1] * b[0] + b[1]

        def tree(gate, value):  # type: ignore[no-untyped-def]
            return lax.associative_scan(combine, (G.sigmoid(gate), value))[1]

        def chain(gate, value):  # type: ignore[no-untyped-def]
            step = lambda h, one: ((new := G.sigmoid(one[0]) * h + one[1]), new)  # noqa: E731
            return lax.scan(step, jnp.zeros(2), (gate, value))[1]

        def pulled(fn):  # type: ignore[no-untyped-def]
            return jax.jit(lambda *arrays: (fn(*arrays), *jax.grad(lambda *a: fn(*a).sum(), (0, 1))(*arrays)))

        for one, other in zip(pulled(tree)(gate, value), pulled(chain)(gate, value), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=2 * 8 * 8 * 3 * (2 * 8 * 10 + 14) * 2.0**-53)


def test_no_finite_input_makes_a_nan() -> None:
    largest = float(jnp.finfo("float32").max)
    x = jnp.asarray([-largest, -200.0, -88.0, -1e-30, 0.0, 1e-30, 88.0, largest], jnp.float32)
    ones = jnp.ones_like(x)

    def run(x):  # type: ignore[no-untyped-def]
        results = []
        for fn in (G.silu, G.gelu, G.sigmoid, lambda x: G.gelu(x, approximate="tanh"), lambda x: G.swish(x, 1.5)):
            results += [*jax.jvp(fn, (x,), (ones,)), *jax.vjp(fn, x)[1](ones)]
        return results

    with jax.debug_nans(True):
        jax.block_until_ready(jax.jit(run)(x))


def test_the_limits_of_linear_transpose_and_jet_are_those_that_the_page_names() -> None:
    """Not promised: when one of these passes, the page is to say so."""
    from jax.experimental import jet

    x = jnp.ones(3)
    with pytest.raises(AssertionError):
        jax.linear_transpose(lambda value: G.gated_unit(x, value), x)(x)
    with pytest.raises(KeyError, match="remat"):
        jet.jet(G.silu, (x,), ((x, x),))
