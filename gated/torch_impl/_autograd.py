"""The gated forms under automatic differentiation: one entry, :func:`apply`.

P is differentiated by closed forms, in every mode and order. Three Functions carry them, and each saves its inputs
alone. With c a cotangent, t and u tangents, and H the second derivatives of P:

    ==============  ===========  =====================  ==========================
    Function        computes     backward               jvp
    ==============  ===========  =====================  ==========================
    _Value          P            _Pullback              _Pushforward
    _Pullback       c grad P     _Pushforward, c H t    _Pullback, c H u
    _Pushforward    grad P . t   _Pullback, c H t       _Pushforward, (H t) . u
    ==============  ===========  =====================  ==========================

c H t is written in plain operations on _Derivative, whose derivative is itself of a higher order; a jvp wraps such
operations in :func:`plain`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from . import _cpu, _forms, kernels
from ._arrays import Factor
from ._distributed import dtensor_rules, is_distributed
from ._forms import IN_BETA, IN_VALUE, IN_X, Form, pushforward, total, wide
from ._higher import derivative
from ._plain import TypedFunction, is_transformed, plain, solid

__all__ = ["apply"]


# What the Functions share


def _evaluate(form: Form, x: Tensor, value: Tensor | None, beta: Factor) -> Tensor:
    """P, by the arithmetic for its device and mode"""
    if is_distributed(x):
        result: Tensor = dtensor_rules().evaluate(_evaluate, form, x, value, beta)
        return result
    if _cpu.is_plain(x, value, beta):
        return _cpu.evaluate(form, x, value, beta)
    evaluate = kernels.evaluate if kernels.serve(x, value, beta) else _forms.evaluate
    return evaluate(form, x, value, beta)


def _pullback(
    form: Form, wanted: str, cotangent: Tensor, x: Tensor, value: Tensor | None, beta: Factor
) -> tuple[Tensor, ...]:
    """c grad P, by the arithmetic for its device and mode"""
    if is_distributed(x):
        results: tuple[Tensor, ...] = dtensor_rules().pullback(_pullback, form, wanted, cotangent, x, value, beta)
        return results
    if _cpu.is_plain(cotangent, x, value, beta):
        return _cpu.pullback(form, wanted, cotangent, x, value, beta)
    pullback = kernels.pullback if kernels.serve(cotangent, x, value, beta) else _forms.pullback
    return pullback(form, wanted, cotangent, x, value, beta)


def _keep(ctx: Any, *operands: Any, needless: Tensor | None = None) -> None:
    """Saves the operands: tensors as autograd wants it, but for the one that backward needs not; others as they are."""
    ctx.set_materialize_grads(False)
    tensors = [operand if isinstance(operand, Tensor) else None for operand in operands]
    ctx.others = [None if isinstance(operand, Tensor) else operand for operand in operands]
    ctx.save_for_backward(*(None if tensor is needless else tensor for tensor in tensors))
    ctx.save_for_forward(*tensors)


def _spared(form: Form, needs: Sequence[bool]) -> int | None:
    """The place of the operand of a pair that the only gradient wanted, c A' v or c A, does not depend on."""
    if form.axis is None and needs == (False, True, False):
        return 1
    return 0 if form == Form("identity") and needs == (True, False, False) else None


def _kept(ctx: Any) -> list[Any]:
    return [other if tensor is None else tensor for tensor, other in zip(ctx.saved_tensors, ctx.others, strict=True)]


_ORDER: Final = (IN_X, IN_VALUE, IN_BETA)


def _wanted(needs: Sequence[bool], *operands: Any) -> str:
    """Which of x, value and beta are differentiated."""
    wanted = ""
    for name, need, one in zip(_ORDER, needs, operands, strict=True):
        if need and isinstance(one, Tensor):
            wanted += name
    return wanted


def _spread(wanted: str, results: Sequence[Tensor | None]) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The results for ``wanted`` in the places of x, value and beta."""
    in_x = in_value = in_beta = None
    for name, result in zip(wanted, results, strict=True):
        if name == IN_X:
            in_x = result
        elif name == IN_VALUE:
            in_value = result
        else:
            in_beta = result
    return in_x, in_value, in_beta


def _batch(info: Any, form: Form, operands: Sequence[Any], dims: Sequence[int | None]) -> tuple[Form, list[Any]]:
    """The operands with the batch as their first axis and with the rank of the first, ``x``; the form for them.

    None is left out: then the gradient of a beta that is the same for all examples stays one of each example.
    """
    rank = operands[0].dim() - (dims[0] is not None)
    batched = []
    for operand, dim in zip(operands, dims, strict=True):
        if isinstance(operand, Tensor):
            operand = operand.resolve_neg()  # forward AD cannot expand a view that has its sign in a flag
            rows = operand.expand(info.batch_size, *operand.shape) if dim is None else operand.movedim(dim, 0)
            size, *shape = rows.shape
            operand = rows.reshape(size, *[1] * (rank - len(shape)), *shape)
        batched.append(operand)
    return form if form.axis is None else form._replace(axis=form.axis + 1), batched


def _shape(operand: Tensor, dim: int | None) -> list[int]:
    """The shape of one example."""
    return [size for axis, size in enumerate(operand.shape) if axis != dim]


class _Derivative(TypedFunction):
    """The derivative of A(x; beta) of any order; x and a tensor beta of one shape."""

    @staticmethod
    def forward(activation: str, order: int, beta_order: int, x: Tensor, beta: Factor) -> Tensor:
        if is_distributed(x):
            result: Tensor = dtensor_rules().derivative(derivative, activation, order, beta_order, x, beta)
            return result
        return derivative(activation, order, beta_order, x, beta)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.which = inputs[:3]
        _keep(ctx, *inputs[3:])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        (c,) = cotangents
        _, _, _, in_x, in_beta = ctx.needs_input_grad
        along = c if in_x else None, c if in_beta else None
        activation, order, beta_order = ctx.which
        x, beta = _kept(ctx)
        return None, None, None, *_slopes(activation, order, beta_order, x, beta, *along)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        activation, order, beta_order = ctx.which

        def along(x: Tensor, beta: Factor, in_x: Tensor | None, in_beta: Tensor | None) -> tuple[Tensor]:
            result = total(_slopes(activation, order, beta_order, x, beta, in_x, in_beta))
            assert result is not None
            return (result,)

        return plain(along, *_kept(ctx), *tangents[3:])[0]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, int]:
        _, operands = _batch(info, Form(inputs[0]), inputs[3:], in_dims[3:])
        return _Derivative.apply(*inputs[:3], *operands), 0


def _slopes(
    activation: str, order: int, beta_order: int, x: Tensor, beta: Factor, in_x: Tensor | None, in_beta: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """``in_x`` and ``in_beta`` times the derivatives of _Derivative in x and in beta."""
    return (
        None if in_x is None else in_x * _Derivative.apply(activation, order + 1, beta_order, x, beta),
        None if in_beta is None else in_beta * _Derivative.apply(activation, order, beta_order + 1, x, beta),
    )


def _second(
    form: Form,
    wanted: str,
    cotangent: Tensor | None,
    tangents: Sequence[Tensor | None],
    x: Tensor,
    value: Tensor | None,
    beta: Factor,
) -> list[Tensor]:
    """c H t for those of x, value and beta that are wanted; c is 1 where the cotangent is None."""
    narrow_gate, narrow_value = form.split(x, value)
    gate = wide(narrow_gate)
    # A beta that was a Python number is wider than what is computed in.
    t_gate, t_value, t_beta = (None if t is None else t.to(gate.dtype) for t in form.parts(tangents))
    full_beta = beta.to(gate.dtype).resolve_neg().expand_as(gate) if isinstance(beta, Tensor) else beta
    b = b_slope = None
    if narrow_value is not None:
        b, b_slope = form.value_factor(wide(narrow_value)), form.value_mask(wide(narrow_value))
    if form.activation != "swish":
        t_beta = None

    def term(t: Tensor | None, order: int, beta_order: int, factor: Tensor | None) -> Tensor | None:
        """c t times a derivative of A times B or B'"""
        if t is None or (order > 1 and form.activation == "identity"):
            return None
        result: Tensor = t * _Derivative.apply(
            form.activation, order, beta_order, form.clamped_gate(gate).high, full_beta
        )
        mask = form.gate_mask(gate) if order else None
        for other in (mask, factor, None if cotangent is None else wide(cotangent)):
            result = result if other is None else result * other
        return result

    def along_gate() -> Tensor | None:
        return total([term(t_gate, 2, 0, b), term(t_value, 1, 0, b_slope), term(t_beta, 1, 1, b)])

    def along_value() -> Tensor | None:
        return total([term(t_gate, 1, 0, b_slope), term(t_beta, 0, 1, b_slope)])

    def along_beta() -> Tensor | None:
        if form.activation != "swish":
            return None
        return total([term(t_gate, 1, 1, b), term(t_value, 0, 1, b_slope), term(t_beta, 0, 2, b)])

    def narrowed(result: Tensor | None, like: Tensor) -> Tensor:
        return torch.zeros_like(like) if result is None else result.to(like.dtype)

    results = []
    if IN_X in wanted:
        part = narrowed(along_gate(), narrow_gate)
        if form.axis is not None:
            assert narrow_value is not None
            part = form.join(part, narrowed(along_value(), narrow_value))
        results.append(part)
    if IN_VALUE in wanted:
        assert value is not None
        results.append(narrowed(along_value(), value))
    if IN_BETA in wanted:
        assert isinstance(beta, Tensor)
        result = along_beta()
        results.append(narrowed(None if result is None else result.sum_to_size(beta.shape), beta))
    return results


# P and its two first derivatives


class _Value(TypedFunction):
    """P(x, value; beta)"""

    @staticmethod
    def forward(form: Form, x: Tensor, value: Tensor | None, beta: Factor) -> Tensor:
        return _evaluate(form, x, value, beta)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.form, *operands = inputs
        ctx.spared = None if is_distributed(operands[0]) else _spared(ctx.form, ctx.needs_input_grad[1:])
        _keep(ctx, *operands, needless=None if ctx.spared is None else operands[ctx.spared])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        (c,), operands = cotangents, _kept(ctx)
        if c is None:
            return None, None, None, None
        if ctx.spared is not None:
            operands[ctx.spared] = c.detach()  # of the shape and dtype of what was not kept
        wanted = _wanted(ctx.needs_input_grad[1:], *operands)
        if not wanted:
            return None, None, None, None
        if torch.is_grad_enabled() or is_transformed():
            return None, *_spread(wanted, _Pullback.apply(ctx.form, wanted, *operands, c))
        return None, *_spread(wanted, _pullback(ctx.form, wanted, c, *operands))

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        result: Tensor = _Pushforward.apply(ctx.form, *_kept(ctx), *tangents[1:])
        return result

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], form: Form, *operands: Any) -> tuple[Tensor, int]:
        form, batched = _batch(info, form, operands, in_dims[1:])
        return _Value.apply(form, *batched), 0


class _Pullback(TypedFunction):
    """c grad P, for those of x, value and beta that are wanted"""

    @staticmethod
    def forward(
        form: Form, wanted: str, x: Tensor, value: Tensor | None, beta: Factor, c: Tensor
    ) -> tuple[Tensor, ...]:
        return tuple(solid(result) for result in _pullback(form, wanted, c, x, value, beta))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.form, ctx.wanted, *operands = inputs
        _keep(ctx, *operands)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        *primals, c = _kept(ctx)
        *needs, c_needed = ctx.needs_input_grad[2:]
        tangents = _spread(ctx.wanted, cotangents)
        if all(t is None for t in tangents):
            return (None,) * 6
        again = _wanted(needs, *primals)
        results = _second(ctx.form, again, c, tangents, *primals)
        c_result = _Pushforward.apply(ctx.form, *primals, *tangents) if c_needed else None
        return None, None, *_spread(again, results), c_result

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        form, wanted = ctx.form, ctx.wanted

        def moved(
            x: Tensor, value: Tensor | None, beta: Factor, c: Tensor, *tangents: Tensor | None
        ) -> Sequence[Tensor]:
            *u, c_tangent = tangents
            still = all(t is None for t in u)
            bent: Sequence[Tensor] = () if still else _second(form, wanted, c, u, x, value, beta)
            if c_tangent is None:
                return bent
            results: Sequence[Tensor] = _Pullback.apply(form, wanted, x, value, beta, c_tangent)
            return results if still else [a + b for a, b in zip(results, bent, strict=True)]

        return plain(moved, *_kept(ctx), *tangents[2:])

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], form: Form, wanted: str, *operands: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        beta, beta_dim = operands[2], in_dims[4]
        form, batched = _batch(info, form, operands, in_dims[2:])
        results = list(_Pullback.apply(form, wanted, *batched))
        if IN_BETA in wanted:
            results[-1] = results[-1].reshape(info.batch_size, *_shape(beta, beta_dim))
        return tuple(results), (0,) * len(results)


class _Pushforward(TypedFunction):
    """grad P . t"""

    @staticmethod
    def forward(form: Form, x: Tensor, value: Tensor | None, beta: Factor, *tangents: Tensor | None) -> Tensor:
        if is_distributed(x):
            result: Tensor = dtensor_rules().pushforward(pushforward, form, tangents, x, value, beta)
            return result
        return solid(pushforward(form, tangents, x, value, beta))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.form, *operands = inputs
        _keep(ctx, *operands)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        (c,), kept = cotangents, _kept(ctx)
        primals, tangents = kept[:3], kept[3:]
        if c is None:
            return (None,) * 7
        again = _wanted(ctx.needs_input_grad[1:4], *primals)
        wanted = _wanted(ctx.needs_input_grad[4:], *tangents)
        results = _second(ctx.form, again, c, tangents, *primals)
        t_results = _Pullback.apply(ctx.form, wanted, *primals, c) if wanted else ()
        return None, *_spread(again, results), *_spread(wanted, t_results)

    @staticmethod
    def jvp(ctx: Any, *moved: Tensor | None) -> Tensor:
        form = ctx.form

        def bent(*operands: Any) -> tuple[Tensor]:
            (x, value, beta), t, u, t_moved = operands[:3], operands[3:6], operands[6:9], operands[9:]
            terms: list[Tensor | None] = []
            if any(one is not None for one in t_moved):
                terms.append(_Pushforward.apply(form, x, value, beta, *t_moved))
            if isinstance(beta, Tensor):  # of full size: here each element has its own (H t) . u
                gate, _ = form.split(x, value)
                beta = wide(beta).expand_as(gate)
                u = *u[:2], None if u[2] is None else u[2].expand_as(gate)
            directions = _wanted([one is not None for one in u], x, value, beta)
            along = _spread(directions, _second(form, directions, None, t, x, value, beta))
            for slope, direction in zip(form.parts(along), form.parts(u), strict=True):
                terms.append(None if slope is None or direction is None else (slope * direction).to(x.dtype))
            result = total(terms)
            assert result is not None
            return (result,)

        return plain(bent, *_kept(ctx), *moved[1:])[0]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], form: Form, *operands: Any) -> tuple[Tensor, int]:
        form, batched = _batch(info, form, operands, in_dims[1:])
        return _Pushforward.apply(form, *batched), 0


def _requires_grad(x: Tensor, value: Tensor | None, beta: Factor) -> bool:
    return (
        x.requires_grad
        or (value is not None and value.requires_grad)
        or (isinstance(beta, Tensor) and beta.requires_grad)
    )


def _apply(form: Form, x: Tensor, value: Tensor | None, beta: Factor) -> Tensor:
    # A transform of torch.func hides the DTensors that it differentiates: there the arithmetic aligns them.
    if is_distributed(x) and not torch._C._are_functorch_transforms_active():
        x, value, beta = dtensor_rules().aligned(form, x, value, beta)
    if not is_transformed() and not (torch.is_grad_enabled() and _requires_grad(x, value, beta)):
        return _evaluate(form, x, value, beta)
    result: Tensor = _Value.apply(form, x, value, beta)
    return result


# A compiler that looked into the Functions would refuse their jvp, or ignore their rules (pytorch#193279, #192985).
apply: Final[Callable[[Form, Tensor, Tensor | None, Factor], Tensor]] = torch.compiler.allow_in_graph(  # type: ignore[no-untyped-call]
    _apply
)
"""P(x, value; beta), differentiable in the tensors."""
