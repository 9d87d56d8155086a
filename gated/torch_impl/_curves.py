"""The activations, their slopes and their beta-slopes as real numbers (:class:`Scaled`), one exponential each.

The tensors are of the compute dtype. With z = beta x, E = e^-|z| and s = sigmoid(z):

    s = 1 / (1 + E) for z >= 0,  E / (1 + E) for z < 0

and no factor is rounded to the dtype's range before the product is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

import torch
from torch import Tensor

from ._arrays import Factor
from ._normal_tail import MIDDLE, middle, tail_ratio
from ._scaled import FORMATS, Scaled, decay, power_of_two, select, sign_mask
from ._words import Word, halves, parts, product, total_of_two

__all__ = [
    "CURVES",
    "GELU_TANH_CUBIC",
    "GELU_TANH_CUBIC_REST",
    "GELU_TANH_SCALE",
    "GELU_TANH_SCALE_REST",
    "Curve",
    "argument",
]

# 2 sqrt(2 / pi) and 0.044715 times it, and what these float64 numbers lack, computed with mpmath at 300 bits.
GELU_TANH_SCALE: Final = 1.5957691216057308
GELU_TANH_CUBIC: Final = 0.07135481627260025
GELU_TANH_SCALE_REST: Final = -9.96930880911092e-17
GELU_TANH_CUBIC_REST: Final = -6.175149918155315e-19
_PHI_0: Final = 1 / math.sqrt(2 * math.pi)


class Curve:
    """An activation A(x; beta) at a point: its value and its derivatives in x and beta.

    Of x's two parts the lower one counts where e^-|z| magnifies it, and is dropped elsewhere.
    """

    linear = False
    """Whether the second derivative is zero wherever it is defined."""

    def __init__(self, x: Word, beta: Factor) -> None:
        self.x = x.high

    def value(self) -> Scaled:
        raise NotImplementedError

    def slope(self) -> Scaled:
        raise NotImplementedError

    def beta_slope(self) -> Scaled | None:
        """None where the activation does not depend on beta."""
        return None


# Sigmoid and swish


def argument(x: Word, beta: float | Tensor) -> Word:
    """z = beta x, where a zero times an infinity is 0, and a product of finite numbers that overflows stays finite.

    Rounded once, z would cost e^z up to |z| half units in its last place: the rest is carried, where e^-|z| is not
    negligible beside any factor.
    """
    form = FORMATS[x.high.dtype]
    z, rest = _tensor_argument(x, beta) if isinstance(beta, Tensor) else _number_argument(x, beta)
    if rest is not None:
        rest = torch.where((z.abs() <= form.farthest) & rest.isfinite(), rest, torch.zeros_like(rest))
    return Word(z, rest)


def _number_argument(x: Word, beta: float) -> Word:
    high, low = x
    largest = FORMATS[high.dtype].largest
    if beta == 1:
        return x
    if beta == 0:
        return Word(high.clamp(0, 0))  # nan stays nan
    if math.isinf(beta):
        return Word(torch.where(high == 0, high, high * beta))
    number = parts(beta, high.dtype)
    z, rest = product(high, number.high)
    if number.low:
        rest = rest + high * number.low
    if low is not None:
        rest = rest + low * number.high
    infinite = high - high.clamp(-largest, largest)
    return Word(z.clamp(-largest, largest) + math.copysign(1, beta) * infinite, rest)


def _tensor_argument(x: Word, beta: Tensor) -> Word:
    high, low = x
    largest = FORMATS[high.dtype].largest
    b = beta.to(high.dtype)
    z, rest = product(high, b)
    if beta.dtype != high.dtype:  # a number that is differentiated is wider
        rest = rest + high * (beta - b.to(beta.dtype)).to(high.dtype)
    if low is not None:
        rest = rest + low * b
    z = z.clamp(-largest, largest)
    infinite = (high.isinf() & (b != 0)) | (b.isinf() & (high != 0))
    z = torch.where(infinite & ~z.isnan(), torch.sign(b) * torch.sign(high) * math.inf, z)
    return Word(torch.where((high == 0) & ~b.isnan() | (b == 0) & ~high.isnan(), torch.zeros_like(z), z), rest)


class _Logistic(NamedTuple):
    """sigmoid(z) with what its derivatives need."""

    s: Scaled
    complement: Tensor
    """1 - s as a float, which may underflow."""
    slope: Scaled
    """s (1 - s)"""


def _logistic(argument: Word) -> _Logistic:
    z, rest = argument
    mantissa, exponent = decay(z.abs(), None if rest is None else rest * torch.sign(z))
    assert exponent is not None
    # Below 2^-126 (2^-1022) E is lost beside 1.
    e = mantissa * power_of_two(exponent.clamp_min(1 - FORMATS[z.dtype].bias), z.dtype)
    d = 1.0 + e
    negative = sign_mask(z)
    return _Logistic(
        s=Scaled(select(negative, mantissa) / d, exponent & negative),
        complement=select(~negative, e) / d,
        slope=Scaled(mantissa / (d * d), exponent),
    )


def _near(z: Tensor) -> Tensor:
    """z cut to where e^-|z| is already negligible beside any factor: finite, so that its products are."""
    farthest = FORMATS[z.dtype].farthest
    return z.clamp(-farthest, farthest)


def _finite_where_zero(x: Tensor, z: Tensor, beta: float | Tensor) -> Tensor:
    """``x`` with a finite number of its sign where sigmoid(z) is zero: the limit of their product is a zero."""
    largest = FORMATS[x.dtype].largest
    if isinstance(beta, Tensor):
        return torch.where(z == -math.inf, x.clamp(-largest, largest), x)
    if beta > 0:
        return x.clamp_min(-largest)
    return x.clamp_max(largest) if beta < 0 else x


def _unsigned_zero(slope: Tensor) -> Tensor:
    """``slope`` with +0 for a zero: a sum that tends to 0 at -infinity has no sign of its own."""
    return torch.where(slope == 0, torch.zeros_like(slope), slope)


class Sigmoid(Curve):
    """s(x)"""

    def __init__(self, x: Word, beta: Factor) -> None:
        self.logistic = _logistic(x)

    def value(self) -> Scaled:
        return self.logistic.s

    def slope(self) -> Scaled:
        return self.logistic.slope


class Swish(Curve):
    """x s(beta x)"""

    def __init__(self, x: Word, beta: Factor) -> None:
        assert beta is not None
        self.x, self.beta = x.high, beta
        argument_ = argument(x, beta)
        self.z = argument_.high
        self.logistic = _logistic(argument_)

    def value(self) -> Scaled:
        return self.logistic.s.times(_finite_where_zero(self.x, self.z, self.beta))

    def slope(self) -> Scaled:
        """s + z s (1 - s)"""
        (s, exponent), complement, _ = self.logistic
        return Scaled(_unsigned_zero(s * (1.0 + _near(self.z) * complement)), exponent)

    def beta_slope(self) -> Scaled:
        """x^2 s (1 - s)"""
        x = torch.where(self.z.isinf(), torch.zeros_like(self.x), self.x)
        return self.logistic.slope.times(x, x)


# GELU


class Gelu(Curve):
    """x Phi(x), Phi the distribution function of the standard normal distribution"""

    def __init__(self, argument: Word, beta: Factor) -> None:
        x = self.x = argument.high
        form = FORMATS[x.dtype]
        magnitude = x.abs()
        # Beyond this, e^(-y^2 / 2) is negligible beside any factor; infinity alone makes it a zero.
        y = magnitude.clamp_max(math.sqrt(2 * form.farthest))
        infinite = magnitude - magnitude.clamp_max(form.largest)
        high, _ = halves(y)  # its square is exact
        mantissa, exponent = decay(0.5 * high * high + infinite, low=0.5 * (y - high) * (y + high))
        assert exponent is not None
        e = mantissa * power_of_two(exponent.clamp_min(1 - form.bias), x.dtype)
        ratio = tail_ratio(y)
        negative = sign_mask(x)
        tail = select(negative, mantissa * ratio, 1.0 - e * ratio)
        # In the middle the exponent is 0.
        self.cdf = Scaled(torch.where(y < MIDDLE, middle(x.clamp(-MIDDLE, MIDDLE)), tail), exponent & negative)
        self.x_density = _PHI_0 * y * select(negative, -mantissa, e)
        """x phi(x) with the exponent of ``cdf``."""

    def value(self) -> Scaled:
        return self.cdf.times(self.x.clamp_min(-FORMATS[self.x.dtype].largest))

    def slope(self) -> Scaled:
        """Phi(x) + x phi(x)"""
        return Scaled(_unsigned_zero(self.cdf.mantissa + self.x_density), self.cdf.exponent)


def _gelu_tanh_argument(x: Tensor) -> tuple[Tensor, Tensor]:
    """w = x (scale + cubic x^2), with the rest: rounded once, w would cost e^w up to |w| half units."""
    scale, cubic = parts(GELU_TANH_SCALE, x.dtype), parts(GELU_TANH_CUBIC, x.dtype)
    square, square_rest = product(x, x)
    bent, bent_rest = product(square, cubic.high)
    bent_rest = bent_rest + square_rest * cubic.high + square * (cubic.low + GELU_TANH_CUBIC_REST)
    slope, slope_rest = total_of_two(bent, x.new_full((), scale.high))
    slope_rest = slope_rest + bent_rest + (scale.low + GELU_TANH_SCALE_REST)
    w, rest = product(x, slope)
    return w, rest + x * slope_rest


class GeluTanh(Curve):
    """x s(w), w = 2 sqrt(2 / pi) (x + 0.044715 x^3), which is x (1 + tanh(w / 2)) / 2"""

    def __init__(self, argument: Word, beta: Factor) -> None:
        x = self.x = argument.high
        form = FORMATS[x.dtype]
        # Far beyond where e^-|w| is negligible beside any factor, and the cube in range.
        near = x.clamp(-math.sqrt(form.farthest), math.sqrt(form.farthest))
        infinite = x - x.clamp(-form.largest, form.largest)
        square = near * near
        w, rest = _gelu_tanh_argument(near)
        self.logistic = _logistic(Word(w + infinite, rest))
        self.x_w_slope = near * (square * (3 * GELU_TANH_CUBIC) + GELU_TANH_SCALE)
        """x w'(x)"""

    def value(self) -> Scaled:
        return self.logistic.s.times(self.x.clamp_min(-FORMATS[self.x.dtype].largest))

    def slope(self) -> Scaled:
        """s + x w' s (1 - s)"""
        (s, exponent), complement, _ = self.logistic
        return Scaled(_unsigned_zero(s * (1.0 + self.x_w_slope * complement)), exponent)


# Piecewise linear


class Identity(Curve):
    """x"""

    linear = True

    def value(self) -> Scaled:
        return Scaled(self.x)

    def slope(self) -> Scaled:
        return Scaled(torch.ones_like(self.x))


class Relu(Curve):
    """max(x, 0), whose slope at 0 is taken as 0"""

    linear = True

    def value(self) -> Scaled:
        return Scaled(torch.where(self.x < 0, torch.zeros_like(self.x), self.x))

    def slope(self) -> Scaled:
        return Scaled(torch.where(self.x.isnan(), self.x, (self.x > 0).to(self.x.dtype)))


CURVES: Final[Mapping[str, type[Curve]]] = {
    "identity": Identity,
    "sigmoid": Sigmoid,
    "relu": Relu,
    "gelu": Gelu,
    "gelu_tanh": GeluTanh,
    "swish": Swish,
}
