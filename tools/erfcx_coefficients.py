"""Makes the tables of gated/jax_impl/_normal_tail.py: ``python tools/erfcx_coefficients.py`` prints them.

The function is the scaled tail of the normal distribution, R(x) = exp(x^2 / 2) Phi(-x) = erfcx(x / sqrt 2) / 2, for
0 <= x <= x_max. It falls like 1 / (x sqrt(2 pi)), so (1 + x) R(x) stays between 0.39 and 0.5, and in
u = (x - k) / (x + k), which maps [0, x_max] into [-1, 1), it is close to a polynomial. Taken in x, not in
x / sqrt 2, nothing is rounded before the polynomial.

The polynomial in u interpolates at Chebyshev nodes, in 80 digits; its error is measured between the nodes.
"""

from __future__ import annotations

import argparse

import mpmath as mp

TABLES = (
    # dtype, x_max, k, degree: exp(-x_max^2 / 2) is below every product of three numbers of the dtype.
    ("float32", 32, 3, 12),
    ("float64", 80, 5, 24),
)


def scaled_tail(x: mp.mpf) -> mp.mpf:
    """(1 + x) R(x)."""
    return (1 + x) * mp.erfc(x / mp.sqrt(2)) * mp.exp(x * x / 2) / 2


def interpolant(x_max: int, k: int, degree: int) -> list[mp.mpf]:
    """The coefficients of 1, u, u^2, ... of the polynomial through the Chebyshev nodes of u's range."""
    low, high = mp.mpf(-1), mp.mpf(x_max - k) / (x_max + k)
    nodes = [
        (low + high) / 2 + (high - low) / 2 * mp.cos(mp.pi * (2 * j + 1) / (2 * degree + 2)) for j in range(degree + 1)
    ]
    vandermonde = mp.matrix([[u**power for power in range(degree + 1)] for u in nodes])
    values = mp.matrix([scaled_tail(k * (1 + u) / (1 - u)) for u in nodes])
    return list(mp.lu_solve(vandermonde, values))


def largest_relative_error(coefficients: list[mp.mpf], x_max: int, k: int, points: int = 2000) -> mp.mpf:
    """Over points even in u."""
    high = mp.mpf(x_max - k) / (x_max + k)
    errors = []
    for j in range(points + 1):
        u = -1 + (high + 1) * j / points
        exact = scaled_tail(k * (1 + u) / (1 - u))
        errors.append(abs(mp.polyval(coefficients[::-1], u) / exact - 1))
    return max(errors)


def main() -> None:
    """Prints the tables as they stand in the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=int, default=80, help="working precision")
    mp.mp.dps = parser.parse_args().digits
    print("_TABLES = {")
    for dtype, x_max, k, degree in TABLES:
        coefficients = interpolant(x_max, k, degree)
        error = largest_relative_error(coefficients, x_max, k)
        print(f"    # Relative error 2^{mp.nstr(mp.log(error, 2), 3)}.")
        print(f'    "{dtype}": _Table(\n        {x_max}.0,\n        {k}.0,\n        (')
        for coefficient in coefficients:
            print(f"            {float(coefficient)!r},")
        print("        ),\n    ),")
    print("}")


if __name__ == "__main__":
    main()
