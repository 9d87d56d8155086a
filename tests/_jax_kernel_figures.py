"""What the fused projections of the JAX backend compile to, without a GPU or a TPU: the tables of docs/jax-kernels.md.

python tests/_jax_kernel_figures.py gpu    # Triton for NVIDIA and AMD: needs the package triton
TPU_LIBRARY_PATH=.../libtpu.so TPU_SKIP_MDS_QUERY=1 python tests/_jax_kernel_figures.py tpu    # the compiler of TPUs
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gated.jax_impl as G
from gated.jax_impl.kernels import fused_projections

ROWS, D_IN, D_HIDDEN = 512, 1024, 1024


def pulled(activation: str) -> Any:
    def function(x: Any, W: Any, V: Any, b: Any, c: Any, cotangent: Any) -> Any:
        value, pullback = jax.vjp(lambda *a: G.gated_linear(*a, activation=activation), x, W, V, b, c)
        return value, pullback(cotangent)

    return jax.jit(function)


def shapes(dtype: str, sharding: Any = None) -> list[Any]:
    each = ((ROWS, D_IN), (D_IN, D_HIDDEN), (D_IN, D_HIDDEN), (D_HIDDEN,), (D_HIDDEN,), (ROWS, D_HIDDEN))
    return [jax.ShapeDtypeStruct(shape, dtype, sharding=sharding) for shape in each]


# TPU


def compile_for_tpu(topology: str, dtypes: list[str], activations: list[str]) -> None:
    """Compiles values and gradients for one device of a topology."""
    device = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[0]
    sharding = NamedSharding(Mesh(np.array([device]), "x"), PartitionSpec())
    for dtype in dtypes:
        for activation in activations:
            start = time.perf_counter()
            with fused_projections():
                text = pulled(activation).lower(*shapes(dtype, sharding)).compile().as_text()
            kernels = text.count('custom_call_target="tpu_custom_call"')
            seconds = time.perf_counter() - start
            print(
                f"| {device.device_kind} | {dtype} | {activation} | {kernels} kernels | {seconds:.0f} s |", flush=True
            )


# GPU


def triton_modules(platform: str, dtype: str, activation: str) -> list[str]:
    """The kernels, forward and pullback, in Triton's intermediate language."""
    from jax._src.pallas.triton import lowering

    modules: list[str] = []
    lower = lowering.lower_jaxpr_to_triton_module

    def seen(*arguments: Any, **keywords: Any) -> Any:
        result = lower(*arguments, **keywords)
        modules.append(result.module.operation.get_asm())
        return result

    lowering.lower_jaxpr_to_triton_module = seen
    try:
        with fused_projections():
            pulled(activation).trace(*shapes(dtype)).lower(lowering_platforms=(platform,))
    finally:
        lowering.lower_jaxpr_to_triton_module = lower
    return modules


def compile_for_gpu(dtypes: list[str], activations: list[str]) -> None:
    """Compiles the kernels by the package triton: registers of a thread / bytes spilled / shared memory."""
    import triton
    from triton.backends import nvidia
    from triton.backends.compiler import GPUTarget

    from gated.jax_impl.kernels._blocks import GPU, GPU_STAGES, gpu_warps

    print(f"With triton {triton.__version__}, jax {jax.__version__}.")
    targets = {f"sm_{c}": ("cuda", GPUTarget("cuda", c, 32)) for c in (80, 90, 100)}
    targets["gfx942"] = ("rocm", GPUTarget("hip", "gfx942", 64))
    options = {"num_warps": gpu_warps(GPU), "num_stages": GPU_STAGES}
    dump = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder, "kernel.ttir"), Path(folder, "kernel.cubin")
        for dtype in dtypes:
            for activation in activations:
                modules = {p: triton_modules(p, dtype, activation) for p in ("cuda", "rocm")}
                for index, kernel in enumerate(("forward", "pullback")):
                    cells = []
                    for platform, target in targets.values():
                        source.write_text(modules[platform][index])
                        made = triton.compile(str(source), target=target, options=options)
                        if platform == "cuda":
                            binary.write_bytes(made.asm["cubin"])
                            command = [str(dump), "--dump-resource-usage", str(binary)]
                            usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                            registers, spilled = (re.findall(rf"{what}:(\d+)", usage)[-1] for what in ("REG", "STACK"))
                        else:
                            registers, spilled = (
                                re.findall(rf"\.{what}: *(\d+)", made.asm["amdgcn"])[-1]
                                for what in ("vgpr_count", "vgpr_spill_count")
                            )
                        cells.append(f"{registers} / {spilled} / {made.metadata.shared}")
                    print("|", " | ".join([activation, kernel, dtype, *cells]), "|", flush=True)


if __name__ == "__main__":
    curved = ["swish", "gelu", "gelu_tanh"]
    if sys.argv[1:] == ["gpu"]:
        compile_for_gpu(["float16", "bfloat16", "float32"], curved)
    elif sys.argv[1:] == ["tpu"]:
        for name in ("v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2"):
            compile_for_tpu(name, ["bfloat16", "float32"], ["swish", "gelu"])
    else:
        sys.exit(__doc__)
