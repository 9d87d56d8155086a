"""What the survey grades: a table of targets of others, each with the claim that it makes."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["ENTRIES", "Entry", "is_installed"]

_HERE: Final = "gated.survey.neighbours"


@dataclass(frozen=True)
class Entry:
    """One implementation, as the page names it.

    Attributes:
        key: names its result file; unique.
        package: whose it is, and what must be installed.
        name: what a user of the package would write.
        target: as ``gated check`` takes it; ``onnx:NAME`` is a model of :mod:`gated.survey.onnx_models`.
        function: of the contract, which it is graded as.
        options: of :func:`gated.conformance.check`.
        environment: variables that are set while it is graded.
        needs: further packages.
    """

    key: str
    package: str
    name: str
    target: str
    function: str
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    needs: Sequence[str] = ()


def is_installed(entry: Entry) -> bool:
    """Whether the packages that it needs are there; they are not imported to find out."""
    return all(importlib.util.find_spec(name) for name in (entry.package, *entry.needs))


_SINGLE: Final = ("float32",)
_TWO: Final = ("bfloat16", "float32")
_ALL: Final = ("float16", "bfloat16", "float32", "float64")
_TANH: Final = {"approximate": "tanh"}
_PAIR: Final = {"form": "pair"}


def _torch() -> Iterator[Entry]:
    own, thin = "torch.nn.functional", f"{_HERE}.torch"
    yield Entry("torch-sigmoid", "torch", "torch.sigmoid", "torch:sigmoid", "sigmoid", {"dtypes": _ALL})
    yield Entry("torch-silu", "torch", "F.silu", f"{own}:silu", "silu", {"dtypes": _ALL})
    yield Entry("torch-gelu", "torch", "F.gelu", f"{own}:gelu", "gelu", {"dtypes": _ALL})
    tanh = 'F.gelu(approximate="tanh")'
    yield Entry("torch-gelu-tanh", "torch", tanh, f"{thin}:gelu_tanh", "gelu", {"dtypes": _ALL, **_TANH})
    yield Entry("torch-glu", "torch", "F.glu", f"{own}:glu", "glu", {"dtypes": _TWO})
    for how, framework in (("eager", "torch"), ("torch.compile", "torch-compiled")):
        key = "" if framework == "torch" else "-compiled"
        options = {"dtypes": _TWO, "framework": framework}
        pair = {**options, **_PAIR}
        yield Entry(f"torch-swiglu{key}", "torch", f"F.silu(a) * b, {how}", f"{thin}:swiglu_pair", "swiglu", pair)
        yield Entry(f"torch-geglu{key}", "torch", f"F.gelu(a) * b, {how}", f"{thin}:geglu_pair", "geglu", pair)


def _jax() -> Iterator[Entry]:
    own, thin = "jax.nn", f"{_HERE}.jax"
    for how, framework in (("", "jax"), (", jax.jit", "jax-jit")):
        key = "" if framework == "jax" else "-jit"
        options: dict[str, Any] = {"framework": framework, "dtypes": _TWO if key else _ALL}
        yield Entry(f"jax-sigmoid{key}", "jax", f"jax.nn.sigmoid{how}", f"{own}:sigmoid", "sigmoid", options)
        yield Entry(f"jax-silu{key}", "jax", f"jax.nn.silu{how}", f"{own}:silu", "silu", options)
        yield Entry(
            f"jax-gelu{key}", "jax", f"jax.nn.gelu(approximate=False){how}", f"{thin}:gelu_erf", "gelu", options
        )
        yield Entry(f"jax-gelu-tanh{key}", "jax", f"jax.nn.gelu{how}", f"{own}:gelu", "gelu", {**options, **_TANH})
        two = {**options, "dtypes": _TWO}
        yield Entry(f"jax-glu{key}", "jax", f"jax.nn.glu{how}", f"{own}:glu", "glu", two)
        pair = {**two, **_PAIR}
        yield Entry(f"jax-swiglu{key}", "jax", f"jax.nn.silu(a) * b{how}", f"{thin}:swiglu_pair", "swiglu", pair)
    options = {"framework": "jax", "dtypes": _TWO}
    yield Entry("flax-silu", "flax", "flax.nnx.silu", "flax.nnx:silu", "silu", options)
    yield Entry("flax-glu", "flax", "flax.nnx.glu", "flax.nnx:glu", "glu", options)
    yield Entry("flax-gelu", "flax", "flax.nnx.gelu", "flax.nnx:gelu", "gelu", {**options, **_TANH})
    thin = f"{_HERE}.tokamax"
    options = {"framework": "jax", "dtypes": _SINGLE}
    name = "gated_linear_unit(activation=jax.nn.swish), XLA"
    yield Entry("tokamax-swiglu", "tokamax", name, f"{thin}:swiglu_linear", "swiglu_linear", options)
    name = "gated_linear_unit(activation=jax.nn.gelu), XLA"
    options = {**options, "activation": "gelu_tanh"}
    yield Entry("tokamax-geglu", "tokamax", name, f"{thin}:geglu_linear", "gated_linear", options)


def _keras() -> Iterator[Entry]:
    thin = f"{_HERE}.keras"
    for backend in ("torch", "jax", "tensorflow"):
        environment = {"KERAS_BACKEND": backend}

        def of(
            key: str, name: str, target: str, function: str, *more: Mapping[str, Any], environment: Any = environment
        ) -> Entry:
            backend = environment["KERAS_BACKEND"]
            options: dict[str, Any] = {"framework": "keras", "dtypes": _TWO}
            for one in more:
                options |= one
            name = f"keras.ops.{name}, {backend}"
            return Entry(f"keras-{backend}-{key}", "keras", name, target, function, options, environment, (backend,))

        yield of("sigmoid", "sigmoid", "keras.ops:sigmoid", "sigmoid")
        yield of("silu", "silu", "keras.ops:silu", "silu")
        yield of("gelu", "gelu(approximate=False)", f"{thin}:gelu_erf", "gelu")
        yield of("gelu-tanh", "gelu", f"{thin}:gelu_tanh", "gelu", _TANH)
        yield of("glu", "glu", "keras.ops:glu", "glu")
        yield of("swiglu", "silu(a) * b", f"{thin}:swiglu_pair", "swiglu", _PAIR)


def _tensorflow() -> Iterator[Entry]:
    thin, options = f"{_HERE}.tensorflow", {"framework": "tensorflow", "dtypes": _TWO}
    for key, name, function, more in (
        ("silu", "tf.nn.silu", "silu", {}),
        ("swish", "tf.nn.silu(x, beta)", "swish", {"beta": "scalar", "dtypes": _SINGLE}),
        ("gelu_erf", "tf.nn.gelu", "gelu", {}),
        ("gelu_tanh", "tf.nn.gelu(approximate=True)", "gelu", _TANH),
        ("swiglu_pair", "tf.nn.silu(a) * b", "swiglu", _PAIR),
    ):
        yield Entry(f"tensorflow-{key}", "tensorflow", name, f"{thin}:{key}", function, {**options, **more})


def _onnx() -> Iterator[Entry]:
    for package, framework in (("onnxruntime", "onnxruntime"), ("onnx", "onnx-reference")):
        options = {"framework": framework, "dtypes": _SINGLE}
        for key, name, function, more in (
            ("sigmoid", "Sigmoid-13", "sigmoid", {}),
            ("swish", "Swish-24", "silu", {}),
            ("swish-half", "Swish-24", "silu", {"dtypes": ("float16",)}),
            ("swish-beta", "Swish-24(alpha=1.5)", "swish", {"beta": 1.5}),
            ("gelu", "Gelu-20", "gelu", {}),
            ("gelu-tanh", 'Gelu-20(approximate="tanh")', "gelu", _TANH),
            ("swiglu", "SwiGLU-28", "swiglu", _PAIR),
        ):
            needs = ("onnx",)
            target = f"onnx:{key}"
            yield Entry(f"{framework}-{key}", package, name, target, function, {**options, **more}, {}, needs)


def _torch_libraries() -> Iterator[Entry]:
    thin, torch = f"{_HERE}.transformers", {"framework": "torch", "dtypes": _TWO}
    for key, function, more in (
        ("silu", "silu", {}),
        ("gelu", "gelu", {}),
        ("gelu_python", "gelu", {}),
        ("gelu_new", "gelu", _TANH),
        ("gelu_fast", "gelu", _TANH),
        ("gelu_accurate", "gelu", _TANH),
        ("gelu_pytorch_tanh", "gelu", _TANH),
    ):
        name, target = f'ACT2FN["{key}"]', f"{thin}:{key}"
        yield Entry(f"transformers-{key}", "transformers", name, target, function, {**torch, **more}, {}, ("torch",))
    first: Mapping[str, Any] = {"layout": "gate_first"}
    interleaved: Mapping[str, Any] = {"layout": "interleaved"}
    single: Mapping[str, Any] = {"dtypes": _SINGLE}
    for key, package, name, function, claim in (
        ("phi3", "transformers", "Phi3MLP, between its projections", "swiglu", first),
        ("gpt_oss", "transformers", "GptOssExperts._apply_gate", "clamped_swiglu", interleaved),
        ("llama", "transformers", "LlamaMLP", "gated_ffn", single),
        ("t5", "transformers", "T5DenseGatedActDense", "gated_ffn", {**single, "activation": "gelu_tanh"}),
        ("glu", "timm", "GluMlp, between its projections", "glu", {}),
        ("swiglu_packed", "timm", "SwiGLUPacked, between its projections", "swiglu", first),
        ("swiglu", "timm", "SwiGLU", "gated_ffn", single),
        ("swiglu", "x_transformers", "GLU(SiLU), between its projections", "swiglu", {}),
        ("geglu", "x_transformers", "GLU(GELU), between its projections", "geglu", {}),
    ):
        target = f"{_HERE}.{package}:{key}"
        yield Entry(f"{package}-{key}", package, name, target, function, {**torch, **claim}, {}, ("torch",))
    name, interpreted = "LigerSiLUMulFunction, interpreted", {"TRITON_INTERPRET": "1"}
    # Triton's interpreter is wrong in bfloat16 (triton-lang/triton#4972).
    options = {"framework": "torch", **_PAIR, "dtypes": ("float16", "float32")}
    target = f"{_HERE}.liger:silu_mul"
    yield Entry("liger-swiglu", "liger_kernel", name, target, "swiglu", options, interpreted, ("torch", "triton"))


def _tinygrad() -> Iterator[Entry]:
    thin, options = f"{_HERE}.tinygrad", {"framework": "numpy", "dtypes": ("float16", "float32")}
    for key, more in (("sigmoid", {}), ("silu", {}), ("gelu", _TANH)):
        gradient = {"gradient": f"{thin}:{key}_vjp"}
        name, target = f"Tensor.{key}", f"{thin}:{key}"
        yield Entry(f"tinygrad-{key}", "tinygrad", name, target, key, {**options, **gradient, **more})


def _ours() -> Iterator[Entry]:
    for backend, framework in (("numpy_ref", "numpy"), ("torch_impl", "torch"), ("jax_impl", "jax")):
        for function, dtypes in (("sigmoid", _ALL), ("silu", _ALL), ("gelu", _ALL), ("glu", _TWO), ("swiglu", _TWO)):
            # The reference has no gradient that a stranger could call: its vjp is graded by `gated validate`.
            options = {"framework": framework, "dtypes": dtypes}
            target = f"gated.{backend}:{function}"
            yield Entry(
                f"gated-{backend}-{function}",
                "gated",
                f"{backend}.{function}",
                target,
                function,
                options,
                {},
                (framework,),
            )


ENTRIES: Final[Sequence[Entry]] = (
    *_torch(),
    *_jax(),
    *_keras(),
    *_tensorflow(),
    *_onnx(),
    *_torch_libraries(),
    *_tinygrad(),
    *_ours(),
)
