"""The projections and the Flax modules of the JAX backend, and what it says where a package is missing."""

from __future__ import annotations

import copy
import importlib
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("flax")

import flax.linen as nn  # noqa: E402
import flax.serialization  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from _jax import GATE, VALUE, assert_same, weights  # noqa: E402
from flax import nnx  # noqa: E402

import gated.jax_impl as G  # noqa: E402
from gated.jax_impl import linen  # noqa: E402
from gated.jax_impl import nnx as gated_nnx  # noqa: E402

ROOT = Path(__file__).parent.parent


# Projections


def test_a_half_precision_ffn_rounds_its_hidden_product_once() -> None:
    arrays = weights("bfloat16")
    wide = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
    gate = wide["x"] @ wide["W"] + wide["b"]
    hidden = gate / (1 + np.exp(-gate)) * (wide["x"] @ wide["V"] + wide["c"])
    linear = G.gated_linear(*(arrays[name] for name in ("x", "W", "V", "b", "c")))
    ulp = np.maximum(2.0 ** (np.floor(np.log2(np.abs(hidden))) - 7), 2.0**-133)
    assert np.max(np.abs(np.asarray(linear, np.float64) - hidden) / ulp) <= 0.51


def test_an_absent_bias_has_no_cotangent_and_no_tangent() -> None:
    a = weights()
    value, pullback = G.vjp(G.gated_linear, a["x"], a["W"], a["V"], None, a["c"])
    cotangents = pullback(value)
    assert [each is None for each in cotangents] == [False, False, False, True, False]
    primals = (a["x"], a["W"], a["V"], None, a["c"])
    _, tangent = G.jvp(G.gated_linear, primals, primals)
    expected = jax.jvp(lambda x, W, V, c: G.gated_linear(x, W, V, None, c), (a["x"], a["W"], a["V"], a["c"]), (
        a["x"], a["W"], a["V"], a["c"],
    ))[1]  # fmt: skip
    assert_same(tangent, expected, ulps=2)


# Modules


def ffn(recompute: str = "product", **keywords: Any) -> Any:
    return gated_nnx.GatedFFN(
        4, 8, 6, beta=0.7, bias=True, recompute=recompute, bias_init=jax.nn.initializers.normal(1.0), **keywords,
        rngs=nnx.Rngs(0),
    )  # fmt: skip


def test_modules_are_what_their_functions_are() -> None:
    x, packed = jnp.asarray(GATE), jnp.asarray(np.stack([VALUE, GATE]))
    for library, call in (
        (gated_nnx, lambda module, x: module(x)),
        (linen, lambda module, x: module.apply(module.init(jax.random.key(0), x), x)),
    ):
        # A learnt beta is a float32, and so is 0.75: it and the number are the same.
        for learn in (False, True):
            assert_same(call(library.Swish(0.75, learn_beta=learn), x), G.swish(x, 0.75), ulps=2)
            swiglu = library.SwiGLU(0.75, learn_beta=learn, axis=0, layout="gate_first")
            assert_same(call(swiglu, packed), G.swiglu(packed, 0.75, axis=0, layout="gate_first"), ulps=2)
        assert_same(call(library.GLU(axis=0), packed), G.glu(packed, axis=0))
        half = jnp.asarray(GATE, jnp.bfloat16)
        assert call(library.Swish(0.7, learn_beta=True), half).dtype == jnp.bfloat16
    module = gated_nnx.GatedLinear(4, 8, activation="gelu", bias=True, rngs=nnx.Rngs(1))
    children = (module.gate_proj, module.up_proj)
    arrays = [*(child.kernel[...] for child in children), *(child.bias[...] for child in children)]
    a = weights()
    assert_same(module(a["x"]), G.gated_linear(a["x"], *arrays, activation="gelu"), ulps=4)
    other = linen.GatedLinear(4, 8, activation="gelu", bias=True)
    assert_same(other.apply({"params": nnx.to_pure_dict(nnx.state(module))}, a["x"]), module(a["x"]), ulps=4)


def test_a_replaced_child_is_called() -> None:
    module = ffn()
    x = weights()["x"]
    before = module(x)
    module.down_proj = nnx.LoRA(8, 2, 6, base_module=module.down_proj, rngs=nnx.Rngs(2))
    assert_same(module(x), before, ulps=2)
    module.down_proj.lora_b[...] += 1.0
    assert np.all(np.asarray(module(x)) != np.asarray(before))
    by_lora = nnx.grad(lambda module: module(x).sum(), argnums=nnx.DiffState(0, nnx.LoRAParam))(module)
    assert np.all(np.asarray(by_lora["down_proj"]["lora_a"][...]) != 0)


def test_modules_in_half_precision_compute_in_it() -> None:
    x = weights("bfloat16")["x"]
    assert ffn(dtype=jnp.bfloat16, learn_beta=True)(x).dtype == jnp.bfloat16
    assert ffn(param_dtype=jnp.bfloat16, learn_beta=True)(x).dtype == jnp.bfloat16
    other = linen.GatedFFN(4, 8, dtype=jnp.bfloat16, learn_beta=True)
    assert other.apply(other.init(jax.random.key(0), x), x).dtype == jnp.bfloat16


def test_modules_are_copied_pickled_saved_loaded_and_read() -> None:
    x = weights()["x"]
    module = ffn(learn_beta=True)
    result = module(x)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert_same(twin(x), result)
    graph, state = nnx.split(module)
    assert_same(nnx.merge(graph, jax.tree.map(jnp.array, state))(x), result)
    text = repr(module)
    assert all(part in text for part in ("GatedFFN", "activation='swish'", "recompute='product'", "beta", "gate_proj"))

    other = linen.GatedFFN(4, 8, 6, learn_beta=True, bias=True)
    assert pickle.loads(pickle.dumps(other)) == other
    parameters = {"params": nnx.to_pure_dict(state)}
    blank = other.init(jax.random.key(1), x)
    loaded = flax.serialization.from_bytes(blank, flax.serialization.to_bytes(parameters))
    assert_same(other.apply(loaded, x), other.apply(parameters, x))
    assert "recompute = 'product'" in repr(other)


@pytest.mark.parametrize("library", [gated_nnx, linen])
def test_bad_modules_are_refused_at_construction(library: Any) -> None:
    rngs = {"rngs": nnx.Rngs(0)} if library is gated_nnx else {}
    allowed = '"identity", "sigmoid", "relu", "gelu", "gelu_tanh" or "swish"'
    layouts = '"gate_last", "gate_first" or "interleaved"'
    for make, error, text in (
        (lambda: library.GatedFFN(4, 8, activation="silu", **rngs), ValueError,
         f"GatedFFN: activation must be {allowed}, got 'silu'"),
        (lambda: library.GatedLinear(4, 8, activation=None, **rngs), ValueError,
         f"GatedLinear: activation must be {allowed}, got None"),
        (lambda: library.GatedFFN(4, 8, recompute="x", **rngs), ValueError,
         "GatedFFN: recompute must be \"product\" or \"all\", got 'x'"),
        (lambda: library.GatedFFN(4, 8, activation="gelu", learn_beta=True, **rngs), ValueError,
         "GatedFFN: learn_beta=True needs activation \"swish\", got 'gelu'"),
        (lambda: library.GLU(layout="x"), ValueError, f"GLU: layout must be {layouts}, got 'x'"),
        (lambda: library.SwiGLU(layout="x"), ValueError, f"SwiGLU: layout must be {layouts}, got 'x'"),
        (lambda: library.Swish(True), TypeError, "Swish: beta must be a Python number, got bool"),
    ):  # fmt: skip
        with pytest.raises(error) as caught:
            make()
        assert str(caught.value) == text


@pytest.mark.parametrize("library", [gated_nnx, linen])
def test_an_input_of_another_width_is_refused(library: Any) -> None:
    text = r"GatedFFN: x must have shape \(\.\.\., 4\), got \(2, 3\)"
    with pytest.raises(ValueError, match=text):
        if library is linen:
            linen.GatedFFN(4, 8).init(jax.random.key(0), jnp.ones((2, 3)))
        else:
            ffn()(jnp.ones((2, 3)))


def test_linen_modules_are_dense_layers_inside() -> None:
    seen = []

    def record(next_call: Any, arguments: Any, keywords: Any, context: Any) -> Any:
        seen.append(type(context.module))
        return next_call(*arguments, **keywords)

    module = linen.GatedFFN(4, 8)
    x = jnp.ones((2, 4))
    parameters = module.init(jax.random.key(0), x)
    with nn.intercept_methods(record):
        module.apply(parameters, x)
    assert seen.count(nn.Dense) == 3


# What is missing


@pytest.mark.parametrize(
    ("module", "package"),
    [("gated.jax_impl", "jax"), ("gated.jax_impl.nnx", "flax"), ("gated.jax_impl.linen", "flax")],
)
def test_a_missing_package_is_named_with_the_extra_that_installs_it(module: str, package: str) -> None:
    code = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
try:
    import {module}
except ModuleNotFoundError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout.strip() == (
        f'{module} needs the package {package}, which is not installed; install it with: pip install "gated[jax]"'
    )


def test_the_functions_need_no_flax() -> None:
    code = "import sys, gated.jax_impl; print('flax' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout.strip() == "False"


@pytest.mark.parametrize("module", ["gated.jax_impl", "gated.jax_impl.nnx", "gated.jax_impl.linen"])
def test_all_that_is_public_is_there(module: str) -> None:
    loaded = importlib.import_module(module)
    assert all(hasattr(loaded, name) for name in loaded.__all__)
    assert sorted(loaded.__all__) == list(loaded.__all__) or module != "gated.jax_impl"
