"""The fused projections lowered for TPUs and GPUs from a host without one, and the memory that their tiles take."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
from _jax_pallas import pallas_calls  # noqa: E402
from jax import export  # noqa: E402

import gated.jax_impl as G  # noqa: E402
from gated.jax_impl.kernels import GPU, TPU, Blocks, fused_projections  # noqa: E402
from gated.jax_impl.kernels._blocks import gpu_bytes, tpu_bytes  # noqa: E402

CALLS = {"tpu": "@tpu_custom_call", "cuda": "@__gpu$xla.gpu.triton", "rocm": "@__gpu$xla.gpu.triton"}
# A Triton kernel is kept as an intermediate language that a later XLA may read otherwise: JAX asks to be told.
UNSTABLE = [export.DisabledSafetyCheck.custom_call(call.removeprefix("@")) for call in CALLS.values()]
ROWS, D_IN, D_HIDDEN = 300, 700, 400


def shapes(dtype: str) -> list[Any]:
    each = ((ROWS, D_IN), (D_IN, D_HIDDEN), (D_IN, D_HIDDEN), (D_HIDDEN,), (D_HIDDEN,), (D_HIDDEN,), (ROWS, D_HIDDEN))
    return [jax.ShapeDtypeStruct(shape, dtype) for shape in each]


def pulled(x: Any, W: Any, V: Any, b: Any, c: Any, beta: Any, cotangent: Any) -> Any:
    """A value and all cotangents."""
    value, pullback = jax.vjp(G.swiglu_linear, x, W, V, b, c, beta)
    return value, pullback(cotangent)


@pytest.mark.parametrize(
    ("platform", "dtype", "x64"),
    [
        *((platform, dtype, False) for platform in CALLS for dtype in ("float32", "bfloat16")),
        ("cuda", "float16", False),
        *((platform, "float32", True) for platform in ("tpu", "cuda")),
    ],
)
def test_an_artifact_has_a_kernel_forward_and_one_backward(platform: str, dtype: str, x64: bool) -> None:
    with jax.enable_x64(x64), fused_projections():
        artifact = export.export(jax.jit(pulled), platforms=[platform], disabled_checks=UNSTABLE)(*shapes(dtype))
    assert artifact.mlir_module().count(CALLS[platform]) == 2
    read = export.deserialize(artifact.serialize())
    assert read.platforms == (platform,) and [a.dtype.name for a in read.out_avals] == [dtype] * 7


@pytest.mark.parametrize("activation", ["identity", "sigmoid", "relu", "gelu", "gelu_tanh"])
def test_every_activation_is_lowered_for_every_platform(activation: str) -> None:
    def function(x: Any, W: Any, V: Any, ct: Any) -> Any:
        value, pullback = jax.vjp(lambda *a: G.gated_linear(*a, activation=activation), x, W, V)
        return value, pullback(ct)

    operands = shapes("float32")
    for platform, call in CALLS.items():
        with fused_projections():
            lowered = jax.jit(function).trace(*operands[:3], operands[-1]).lower(lowering_platforms=(platform,))
        assert lowered.as_text().count(call) == 2


def test_without_the_context_there_is_no_kernel() -> None:
    for platform, call in CALLS.items():
        text = jax.jit(pulled).trace(*shapes("float32")).lower(lowering_platforms=(platform,)).as_text()
        assert call not in text


# Memory


def tiles(equation: Any) -> tuple[list[int], int]:
    """The bytes of each operand's and each result's tile, and those of the sums."""
    mapping, body = equation.params["grid_mapping"], equation.params["jaxpr"]
    each = [math.prod(v.aval.shape) * v.aval.dtype.itemsize for v in body.invars]
    count = len(mapping.block_mappings)
    return each[:count], sum(each[count:])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("blocks", [TPU, Blocks(64, 128, 256)])
def test_the_memory_of_a_tpu_kernel_is_what_is_said(blocks: Blocks, dtype: str) -> None:
    matrix, bias = jax.ShapeDtypeStruct((1024, 1024), dtype), jax.ShapeDtypeStruct((1024,), dtype)
    with fused_projections(tpu=blocks, interpret="tpu"):
        jaxpr = jax.make_jaxpr(pulled)(matrix, matrix, matrix, bias, bias, matrix, matrix)  # beta: of the gate's shape
    forward, backward = pallas_calls(jaxpr.jaxpr)
    size = jnp.dtype(dtype).itemsize
    for equation, is_backward in ((forward, False), (backward, True)):
        operands, sums = tiles(equation)
        assert 2 * sum(operands) + sums == tpu_bytes(blocks, size, backward=is_backward, beta=True)


def test_the_default_tiles_leave_room_on_every_device() -> None:
    # 16 MiB of VMEM are a kernel's on a TPU v5e unless it asks for more; 48 KiB of shared memory every GPU has.
    assert tpu_bytes(TPU, 4, backward=True, beta=True) <= 8 * 2**20
    assert gpu_bytes(GPU, 4) <= 48 * 2**10


# A TPU's own compiler, where it is installed


def test_the_compiler_of_tpus_accepts_the_kernels() -> None:
    pytest.importorskip("libtpu", reason="pip install libtpu has the compiler of TPUs, which needs no TPU")
    environment = {**os.environ, "TPU_SKIP_MDS_QUERY": "1", "JAX_PLATFORMS": "cpu"}
    code = "import _jax_kernel_figures as f; f.compile_for_tpu('v5e:2x2', ['bfloat16'], ['swish'])"
    command = [sys.executable, "-c", code]
    here = Path(__file__).parent
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and "2 kernels" in done.stdout, done.stderr[-2000:]
