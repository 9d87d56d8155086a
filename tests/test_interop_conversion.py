"""Weights between families: every bit arrives, nothing is copied that need not be, and what cannot be is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import strategies  # noqa: F401 - registers the profile of Hypothesis
from hypothesis import given
from hypothesis import strategies as st

from gated.interop import FAMILIES, Clamp, Family, InteropError, Reference, convert, from_reference, to_reference
from gated.interop.arrays import dtype_name, framework

try:
    import torch
except ModuleNotFoundError:
    torch = None  # type: ignore[assignment]
try:
    import jax
except ModuleNotFoundError:
    jax = None

Array = np.ndarray[Any, Any]

FRAMEWORKS = ["numpy", *(["torch"] if torch else []), *(["jax"] if jax else [])]
DTYPES = {
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
    **{name: np.dtype(name) for name in ("float16", "float32", "int8", "uint8", "int32")},
}
WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32}


def native(kind: str, array: Array) -> Any:
    """An array of a framework with these bits."""
    if kind == "numpy":
        return array
    if kind == "jax":
        return jax.numpy.asarray(array)
    return torch.from_numpy(array.view(WORDS[array.itemsize]).copy()).view(getattr(torch, array.dtype.name))


def bits(array: Any) -> Array:
    """The bits of an array of any framework."""
    if framework(array) == "torch":
        word = getattr(torch, WORDS[array.element_size()].__name__)
        return np.asarray(array.contiguous().view(word))
    plain = np.ascontiguousarray(np.asarray(array))
    return plain.view(WORDS[plain.itemsize])


def assert_same(a: Any, b: Any) -> None:
    assert framework(a) == framework(b) and dtype_name(a) == dtype_name(b) and tuple(a.shape) == tuple(b.shape)
    assert np.array_equal(bits(a), bits(b))


@st.composite
def blocks(draw: st.DrawFn, family: Family | None = None) -> tuple[Family, Reference]:
    """A family and a block for it: random bit patterns, of any framework and dtype, with and without biases."""
    family = family or FAMILIES[draw(st.sampled_from(list(FAMILIES)))]
    kind, dtype = draw(st.sampled_from(FRAMEWORKS)), np.dtype(DTYPES[draw(st.sampled_from(list(DTYPES)))])
    d, f, o = (draw(st.integers(0, 5)) for _ in range(3))
    e = (draw(st.integers(1, 3)),) if family.experts else ()

    def array(*shape: int) -> Any:
        count = int(np.prod(e + shape))
        drawn = draw(st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize))
        return native(kind, np.frombuffer(drawn, dtype).reshape(e + shape))

    biases = {"b", "bc"} & set(family.parts) and draw(st.booleans())
    last = "b2" in family.parts and draw(st.booleans())
    return family, Reference(
        array(d, f),
        array(d, f),
        array(f, o) if "W2" in family.parts else None,
        *((array(f), array(f)) if biases else (None, None)),
        array(o) if last else None,
    )


def count(family: Family, params: Reference) -> int | None:
    """The argument ``experts`` that the family needs."""
    return params.W.shape[0] if family.experts_folded else None


@given(blocks(), st.sampled_from(["", "model.layers.7.mlp."]))
def test_a_round_trip_is_exact_to_the_bit(drawn: tuple[Family, Reference], prefix: str) -> None:
    family, params = drawn
    state = from_reference(params, family.name, prefix=prefix)
    assert all(key.startswith(prefix) for key in state)
    back = to_reference(state, family.name, prefix=prefix, experts=count(family, params))
    for letter, expected, got in zip(Reference._fields, params, back, strict=True):
        assert (expected is None) == (got is None), letter
        if expected is not None:
            assert_same(got, expected)
    again = from_reference(back, family.name, prefix=prefix)
    assert list(again) == list(state)
    for key, value in state.items():
        assert_same(again[key], value)


@pytest.mark.parametrize("kind", FRAMEWORKS)
@pytest.mark.parametrize("dtype", [name for name, one in DTYPES.items() if np.dtype(one).itemsize <= 2])
@pytest.mark.parametrize("family", ["phi3", "gpt-oss", "mixtral", "maxtext-fused"])
def test_every_bit_pattern_arrives(family: str, dtype: str, kind: str) -> None:
    """Signalling nans among them, which XLA makes quiet where it concatenates floats of 8 or 16 bits."""
    form = np.dtype(DTYPES[dtype])
    every = np.arange(2 ** (8 * form.itemsize), dtype=WORDS[form.itemsize]).view(form)
    arrays = [native(kind, every.reshape((2, 4, -1) if FAMILIES[family].experts else (4, -1)))] * 2
    down = arrays[0].swapaxes(-1, -2)
    params = Reference(*arrays, down, *([array[..., 0, :] for array in arrays] if family == "gpt-oss" else []))
    back = to_reference(from_reference(params, family), family)
    for expected, got in zip(params, back, strict=True):
        assert expected is got is None or np.array_equal(bits(got), bits(expected))


@pytest.mark.skipif(jax is None, reason="needs jax")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_derivative_goes_through_a_pair_in_jax(dtype: str) -> None:
    params = Reference(*(jax.numpy.ones(shape, dtype) for shape in ((2, 3), (2, 3), (3, 5))))
    seed = jax.numpy.arange(12, dtype=dtype).reshape(6, 2)

    def loss(params: Reference) -> Any:
        return (from_reference(params, "phi3")["gate_up_proj.weight"] * seed).sum()

    gradient = jax.jit(jax.grad(loss))(params)
    assert gradient.W.tolist() == [[0, 2, 4], [1, 3, 5]] and gradient.V.tolist() == [[6, 8, 10], [7, 9, 11]]


FREE = [family for family in FAMILIES.values() if family.configurable and not family.experts and "W2" in family.parts]


@given(st.sampled_from(FREE).flatmap(lambda family: blocks(family)), st.sampled_from(FREE))
def test_convert_and_back_is_exact_to_the_bit(drawn: tuple[Family, Reference], target: Family) -> None:
    source, params = drawn
    if "b2" not in target.parts:
        params = params._replace(b=None, c=None, b2=None)
    state = from_reference(params, source)
    there = convert(state, source.name, target.name, target_prefix="there.")
    back = convert(there, target.name, source.name, prefix="there.", target_prefix="")
    assert list(back) == list(state)
    for key, value in state.items():
        assert_same(back[key], value)


def small(family: str, kind: str = "numpy", *, biases: bool = False, experts: int = 2) -> dict[str, Any]:
    """A state dict of a family whose sizes all differ, d 2, f 3, o 5, and whose numbers all differ."""
    row = FAMILIES[family]
    e = (experts,) if row.experts else ()
    ends = np.cumsum([0, *(int(np.prod(e + shape)) for shape in ((2, 3), (2, 3), (3, 5), (3,), (3,), (5,)))])
    shapes = ((2, 3), (2, 3), (3, 5), (3,), (3,), (5,))
    arrays = [
        native(kind, np.arange(start, end, dtype=np.float32).reshape(e + shape))
        for start, end, shape in zip(ends, ends[1:], shapes, strict=False)
    ]
    given_biases = arrays[3:] if biases else [None] * 3
    return from_reference(Reference(*arrays[:3], *given_biases), row)


VIEWED = [name for name, family in FAMILIES.items() if family.experts != "key" and "W2" in family.parts]


@pytest.mark.parametrize("family", VIEWED)
def test_numpy_and_torch_arrays_are_views(family: str) -> None:
    experts = 2 if FAMILIES[family].experts_folded else None
    state = small(family)
    for array in to_reference(state, family, experts=experts):
        assert array is None or any(np.shares_memory(array, one) for one in state.values())
    if torch:
        tensors = small(family, "torch")
        stores = {one.untyped_storage().data_ptr() for one in tensors.values()}
        for tensor in to_reference(tensors, family, experts=experts):
            assert tensor is None or tensor.untyped_storage().data_ptr() in stores


@pytest.mark.parametrize("family", [name for name in VIEWED if FAMILIES[name].packing == "separate"])
def test_separate_weights_are_written_without_a_copy(family: str) -> None:
    state = small(family)
    params = to_reference(state, family, experts=2 if FAMILIES[family].experts_folded else None)
    for key, value in from_reference(params, family).items():
        assert np.shares_memory(value, state[key]) and value.strides == state[key].strides


@pytest.mark.parametrize("kind", FRAMEWORKS)
@pytest.mark.parametrize(
    ("family", "key", "expected"),
    [
        # gate 0 to 5 in (d, f) = (2, 3), value 6 to 11
        ("phi3", "gate_up_proj.weight", [[0, 3], [1, 4], [2, 5], [6, 9], [7, 10], [8, 11]]),
        ("diffusers-geglu", "net.0.proj.weight", [[6, 9], [7, 10], [8, 11], [0, 3], [1, 4], [2, 5]]),
        ("torchtitan-w13", "w13.weight", [[0, 3], [6, 9], [1, 4], [7, 10], [2, 5], [8, 11]]),
        ("maxtext-fused", "wi.kernel", [[[0, 1, 2], [6, 7, 8]], [[3, 4, 5], [9, 10, 11]]]),
        ("gemma-flax", "gating_einsum", [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]]),
        ("gemma-flax-transposed", "gating_einsum", [[[0, 3], [1, 4], [2, 5]], [[6, 9], [7, 10], [8, 11]]]),
        ("llama", "gate_proj.weight", [[0, 3], [1, 4], [2, 5]]),
        ("gated-flax-nnx", "up_proj.kernel", [[6, 7, 8], [9, 10, 11]]),
    ],
)
def test_the_layouts_by_example(family: str, key: str, expected: Any, kind: str) -> None:
    assert np.asarray(small(family, kind)[key]).tolist() == expected


def test_the_experts_layouts_by_example() -> None:
    # Of expert e: gate 6 e to 6 e + 5, value 12 + 6 e and on, down 24 + 15 e and on.
    assert small("gpt-oss", biases=True)["gate_up_proj"][1].tolist() == [[6, 18, 7, 19, 8, 20], [9, 21, 10, 22, 11, 23]]
    assert small("llama4")["gate_up_proj"][1].tolist() == [[6, 7, 8, 18, 19, 20], [9, 10, 11, 21, 22, 23]]
    assert small("mixtral-packed")["gate_up_proj"][1, :, 0].tolist() == [6, 7, 8, 18, 19, 20]
    assert small("mixtral")["1.w3.weight"].tolist() == [[18, 21], [19, 22], [20, 23]]
    assert small("dbrx")["w1"].tolist() == [[0, 3], [1, 4], [2, 5], [6, 9], [7, 10], [8, 11]]
    assert small("dbrx")["w2"][3:].tolist() == np.arange(39, 54).reshape(3, 5).tolist()


class Reads(Mapping[str, Any]):
    """A state that remembers which values were asked for, as a checkpoint on disk would read them."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        self.state, self.read = state, set[str]()

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return self.state[key]

    def __contains__(self, key: object) -> bool:
        return key in self.state

    def __iter__(self) -> Iterator[str]:
        return iter(self.state)

    def __len__(self) -> int:
        return len(self.state)


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if "W2" in family.parts])
def test_only_the_blocks_own_values_are_read(family: str) -> None:
    own = {f"layers.1.{key}": value for key, value in small(family).items()}
    state = Reads({f"layers.0.{key}": "another layer's" for key in small(family)} | own | {"norm.weight": "foreign"})
    to_reference(state, family, prefix="layers.1.", experts=2 if FAMILIES[family].experts_folded else None)
    assert state.read == set(own)


@pytest.mark.parametrize(("family", "biases"), [("gated-flax-linen", True), ("mixtral", False), ("llama", False)])
def test_a_nested_state_is_the_flat_one(family: str, biases: bool) -> None:
    flat = small(family, biases=biases)
    nested: dict[Any, Any] = {}
    for key, value in flat.items():
        *steps, last = ("layers", "0", *key.split("."))
        node = nested
        for step in steps:
            # Lists of layers have ints for keys in Flax NNX.
            node = node.setdefault(int(step) if step.isdecimal() else step, {})
        node[last] = value
    for a, b in zip(to_reference(nested, family, prefix="layers.0."), to_reference(flat, family), strict=True):
        assert a is b is None or np.array_equal(a, b)


@pytest.mark.skipif(jax is None, reason="needs jax")
def test_it_works_under_jit() -> None:
    state = small("phi3", "jax")
    params = jax.jit(lambda state: to_reference(state, "phi3"))(state)
    again = jax.jit(lambda params: from_reference(params, "phi3"))(params)
    for key, value in state.items():
        assert_same(again[key], value)


@pytest.mark.skipif(torch is None, reason="needs torch")
def test_a_gradient_reaches_the_stored_tensor() -> None:
    state = {key: value.requires_grad_() for key, value in small("phi3", "torch").items()}
    to_reference(state, "phi3").V.sum().backward()
    assert state["gate_up_proj.weight"].grad.tolist() == [[0.0, 0.0]] * 3 + [[1.0, 1.0]] * 3


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import gated.interop", "numpy torch jax ml_dtypes"),
        ("import gated.interop; gated.interop.FAMILIES['llama']", "numpy torch jax"),
        (
            "import numpy as np, gated.interop as i;"
            "z = np.zeros((2, 2)); i.convert({f'{n}_proj.weight': z for n in ('gate', 'up', 'down')}, 'llama', 'phi3')",
            "torch jax",
        ),
    ],
)
def test_no_framework_is_imported_that_is_not_in_use(code: str, absent: str) -> None:
    check = f"{code}; import sys; found = {absent.split()!r} & sys.modules.keys(); assert not found, found"
    check = check.replace(f"{absent.split()!r} &", f"set({absent.split()!r}) &")
    subprocess.run([sys.executable, "-c", check], check=True, timeout=120)


# Bad input


def changed(family: str, key: str, value: Any = None, **rest: Any) -> dict[str, Any]:
    """A state with one value replaced, or removed where ``value`` is None."""
    state = small(family, **rest)
    return {one: array for one, array in state.items() if one != key} | ({} if value is None else {key: value})


def zeros(*shape: int, dtype: Any = np.float32) -> Array:
    return np.zeros(shape, dtype)


BAD_STATES = [
    ("llama", changed("llama", "up_proj.weight"), {}, "needs the key 'up_proj.weight'; the nearest there: 'gate_proj"),
    ("llama", {}, {}, "needs the key 'gate_proj.weight'; got 0 others"),
    (
        "llama",
        small("llama"),
        {"prefix": "mlp."},
        "needs the key 'mlp.gate_proj.weight'; the nearest there: 'gate_proj",
    ),
    (
        "llama",
        changed("llama", "up_proj.weight", zeros(2, 3)),
        {},
        r"'up_proj.weight' of family llama must have shape \(3, 2\), got \(2, 3\), its transpose$",
    ),
    ("llama", changed("llama", "down_proj.weight", zeros(5, 4)), {}, r"shape \(d_out, 3\), got \(5, 4\)$"),
    ("llama", changed("llama", "gate_proj.weight", zeros(6)), {}, r"shape \(d_hidden, d_in\), got \(6,\)"),
    ("phi3", changed("phi3", "gate_up_proj.weight", zeros(7, 2)), {}, r"shape \(2 \* d_hidden, d_in\), got \(7, 2\)"),
    (
        "flaxformer",
        changed("flaxformer", "wi_fused.kernel", zeros(2, 3, 3)),
        {},
        r"\(d_in, 2, d_hidden\), got \(2, 3, 3",
    ),
    (
        "phi3",
        changed("phi3", "down_proj.weight", zeros(5, 3, dtype=np.float16)),
        {},
        "'down_proj.weight' must have the dtype of 'gate_up_proj.weight', float32, got float16",
    ),
    ("phi3", changed("phi3", "down_proj.weight", [[0.0]]), {}, "an array of NumPy, PyTorch or JAX, got builtins.list"),
    ("t5", changed("t5", "wi_0.bias", zeros(3)), {}, "must have no key 'wi_0.bias', it has no biases"),
    ("llama4", changed("llama4", "gate_up_proj_bias", zeros(2, 6)), {}, "must have no key 'gate_up_proj_bias'"),
    ("llama", changed("llama", "gate_proj.bias", biases=True), {}, "needs the key 'gate_proj.bias'; the nearest"),
    ("llama", changed("llama", "up_proj.bias", biases=True), {}, "needs the key 'up_proj.bias'"),
    ("llama", changed("llama", "up_proj.bias", zeros(4), biases=True), {}, r"'up_proj.bias' .* \(3,\), got \(4,\)"),
    ("mixtral", changed("mixtral", "1.w2.weight", experts=3), {}, "needs the key '1.w2.weight'"),
    ("mixtral", {k: v for k, v in small("mixtral", experts=3).items() if k[0] != "1"}, {}, "the key '1.w1.weight'"),
    ("mixtral", {}, {}, "needs the key '0.w1.weight'"),
    ("mixtral", small("mixtral"), {"experts": 3}, "experts must be 2, as the keys have it, got 3"),
    ("mixtral-packed", changed("mixtral-packed", "down_proj", zeros(3, 5, 3)), {}, r"\(2, d_out, 3\), got \(3, 5, 3\)"),
    ("dbrx", small("dbrx"), {}, r"experts must be an int for family dbrx, whose arrays are \(\(e f\) d\)"),
    ("dbrx", small("dbrx"), {"experts": 4}, r"shape \(4 \* d_hidden, d_in\), got \(6, 2\)"),
    ("dbrx", small("dbrx"), {"experts": 0}, "experts must be an int of at least 1 for family dbrx, got 0"),
    ("llama", small("llama"), {"experts": 2}, "experts must be None for family llama, got 2"),
    ("lama", small("llama"), {}, "family must be a name in FAMILIES, perhaps one of llama.*, got 'lama'"),
    ("???", small("llama"), {}, r"one of llama, gemma, .*, got '\?\?\?'"),
    (None, small("llama"), {}, "got None"),
]


@pytest.mark.parametrize(("family", "state", "options", "text"), BAD_STATES)
def test_a_state_that_does_not_fit_is_refused(family: Any, state: Any, options: Any, text: str) -> None:
    with pytest.raises(InteropError, match=f"^to_reference: .*{text}"):
        to_reference(state, family, **options)


W, V, W2 = zeros(2, 3), zeros(2, 3), zeros(3, 5)

BAD_BLOCKS = [
    ("llama", Reference(W, zeros(3, 2), W2), r"V must have shape \(2, 3\) for family llama, got \(3, 2\)"),
    ("llama", Reference(W, V, zeros(2, 3)), r"W2 must have shape \(3, d_out\) for family llama, got \(2, 3\)"),
    ("llama", Reference(W, V, None), "W2 must be an array for family llama, got None"),
    ("tokamax", Reference(W, V, W2), "W2 must be None for family tokamax, which has no key for it"),
    ("t5", Reference(W, V, W2, zeros(3), zeros(3)), "b must be None for family t5, which has no key for it"),
    ("phi3", Reference(W, V, W2, zeros(3)), "b and c must both be arrays or both None .* got only b; zeros"),
    ("phi3", Reference(W, V, W2, None, zeros(3)), "got only c"),
    ("phi3", Reference(W, V, W2, b2=zeros(3)), r"b2 must have shape \(5,\) for family phi3, got \(3,\)"),
    (
        "phi3",
        Reference(W, V.astype(np.float64), W2),
        "V must have the framework and dtype of W, numpy float32, got numpy",
    ),
    ("phi3", Reference(W, [[1.0]], W2), "V must be an array of NumPy, PyTorch or JAX, got builtins.list"),
    ("gpt-oss", Reference(W, V, W2), r"W must have shape \(experts, d_in, d_hidden\) for family gpt-oss, got \(2, 3\)"),
    (
        "llama",
        Reference(zeros(1, 2, 3), V, W2),
        r"W must have shape \(d_in, d_hidden\) for family llama, got \(1, 2, 3",
    ),
    ("gemm", Reference(W, V, W2), "perhaps one of gemma"),
]


@pytest.mark.parametrize(("family", "params", "text"), BAD_BLOCKS)
def test_a_block_that_does_not_fit_is_refused(family: str, params: Reference, text: str) -> None:
    with pytest.raises(InteropError, match=f"^from_reference: .*{text}"):
        from_reference(params, family)


@pytest.mark.skipif(torch is None, reason="needs torch")
def test_two_frameworks_in_a_state_are_refused() -> None:
    state = changed("llama", "up_proj.weight", torch.zeros(3, 2))
    with pytest.raises(
        InteropError, match=r"'up_proj.weight' must be of the framework of 'gate_proj.weight', numpy, got torch"
    ):
        to_reference(state, "llama")


@pytest.mark.parametrize(
    ("source", "target", "text"),
    [
        ("llama", "gemma", "target must have the function of llama, swish, got gemma, gelu_tanh"),
        ("modernbert", "t5", "of modernbert, gelu, got t5, gelu_tanh"),
        (
            "gpt-oss",
            "mixtral-packed",
            r"of gpt-oss, swish with Clamp\(alpha=1.702, limit=7.0, offset=1.0\), got mixtral",
        ),
        ("gpt-oss", "gguf-experts", "got gguf-experts, swish"),
    ],
)
def test_convert_refuses_another_function(source: str, target: str, text: str) -> None:
    """The weights would arrive, and mean something else: a tanh gelu for an erf gelu, a lost offset."""
    state = small(source)
    with pytest.raises(InteropError, match=f"^convert: .*{text}"):
        convert(state, source, target)
    if source == "llama":
        assert from_reference(to_reference(state, source), target).keys() == state.keys()


def test_convert_to_a_configurable_module_asks_no_question() -> None:
    assert convert(small("t5"), "t5", "gated-flax-nnx").keys() == small("gated-flax-nnx").keys()


def test_a_family_of_ones_own() -> None:
    mine = Family(name="mine", parts={"WV": "up", "W2": "down"}, up="d (f 2)", down="f o", source="mine")
    state = convert(small("llama"), "llama", mine)
    assert state["up"].tolist() == [[0, 6, 1, 7, 2, 8], [3, 9, 4, 10, 5, 11]]
    assert np.array_equal(to_reference(state, mine).V, to_reference(small("llama"), "llama").V)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"activation": "tanh"}, "activation must be"),
        ({"up": "f x"}, "a pattern must name some of the axes e 2 d f o, each once, got 'f x'"),
        ({"up": "f f"}, "each once"),
        ({"up": "f (d"}, r"each once, got 'f \(d'"),
        ({"up": ""}, "each once, got ''"),
        ({"up": "(2 f) d"}, "parts must be of WV, W2, bc, b2 and have WV, got W, V, W2"),
        ({"parts": {"W": "a", "W2": "b"}}, "and have V and W, got W, W2"),
        ({"gate": 1}, "gate must be 0, or 1 of a pair of halves, got 1"),
    ],
)
def test_a_family_that_cannot_be_is_refused(wrong: dict[str, Any], text: str) -> None:
    row: dict[str, Any] = {
        "name": "x",
        "parts": {"W": "a", "V": "b", "W2": "c"},
        "up": "f d",
        "down": "o f",
        "source": "",
    }
    with pytest.raises(ValueError, match=text):
        Family(**row | wrong)


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        FAMILIES["llama"] = FAMILIES["gemma"]  # type: ignore[index]
    with pytest.raises(AttributeError):
        FAMILIES["gpt-oss"].clamp = Clamp(1.0, 7.0, 1.0)  # type: ignore[misc]
