"""A real model's feed-forward blocks, read from a GGUF file and run forward and backward in every backend.

GGUF stores ``ffn_gate`` and ``ffn_up`` as (d_hidden, d_in) and ``ffn_down`` as (d_out, d_hidden); transposed they are
the W, V and W2 of :func:`gated.numpy_ref.gated_ffn`. Quantised weights are taken to float32 by the ``gguf`` package.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import gated.numpy_ref as reference
from gated.conformance.backends import Adapter
from gated.conformance.carried import projection_bounds
from gated.contract import missing_framework

__all__ = ["FeedForward", "LayerRow", "ModelError", "ModelFile", "run_layers"]

Float64 = NDArray[np.float64]

_NAME: Final = re.compile(r"blk\.(\d+)\.ffn_(gate|up|down)\.weight")
# Families whose gated FFN has another activation than the swish of Llama (Gemma: tanh gelu).
_GELU_FAMILIES: Final = ("gemma", "gemma2", "gemma3", "gemma3n")
TOKENS: Final = 16


class ModelError(ValueError):
    """A file that is no GGUF, is cut short, or has no gated feed-forward block."""


@dataclass(frozen=True)
class FeedForward:
    """The weights of one layer, float32, as :func:`gated.numpy_ref.gated_ffn` takes them."""

    layer: int
    W: NDArray[np.float32]
    V: NDArray[np.float32]
    W2: NDArray[np.float32]


class ModelFile:
    """The gated feed-forward blocks of a GGUF file; weights are read and dequantised a layer at a time.

    Raises:
        ModelError: the file is no GGUF, is cut short, or has no gated feed-forward block.
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: the package ``gguf`` is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            import gguf
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(missing_framework("gated validate --gguf", "gguf", "cli")) from error
        self.path = path
        size = path.stat().st_size
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelError(f"{path}: expected a GGUF file, which begins with the bytes GGUF")
        try:
            reader = gguf.GGUFReader(path)
        except Exception as error:  # the reader indexes past the end in many ways
            raise ModelError(
                f"{path}: not a readable GGUF file, its header is damaged or cut short ({error})"
            ) from error
        for tensor in reader.tensors:
            end = int(tensor.data_offset) + int(tensor.n_bytes)
            if end > size:
                raise ModelError(
                    f"{path}: the file is cut short: tensor {tensor.name} ends at byte {end}, the file at byte {size}"
                )
        self._dequantize = gguf.quants.dequantize
        self._tensors: dict[int, dict[str, Any]] = {}
        for tensor in reader.tensors:
            if found := _NAME.fullmatch(tensor.name):
                self._tensors.setdefault(int(found[1]), {})[found[2]] = tensor
        self.architecture = self._text(reader, "general.architecture")
        self.name = self._text(reader, "general.name")
        self.activation = "gelu_tanh" if self.architecture in _GELU_FAMILIES else "swish"
        self.layers = sorted(self._tensors)
        if not self.layers:
            raise ModelError(
                f"{path}: no gated feed-forward block: expected tensors blk.N.ffn_gate.weight, ffn_up, ffn_down"
            )
        for layer, parts in self._tensors.items():
            if missing := [f"ffn_{part}" for part in ("gate", "up", "down") if part not in parts]:
                raise ModelError(f"{path}: layer {layer} has no gated feed-forward block: {', '.join(missing)} missing")

    @staticmethod
    def _text(reader: Any, key: str) -> str:
        entry = reader.get_field(key)
        return str(entry.contents()) if entry is not None else "unknown"

    def read(self, layer: int) -> FeedForward:
        """The weights of a layer.

        Raises:
            ModelError: the shapes do not make a feed-forward block.
        """
        gate, up, down = (self._weight(layer, part) for part in ("gate", "up", "down"))
        if gate.shape != up.shape or down.shape[1] != gate.shape[0]:
            raise ModelError(
                f"{self.path}: layer {layer}: ffn_gate {gate.shape}, ffn_up {up.shape} and ffn_down {down.shape} "
                "do not fit: expected (d_hidden, d_in) twice and (d_out, d_hidden)"
            )
        return FeedForward(layer, gate.T, up.T, down.T)

    def _weight(self, layer: int, part: str) -> NDArray[np.float32]:
        tensor = self._tensors[layer][part]
        try:
            weight = np.asarray(self._dequantize(tensor.data, tensor.tensor_type), np.float32)
        except Exception as error:  # gguf raises several types for a quantisation that it does not know
            raise ModelError(f"{self.path}: tensor {tensor.name} cannot be dequantised ({error})") from error
        if weight.ndim != 2:
            raise ModelError(f"{self.path}: tensor {tensor.name} must have two axes, got shape {weight.shape}")
        return weight


@dataclass(frozen=True)
class LayerRow:
    """One layer: for each backend the worst value and the worst gradient as shares of their rounding bounds.

    A share is max |computed - exact| / bound over all elements, the bound being the running error analysis of
    :mod:`gated.conformance.carried`; up to 1 the results agree as far as float32 can.
    """

    layer: int
    shape: tuple[int, int, int]
    value: dict[str, float]
    gradient: dict[str, float]
    relative: dict[str, float]
    """The largest error of the value over the largest magnitude of the value."""

    @property
    def agrees(self) -> bool:
        """Whether every result of every backend is within its bound."""
        return all(share <= 1 for shares in (self.value, self.gradient) for share in shares.values())


def run_layers(model: ModelFile, adapters: Sequence[Adapter], *, seed: int = 0) -> Iterator[LayerRow]:
    """Each layer forward and backward on seeded inputs in float32: the value and the gradients of x, W, V and W2.

    The exact results are those of the reference in float64 on the same float32 numbers, whose own rounding is 2^-29 of
    float32's.
    """
    for layer in model.layers:
        weights = model.read(layer)
        rng = np.random.default_rng([seed, layer])
        x = rng.standard_normal((TOKENS, weights.W.shape[0]), np.float32)
        cotangent = rng.standard_normal((TOKENS, weights.W2.shape[1]), np.float32)
        primals = {"x": x, "W": weights.W, "V": weights.V, "W2": weights.W2}
        wide: dict[str, Float64 | None] = {name: array.astype(np.float64) for name, array in primals.items()}
        exact_value, pullback = reference.vjp(reference.gated_ffn, *wide.values(), activation=model.activation)
        exact = {"value": exact_value} | dict(zip(wide, pullback(cotangent.astype(np.float64)), strict=True))
        shares: dict[str, dict[str, float]] = {"value": {}, "gradient": {}}
        relative = {}
        for adapter in adapters:
            value, cotangents = adapter.value_and_cotangents(
                "gated_ffn", tuple(primals.values()), cotangent, {"activation": model.activation}
            )
            bounds = projection_bounds(
                adapter.name,
                "float32",
                wide,
                cotangent.astype(np.float64),
                activation=model.activation,
                beta=np.ones(()),
            )
            computed = {"value": value} | dict(zip(primals, cotangents, strict=True))
            share = {name: _share(computed[name], exact[name], bounds[name]) for name in computed}
            shares["value"][adapter.name] = share.pop("value")
            shares["gradient"][adapter.name] = max(share.values())
            relative[adapter.name] = float(np.max(np.abs(value - exact_value)) / np.max(np.abs(exact_value)))
        shape = (weights.W.shape[0], weights.W.shape[1], weights.W2.shape[1])
        yield LayerRow(layer, shape, shares["value"], shares["gradient"], relative)


def _share(computed: Any, exact: Any, bound: Float64) -> float:
    """max |computed - exact| / bound; inf where something is not a number or the shape or dtype is wrong."""
    if computed.shape != exact.shape or computed.dtype != np.float32:
        return np.inf
    difference = np.abs(computed.astype(np.float64) - exact)
    if not np.all(np.isfinite(difference)):
        return np.inf
    return float(np.max(difference / bound, initial=0.0))
