"""torch's silu in its tail and at infinity."""

import torch
import torch.nn.functional as F

x = torch.tensor([-91.2, -float("inf"), float("inf")], requires_grad=True)
y = F.silu(x)
(slope,) = torch.autograd.grad(y.sum(), x)
for one in zip(x.tolist(), y.tolist(), slope.tolist(), strict=True):
    print("x = {:g}: silu {:.7g}, derivative {:.7g}".format(*one))
print("exact: -91.2: -2.250813e-38, -2.226133e-38; -inf: -0, 0; inf: inf, 1")
