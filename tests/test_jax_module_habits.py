"""What users of Flax expect of a module: stacked layers, abstract parameters, metadata, dtypes, settings, bridges."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("flax")

import flax.errors  # noqa: E402
import flax.linen as nn  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from _jax import assert_same, weights  # noqa: E402
from flax import nnx  # noqa: E402
from jax.nn.initializers import constant, normal  # noqa: E402
from jax.sharding import PartitionSpec  # noqa: E402

import gated.jax_impl as G  # noqa: E402
from gated.jax_impl import linen  # noqa: E402
from gated.jax_impl import nnx as gated_nnx  # noqa: E402

SETTINGS = {"beta": 0.7, "learn_beta": True, "bias": True}
LIBRARIES = pytest.mark.parametrize("library", [gated_nnx, linen], ids=["nnx", "linen"])


def made(library: Any, name: str, *sizes: int, **settings: Any) -> tuple[Any, Callable[[Any, Any], Any]]:
    """The parameters of a module, abstract, and the module as a function of parameters and x."""
    if library is linen:
        module = getattr(linen, name)(*sizes, **settings)
        start = jax.eval_shape(module.init, jax.random.key(0), jnp.ones((5, sizes[0])))["params"]
        return start, lambda parameters, x: module.apply({"params": parameters}, x)
    graph, state = nnx.split(nnx.eval_shape(lambda: getattr(gated_nnx, name)(*sizes, **settings, rngs=nnx.Rngs(0))))
    pure = nnx.to_pure_dict(state)

    def call(parameters: Any, x: Any) -> Any:
        nnx.replace_by_pure_dict(state, parameters)
        return nnx.merge(graph, state)(x)

    return pure, call


def filled(abstract: Any, seed: int = 0) -> Any:
    """Random parameters of these shapes and dtypes."""
    leaves, tree = jax.tree.flatten(abstract)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    values = [jax.random.normal(key, leaf.shape, leaf.dtype) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, values)


def test_nnx_and_linen_compute_the_same_bits_with_and_without_recomputing() -> None:
    x = weights()["x"]
    results = []
    for recompute in ("product", "all"):
        for library in (gated_nnx, linen):
            abstract, call = made(library, "GatedFFN", 4, 8, 6, recompute=recompute, **SETTINGS)
            loss = jax.value_and_grad(lambda parameters, x, call=call: (call(parameters, x) ** 2).sum(), (0, 1))
            results.append(jax.jit(loss)(filled(abstract), x))
    assert sorted(results[0][1][0]) == ["beta", "down_proj", "gate_proj", "up_proj"]
    for other in results[1:]:
        jax.tree.map(assert_same, other, results[0])


def test_layers_are_stacked_by_vmap_and_run_by_scan_in_both() -> None:
    # Their sums are taken in other orders: in float64 a few hundred u of 1.1e-16 of terms below 1e4.
    settings = SETTINGS | {"param_dtype": "float64"}
    x = np.linspace(-1, 1, 20).reshape(5, 4)

    @nnx.split_rngs(splits=3)
    @nnx.vmap
    def stack(rngs: Any) -> Any:
        return gated_nnx.GatedFFN(4, 8, kernel_init=normal(0.5), **settings, rngs=rngs)

    @nnx.jit
    def by_nnx(layers: Any, x: Any) -> Any:
        def loss(layers: Any, x: Any) -> Any:
            step = nnx.scan(nnx.remat(lambda x, one: x + one(x)), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
            return (step(x, layers) ** 2).sum()

        return nnx.value_and_grad(loss)(layers, x)

    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x: Any, _: None) -> Any:
            return x + nn.remat(linen.GatedFFN)(4, 8, **settings, name="ffn")(x), None

    scanned = nn.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)()

    def by_linen(parameters: Any, x: Any) -> Any:
        return (scanned.apply({"params": {"ffn": parameters}}, x, None)[0] ** 2).sum()

    with jax.enable_x64(True):
        layers, x = stack(nnx.Rngs(0)), jnp.asarray(x)
        parameters = nnx.to_pure_dict(nnx.state(layers, nnx.Param))
        blank = jax.eval_shape(scanned.init, jax.random.key(0), x, None)["params"]["ffn"]
        assert jax.tree.map(jnp.shape, blank) == jax.tree.map(jnp.shape, parameters)
        assert (parameters["gate_proj"]["kernel"].shape, parameters["beta"].shape) == ((3, 4, 8), (3,))
        value, gradient = by_nnx(layers, x)
        expected = jax.jit(jax.value_and_grad(by_linen))(parameters, x)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9),
            (value, nnx.to_pure_dict(gradient)),
            expected,
        )
        assert all(np.all(np.any(leaf.reshape(3, -1) != 0, axis=1)) for leaf in jax.tree.leaves(expected[1]))


def closing(ffn: Any) -> dict[str, Callable[[Any], Any]]:
    """What closes over a module, as functions of x; all but the first trace."""
    loss = lambda x: (ffn(x) ** 2).sum()  # noqa: E731
    return {
        "grad": jax.grad(loss),
        "jit": lambda x: jax.jit(ffn).trace(x).out_info,
        "grad of jit": lambda x: jax.eval_shape(jax.grad(jax.jit(loss)), x),
        "vmap": lambda x: jax.eval_shape(jax.vmap(ffn), x),
        "vmap of grad": lambda x: jax.make_jaxpr(jax.vmap(jax.grad(loss)))(x),
        "linearize": lambda x: jax.eval_shape(lambda x: jax.linearize(ffn, x)[0], x),
        "hessian": lambda x: jax.eval_shape(jax.hessian(loss), x),
        "checkpoint": lambda x: jax.make_jaxpr(jax.grad(jax.checkpoint(loss)))(x),
        "scan": lambda x: jax.make_jaxpr(lambda x: jax.lax.scan(lambda x, _: (ffn(x), None), x, length=3)[0])(x),
        "fori_loop": lambda x: jax.make_jaxpr(lambda x: jax.lax.fori_loop(0, 2, lambda _, x: ffn(x), x))(x),
        "cond": lambda x: jax.make_jaxpr(lambda x: jax.lax.cond(x[0, 0] > 0, ffn, lambda x: x, x))(x),
    }


class Counting(nnx.Module):
    """A linear layer that counts its calls, where it is told to, and drops elements."""

    def __init__(self, counts: bool) -> None:
        self.linear = nnx.Linear(8, 4, rngs=nnx.Rngs(0))
        self.dropout = nnx.Dropout(0.5, deterministic=not counts, rngs=nnx.Rngs(1))
        self.calls = nnx.BatchStat(jnp.zeros(()))
        self.counts = counts

    def __call__(self, x: Any) -> Any:
        if self.counts:
            self.calls[...] += 1
        return self.dropout(self.linear(x))


@pytest.mark.parametrize("recompute", ["product", "all"])
def test_every_transformation_of_jax_may_close_over_an_nnx_module(recompute: str) -> None:
    x = weights()["x"]
    module = gated_nnx.GatedFFN(4, 8, recompute=recompute, **SETTINGS, rngs=nnx.Rngs(0))
    for child in (module.down_proj, Counting(counts=False)):
        module.down_proj = child
        before = module(x)
        for transform in closing(module).values():
            transform(x)
        assert_same(module(x), before)


@pytest.mark.parametrize("recompute", ["product", "all"])
def test_what_a_child_changes_is_changed_once_a_call(recompute: str) -> None:
    x = weights()["x"]
    module = gated_nnx.GatedFFN(4, 8, recompute=recompute, **SETTINGS, rngs=nnx.Rngs(0))
    module.down_proj = Counting(counts=True)
    first, second = module(x), module(x)
    assert np.any(np.asarray(first) != np.asarray(second))
    nnx.jit(nnx.grad(lambda module: module(x).sum()))(module)
    # As of any module of Flax that changes its state: refused, and nothing is changed.
    with pytest.raises(flax.errors.TraceContextError, match="Cannot mutate"):
        jax.eval_shape(module, x)
    module(x)
    assert (float(module.down_proj.calls[...]), int(module.down_proj.dropout.rngs.count[...])) == (4, 4)


@pytest.mark.parametrize("recompute", ["product", "all"])
def test_a_child_may_be_a_function(recompute: str) -> None:
    x = weights()["x"]
    module = gated_nnx.GatedFFN(4, 4, recompute=recompute, **SETTINGS, rngs=nnx.Rngs(0))
    hidden = gated_nnx.GatedLinear(4, 4, **SETTINGS, rngs=nnx.Rngs(0))
    module.down_proj = lambda x: -x
    assert_same(module(x), -hidden(x))
    assert jax.eval_shape(jax.grad(lambda x: module(x).sum()), x).shape == x.shape


def test_a_learnt_beta_is_a_float() -> None:
    names = "float16, bfloat16, float32 or float64"
    for library, rngs in ((gated_nnx, {"rngs": nnx.Rngs(0)}), (linen, {})):
        for name, sizes in (("Swish", ()), ("SwiGLU", ()), ("GatedLinear", (4, 8)), ("GatedFFN", (4, 8))):
            text = f"{name}: param_dtype must be {names} where beta is learnt, got int32"
            with pytest.raises(TypeError, match=text):
                getattr(library, name)(*sizes, learn_beta=True, param_dtype=jnp.int32, **(rngs if sizes else {}))


@LIBRARIES
def test_initialisers_and_their_metadata_are_those_of_each_projection(library: Any) -> None:
    wrap = nnx.with_partitioning if library is gated_nnx else nn.with_partitioning
    settings = {
        "kernel_init": wrap(constant(1.0), (None, "tp")), "down_kernel_init": wrap(constant(2.0), ("tp", None)),
        "bias_init": wrap(constant(3.0), ("tp",)), "down_bias_init": wrap(constant(4.0), (None,)),
    }  # fmt: skip
    x = jnp.ones((2, 4))
    if library is gated_nnx:
        with jax.set_mesh(jax.make_mesh((1,), ("tp",))):
            module = gated_nnx.GatedFFN(4, 8, **SETTINGS, **settings, rngs=nnx.Rngs(0))
        parameters = nnx.to_pure_dict(nnx.state(module))
        specs = nnx.to_pure_dict(nnx.get_partition_spec(nnx.state(module)))
    else:
        boxed = linen.GatedFFN(4, 8, **SETTINGS, **settings).init(jax.random.key(0), x)["params"]
        specs, parameters = nn.get_partition_spec(boxed), nn.unbox(boxed)
    first = ({"kernel": 1.0, "bias": 3.0}, {"kernel": PartitionSpec(None, "tp"), "bias": PartitionSpec("tp")})
    last = ({"kernel": 2.0, "bias": 4.0}, {"kernel": PartitionSpec("tp", None), "bias": PartitionSpec(None)})
    for child, (values, expected) in (("gate_proj", first), ("up_proj", first), ("down_proj", last)):
        assert jax.tree.map(lambda one: float(one.mean()), parameters[child]) == values
        assert {name: specs[child][name] for name in expected} == expected
    assert specs["beta"] == PartitionSpec()


@pytest.mark.parametrize("recompute", ["product", "all"])
def test_every_parameter_that_linen_makes_is_an_array(recompute: str) -> None:
    # A constant that is made while jax.checkpoint traces is none, and gated_unit refuses it.
    module = linen.GatedFFN(4, 8, recompute=recompute, **SETTINGS)
    for leaf in jax.tree.leaves(module.init(jax.random.key(0), jnp.ones((2, 4)))):
        assert isinstance(leaf, jax.Array)


@LIBRARIES
def test_one_initialiser_serves_all_projections_where_there_is_no_other(library: Any) -> None:
    settings = {"kernel_init": constant(1.0), "bias_init": constant(3.0)}
    if library is gated_nnx:
        parameters = nnx.to_pure_dict(nnx.state(gated_nnx.GatedFFN(4, 8, bias=True, **settings, rngs=nnx.Rngs(0))))
    else:
        parameters = linen.GatedFFN(4, 8, bias=True, **settings).init(jax.random.key(0), jnp.ones((2, 4)))["params"]
    for child in ("gate_proj", "up_proj", "down_proj"):
        assert jax.tree.map(lambda one: float(one.mean()), parameters[child]) == {"kernel": 1.0, "bias": 3.0}


def test_the_default_kernels_are_those_of_flax_and_each_has_a_key_of_its_own() -> None:
    module = gated_nnx.GatedFFN(64, 64, rngs=nnx.Rngs(0))
    kernels = [np.asarray(each.kernel[...]) for each in (module.gate_proj, module.up_proj, module.down_proj)]
    linear = nnx.Linear(64, 64, use_bias=False, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(kernels[0], linear.kernel[...])
    assert len({each.tobytes() for each in kernels}) == 3
    parameters = linen.GatedFFN(64, 64).init(jax.random.key(0), jnp.ones((1, 64)))["params"]
    # lecun_normal: a variance of 1 / 64; of 4096 samples, estimated to a tenth (4.5 standard deviations).
    for kernel in (*kernels, *(parameters[name]["kernel"] for name in ("gate_proj", "up_proj", "down_proj"))):
        assert abs(np.var(kernel) * 64 - 1) < 0.1


@LIBRARIES
@pytest.mark.parametrize("name", ["GatedFFN", "GatedLinear"])
def test_dtypes_are_what_a_linear_layer_of_flax_makes_of_them(library: Any, name: str) -> None:
    for x_dtype, dtype, param_dtype in (
        ("bfloat16", None, "float32"), ("bfloat16", "bfloat16", "float32"), ("float32", "float16", "float32"),
        ("float32", None, "bfloat16"), ("bfloat16", None, "bfloat16"), ("float16", "float32", "float16"),
    ):  # fmt: skip
        linear = nnx.eval_shape(
            lambda d=dtype, p=param_dtype: nnx.Linear(4, 8, dtype=d, param_dtype=p, rngs=nnx.Rngs(0))
        )
        x = jax.ShapeDtypeStruct((5, 4), x_dtype)
        expected = jax.eval_shape(lambda linear, x: linear(x), linear, x).dtype
        abstract, call = made(library, name, 4, 8, dtype=dtype, param_dtype=param_dtype, **SETTINGS)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(abstract)} == {param_dtype}
        assert jax.eval_shape(call, abstract, x).dtype == expected
        gradient = jax.eval_shape(
            jax.grad(lambda *a, call=call: call(*a).astype(jnp.float32).sum(), (0, 1)), abstract, x
        )
        assert {leaf.dtype.name for leaf in jax.tree.leaves(gradient[0])} == {param_dtype}
        assert gradient[1].dtype == x_dtype


@LIBRARIES
@pytest.mark.parametrize(("name", "projections"), [("GatedFFN", 3), ("GatedLinear", 2)])
def test_settings_of_the_products_reach_every_projection(library: Any, name: str, projections: int) -> None:
    calls = []

    def dot_general(x: Any, kernel: Any, *arguments: Any, **keywords: Any) -> Any:
        calls.append((keywords["precision"], keywords["preferred_element_type"]))
        return jax.lax.dot_general(x, kernel, *arguments, **keywords)

    settings = {"precision": "highest", "preferred_element_type": jnp.float32, "dot_general": dot_general}
    abstract, call = made(library, name, 4, 8, dtype=jnp.bfloat16, **settings)
    calls.clear()
    result = jax.eval_shape(call, abstract, jax.ShapeDtypeStruct((5, 4), "bfloat16"))
    assert calls == [("highest", jnp.float32)] * projections
    assert result.dtype == jnp.float32
    abstract, call = made(library, name, 4, 8, precision="highest", preferred_element_type=jnp.float32)
    text = str(jax.make_jaxpr(call)(abstract, jax.ShapeDtypeStruct((5, 4), "float32")))
    assert text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == text.count("dot_general[") > 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_nothing_is_broadcast_to_another_rank_in_silence(dtype: str) -> None:
    a = weights(dtype)
    with jax.numpy_rank_promotion("raise"):
        beta = jnp.ones((8,), dtype)
        jax.eval_shape(
            jax.grad(lambda x: G.gated_ffn(x, *list(a.values())[1:], beta=beta).astype(jnp.float32).sum()), a["x"]
        )
        jax.eval_shape(lambda x: G.swiglu_linear(x, a["W"], a["V"], a["b"], a["c"], 0.7), a["x"][None])
        for library in (gated_nnx, linen):
            abstract, call = made(library, "GatedFFN", 4, 8, param_dtype=dtype, **SETTINGS)
            jax.eval_shape(call, abstract, a["x"])


def test_linen_modules_are_lifted_and_tabulated() -> None:
    x = weights()["x"]
    plain = linen.GatedFFN(4, 8, 6, **SETTINGS)
    parameters = plain.init(jax.random.key(0), x)
    expected = jax.jit(plain.apply)(parameters, x)
    for lifted in (nn.jit(linen.GatedFFN), nn.remat(linen.GatedFFN)):
        assert_same(lifted(4, 8, 6, **SETTINGS).apply(parameters, x), expected, ulps=2)
    mapped = nn.vmap(linen.GatedFFN, variable_axes={"params": None}, split_rngs={"params": False})(4, 8, 6, **SETTINGS)
    np.testing.assert_allclose(mapped.apply(parameters, x[None])[0], expected, rtol=1e-5, atol=1e-6)
    table = re.sub("\x1b.*?m", "", plain.tabulate(jax.random.key(0), x))
    assert all(part in table for part in ("gate_proj", "up_proj", "down_proj", "float32[4,8]", "float32[8,6]"))


def test_each_api_runs_inside_the_other() -> None:
    x = weights()["x"]
    other = linen.GatedFFN(4, 8, 6, **SETTINGS)
    parameters = other.init(jax.random.key(0), x)["params"]
    inside_nnx = nnx.bridge.lazy_init(nnx.bridge.ToNNX(other, rngs=nnx.Rngs(0)), x)
    nnx.update(inside_nnx, parameters)
    assert_same(inside_nnx(x), other.apply({"params": parameters}, x))
    inside_linen = nnx.bridge.ToLinen(gated_nnx.GatedFFN, args=(4, 8, 6), kwargs=SETTINGS)
    variables = inside_linen.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, nn.unbox(variables["params"])) == jax.tree.map(jnp.shape, parameters)
    assert_same(inside_linen.apply({**variables, "params": parameters}, x), other.apply({"params": parameters}, x))


@LIBRARIES
def test_what_is_no_jax_array_is_refused_by_name(library: Any) -> None:
    text = r"GatedFFN: x must be an array of this backend with dtype .*, got {}"
    abstract, call = made(library, "GatedFFN", 4, 8)
    for x, kind in (([[1.0] * 4], "list"), (np.ones((2, 4)), r"numpy\.ndarray")):
        with pytest.raises(TypeError, match=text.format(kind)):
            call(filled(abstract), x)
        for name in ("Swish", "SwiGLU"):
            module = getattr(library, name)(learn_beta=True)
            wrong = module if library is gated_nnx else lambda x, module=module: module.init(jax.random.key(0), x)
            with pytest.raises(TypeError, match=f"{name.lower()}: x must be an array of this backend .*, got {kind}"):
                wrong(x)
