"""What every backend must honour: names, layouts, dtype and shape rules, and the texts of the errors.

Standard library only. A backend tells :class:`Checks` how to see one of its arrays (dtype name, shape) and calls
one check at the head of each public function, before any arithmetic. The rules and the sentences therefore stand
here once, and a wrong input raises the same exception with the same text in NumPy, PyTorch and JAX.

``TypeError``: an argument of the wrong kind (no array of the backend, a dtype that is not allowed, dtypes that differ).
``ValueError``: the right kind with a wrong content (shape, axis, layout, activation, approximation).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple, TypeGuard

__all__ = [
    "ACTIVATIONS",
    "APPROXIMATIONS",
    "ARRAY_PARAMETERS",
    "BACKENDS",
    "DTYPES",
    "LAYOUTS",
    "Backend",
    "Checks",
    "Seen",
    "binding",
    "check_choice",
    "check_features",
    "check_module",
    "check_number",
    "is_number",
    "missing_framework",
    "number_fits",
]

DTYPES: Final = ("float16", "bfloat16", "float32", "float64")
LAYOUTS: Final = ("gate_last", "gate_first", "interleaved")
ACTIVATIONS: Final = ("identity", "sigmoid", "relu", "gelu", "gelu_tanh", "swish")
APPROXIMATIONS: Final = ("none", "tanh")

_PROJECTED: Final = ("x", "W", "V", "b", "c")

ARRAY_PARAMETERS: Final[Mapping[str, tuple[str, ...]]] = {
    "sigmoid": ("x",),
    "swish": ("x", "beta"),
    "silu": ("x",),
    "gelu": ("x",),
    "relu": ("x",),
    "glu": ("x",),
    "bilinear": ("x",),
    "reglu": ("x",),
    "geglu": ("x",),
    "swiglu": ("x", "beta"),
    "clamped_swiglu": ("x",),
    "gated_unit": ("gate", "value", "beta"),
    "glu_linear": _PROJECTED,
    "swiglu_linear": (*_PROJECTED, "beta"),
    "gated_linear": (*_PROJECTED, "beta"),
    "gated_ffn": ("x", "W", "V", "W2", "b", "c", "b2", "beta"),
}
"""Every public function with the parameters it can be differentiated in: the order in which ``vjp`` and ``jvp`` take
primals. ``beta`` stands last, also where a plain call takes it by keyword only."""


class Backend(NamedTuple):
    """A backend: where it is imported from, the distribution it needs, and the extra that installs that."""

    module: str
    requires: str
    extra: str


BACKENDS: Final[Mapping[str, Backend]] = {
    "numpy": Backend("gated.numpy_ref", "numpy", ""),
    "torch": Backend("gated.torch_impl", "torch", "torch"),
    "jax": Backend("gated.jax_impl", "jax", "jax"),
}


def missing_framework(module: str, package: str, extra: str) -> str:
    """The text of the ``ModuleNotFoundError`` for ``module`` when ``package`` is not installed."""
    return (
        f'{module} needs the package {package}, which is not installed; install it with: pip install "gated[{extra}]"'
    )


class Seen(NamedTuple):
    """What a check sees of an array: its dtype's name, its shape, and whether the dtype gives way to the others'.

    A weak integer counts as a Python number: JAX traces one so.
    """

    dtype: str
    shape: tuple[int, ...]
    weak: bool = False


def _one_of(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


_DTYPE_LIST: Final = _one_of(DTYPES)
_FUNCTION_LIST: Final = _one_of(tuple(ARRAY_PARAMETERS))


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _callable_name(fn: object) -> str:
    """Module and name of a function; of anything without a name, its type."""
    name = getattr(fn, "__qualname__", None)
    if name is None:
        return _type_name(fn)
    module = getattr(fn, "__module__", None)
    return name if module is None else f"{module}.{name}"


def is_number(value: object) -> TypeGuard[float]:
    """Whether ``value`` is a Python number, weak beside arrays. A bool is not; neither is a NumPy scalar."""
    return type(value) is float or type(value) is int


def check_choice(function: str, name: str, value: object, choices: Sequence[str]) -> None:
    """Refuses a ``value`` that is none of the ``choices``."""
    if not isinstance(value, str) or value not in choices:
        quoted = _one_of([f'"{choice}"' for choice in choices])
        raise ValueError(f"{function}: {name} must be {quoted}, got {value!r}")


def check_number(function: str, name: str, value: object) -> float:
    """``value`` as a float, or the error of a parameter that takes only Python numbers."""
    if not is_number(value):
        raise TypeError(f"{function}: {name} must be a Python number, got {_type_name(value)}")
    return _as_float(function, name, value)


def _as_float(function: str, name: str, value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:
        raise ValueError(f"{function}: {name} must fit in a float, got an integer of more than 1024 bits") from None


# The exponents of the compute dtypes' normal numbers: float64 for float64, float32 for the others.
_EXPONENTS: Final = {"float64": (-1022, 1024)}
_FLOAT32_EXPONENTS: Final = (-126, 128)


def number_fits(value: float, dtype: str) -> bool:
    """Whether a Python number keeps its value in the dtype that is computed in beside arrays of ``dtype``.

    0, infinities and nan do; others must be of the magnitude of normal numbers.
    """
    try:
        number = float(value)
    except OverflowError:
        return False
    lowest, end = _EXPONENTS.get(dtype, _FLOAT32_EXPONENTS)
    return number == 0 or not math.isfinite(number) or lowest <= math.frexp(number)[1] - 1 < end


def _check_fits(function: str, name: str, value: object, dtype: str) -> None:
    number = _as_float(function, name, value)
    if not number_fits(number, dtype):
        lowest, end = _EXPONENTS.get(dtype, _FLOAT32_EXPONENTS)
        raise ValueError(
            f"{function}: {name} must be 0 or of a magnitude from 2**{lowest} to 2**{end} beside {dtype}, "
            f"got {number!r}"
        )


# Modules: what they check at construction and at the call

_RECOMPUTE: Final = ("product", "all")


def check_module(
    module: str,
    *,
    beta: object = 1.0,
    learn_beta: bool = False,
    activation: object = "swish",
    layout: object = "gate_last",
    recompute: object = "product",
) -> None:
    """The arguments of a module's constructor that are no sizes.

    Raises:
        TypeError: beta is no Python number.
        ValueError: the activation, the layout or ``recompute`` is unknown, or beta is to be learned for an activation
            that has none.
    """
    check_choice(module, "activation", activation, ACTIVATIONS)
    check_choice(module, "layout", layout, LAYOUTS)
    check_number(module, "beta", beta)
    if learn_beta and activation != "swish":
        raise ValueError(f'{module}: learn_beta=True needs activation "swish", got {activation!r}')
    check_choice(module, "recompute", recompute, _RECOMPUTE)


def check_features(module: str, shape: Sequence[int], in_features: int) -> None:
    """The last axis of a module's input has the size that the module was made for.

    Raises:
        ValueError: it has not, or there is no axis.
    """
    if len(shape) == 0 or shape[-1] != in_features:
        raise ValueError(f"{module}: x must have shape (..., {in_features}), got {tuple(shape)}")


def broadcasts_into(shape: Sequence[int], target: Sequence[int]) -> bool:
    """Whether an array of ``shape`` broadcasts to ``target`` without enlarging it."""
    if len(shape) > len(target):
        return False
    return all(size in (1, wanted) for size, wanted in zip(reversed(shape), reversed(target), strict=False))


def binding(caller: str, function: str, count: int, static: Mapping[str, object]) -> tuple[str, ...]:
    """The parameters of ``function`` that ``count`` primals of ``vjp`` or ``jvp`` bind, in order.

    Raises:
        TypeError: there are no primals or too many, or one is given again by keyword.
    """
    names = ARRAY_PARAMETERS[function]
    if not 1 <= count <= len(names):
        upto = "1 primal" if len(names) == 1 else f"1 to {len(names)} primals"
        raise TypeError(f"{caller}: {function} takes {upto} ({', '.join(names)}), got {count}")
    for name in names[:count]:
        if name in static:
            raise TypeError(f"{caller}: {name} of {function} must be a primal or a keyword, got both")
    return names[:count]


class Checks:
    """The checks of one backend.

    Args:
        see: gives the :class:`Seen` of an array of the backend, and None for anything else.
    """

    def __init__(self, see: Callable[[object], Seen | None]) -> None:
        self._see = see

    # One argument

    def array(self, function: str, name: str, value: object) -> Seen:
        """``value`` seen as an array of an allowed dtype.

        Raises:
            TypeError: it is no array of this backend, or of another dtype.
        """
        seen = self._see(value)
        if seen is None:
            raise TypeError(
                f"{function}: {name} must be an array of this backend with dtype {_DTYPE_LIST}, got {_type_name(value)}"
            )
        if seen.dtype not in DTYPES:
            raise TypeError(f"{function}: {name} must have dtype {_DTYPE_LIST}, got {seen.dtype}")
        return seen

    def arrays(self, function: str, **values: object) -> list[Seen]:
        """The named arrays, the first of which gives the dtype that all must have."""
        seen = [self.array(function, name, value) for name, value in values.items()]
        first, *others = values
        for name, one in zip(others, seen[1:], strict=True):
            self._same_dtype(function, name, one, first, seen[0])
        return seen

    def _same_dtype(self, function: str, name: str, seen: Seen, first: str, expected: Seen) -> None:
        if seen.dtype != expected.dtype and not seen.weak:
            raise TypeError(f"{function}: {name} must have the dtype of {first}, {expected.dtype}, got {seen.dtype}")

    def _beta_kind(self, function: str, beta: object, first: str, expected: Seen) -> tuple[int, ...]:
        """The shape of beta, a Python number or an array of the dtype of ``first``."""
        if is_number(beta):
            _check_fits(function, "beta", beta, expected.dtype)
            return ()
        seen = self._see(beta)
        if seen is None:
            raise TypeError(
                f"{function}: beta must be a Python number or an array of this backend with dtype {_DTYPE_LIST}, "
                f"got {_type_name(beta)}"
            )
        if seen.dtype not in DTYPES and not (seen.weak and seen.dtype.startswith("int")):
            raise TypeError(f"{function}: beta must have dtype {_DTYPE_LIST}, got {seen.dtype}")
        self._same_dtype(function, "beta", seen, first, expected)
        return seen.shape

    @staticmethod
    def _beta_shape(function: str, shape: tuple[int, ...], target: tuple[int, ...]) -> None:
        if shape and not broadcasts_into(shape, target):
            raise ValueError(
                f"{function}: beta must broadcast to the shape of the gate, {tuple(target)}, without enlarging it, "
                f"got {tuple(shape)}"
            )

    # The families of functions

    def unary(self, function: str, x: object) -> Seen:
        """An activation of ``x`` alone."""
        return self.array(function, "x", x)

    def gelu(self, function: str, x: object, approximate: object) -> Seen:
        """``gelu(x, approximate=...)``."""
        seen = self.array(function, "x", x)
        check_choice(function, "approximate", approximate, APPROXIMATIONS)
        return seen

    def swish(self, function: str, x: object, beta: object) -> Seen:
        """``swish(x, beta)``: x is the gate that beta broadcasts to."""
        seen = self.array(function, "x", x)
        shape = self._beta_kind(function, beta, "x", seen)
        self._beta_shape(function, shape, seen.shape)
        return seen

    def packed(
        self,
        function: str,
        x: object,
        *,
        axis: object,
        layout: object,
        beta: object = 1.0,
        approximate: object = "none",
    ) -> int:
        """A unit on one packed array. Returns the axis as a non-negative int."""
        seen = self.array(function, "x", x)
        beta_shape = self._beta_kind(function, beta, "x", seen)
        if isinstance(axis, bool):
            raise TypeError(f"{function}: axis must be an int, got bool")
        try:
            position = operator.index(axis)  # type: ignore[arg-type]
        except TypeError:
            raise TypeError(f"{function}: axis must be an int, got {_type_name(axis)}") from None
        check_choice(function, "approximate", approximate, APPROXIMATIONS)
        check_choice(function, "layout", layout, LAYOUTS)
        rank = len(seen.shape)
        if rank == 0:
            raise ValueError(f"{function}: x must have an axis to split in two, got a 0-d array")
        if not -rank <= position < rank:
            raise ValueError(
                f"{function}: axis must be from {-rank} to {rank - 1} for x of shape {tuple(seen.shape)}, "
                f"got {position}"
            )
        position %= rank
        size = seen.shape[position]
        if size % 2:
            raise ValueError(
                f"{function}: x must have an even size along axis {position}, got {size} in shape {tuple(seen.shape)}"
            )
        half = (*seen.shape[:position], size // 2, *seen.shape[position + 1 :])
        self._beta_shape(function, beta_shape, half)
        return position

    def clamped(
        self, function: str, x: object, *, alpha: object, limit: object, offset: object, axis: object, layout: object
    ) -> int:
        """``clamped_swiglu``: its three parameters are Python numbers. Returns the axis as a non-negative int."""
        seen = self.array(function, "x", x)
        numbers = {
            name: check_number(function, name, value)
            for name, value in (("alpha", alpha), ("limit", limit), ("offset", offset))
        }
        for name in ("alpha", "offset"):
            if not math.isfinite(numbers[name]):
                raise ValueError(f"{function}: {name} must be finite, got {numbers[name]!r}")
        if not numbers["limit"] >= 0:
            raise ValueError(f"{function}: limit must be at least 0, got {numbers['limit']!r}")
        for name, value in numbers.items():
            _check_fits(function, name, value, seen.dtype)
        return self.packed(function, x, axis=axis, layout=layout)

    def pair(self, function: str, gate: object, value: object, *, activation: object, beta: object) -> Seen:
        """``gated_unit``: a gate and a value of equal shape, no broadcasting."""
        seen_gate, seen_value = self.arrays(function, gate=gate, value=value)
        beta_shape = self._beta_kind(function, beta, "gate", seen_gate)
        check_choice(function, "activation", activation, ACTIVATIONS)
        if tuple(seen_value.shape) != tuple(seen_gate.shape):
            raise ValueError(
                f"{function}: value must have the shape of gate, {tuple(seen_gate.shape)}, "
                f"got {tuple(seen_value.shape)}"
            )
        self._beta_shape(function, beta_shape, seen_gate.shape)
        return seen_gate

    def projected(
        self,
        function: str,
        *,
        x: object,
        W: object,
        V: object,
        b: object,
        c: object,
        activation: object = "swish",
        beta: object = 1.0,
        W2: object = None,
        b2: object = None,
    ) -> Seen:
        """``gated_linear`` and its like; with ``W2`` given, ``gated_ffn``."""
        given = {"x": x, "W": W, "V": V}
        if function == "gated_ffn":
            given["W2"] = W2
        given |= {name: bias for name, bias in (("b", b), ("c", c), ("b2", b2)) if bias is not None}
        seen = dict(zip(given, self.arrays(function, **given), strict=True))
        beta_shape = self._beta_kind(function, beta, "x", seen["x"])
        check_choice(function, "activation", activation, ACTIVATIONS)

        # The texts are made when they are needed: a compiler takes a size that is written out for a constant.
        def expect(name: str, fits: bool, meaning: Callable[[], str]) -> None:
            if not fits:
                raise ValueError(f"{function}: {name} must have shape {meaning()}, got {tuple(seen[name].shape)}")

        shape = seen["x"].shape
        expect("x", len(shape) >= 1, lambda: "(..., d_in)")
        d_in = shape[-1]
        w_shape = tuple(seen["W"].shape)
        fits = len(w_shape) == 2 and w_shape[0] == d_in
        expect("W", fits, lambda: f"(d_in, d_hidden) with d_in = {d_in}, the last axis of x")
        d_hidden = w_shape[1]
        expect("V", tuple(seen["V"].shape) == w_shape, lambda: f"{w_shape}, that of W")
        widths = {"b": ("d_hidden", d_hidden), "c": ("d_hidden", d_hidden)}
        if "W2" in seen:
            w2_shape = tuple(seen["W2"].shape)
            fits = len(w2_shape) == 2 and w2_shape[0] == d_hidden
            expect("W2", fits, lambda: f"(d_hidden, d_out) with d_hidden = {d_hidden}, the last axis of W")
            widths["b2"] = ("d_out", w2_shape[1])
        for name, (letter, width) in widths.items():
            if name in seen:
                meaning = partial("({0},) with {0} = {1}".format, letter, width)
                expect(name, tuple(seen[name].shape) == (width,), meaning)
        self._beta_shape(function, beta_shape, (*shape[:-1], d_hidden))
        return seen["x"]

    # Derivatives

    def differentiable(self, caller: str, fn: object, names: Mapping[object, str]) -> str:
        """The name of ``fn``, one of the backend's public functions.

        Raises:
            TypeError: ``fn`` is anything else.
        """
        try:
            return names[fn]
        except (KeyError, TypeError):
            came = _callable_name(fn)
            raise TypeError(
                f"{caller}: fn must be a function of this backend, one of {_FUNCTION_LIST}, got {came}"
            ) from None

    def cotangent(self, cotangent: object, value: Seen) -> None:
        """The cotangent given to a pullback: an array like the value."""
        self._like("vjp", "the cotangent", cotangent, "the value", value)

    def tangents(self, primals: object, tangents: object) -> None:
        """The containers given to ``jvp``: tuples or lists of one length."""
        for name, value in (("primals", primals), ("tangents", tangents)):
            if not isinstance(value, tuple | list):
                raise TypeError(f"jvp: {name} must be a tuple or a list, got {_type_name(value)}")
        if len(primals) != len(tangents):  # type: ignore[arg-type]
            raise TypeError(
                f"jvp: tangents must be as many as the primals, {len(primals)}, got {len(tangents)}"  # type: ignore[arg-type]
            )

    def tangent(self, name: str, tangent: object, primal: object) -> None:
        """One tangent: an array like its primal; for a Python number, a number; for None, None."""
        if primal is None:
            if tangent is not None:
                raise TypeError(f"jvp: the tangent of {name} must be None, as {name} is, got {_type_name(tangent)}")
        elif is_number(primal):
            if not is_number(tangent):
                raise TypeError(
                    f"jvp: the tangent of {name} must be a Python number, as {name} is, got {_type_name(tangent)}"
                )
            _as_float("jvp", f"the tangent of {name}", tangent)
        else:
            self._like("jvp", f"the tangent of {name}", tangent, name, self.array("jvp", name, primal))

    def _like(self, function: str, name: str, value: object, model: str, seen_model: Seen) -> None:
        seen = self.array(function, name, value)
        self._same_dtype(function, name, seen, model, seen_model)
        if tuple(seen.shape) != tuple(seen_model.shape):
            raise ValueError(
                f"{function}: {name} must have the shape of {model}, {tuple(seen_model.shape)}, got {tuple(seen.shape)}"
            )
