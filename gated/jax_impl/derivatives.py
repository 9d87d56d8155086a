"""vjp and jvp of every public function, with the names and the checks that all backends share.

They are ``jax.vjp`` and ``jax.jvp`` of the function, whose rules are closed forms (``_rule.py``); the functions also
compose with every transformation of JAX directly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gated import contract
from gated.jax_impl import activations, projections, units
from gated.jax_impl._arrays import Array, Factor, checks, number, see

__all__ = ["jvp", "vjp"]

_NAMES: dict[object, str] = {
    getattr(module, name): name for module in (activations, units, projections) for name in module.__all__
}


def vjp(
    fn: Callable[..., Array], *primals: Any, **static: Any
) -> tuple[Array, Callable[[Array], tuple[Array | None, ...]]]:
    """The value of ``fn`` and its pullback: cotangent of the value -> cotangents of the primals.

    Args:
        fn: a public function of this backend.
        primals: the arguments to differentiate in, in the order of the signature (``beta`` last, also where a plain
            call takes it by keyword): arrays, a Python number for ``beta``, None for an absent bias.
        static: the other arguments, by keyword; arrays among them are constants.

    Returns:
        The value, and a pullback that takes an array of the value's shape and dtype and gives one cotangent a primal,
        of its shape and dtype: for a number, a 0-d array of the arrays' dtype; for None, None.

    Raises:
        TypeError: ``fn`` is no function of this backend, there are too many primals, or an argument is given twice.
            The pullback: the cotangent is no array of the value's dtype.
        ValueError: the pullback: the cotangent has another shape than the value.
    """
    name = checks.differentiable("vjp", fn, _NAMES)
    bound = contract.binding("vjp", name, len(primals), static)
    _check(fn, bound, primals, static)
    call, operands = _on_arrays(fn, bound, primals, static)
    value, pull = jax.vjp(call, *operands)
    seen = see(value)
    assert seen is not None

    def pullback(cotangent: Array) -> tuple[Array | None, ...]:
        checks.cotangent(cotangent, seen)
        cotangents = iter(pull(cotangent.astype(value.dtype)))
        return tuple(
            None if primal is None else _cotangent_of(primal, next(cotangents), primals[0]) for primal in primals
        )

    return value, pullback


def jvp(
    fn: Callable[..., Array], primals: Sequence[Any], tangents: Sequence[Any], **static: Any
) -> tuple[Array, Array]:
    """The value of ``fn`` and its tangent: the derivative along ``tangents``.

    Args:
        fn: a public function of this backend.
        primals: a tuple or list of the arguments to differentiate in, as for :func:`vjp`.
        tangents: one for each primal: an array of its shape and dtype; for a number, a number; for None, None.
        static: the other arguments, by keyword; arrays among them are constants.

    Returns:
        The value and its tangent, of the same shape and dtype.

    Raises:
        TypeError: ``fn`` is no function of this backend, primals and tangents do not match in number or kind, or an
            argument is given twice.
        ValueError: a tangent has another shape than its primal.
    """
    name = checks.differentiable("jvp", fn, _NAMES)
    checks.tangents(primals, tangents)
    bound = contract.binding("jvp", name, len(primals), static)
    _check(fn, bound, primals, static)
    for each, primal, tangent in zip(bound, primals, tangents, strict=True):
        checks.tangent(each, tangent, primal)
    call, operands = _on_arrays(fn, bound, primals, static)
    given = [tangent for tangent in tangents if tangent is not None]
    with np.errstate(over="ignore"):
        directions = [jnp.asarray(each, operand.dtype) for each, operand in zip(given, operands, strict=True)]
    value, tangent = jax.jvp(call, operands, directions)
    return value, tangent


def _check(fn: Callable[..., Array], bound: Sequence[str], primals: Sequence[Any], static: dict[str, Any]) -> None:
    """The errors of the plain call, from its own arguments and without its arithmetic."""
    arguments = dict(zip(bound, primals, strict=True))
    jax.eval_shape(lambda: fn(**arguments, **static))


def _on_arrays(
    fn: Callable[..., Array], bound: Sequence[str], primals: Sequence[Any], static: dict[str, Any]
) -> tuple[Callable[..., Array], list[Array]]:
    """``fn`` as a function of arrays, and the arrays: the primals that are not None, a number as its rounded value."""
    factors = [number(primal, primals[0]) if contract.is_number(primal) else primal for primal in primals]
    operands = [each.rounded if isinstance(each, Factor) else each for each in factors if each is not None]

    def call(*operands: Array) -> Array:
        each = iter(operands)
        arguments = {
            name: next(each) if not isinstance(factor, Factor) else factor._replace(rounded=next(each))
            for name, factor in zip(bound, factors, strict=True)
            if factor is not None
        }
        return fn(**arguments, **static)

    return call, operands


def _cotangent_of(primal: Any, cotangent: Array, first: Array) -> Array:
    return cotangent.astype(first.dtype) if contract.is_number(primal) else cotangent
