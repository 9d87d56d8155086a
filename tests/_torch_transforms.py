"""The table of transforms of PyTorch: its columns, and the page that the outcomes of their tests make.

``python tests/_torch_transforms.py`` runs every cell and writes docs/torch-transforms.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from _table import DOCS, Table
from _torch_rows import ROWS

__all__ = ["TABLE", "column", "load"]

_GROUPS: Mapping[str, str] = {
    "Orders and modes": "`torch.autograd`, in float64",
    "torch.func and batches": "in float64",
    "Compilers": "`torch.compile(fullgraph=True)` with the backend `aot_eager`, `torch.export`, fake and meta tensors",
    "The accuracy contract": "float16, bfloat16, float32 and float64; tails, ends of the ranges, infinities, nan",
    "In use": "what surrounds a call in real programs",
}

_HEAD = """# Every transform of PyTorch

Which function of `gated.torch_impl` goes through which transform. *yes* is the outcome of a test, written by
`python tests/_torch_transforms.py`; `tests/test_torch_transforms.py` runs every cell again (of four slow
columns some rows, and all with `pytest -m transforms`). A dot stands where there is no test, for a reason at the end
of the page.

What is exact: derivatives of any order by Taylor arithmetic on balls (`tests/_jets.py`), in which no formula of a
derivative is written down. A float64 result must be within 256 unit roundoffs of the sum of the magnitudes of its
terms, in every element of every argument; points, directions and cotangents are random. A row goes through a column in
all its variants (activations, layouts, axes, shapes of beta), or in one where the legend ends with (1); every
argument is differentiated, biases and beta too. A module is a function of its input and its parameters, by
`torch.func.functional_call`."""

_TAIL = """
## Where there is no test

- `vjp` and `jvp` go by `torch.func`, which `torch.export` does not trace: torch 2.13 makes a constant even of the
  gradient of a sine. `torch.func.vjp` refuses to run where saved tensors are exchanged by hooks, as within a
  `torch.utils.checkpoint`. `torch.func.jvp` of a Python `autograd.Function` records for backward even under `no_grad`.
- In the tables of the accuracy contract `vjp` and `jvp` are what the other rows are measured with: `gated validate` and
  `tests/test_agreement.py` hold them to it. A tangent of a projected function is a sum, and has its bound there.

## Inductor

The compiled columns run on `aot_eager`. What Inductor generates is held to the accuracy contract by
`tests/test_torch_transforms.py`: `gated_unit` with float32 `swish` in every run, and by
`pytest -m inductor tests/test_torch_transforms.py` its other activations and dtypes, and the packed `swiglu` (beta a
number and an array), `clamped_swiglu` and `geglu` (tanh) in float32 and bfloat16.

## What PyTorch refuses

- Double backward through a compiled function, whatever it is: differentiate inside instead. `torch.func.grad`, `jvp`
  and `hessian` within `torch.compile` go by the rules of this backend.
- `torch.jit.trace`: the analysis of TorchScript, which is deprecated, has no `view` to another dtype, and raises.
- `torch.func.functionalize` of a Python `autograd.Function` is not implemented, and raises; `torch.compile` and
  `torch.export` do without it.

`torch.compile` makes a graph for each value of a Python number (beta, alpha, limit, offset): a beta that changes
should be a tensor.
"""

TABLE = Table(DOCS / "torch-transforms.md", ROWS, _GROUPS, _HEAD, _TAIL)
column = TABLE.column


def load() -> Table:
    """The table with its columns."""
    import _torch_compiled
    import _torch_contract
    import _torch_derivatives
    import _torch_uses

    del _torch_compiled, _torch_contract, _torch_derivatives, _torch_uses
    return TABLE


if __name__ == "__main__":
    # As a module, so that the columns register with it and not with __main__.
    import _torch_transforms

    raise SystemExit(_torch_transforms.load().main())
