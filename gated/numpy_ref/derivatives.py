"""vjp and jvp of every public function, by closed form: nothing here differentiates code.

:mod:`gated.numpy_ref._partials` has the derivatives of the activations, ``_unit_rules`` and ``_projection_rules`` the
product and chain rules written out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gated import contract
from gated.numpy_ref import activations, projections, units
from gated.numpy_ref._arrays import Array, checks
from gated.numpy_ref._projection_rules import Projection
from gated.numpy_ref._unit_rules import Rule, activation_rule, clamped_rule, unit_rule
from gated.numpy_ref.units import split

__all__ = ["jvp", "vjp"]

_FUNCTIONS: dict[str, Callable[..., Array]] = {
    name: getattr(module, name) for module in (activations, units, projections) for name in module.__all__
}
_NAMES: dict[object, str] = {function: name for name, function in _FUNCTIONS.items()}

_PACKED = {"glu": "sigmoid", "bilinear": "identity", "reglu": "relu", "geglu": "gelu", "swiglu": "swish"}


def vjp(
    fn: Callable[..., Array], *primals: Any, **static: Any
) -> tuple[Array, Callable[[Array], tuple[Array | None, ...]]]:
    """The value of ``fn`` and its pullback: cotangent of the value -> cotangents of the primals.

    Args:
        fn: a public function of this backend.
        primals: the arguments to differentiate in, in the order of the signature (``beta`` last, also where a plain
            call takes it by keyword): arrays, a Python number for ``beta``, None for an absent bias.
        static: the other arguments, by keyword; arrays among them are constants.

    The pullback reads the primals again when it is called: they must not be changed in between.

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
    arguments = dict(zip(bound, primals, strict=True)) | static
    value = fn(**arguments)
    arguments = _completed(fn, arguments)
    expected = contract.Seen(value.dtype.name, value.shape)

    def pullback(cotangent: Array) -> tuple[Array | None, ...]:
        checks.cotangent(cotangent, expected)
        cotangents = _pull(name, arguments, cotangent, bound)
        return tuple(cotangents[each] for each in bound)

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
    arguments = dict(zip(bound, primals, strict=True)) | static
    value = fn(**arguments)
    for each, primal, tangent in zip(bound, primals, tangents, strict=True):
        checks.tangent(each, tangent, primal)
    moved = {each: tangent for each, tangent in zip(bound, tangents, strict=True) if tangent is not None}
    return value, _push(name, _completed(fn, arguments), moved)


def _completed(fn: Callable[..., Array], arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call with the defaults filled in."""
    call = inspect.signature(fn).bind(**arguments)
    call.apply_defaults()
    return call.arguments


def _pull(name: str, arguments: dict[str, Any], cotangent: Array, wanted: Sequence[str]) -> dict[str, Array | None]:
    if name.endswith(("_linear", "_ffn")):
        return _projection(name, arguments).pull(cotangent)
    rule = _rule(name, arguments)
    if "axis" not in arguments:
        return {each: rule.pull(each, cotangent) for each in wanted}
    cotangents: dict[str, Array | None] = {}
    x = arguments["x"]
    for each in wanted:
        if each == "x":
            packed: Array = np.empty(x.shape, x.dtype)
            gate, value = _halves(packed, arguments)
            rule.pull("gate", cotangent, out=gate)
            rule.pull("value", cotangent, out=value)
            cotangents["x"] = packed
        else:
            cotangents[each] = rule.pull(each, cotangent)
    return cotangents


def _push(name: str, arguments: dict[str, Any], tangents: dict[str, Any]) -> Array:
    if name.endswith(("_linear", "_ffn")):
        return _projection(name, arguments).push(tangents)
    if "axis" in arguments and "x" in tangents:
        gate, value = _halves(tangents.pop("x"), arguments)
        tangents = {"gate": gate, "value": value} | tangents
    return _rule(name, arguments).push(tangents)


def _halves(x: Array, arguments: dict[str, Any]) -> tuple[Array, Array]:
    return split(x, arguments["axis"] % x.ndim, arguments["layout"])


def _rule(name: str, arguments: dict[str, Any]) -> Rule:
    """The rule of an elementwise function called with ``arguments``."""
    beta = arguments.get("beta", 1.0)
    gelu = "gelu" if arguments.get("approximate", "none") == "none" else "gelu_tanh"
    if name == "gated_unit":
        return unit_rule(arguments["activation"], arguments["gate"], arguments["value"], beta)
    if name == "clamped_swiglu":
        numbers = {each: arguments[each] for each in ("alpha", "limit", "offset")}
        return clamped_rule(*_halves(arguments["x"], arguments), **numbers)
    if name in _PACKED:
        activation = gelu if name == "geglu" else _PACKED[name]
        return unit_rule(activation, *_halves(arguments["x"], arguments), beta)
    activation = {"silu": "swish", "gelu": gelu}.get(name, name)
    return activation_rule(activation, arguments["x"], beta)


def _projection(name: str, arguments: dict[str, Any]) -> Projection:
    """The projected form ``name`` called with ``arguments``."""
    own = {"glu_linear": "sigmoid", "swiglu_linear": "swish"}
    return Projection(
        x=arguments["x"],
        W=arguments["W"],
        V=arguments["V"],
        W2=arguments.get("W2"),
        b=arguments["b"],
        c=arguments["c"],
        b2=arguments.get("b2"),
        activation=own[name] if name in own else arguments["activation"],
        beta=arguments.get("beta", 1.0),
    )
