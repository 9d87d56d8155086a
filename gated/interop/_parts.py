"""The parts of a family from the names of its layers."""

from __future__ import annotations

from typing import Final

__all__ = ["LLAMA", "separate", "together"]


def separate(gate: str, value: str, down: str, *, weight: str = ".weight", bias: str = "") -> dict[str, str]:
    """Two projections and the down projection, with biases where ``bias`` says how their keys end."""
    names = {"W": gate + weight, "V": value + weight, "W2": down + weight}
    return names | ({"b": gate + bias, "c": value + bias, "b2": down + bias} if bias else {})


def together(pair: str, down: str, *, weight: str = ".weight", bias: str = "") -> dict[str, str]:
    """One projection of gate and value and the down projection, with biases where ``bias`` says how their keys end."""
    names = {"WV": pair + weight, "W2": down + weight}
    return names | ({"bc": pair + bias, "b2": down + bias} if bias else {})


LLAMA: Final = separate("gate_proj", "up_proj", "down_proj", bias=".bias")
"""The names of Hugging Face's LlamaMLP, which many share."""
