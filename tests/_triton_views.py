"""What the tests of views ask of the process that interprets the kernels: calls on views, and on far elements."""

from __future__ import annotations

import ctypes
import mmap
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from gated.torch_impl._forms import IN_BETA, IN_VALUE, IN_X, Form

Tensor = torch.Tensor


# Views


class Spec(NamedTuple):
    """A call on views: how each operand lies in memory."""

    form: Form
    shape: tuple[int, ...]
    orders: tuple[tuple[int, ...], ...]
    """Of gate (or packed array), value and cotangent: the axes as they lie in memory."""
    steps: tuple[tuple[int, ...], ...]
    """Of each, by axis: 1, 2, or 0 for an axis along which all elements are one."""
    beta: tuple[bool, ...] | float
    """A number, or which axes an array spans."""
    seed: int
    flagged: str = ""
    """Which of x, value, cotangent and beta ("x", "v", "c", "b") have their sign in a flag."""


def in_flag(x: Tensor) -> Tensor:
    """``x``, of which memory has the opposite: the imaginary part of a conjugate."""
    flagged = torch.complex(torch.zeros_like(x), -x).conj().imag
    assert flagged.is_neg() and torch.equal(flagged, x)
    return flagged


def _view(
    shape: Sequence[int], order: Sequence[int], steps: Sequence[int], flagged: bool, generator: torch.Generator
) -> Tensor:
    sizes = [max(1, shape[axis] * steps[axis]) if steps[axis] else 1 for axis in order]
    whole = 3 * torch.randn(sizes, generator=generator)
    if flagged:
        whole = in_flag(whole)
    x = whole.permute([order.index(axis) for axis in range(len(order))])
    x = x[tuple(slice(None, None, step or None) for step in steps)]
    return x.expand(shape) if 0 in steps else x[tuple(slice(size) for size in shape)]


def _results(form: Form, wanted: str, x: Tensor, value: Tensor | None, c: Tensor, beta: Any) -> list[Tensor]:
    """P and its gradient."""
    from gated.torch_impl.kernels import _launches

    return [_launches.evaluate(form, x, value, beta), *_launches.pullback(form, wanted, c, x, value, beta)]


def views_agree(spec: Spec) -> None:
    """Views give the bits that contiguous arrays give, alone or together, are not written to, and give them again."""
    from gated.torch_impl.kernels import _launches

    generator = torch.Generator().manual_seed(spec.seed)
    shape = list(spec.shape)
    x_shape = list(shape)
    if spec.form.axis is not None:
        x_shape[spec.form.axis] *= 2
    x = _view(x_shape, spec.orders[0], spec.steps[0], "x" in spec.flagged, generator)
    value = None
    if spec.form.axis is None:
        value = _view(shape, spec.orders[1], spec.steps[1], "v" in spec.flagged, generator)
    c = _view(shape, spec.orders[2], spec.steps[2], "c" in spec.flagged, generator)
    beta: Any = spec.beta
    if isinstance(beta, tuple):
        beta = torch.randn([size if there else 1 for size, there in zip(shape, beta, strict=True)], generator=generator)
        beta = in_flag(beta) if "b" in spec.flagged else beta
    operands = (x, value, c, beta)
    before = [one.clone() if isinstance(one, Tensor) else one for one in operands]
    dense = [one.resolve_neg().contiguous().clone() if isinstance(one, Tensor) else one for one in operands]
    wanted = IN_X + ("" if value is None else IN_VALUE) + (IN_BETA if isinstance(beta, Tensor) else "")
    ours, again, plain = (_results(spec.form, wanted, *some) for some in (operands, operands, dense))
    assert ours[0].shape == tuple(shape) and ours[0].dtype == x.dtype
    alone = random.Random(spec.seed).choice(wanted)
    assert torch.equal(_launches.pullback(spec.form, alone, c, x, value, beta)[0], ours[1 + wanted.index(alone)])
    for one, other, reference in zip(ours, again, plain, strict=True):
        assert torch.equal(one, other)
        if one is ours[-1] and isinstance(beta, Tensor) and beta.shape != c.shape:
            assert bool(((one - reference).abs() <= _sum_bound(spec.form, *dense)).all())
        else:
            assert torch.equal(one, reference)
    for one, copy in zip(operands, before, strict=True):
        assert not isinstance(one, Tensor) or torch.equal(one, copy)
    _element_agrees(spec, wanted, dense, plain)


def _sum_bound(form: Form, x: Tensor, value: Tensor | None, c: Tensor, beta: Tensor) -> Tensor:
    """How far two sums of the same float32 terms to the shape of beta may be apart, for their order.

    Each is off by less than n u times the sum of the terms' magnitudes, the last rounding included: n - 1 additions
    in float32, or fewer and the rest in float64.
    """
    from gated.torch_impl.kernels import _launches

    (terms,) = _launches.pullback(form, IN_BETA, c, x, value, beta.expand(c.shape).contiguous())
    n = c.numel() // max(1, beta.numel())
    return 2 * n * 2.0**-24 / (1 - n * 2.0**-24) * terms.double().abs().sum_to_size(beta.shape)


def _element_agrees(spec: Spec, wanted: str, operands: Sequence[Any], results: Sequence[Tensor]) -> None:
    """An element alone gives the bits that it gives among the others."""
    x, value, c, beta = operands
    if not c.numel():
        return
    at = random.Random(spec.seed).randrange(c.numel())

    def one_of(some: Tensor | None) -> Any:
        return None if some is None else some.expand(c.shape).reshape(-1)[at : at + 1].clone()

    gate, value = map(one_of, spec.form.split(x, value))
    among = [results[0], *spec.form.split(results[1], results[2] if IN_VALUE in wanted else None)]
    every = IN_X + IN_VALUE
    if isinstance(beta, Tensor):
        if beta.shape == c.shape:
            among.append(results[-1])
            every += IN_BETA
        beta = one_of(beta)
    pair = spec.form._replace(axis=None)
    for one, whole in zip(_results(pair, every, gate, value, one_of(c), beta), among, strict=True):
        assert torch.equal(one, one_of(whole))


def flagged_zeros_agree() -> None:
    """Zeros that have no memory give what zeros give."""
    flagged = torch._efficientzerotensor(4)
    assert flagged._is_zerotensor()
    one, zeros = torch.ones(4), torch.zeros(4)
    for place in range(4):
        with_flag, without = (
            _results(Form("swish"), IN_X + IN_VALUE + IN_BETA, *[some if place == i else one for i in range(4)])
            for some in (flagged, zeros)
        )
        assert all(map(torch.equal, with_flag, without))


# Offsets of more than 31 bits


def far_elements(first: int, layout: str | None) -> bool:
    """Whether a tile that begins ``first`` elements into arrays is read and written there.

    The arrays are address space that no memory stands behind, but for the pages that are touched.
    """
    from gated.torch_impl.kernels import _launches

    size = _launches.TILE_BYTES // 2
    form = Form("swish") if layout is None else Form("swish", 0, layout)
    parts = 1 if layout is None else 2
    length = 2 * parts * (first + size)
    spaces = [mmap.mmap(-1, length) for _ in range(2)]
    whole, result = (torch.frombuffer(space, dtype=torch.float16) for space in spaces)
    x = whole if layout is None else whole[: parts * (first + size)]
    gates, _ = form.split(x, None)
    numbers = torch.linspace(-8, 8, parts * size).to(torch.float16)
    near = Form("swish") if layout is None else form
    gate, value = near.split(numbers, None)
    gates[first:].copy_(gate)
    if layout is not None:
        assert value is not None
        form.split(x, None)[1][first:].copy_(value)  # type: ignore[index]
    launches: list[Any] = []
    launch, _launches.launch = _launches.launch, lambda some, _: launches.extend(some)
    try:
        call = _launches._Call(form, x, None, 1.0, dense=False)
        planned = call.launches(_launches._units.forward, [x], {"result": result[: first + size]})
    finally:
        _launches.launch = launch
    assert planned is not None and planned[-1].programs * size >= first
    # The interpreter copies the storages of tensors; one element is enough to say where an array begins.
    pointers = {
        name: _beginning(one) if isinstance(one, Tensor) else one for name, one in planned[-1].arguments.items()
    }
    last = planned[-1]._replace(programs=1, arguments={**pointers, "first_column": first})
    _launches.launch([last], whole)
    expected = _launches.evaluate(near, numbers, None, 1.0)
    return torch.equal(result[first : first + size], expected) and not bool(result[:size].any())


def _beginning(x: Tensor) -> Tensor:
    return torch.frombuffer((ctypes.c_char * x.element_size()).from_address(x.data_ptr()), dtype=x.dtype)
