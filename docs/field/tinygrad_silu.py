"""tinygrad's silu in float16."""

import numpy as np
from tinygrad import Tensor

x = np.float16([-11.0, -11.25, -12.0])
exact = x.astype(np.float64) / (1 + np.exp(-x.astype(np.float64)))
for one, computed, right in zip(x, Tensor(x).silu().numpy(), exact, strict=True):
    print(f"silu({one:g}) in float16 = {computed:.4g}, exact {right:.4g}")
