"""Liger's SwiGLU, its backward pass run twice."""

import torch

from gated.survey.neighbours.liger import silu_mul  # LigerSiLUMulFunction, where TRITON_INTERPRET=1 is set

gate, value = (torch.ones(1, 4, requires_grad=True) for _ in range(2))
product = silu_mul.apply(gate * 1, value * 1)
for attempt in ("first", "second"):
    (slope, _) = torch.autograd.grad(product.sum(), (gate, value), retain_graph=True)
    print(f"{attempt} backward pass: d gate = {slope[0, 0].item():.4f}")
print(f"exact: {torch.autograd.grad(torch.nn.functional.silu(gate).sum(), gate)[0][0, 0].item():.4f}")
