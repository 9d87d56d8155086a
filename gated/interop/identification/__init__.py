"""Identification: which block some weights are, from one input and its output."""

from gated.interop.identification.identifying import identify
from gated.interop.identification.matches import Match, Matches
from gated.interop.identification.separation import Separation

__all__ = ["Match", "Matches", "Separation", "identify"]
