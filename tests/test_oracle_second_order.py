"""Second derivatives: the oracle against numerical differentiation, and the backends' double backward against it."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("flint")
mpmath = pytest.importorskip("mpmath")

from _formulas import FORMULAS, largest_term, mp, mpf  # noqa: E402

from gated.conformance.closed_forms import SECOND_PARTIALS, FloatMath, activation_terms  # noqa: E402
from gated.conformance.error import FORMATS  # noqa: E402
from gated.conformance.oracle import correctly_rounded, exact_sums, unit_terms  # noqa: E402

ORDERS: Final[Mapping[str, tuple[int, int]]] = {"xx": (2, 0), "xbeta": (1, 1), "betabeta": (0, 2)}
QUANTITIES: Final = {"xx": "d_x_x", "xbeta": "d_x_beta", "betabeta": "d_beta_beta"}
POINTS: Final = (-37.5, -9.0, -3.25, -2.399357280520545, -1.4142135623730951, -1.0, -0.001, 0.0, 0.3, 1.278, 4.0, 12.0)
SMOOTH: Final = [(name, partial) for name, partial in FORMULAS if partial in SECOND_PARTIALS and name != "relu"]


def called(activation: str) -> tuple[str, dict[str, Any]]:
    """The public function of an activation."""
    return ("gelu", {"approximate": "tanh"}) if activation == "gelu_tanh" else (activation, {})


@pytest.mark.parametrize(("activation", "partial"), SMOOTH)
def test_the_oracle_is_the_numerical_derivative_of_the_value(activation: str, partial: str) -> None:
    """mpmath differentiates the value of its own formula at 80 digits: neither closed form takes part."""
    value = FORMULAS[activation, "value"]
    function, static = called(activation)
    for x in POINTS:
        for beta in (1.0, -0.7, 3.0) if activation == "swish" else (1.0,):
            inputs = {"x": x, "cotangent": -3.0} | ({"beta": beta} if activation == "swish" else {})
            exact = correctly_rounded(function, QUANTITIES[partial], FORMATS["float64"], inputs, static=static)
            with mp.workdps(80):
                if activation == "swish":
                    numeric = mp.diff(value, (mpf(x), mpf(beta)), ORDERS[partial])
                else:
                    numeric = mp.diff(lambda t: value(t, mpf(1)), mpf(x), 2)
                # Differences of second order with a step of 10^-25 or less.
                scale = max(largest_term(activation, partial, mpf(x), mpf(beta)), mpf(10) ** -60)
                assert abs(mpf(exact.decimal) + 3 * numeric) <= mpf(10) ** -20 * scale, (activation, partial, x, beta)


@pytest.mark.parametrize(("activation", "partial"), [*SMOOTH, ("relu", "xx")])
def test_the_terms_in_float64_are_those_in_balls(activation: str, partial: str) -> None:
    # FloatMath keeps arguments within bounds that gelu_tanh's reaches at about 21.
    x = np.array([*(one for one in POINTS if abs(one) < 20), 20.0, -20.0])
    for beta in (1.0, -1.5, 0.0):
        ones = np.ones_like(x)
        high, _, scale = exact_sums(unit_terms(activation, partial), ones, x, ones, ones * beta)
        terms = np.stack(np.broadcast_arrays(*activation_terms(FloatMath(), activation, partial, x, beta)))
        # As for the first derivatives: a few ulp a function, and e^-t amplifies the rounding of t up to 600 times.
        assert np.all(np.abs(np.max(np.abs(terms), axis=0) - scale) <= 1e-12 * scale)
        assert np.all(np.abs(np.sum(terms, axis=0) - high) <= 1e-12 * scale)


# The backends


def points(dtype: str) -> NDArray[Any]:
    rng = np.random.default_rng(0)
    near, small = rng.uniform(-8, 8, 100), rng.choice([-1, 1], 50) * 2 ** rng.uniform(-20, 4, 50)
    far = rng.uniform(-1, 1, 80) * (80 if dtype == "float32" else 650)
    return np.concatenate([near, small, far, POINTS]).astype(dtype)


def torch_second(
    function: str, static: Mapping[str, Any], x: NDArray[Any], beta: NDArray[Any] | None
) -> dict[str, Any]:
    torch = pytest.importorskip("torch")
    import gated.torch_impl as G

    primals = [torch.tensor(one, requires_grad=True) for one in (x, beta) if one is not None]
    value = getattr(G, function)(*primals, **static)
    first = torch.autograd.grad(value.sum(), primals, create_graph=True)
    rows = [torch.autograd.grad(one.sum(), primals, retain_graph=True) for one in first]
    return named([[entry.numpy() for entry in row] for row in rows])


def jax_second(function: str, static: Mapping[str, Any], x: NDArray[Any], beta: NDArray[Any] | None) -> dict[str, Any]:
    jax = pytest.importorskip("jax")
    import gated.jax_impl as G

    primals = [one for one in (x, beta) if one is not None]

    def total(*primals: Any) -> Any:
        return getattr(G, function)(*primals, **static).sum()

    def slope(i: int) -> Any:
        return lambda *primals: jax.grad(total, i)(*primals).sum()

    with jax.enable_x64(True):
        every = range(len(primals))
        rows = jax.jit(lambda *primals: [jax.grad(slope(i), tuple(every))(*primals) for i in every])(*primals)
        return named([[np.asarray(entry) for entry in row] for row in rows])


def named(rows: list[list[NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """The entries of the Hessian of one element; both mixed ones are there."""
    if len(rows) == 1:
        return {"d_x_x": rows[0][0]}
    return {"d_x_x": rows[0][0], "d_x_beta": rows[0][1], "d_beta_x": rows[1][0], "d_beta_beta": rows[1][1]}


@pytest.mark.parametrize("backend_name", ["torch", "jax"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ["sigmoid", "silu", "gelu", "gelu_tanh", "swish"])
def test_the_backends_second_derivatives_are_those_of_the_oracle(
    activation: str, dtype: str, backend_name: str
) -> None:
    """Within 16 + 4 |t| ulp of the largest term, t the exponential's argument, while e^-|t| is a normal number.

    An argument off by one rounding or two moves e^-t by |t| ulp each, and every term has one such factor, or two of
    which one is near 1; the rest, some ten operations and the exponential, is the 16.
    """
    form = FORMATS[dtype]
    x = points(dtype)
    beta = np.random.default_rng(1).choice([1.0, 0.5, -1.5, 0.1, 3.0], len(x)).astype(dtype)
    wide, z = x.astype(np.float64), x.astype(np.float64) * beta
    t = {"swish": z, "gelu": wide**2 / 2, "gelu_tanh": 1.6 * wide + 0.072 * wide**3}.get(activation, wide)
    inside = np.abs(t) <= (80 if dtype == "float32" else 650)
    assert np.sum(inside) > 100
    x, beta, t = x[inside], beta[inside], t[inside]
    function, static = called(activation)
    second = {"torch": torch_second, "jax": jax_second}[backend_name]
    for quantity, results in second(function, static, x, beta if activation == "swish" else None).items():
        for i, got in enumerate(results):
            inputs = {"x": float(x[i])} | ({"beta": float(beta[i])} if activation == "swish" else {})
            name = "d_x_beta" if quantity == "d_beta_x" else quantity
            exact = correctly_rounded(function, name, form, inputs, static=static)
            assert exact.ulp_exponent is not None and results.dtype == form.dtype
            error = abs(Fraction(float(got)) - Fraction(exact.decimal)) / Fraction(2) ** exact.ulp_exponent
            assert error <= 16 + 4 * abs(float(t[i])), (quantity, inputs, float(got), exact, float(error))
