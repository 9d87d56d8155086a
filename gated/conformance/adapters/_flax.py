"""Flax modules, NNX and Linen, as functions of JAX arrays."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gated.conformance.adapters._projections import BIAS_OF, beside_x, layers_of
from gated.conformance.adapters.base import Function, instance
from gated.conformance.grading.claim import Claim

__all__ = ["function_of", "is_module"]


def is_module(target: Any) -> str:
    """``"nnx"`` or ``"linen"`` for a module or its class, ``""`` for anything else; Flax is not imported."""
    bases = target.__mro__ if inspect.isclass(target) else type(target).__mro__
    for base in bases:
        for kind in ("nnx", "linen"):
            if base.__name__ == "Module" and base.__module__.startswith(f"flax.{kind}"):
                return kind
    return ""


def function_of(target: Any, claim: Claim, sizes: dict[str, tuple[int, ...]]) -> Function:
    """A module as a function of the claim's arguments; its weights' sizes, where it has some, go into ``sizes``."""
    return _of_nnx(target, claim, sizes) if is_module(target) == "nnx" else _of_linen(target, claim)


def _as(dtype: Any, leaf: Any) -> Any:
    """A module computes in the dtype of its inputs: its parameters keep their values, rounded."""
    return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def _of_nnx(target: Any, claim: Claim, sizes: dict[str, tuple[int, ...]]) -> Function:
    from flax import nnx

    if inspect.isclass(target):
        takes_rngs = "rngs" in inspect.signature(target.__init__).parameters
        target = instance(target, **({"rngs": nnx.Rngs(0)} if takes_rngs else {}))
    graph, state = nnx.split(target)
    if claim.form != "projected" or not jax.tree.leaves(state):

        def call(*arrays: jax.Array) -> Any:
            return nnx.merge(graph, jax.tree.map(functools.partial(_as, arrays[0].dtype), state))(*arrays)

        return call

    def linear(module: Any) -> dict[str, Any]:
        found = {".".join(map(str, path)): one for path, one in nnx.iter_graph(module)}
        return {path: one for path, one in found.items() if isinstance(one, nnx.Linear)}

    layers = linear(target)
    biased = {path: one.bias is not None for path, one in layers.items()}
    paths = layers_of(claim, biased, type(target).__name__)
    for name, path in paths.items():
        sizes[name] = tuple(layers[path].kernel.shape)
        if claim.bias:
            sizes[BIAS_OF[name]] = sizes[name][-1:]

    def projected(*arrays: jax.Array) -> Any:
        given = dict(zip(claim.arguments, arrays, strict=True))
        module = nnx.merge(graph, jax.tree.map(functools.partial(_as, arrays[0].dtype), state))
        own = linear(module)
        for name, path in paths.items():
            own[path].kernel = nnx.Param(given[name])
            if claim.bias:
                own[path].bias = nnx.Param(given[BIAS_OF[name]])
        return module(*beside_x(claim, arrays))

    return projected


def _of_linen(target: Any, claim: Claim) -> Function:
    if inspect.isclass(target):
        target = instance(target)
    made: dict[Any, Any] = {}

    def call(*arrays: jax.Array) -> Any:
        handed = beside_x(claim, arrays) if claim.form == "projected" else arrays
        key = tuple((one.shape, str(one.dtype)) for one in handed)
        if key not in made:
            # Outside of a trace: the parameters are kept for the next call.
            with jax.ensure_compile_time_eval():
                made[key] = target.init(jax.random.key(0), *(jnp.zeros(one.shape, one.dtype) for one in handed))
        variables = jax.tree.map(functools.partial(_as, arrays[0].dtype), made[key])
        if claim.form == "projected" and variables.get("params"):
            given = dict(zip(claim.arguments, arrays, strict=True))
            variables = {**variables, "params": _with_weights(variables["params"], given, claim, type(target).__name__)}
        return target.apply(variables, *handed)

    return call


def _with_weights(params: Mapping[str, Any], given: Mapping[str, Any], claim: Claim, kind: str) -> dict[str, Any]:
    flat = _flat(params)
    layers = [path.removesuffix(".kernel") for path in flat if path.endswith(".kernel")]
    for name, path in layers_of(claim, {one: f"{one}.bias" in flat for one in layers}, kind).items():
        flat[f"{path}.kernel"] = given[name]
        if claim.bias:
            flat[f"{path}.bias"] = given[BIAS_OF[name]]
    return _nested(flat)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, one in tree.items():
        leaves |= _flat(one, f"{prefix}{name}.") if isinstance(one, Mapping) else {prefix + name: one}
    return leaves


def _nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, last = path.split(".")
        functools.reduce(lambda node, name: node.setdefault(name, {}), parents, tree)[last] = leaf
    return tree
