"""Makes the tables of gated/jax_impl/_normal_tail.py: ``python tools/erfcx_coefficients.py`` prints them.

The scaled tail of the normal distribution is R(x) = exp(x^2 / 2) Phi(-x) = erfcx(x / sqrt 2) / 2. It is 1/2 at 0 and
falls like 1 / (x sqrt(2 pi)), so 1 / R(x) = 2 + x G(x), where G goes from 4 / sqrt(2 pi) = 1.6 to sqrt(2 pi) = 2.5.
All is positive: nothing cancels, and what is rounded in G has no effect near x = 0. In u = (x - k) / (x + k), which
maps 0 <= x <= x_max into [-1, 1), G is close to a polynomial. Taken in x, not in x / sqrt 2, nothing is rounded
before it.

The polynomial in u interpolates at Chebyshev nodes, in 80 digits; its error is measured between the nodes.
"""

from __future__ import annotations

import argparse

import mpmath as mp

TABLES = (
    # dtype, x_max, k, degree: exp(-x_max^2 / 2) is below every product of three numbers of the dtype.
    ("float32", 32, 2.5, 13),
    ("float64", 80, 4.0, 27),
)


def slope(x: mp.mpf) -> mp.mpf:
    """G(x) = (1 / R(x) - 2) / x, for x > 0."""
    tail = mp.erfc(x / mp.sqrt(2)) * mp.exp(x * x / 2) / 2
    return (1 / tail - 2) / x


def interpolant(x_max: int, k: float, degree: int) -> list[mp.mpf]:
    """The coefficients of 1, u, u^2, ... of the polynomial through the Chebyshev nodes of u's range."""
    low, high = mp.mpf(-1), mp.mpf(x_max - k) / (x_max + k)
    nodes = [
        (low + high) / 2 + (high - low) / 2 * mp.cos(mp.pi * (2 * j + 1) / (2 * degree + 2)) for j in range(degree + 1)
    ]
    vandermonde = mp.matrix([[u**power for power in range(degree + 1)] for u in nodes])
    values = mp.matrix([slope(k * (1 + u) / (1 - u)) for u in nodes])
    return list(mp.lu_solve(vandermonde, values))


def largest_relative_error(coefficients: list[mp.mpf], x_max: int, k: float, points: int = 2000) -> mp.mpf:
    """Of 2 + x G(x), over points even in u; at u = -1, where x is 0, there is none."""
    high = mp.mpf(x_max - k) / (x_max + k)
    errors = []
    for j in range(1, points + 1):
        u = -1 + (high + 1) * j / points
        x = k * (1 + u) / (1 - u)
        errors.append(abs((2 + x * mp.polyval(coefficients[::-1], u)) / (2 + x * slope(x)) - 1))
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
        print(f'    "{dtype}": _Table(\n        {x_max}.0,\n        {k},\n        (')
        for coefficient in coefficients:
            print(f"            {float(coefficient)!r},")
        print("        ),\n    ),")
    print("}")


if __name__ == "__main__":
    main()
