"""The logits of a text, of the original and of ours, against float64 and the bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from rounding import logit_bounds
from running import Runner
from torch import Tensor

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True)
class Comparison:
    """What was found in one text.

    Attributes:
        shares: for each that was asked, its largest error as a share of the bound.
        bound: the largest bound.
        margin: the least that one logit of a chosen token is above that of the runner-up.
    """

    shares: dict[str, float]
    bound: float
    margin: float


def compare(exact: Any, runners: dict[str, Runner], text: Tensor, asked: int, count: int) -> Comparison:
    """Holds some logits of the answer in a text against those of the model in float64.

    Args:
        exact: of :func:`rounding.double`.
        runners: whom to compare, by name.
        text: (1, length), a question of ``asked`` tokens and its answer.
        asked: where the answer begins.
        count: how many logits, spread over the answer: of the token that follows and of any token, in turn.
    """
    answer = torch.arange(asked - 1, text.shape[1] - 1)
    places = answer[torch.linspace(0, len(answer) - 1, count).long()]
    any_token = torch.randint(exact.config.vocab_size, (count,), generator=torch.Generator().manual_seed(0))
    tokens = torch.where(torch.arange(count) % 2 == 0, text[0, places + 1], any_token)
    true, bounds = logit_bounds(exact, text, list(zip(places.tolist(), tokens.tolist(), strict=True)))
    shares = {}
    for name, one in runners.items():
        off = (one.logits(text)[places, tokens].double() - true[places, tokens]).abs() / bounds
        # A nan is as far off as can be.
        shares[name] = float(off.nan_to_num(torch.inf).max())
    first, second = true[answer].topk(2).values.unbind(-1)
    return Comparison(shares, float(bounds.max()), float((first - second).min()))
