"""The tile sizes of the kernels, and the memory that they need on a device."""

from __future__ import annotations

from typing import Final, NamedTuple

from gated.contract import check_choice

__all__ = [
    "GPU",
    "TPU",
    "Blocks",
    "Choice",
    "ceil_div",
    "checked_choice",
    "fitted",
    "gpu_bytes",
    "gpu_warps",
    "rounded_up",
    "tpu_bytes",
]


class Blocks(NamedTuple):
    """A tile of the result is ``rows`` x ``columns``; its sums run over ``depth`` elements of d_in at a time."""

    rows: int
    columns: int
    depth: int


TPU: Final = Blocks(256, 256, 512)
GPU: Final = Blocks(32, 64, 32)
STRIP: Final = 32
"""Rows of a tile that a TPU kernel gates at a time: what is live between its operations stays small."""
GPU_STAGES: Final = 2
"""Loads in flight of a GPU kernel."""
_ELEMENTS_OF_A_WARP: Final = 512
"""Of the tile: 16 a thread. With twice as many, the registers of most targets do not suffice."""
_LIMITS: Final = {"tpu": 16 * 2**20, "gpu": 227 * 2**10}
"""Bytes that a kernel has: the VMEM that XLA gives it on a TPU v5e, the shared memory of a block on H100 and B200."""
_DIVISORS: Final = {"tpu": Blocks(STRIP, 128, 128), "gpu": Blocks(16, 16, 16)}


class Choice(NamedTuple):
    """What a caller asks for."""

    tpu: Blocks
    gpu: Blocks
    interpret: str | None


def checked_choice(tpu: object, gpu: object, interpret: object) -> Choice:
    """The arguments of ``fused_projections``, checked."""
    if interpret is not None:
        check_choice("fused_projections", "interpret", interpret, tuple(_DIVISORS))
    return Choice(_checked("tpu", tpu), _checked("gpu", gpu), interpret)  # type: ignore[arg-type]


def _checked(device: str, blocks: object) -> Blocks:
    if not isinstance(blocks, Blocks):
        raise TypeError(f"fused_projections: {device} must be a Blocks, got {type(blocks).__qualname__}")
    for name, size, divisor in zip(Blocks._fields, blocks, _DIVISORS[device], strict=True):
        fits = type(size) is int and size > 0 and size % divisor == 0
        if device == "gpu":
            fits = fits and size & (size - 1) == 0
        if not fits:
            power = "a power of two, " if device == "gpu" else ""
            raise ValueError(
                f"fused_projections: {name} of {device} must be {power}a positive multiple of {divisor}, got {size!r}"
            )
    needed = tpu_bytes(blocks, 2, backward=False) if device == "tpu" else gpu_bytes(blocks, 2)
    if needed > _LIMITS[device]:
        raise ValueError(
            f"fused_projections: {device} must need at most {_LIMITS[device]} bytes of its memory, got {blocks}, which "
            f"needs {needed} in 16 bits"
        )
    return blocks


def fitted(blocks: Blocks, device: str, rows: int, columns: int, depth: int) -> Blocks:
    """The blocks, no larger than arrays of these sizes need."""

    def one(block: int, size: int, divisor: int) -> int:
        needed = rounded_up(size, divisor) if device == "tpu" else max(divisor, 1 << (size - 1).bit_length())
        return min(block, needed)

    return Blocks(*map(one, blocks, (rows, columns, depth), _DIVISORS[device]))


def gpu_warps(blocks: Blocks) -> int:
    """The warps of a program."""
    return max(1, min(16, blocks.rows * blocks.columns // _ELEMENTS_OF_A_WARP))


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def rounded_up(size: int, divisor: int) -> int:
    """The least multiple of ``divisor`` that is not below ``size``."""
    return ceil_div(size, divisor) * divisor


def tpu_bytes(blocks: Blocks, itemsize: int, *, backward: bool, beta: bool = False) -> int:
    """VMEM of the TPU kernel: every operand twice, since the next tile is loaded meanwhile, and two float32 sums.

    Args:
        blocks: the tile sizes.
        itemsize: bytes of an element of x.
        backward: of the kernel that recomputes; it reads a cotangent more and writes two float32 tiles.
        beta: whether there is a beta of the shape of the gate; the backward kernel writes a tile for it too.
    """
    tile = blocks.rows * blocks.columns
    operands = (blocks.rows * blocks.depth + 2 * blocks.depth * blocks.columns + 2 * blocks.columns) * itemsize
    operands += tile * itemsize  # the result, or its cotangent
    operands += tile * itemsize * beta
    if backward:
        operands += tile * 4 * (2 + beta)
    return 2 * operands + 2 * tile * 4


def gpu_bytes(blocks: Blocks, itemsize: int) -> int:
    """Shared memory of the GPU kernels: the tiles of x, W and V, for every load in flight."""
    return GPU_STAGES * (blocks.rows * blocks.depth + 2 * blocks.depth * blocks.columns) * itemsize
