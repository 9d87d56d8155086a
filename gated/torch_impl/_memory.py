"""Memory for large results on the CPU.

A large tensor is fresh from the kernel, which maps and clears it page by page as it is first written: of an elementwise
operation on 4 KiB pages that takes most of the time. Linux gives pages of 2 MiB where it is asked.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from ._blocks import GRAIN

__all__ = ["new_like"]

LARGE: Final = 2**25
"""Bytes from which on the allocator of glibc always takes fresh memory (DEFAULT_MMAP_THRESHOLD_MAX)."""


def _find_advise() -> Callable[[int, int], object] | None:
    """madvise(MADV_HUGEPAGE), None where there is none."""
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if advice is None:
        return None
    try:
        function = ctypes.CDLL(None).madvise
    except (AttributeError, OSError):
        return None
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return lambda address, size: function(address, size, advice)


ADVISE: Final = _find_advise()


def new_like(x: Tensor) -> Tensor:
    """An uninitialised CPU tensor like ``x``: ``torch.empty_like``."""
    result = torch.empty_like(x)
    size = result.nbytes
    if size >= LARGE and ADVISE is not None:
        start = result.data_ptr()
        page = mmap.PAGESIZE
        first = -(-start // page) * page
        ADVISE(first, (start + size - first) // page * page)  # no more than advice: a refusal does no harm
        _touch(result)
    return result


def _touch(x: Tensor) -> None:
    """Writes to all large pages of a dense tensor, in all threads.

    The kernel clears a page in the thread that writes there first. The threads that share a block of elements mostly
    write to one page, and all but one would wait.
    """
    threads = torch.get_num_threads()
    if threads > 1:
        step = x.numel() // (threads * GRAIN)
        x.as_strided((threads * GRAIN,), (step,)).zero_()
