"""Blocks for the tests of identification: stored in ways no family has, and functions that are no gated block."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

Params = Mapping[str, Any]
State = dict[str, Any]
Unit = Callable[[Any, Any], Any]

ROWS = 20
SIZES = (12, 18, 10)
LETTERS = ("W", "V", "W2", "b", "c", "b2")


def params(rng: np.random.Generator, sizes: tuple[int, int, int], dtype: str, biases: str = "") -> dict[str, Any]:
    """Random arrays of a block by letter, (in, out), with the biases whose letters are given, apart by blanks."""
    d, f, o = sizes
    shapes = {"W": (d, f), "V": (d, f), "W2": (f, o), "b": (f,), "c": (f,), "b2": (o,)}
    wanted = ("W", "V", "W2", *biases.split())
    return {
        name: torch.from_numpy(rng.standard_normal(shapes[name]) * 0.5).to(getattr(torch, dtype)) for name in wanted
    }


def forward(given: Params, x: Any, unit: Unit) -> Any:
    """The block in torch's arithmetic, step by step."""
    gate, value = x @ given["W"], x @ given["V"]
    if "b" in given:
        gate = gate + given["b"]
    if "c" in given:
        value = value + given["c"]
    hidden = unit(gate, value)
    y = hidden @ given["W2"] if "W2" in given else hidden
    return y + given["b2"] if "b2" in given else y


def swish(beta: float) -> Unit:
    return lambda g, v: g * torch.sigmoid(beta * g) * v


def clamped(alpha: float, limit: float, offset: float) -> Unit:
    def unit(g: Any, v: Any) -> Any:
        g, v = g.clamp(max=limit), v.clamp(-limit, limit)
        return g * torch.sigmoid(alpha * g) * (v + offset)

    return unit


UNITS: Mapping[str, Unit] = {
    "identity": lambda g, v: g * v,
    "sigmoid": lambda g, v: torch.sigmoid(g) * v,
    "relu": lambda g, v: torch.relu(g) * v,
    "gelu": lambda g, v: torch.nn.functional.gelu(g) * v,
    "gelu_tanh": lambda g, v: torch.nn.functional.gelu(g, approximate="tanh") * v,
    "swish": lambda g, v: torch.nn.functional.silu(g) * v,
}


# Storages: what is done to the arrays of a block


def separate(p: Params, keys: str = "k0 k1 k2", turned: str = "W V W2") -> State:
    """Each array by its own key, those of ``turned`` as (out, in); biases beside their weights."""
    names = dict(zip(("W", "V", "W2"), keys.split(), strict=True))
    weights = {
        key: p[letter].T.contiguous() if letter in turned.split() else p[letter] for letter, key in names.items()
    }
    biases = {bias: names[weight] for bias, weight in (("b", "W"), ("c", "V"), ("b2", "W2"))}
    return weights | {f"{key}.bias": p[bias] for bias, key in biases.items() if bias in p}


def join(first: Any, second: Any, how: str) -> Any:
    """Two arrays as one along the last axis."""
    return torch.cat([first, second], -1) if how == "halves" else torch.stack([first, second], -1).flatten(-2)


def packed(p: Params, how: str = "halves", *, gate_last: bool = False, turned: bool = True) -> State:
    """Gate and value in one array, and the biases in one; all under keys that say nothing."""
    order = ("V", "W") if gate_last else ("W", "V")
    both = join(*(p[letter] for letter in order), how)
    state = {"p": both.T.contiguous() if turned else both, "q": p["W2"].T.contiguous() if turned else p["W2"]}
    if "b" in p:
        state["r"] = join(*(p[letter] for letter in (("c", "b") if gate_last else ("b", "c"))), how)
    return state | ({"s": p["b2"]} if "b2" in p else {})


def stacked(p: Params, axes: str, *, gate_last: bool = False) -> State:
    """Gate and value along an axis of their own: ``axes`` is an order of p (the pair), d and f."""
    order = ("V", "W") if gate_last else ("W", "V")
    both = torch.stack([p[letter] for letter in order]).permute(*("pdf".index(axis) for axis in axes)).contiguous()
    state = {"u": both, "v": p["W2"]}
    if "b" in p:
        state["w"] = torch.stack([p[letter] for letter in (("c", "b") if gate_last else ("b", "c"))])
    return state | ({"t": p["b2"]} if "b2" in p else {})


def among_others(p: Params) -> State:
    """Beside arrays of the sizes of a block that have no part in it."""
    d, f = p["W"].shape
    o = p["W2"].shape[1]
    generator = torch.Generator().manual_seed(3)

    def other(*shape: int) -> Any:
        return torch.randn(*shape, generator=generator, dtype=torch.float32)

    others = {"norm.weight": other(d), "other.weight": other(f, d), "head": other(o, f), "post_norm": other(o)}
    return others | separate(p, "up_proj.weight down_proj.weight gate_proj.weight") | {"step": np.arange(3)}


def as_experts(p: Params) -> State:
    """The second of three experts, packed."""
    generator = torch.Generator().manual_seed(4)
    both = join(p["W"], p["V"], "interleaved")
    others = [torch.randn(3, *shape, generator=generator) for shape in (tuple(both.shape), tuple(p["W2"].shape))]
    others[0][1], others[1][1] = both, p["W2"]
    return dict(zip(("x", "y"), others, strict=True))


def to_numpy(state: State) -> State:
    return {key: np.asarray(value) for key, value in state.items()}


def to_jax(state: State) -> State:
    jnp = pytest.importorskip("jax.numpy")
    return {"params": {key: {"value": jnp.asarray(np.asarray(value))} for key, value in state.items()}}


@dataclass(frozen=True)
class Variant:
    """A block whose storage has to be found.

    Attributes:
        store: makes the state of the block's arrays.
        activation: of the contract.
        beta: of swish.
        clamp: alpha, limit and offset.
        biases: the letters of those that there are.
        expected: attributes of the match.
    """

    store: Callable[[Params], State]
    activation: str = "swish"
    beta: float = 1.0
    clamp: tuple[float, float, float] | None = None
    biases: str = ""
    sizes: tuple[int, int, int] = SIZES
    dtype: str = "float32"
    expected: Mapping[str, Any] = field(default_factory=dict)

    @property
    def unit(self) -> Unit:
        if self.clamp is not None:
            return clamped(*self.clamp)
        return swish(self.beta) if self.beta != 1 else UNITS[self.activation]


def _packed(**how: Any) -> Callable[[Params], State]:
    return lambda p: packed(p, **how)


def _stacked(axes: str, **how: Any) -> Callable[[Params], State]:
    return lambda p: stacked(p, axes, **how)


ALL = "b c b2"
SQUARE = (14, 14, 14)

VARIANTS: Mapping[str, Variant] = {
    "renamed": Variant(separate, expected={"packing": "separate", "layout": None, "transposed": True}),
    "keys say the other half": Variant(lambda p: separate(p, "up_proj.weight gate_proj.weight down_proj.weight")),
    "keys say gate where down is": Variant(lambda p: separate(p, "down_proj.weight up_proj.weight gate_proj.weight")),
    "keys of one family, order of another": Variant(
        lambda p: separate(p, "w1.weight w2.weight w3.weight"), expected={"families": ("xformers-unpacked",)}
    ),
    "keys of T5, its two turned round": Variant(
        lambda p: separate(p, "wi_1.weight wi_0.weight wo.weight"), "gelu_tanh", expected={"families": ()}
    ),
    "keys of gpt-oss, packed as Phi-3": Variant(
        lambda p: dict(zip(("gate_up_proj", "down_proj"), packed(p).values(), strict=True)), expected={"families": ()}
    ),
    "biases under one another's keys": Variant(
        lambda p: separate(p) | {"k0.bias": p["c"], "k1.bias": p["b"]}, biases="b c", expected={"families": ()}
    ),
    "kernels": Variant(lambda p: separate(p, turned=""), expected={"transposed": False, "down_transposed": False}),
    "kernels, down turned": Variant(lambda p: separate(p, turned="W2"), expected={"down_transposed": True}),
    "weights turned, down a kernel": Variant(lambda p: separate(p, turned="W V"), "gelu"),
    "gate turned, value not": Variant(lambda p: separate(p, turned="W"), sizes=SQUARE),
    "square": Variant(separate, "gelu_tanh", sizes=SQUARE),
    "square, biases": Variant(separate, biases=ALL, sizes=SQUARE),
    "as wide as deep": Variant(separate, "sigmoid", sizes=(12, 12, 7)),
    "halves": Variant(_packed(), "relu", expected={"layout": "gate_first", "packing": "packed"}),
    "halves swapped": Variant(_packed(gate_last=True), expected={"layout": "gate_last"}),
    "interleaved": Variant(_packed(how="interleaved"), expected={"layout": "interleaved"}),
    "interleaved, gate odd": Variant(
        _packed(how="interleaved", gate_last=True), "gelu", expected={"layout": "interleaved_gate_last"}
    ),
    "halves of kernels": Variant(_packed(turned=False), "gelu", expected={"transposed": False}),
    "interleaved kernels": Variant(_packed(how="interleaved", turned=False), biases=ALL),
    "halves swapped, biases": Variant(_packed(gate_last=True), "sigmoid", biases=ALL),
    "stacked first": Variant(_stacked("pdf"), expected={"packing": "stacked", "transposed": False}),
    "stacked first, turned": Variant(_stacked("pfd"), "gelu_tanh", expected={"transposed": True}),
    "stacked between": Variant(_stacked("dpf"), biases=ALL, expected={"layout": "gate_first"}),
    "stacked between, turned": Variant(_stacked("fpd", gate_last=True), expected={"layout": "gate_last"}),
    "stacked last": Variant(_stacked("dfp"), "identity"),
    "bilinear": Variant(separate, "identity", biases="b b2"),
    "bias of the gate": Variant(separate, biases="b"),
    "bias of the value": Variant(separate, "gelu", biases="c"),
    "bias of the result": Variant(separate, "relu", biases="b2"),
    "quick gelu": Variant(separate, beta=1.702),
    "clamped": Variant(_packed(how="interleaved", turned=False), "swish", 1.702, (1.702, 7.0, 1.0), ALL),
    "clamped, offset lost": Variant(separate, "swish", 1.702, (1.702, 7.0, 0.0)),
    "clamp lost": Variant(separate, "swish", 1.702, (1.702, float("inf"), 1.0)),
    "beta 0.73": Variant(separate, beta=0.73),
    "beta -1.3": Variant(_packed(gate_last=True), beta=-1.3, biases=ALL),
    "beta 6.5": Variant(separate, beta=6.5, dtype="float64"),
    "beta in the state": Variant(lambda p: separate(p) | {"act": torch.tensor(1.37)}, beta=float(np.float32(1.37))),
    "among others": Variant(among_others, "gelu"),
    "an expert": Variant(as_experts, expected={"expert": 1, "layout": "interleaved"}),
    "float64": Variant(separate, "gelu_tanh", dtype="float64"),
    "bfloat16": Variant(_packed(gate_last=True), dtype="bfloat16"),
    "float16": Variant(_packed(how="interleaved"), "sigmoid", dtype="float16"),
    "NumPy": Variant(lambda p: to_numpy(separate(p, turned="W2"))),
    "JAX, nested": Variant(lambda p: to_jax(packed(p, gate_last=True, turned=False)), "gelu"),
}


# Functions that are no gated feed-forward block of these arrays


def _gated(gate: Callable[[Any], Any]) -> Callable[[Params, Any], Any]:
    return lambda p, x: forward(p, x, lambda g, v: gate(g) * v)


def _ungated(p: Params, x: Any) -> Any:
    return torch.nn.functional.silu(x @ p["W"]) @ p["W2"]


def _norm_inside(p: Params, x: Any) -> Any:
    hidden = torch.nn.functional.silu(x @ p["W"]) * (x @ p["V"])
    return torch.nn.functional.rms_norm(hidden, hidden.shape[-1:]) @ p["W2"]


def _perturbed(p: Params, x: Any) -> Any:
    W = p["W"].clone()
    W[3, 5] *= 1.001
    return forward({**p, "W": W}, x, UNITS["swish"])


def _shuffled(p: Params, x: Any) -> Any:
    return forward({**p, "V": p["V"].roll(1, dims=1)}, x, UNITS["swish"])


def _one_output_off(p: Params, x: Any) -> Any:
    y = forward(p, x, UNITS["swish"])
    y[7, 4] += 1e-3
    return y


def _swiglu(p: Params, x: Any) -> Any:
    return forward(p, x, UNITS["swish"])


FOREIGN: Mapping[str, Callable[[Params, Any], Any]] = {
    "tanh": _gated(torch.tanh),
    "mish": _gated(torch.nn.functional.mish),
    "softplus": _gated(torch.nn.functional.softplus),
    "elu": _gated(torch.nn.functional.elu),
    "relu squared": _gated(lambda g: torch.relu(g) ** 2),
    "silu of beta x": _gated(lambda g: torch.nn.functional.silu(1.5 * g)),
    "hard swish": _gated(torch.nn.functional.hardswish),
    "sum, not product": lambda p, x: forward(p, x, lambda g, v: torch.nn.functional.silu(g) + v),
    "ungated": _ungated,
    "norm inside": _norm_inside,
    "norm before": lambda p, x: forward(p, torch.nn.functional.rms_norm(x, x.shape[-1:]), UNITS["swish"]),
    "half of it": lambda p, x: _swiglu(p, x) / 2,
    "larger by a ten-thousandth": lambda p, x: _swiglu(p, x) * 1.0001,
    "a residual added": lambda p, x: _swiglu(p, x) + x[:, : p["W2"].shape[1]],
    "a bias that is not there": lambda p, x: _swiglu(p, x) + 1e-2,
    "rounded to bfloat16, said to be float32": lambda p, x: _swiglu(p, x).to(torch.bfloat16).to(torch.float32),
    "clamped at 10": lambda p, x: forward(p, x, clamped(1.0, 10.0, 0.0)),
    "gpt-oss, alpha 1.7": lambda p, x: forward(p, x, clamped(1.7, 7.0, 1.0)),
    "one weight off by a thousandth": _perturbed,
    "hidden features shuffled": _shuffled,
    "rows shuffled": lambda p, x: forward(p, x, UNITS["swish"]).roll(1, dims=0),
    "one output off by a thousandth": _one_output_off,
    "noise": lambda p, x: torch.randn(len(x), p["W2"].shape[1], generator=torch.Generator().manual_seed(1)),
}
