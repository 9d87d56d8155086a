"""The Triton kernels compiled ahead, without a GPU, and what their code says: loads and stores, registers, spills."""

from __future__ import annotations

import functools
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from gated.torch_impl._forms import IN_BETA, IN_VALUE, IN_X, Form
from gated.torch_impl.kernels import _launches
from gated.torch_impl.kernels._launches import OPTIONS, Launch

TARGETS: Final = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
DTYPES: Final = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}


class Kernel(NamedTuple):
    """A call whose kernel is looked at."""

    activation: str
    layout: str
    """``"x"`` for an activation alone, ``"pair"``, or the layout of a packed array."""
    backward: bool
    dtype: str
    size: int = 1 << 16
    beta: str = "one"
    """Of swish: ``"one"``, ``"number"``, ``"scalar"`` (an array of one element), ``"channel"`` or ``"element"``."""
    clamped: bool = False

    @property
    def arrays(self) -> int:
        """How many arrays of the gate's size must be read or written at least."""
        parts = 1 if self.layout == "x" else 2
        return 1 + 2 * parts if self.backward else 1 + parts


def launches(kernel: Kernel) -> list[Launch]:
    """What the call would launch, for contiguous arrays."""
    packed = kernel.layout not in ("x", "pair")
    clamps = {"limit": 7.0, "offset": 1.0} if kernel.clamped else {}
    form = Form(kernel.activation, 1 if packed else None, kernel.layout if packed else "gate_last", **clamps)
    dtype = DTYPES[kernel.dtype]
    # Packed arrays with more than one row: the halves of one long row would be contiguous.
    gate = torch.empty((16, kernel.size // 16) if packed else (kernel.size,), dtype=dtype)
    x = torch.empty((16, kernel.size // 8), dtype=dtype) if packed else gate
    value = torch.empty_like(gate) if kernel.layout == "pair" else None
    shapes = {"scalar": (), "channel": gate.shape[-1:], "element": gate.shape}
    beta = (
        torch.empty(shapes[kernel.beta], dtype=dtype)
        if kernel.beta in shapes
        else 1.5
        if kernel.beta == "number"
        else 1.0
    )
    wanted = IN_X + ("" if value is None else IN_VALUE) + (IN_BETA if kernel.beta in shapes else "")
    found: list[Launch] = []
    launch = _launches.launch
    _launches.launch = lambda some, _: found.extend(some)
    try:
        if kernel.backward:
            _launches.pullback(form, wanted, torch.empty_like(gate), x, value, beta)
        else:
            _launches.evaluate(form, x, value, beta)
    finally:
        _launches.launch = launch
    return found


class _NoDevice:
    """What Triton asks its driver before it compiles. Each target is a device, whose kernels are kept apart."""

    def __init__(self, target: str) -> None:
        self.target = target

    def get_current_target(self) -> GPUTarget:
        return TARGETS[self.target]

    def get_current_device(self) -> str:
        return self.target

    def get_current_stream(self, device: str) -> int:
        return 0


def _compile(launch: Launch, target: str) -> Any:
    """What a launch compiles, from its own arguments, and does not run."""
    active = driver._active
    driver.set_active(_NoDevice(target))  # type: ignore[arg-type]
    try:
        return launch.kernel.warmup(**launch.arguments, **launch.constants, **OPTIONS, grid=(launch.programs,))
    finally:
        driver._active = active


class Code(NamedTuple):
    """What a kernel was compiled to."""

    ttir: str
    assembly: str
    machine: str
    """The instructions of an NVIDIA GPU, as its disassembler shows them."""
    registers: int
    spills: int
    """In bytes of a thread's memory on NVIDIA; in registers on AMD."""
    instructions: float
    """Of a thread, for each element."""
    widths: dict[str, Counter[int]]
    """Of "load" and "store": how many instructions of a thread there are of each width in bytes."""
    bytes: float
    """Read and written, for each element."""


@functools.cache
def compiled(kernel: Kernel, target: str, place: int = 0) -> Code:
    """The code of one of the launches of a call."""
    launch = launches(kernel)[place]
    return compile_launch(launch, target)


def compile_launch(launch: Launch, target: str) -> Code:
    """The code of a launch."""
    result = _compile(launch, target)
    elements = launch.constants["ROWS"] * launch.constants["COLUMNS"]
    read = _nvidia if TARGETS[target].backend == "cuda" else _amd
    assembly, machine, registers, spills, instructions, widths = read(result.asm)
    threads = OPTIONS["num_warps"] * TARGETS[target].warp_size
    moved = sum(width * count for one in widths.values() for width, count in one.items())
    return Code(
        result.asm["ttir"],
        assembly,
        machine,
        registers,
        spills,
        instructions * threads / elements,
        widths,
        moved * threads / elements,
    )


def _nvidia(asm: Any) -> tuple[str, str, int, int, int, dict[str, Counter[int]]]:
    widths: dict[str, Counter[int]] = {"load": Counter(), "store": Counter()}
    for kind, vector, bits in re.findall(r"\b(ld|st)\.global(?:\.\w+)*?(?:\.v(\d))?\.[bfusi](\d+)\b", asm["ptx"]):
        widths["load" if kind == "ld" else "store"][int(vector or 1) * int(bits) // 8] += 1
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(asm["cubin"])
        file.flush()
        usage, sass = (
            subprocess.run([tools / "cuobjdump", option, file.name], capture_output=True, text=True, check=True).stdout
            for option in ("--dump-resource-usage", "--dump-sass")
        )
    found = re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", usage)
    assert found is not None, usage
    registers, stack, local = map(int, found.groups())
    # Instructions up to the last exit: what follows is padding.
    lines = re.findall(r"/\*[0-9a-f]{4,}\*/ +(.+?);", sass)
    last = max(place for place, line in enumerate(lines) if "EXIT" in line)
    return asm["ptx"], sass, registers, stack + local, last + 1, widths


def _amd(asm: Any) -> tuple[str, str, int, int, int, dict[str, Counter[int]]]:
    text = asm["amdgcn"]
    sizes = {"ubyte": 1, "byte": 1, "ushort": 2, "short": 2, "dword": 4, "dwordx2": 8, "dwordx3": 12, "dwordx4": 16}
    widths: dict[str, Counter[int]] = {"load": Counter(), "store": Counter()}
    for kind, size in re.findall(r"^\s+(?:global|buffer|flat)_(load|store)_(\w+?)(?:_d16\w*)?\s", text, re.MULTILINE):
        widths[kind][sizes[size]] += 1
    counts = dict(re.findall(r"\.(vgpr_count|vgpr_spill_count|sgpr_spill_count):\s+(\d+)", text))
    spills = int(counts["vgpr_spill_count"]) + int(counts["sgpr_spill_count"])
    body = text[: text.index("s_endpgm")]
    instructions = len(re.findall(r"^\s+(?:[vs]|ds|buffer|global)_\w+", body, re.MULTILINE))
    return text, "", int(counts["vgpr_count"]), spills, instructions, widths
