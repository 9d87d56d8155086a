"""The collection: who is graded, what each claims to be, and what `gated check` must say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from graded import Honest, Wrong

__all__ = ["HONEST", "MORE", "WRONG"]

_FIELD: Final = {"profile": "field"}
_SINGLE: Final = {"dtypes": ("float32",)}
_DOUBLE: Final = {"dtypes": ("float64",)}
_BRAIN: Final = {"dtypes": ("bfloat16",)}
_HALF: Final = {"dtypes": ("float16",)}


def _claims(function: str, *parts: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """Options of a check: float32 in the field's profile, unless they say otherwise."""
    merged = {"function": function, **_FIELD, **_SINGLE}
    for part in parts:
        merged |= part
    return merged | options


_CONTRACT: Final = {"profile": "contract"}
_VALUES: Final = {"gradients": False}
_GPT_OSS: Final = {"layout": "interleaved"}
_PAIR: Final = {"form": "pair"}


def _numpy() -> Sequence[Wrong]:
    def of(name: str, options: Mapping[str, Any], diagnosis: str = "", finding: str = "") -> Wrong:
        return Wrong(f"numpy_wrong.py:{name}", options, diagnosis, finding)

    return [
        of("swish_of_scaled", _claims("swish", beta=1.5), "beta-scales-output"),
        of("swish_beta_in_front", _claims("swish", beta="scalar"), "beta-outside-sigmoid"),
        of("swish_without_beta", _claims("swish", beta="vector"), "beta-ignored"),
        of("swish_in_single", _claims("silu", _CONTRACT, _DOUBLE), "float32-arithmetic-in-float64"),
        of("silu_textbook", _claims("silu", _CONTRACT), "tail-underflow"),
        of("silu_stable_sigmoid", _claims("silu", _CONTRACT), "nan-at-infinity"),
        of("silu_exp_over_one_plus_exp", _claims("silu"), "", "wrong-value"),
        of("silu_in_place", _claims("silu"), "input-overwritten", "input-overwritten"),
        of("silu_softmax_trick", _claims("silu"), "", "wrong-value"),
        of("silu_per_vector_of_eight", _claims("silu"), "", "depends-on-batch"),
        of("sigmoid_always_single", _claims("sigmoid", _HALF), "", "wrong-dtype"),
        of("sigmoid_flat", _claims("sigmoid"), "", "wrong-shape"),
        of("sigmoid_list", _claims("sigmoid"), "", "wrong-type"),
        of("sigmoid_hard", _claims("sigmoid"), "", "wrong-value"),
        of("relu_leaky", _claims("relu"), "", "wrong-value"),
        of("gelu_by_tanh", _claims("gelu"), "gelu-tanh-for-erf"),
        of("gelu_promoted", _claims("gelu"), "", "wrong-dtype"),
        of("sigmoid_of_anything", _claims("sigmoid", _CONTRACT), "", "integers-promoted"),
        of("gelu_by_sigmoid", _claims("gelu"), "gelu-sigmoid"),
        of("gelu_without_half", _claims("gelu"), "", "wrong-value"),
        of("gelu_forgot_root_two", _claims("gelu"), "", "wrong-value"),
        of("silu_dithered", _claims("silu"), "", "nondeterministic"),
        of(
            "silu_textbook",
            _claims("silu", gradient="numpy_wrong.py:silu_gradient_without_x"),
            "",
            "wrong-gradient",
        ),
        of(
            "swish_with_beta",
            _claims("swish", beta="vector", gradient="numpy_wrong.py:swish_gradient_of_beta_unsummed"),
            "beta-gradient-not-summed",
        ),
        Wrong("numpy_honest.py:silu_of_positive", _claims("silu", _CONTRACT, _BRAIN), "", "wrong-value"),
        of("swiglu_other_half", _claims("swiglu"), "gate-order"),
        of("glu_other_half", _claims("glu", _DOUBLE, layout="gate_first"), "gate-order"),
        of("swiglu_activates_value", _claims("gated_unit"), "value-activated"),
        of("swiglu_activates_both", _claims("gated_unit"), "", "wrong-value"),
        of("swiglu_of_product", _claims("swiglu"), "product-activated"),
        of("swiglu_sum", _claims("swiglu", _PAIR), "", "wrong-value"),
        of("swiglu_broadcast", _claims("gated_unit", _CONTRACT), "", "pair-broadcast"),
        of("geglu_erf", _claims("geglu", approximate="tanh"), "gelu-erf-for-tanh"),
        of("swiglu_rounded_between", _claims("swiglu", _CONTRACT, _BRAIN), "double-rounding"),
        of("swiglu_one_row", _claims("swiglu"), "", "wrong-shape"),
        of("clamped_without_offset", _claims("clamped_swiglu", _GPT_OSS), "offset-missing"),
        of("clamped_without_clamp", _claims("clamped_swiglu", _GPT_OSS), "clamp-missing"),
        of("clamped_gate_below_too", _claims("clamped_swiglu", _GPT_OSS), "clamp-both-sides"),
        of("clamped_value_above_only", _claims("clamped_swiglu", _GPT_OSS), "", "wrong-value"),
        of("clamped_to_zero", _claims("clamped_swiglu", _GPT_OSS), "", "wrong-value"),
        of("clamped_as_halves", _claims("clamped_swiglu", _GPT_OSS), "interleaved-read-as-halves"),
        of("clamped_plain_silu", _claims("clamped_swiglu", _GPT_OSS), "", "wrong-value"),
        of("clamped_after_offset", _claims("clamped_swiglu", _GPT_OSS), "", "wrong-value"),
        of("glu_linear_forgets_bias", _claims("glu_linear", bias=True), "bias-dropped"),
        of("swiglu_linear_swapped", _claims("swiglu_linear"), "weights-swapped"),
        of("ffn_transposed_weights", _claims("gated_ffn"), "weight-not-transposed"),
        of("ffn_activation_after_down", _claims("gated_ffn"), "", "wrong-value"),
    ]


def _misbehaving() -> Sequence[Wrong]:
    def of(name: str, finding: str, *parts: Mapping[str, Any]) -> Wrong:
        return Wrong(f"numpy_misbehaving.py:{name}", _claims("sigmoid", *parts), "", finding)

    return [
        of("hangs", "hangs", {"timeout": 1.0}),
        of("segfaults", "crashes"),
        of("leaves", "crashes"),
        of("exits", "raises"),
        of("refuses_bfloat16", "raises", {"dtypes": ("float32", "bfloat16")}),
        of("gives_none", "wrong-type"),
        of("gives_pair", "wrong-type"),
        of("complains", "raises"),
        of("wraps", "wrong-type"),
    ]


def _torch() -> Sequence[Wrong]:
    def of(name: str, options: Mapping[str, Any], diagnosis: str = "", finding: str = "") -> Wrong:
        return Wrong(f"torch_wrong.py:{name}", options, diagnosis, finding)

    return [
        of("Swish", _claims("swish", beta=1.5), "beta-scales-output"),
        of("swish_ignores", _claims("swish", beta="array"), "beta-ignored"),
        of("SiluAndMul", _claims("swiglu"), "gate-order"),
        of("glu_of_torch", _claims("glu", layout="gate_first"), "gate-order"),
        of("swiglu_activates_up", _claims("swiglu", _PAIR), "value-activated"),
        of("swiglu_of_product", _claims("swiglu", _BRAIN), "product-activated"),
        of("NewGELU", _claims("gelu"), "gelu-tanh-for-erf"),
        of("GeluAndMul", _claims("geglu", approximate="tanh"), "gelu-erf-for-tanh"),
        of("quick_gelu", _claims("gelu", _BRAIN), "gelu-sigmoid"),
        of("swiglu_rounded_between", _claims("swiglu", _CONTRACT, _BRAIN), "double-rounding"),
        of("swiglu_in_half", _claims("swiglu"), "", "wrong-value"),
        of("silu_in_single", _claims("silu", _DOUBLE), "float32-arithmetic-in-float64"),
        of("silu_returns_single", _claims("silu", _HALF), "", "wrong-dtype"),
        of("silu_strides", _claims("silu"), "", "depends-on-strides"),
        of("swiglu_keeps_gate", _claims("swiglu"), "", "wrong-shape"),
        of("swiglu_in_place", _claims("gated_unit"), "input-overwritten", "input-overwritten"),
        of("swiglu_dropout", _claims("swiglu"), "", "nondeterministic"),
        of("clamped_interleaved", _claims("clamped_swiglu", _GPT_OSS), "offset-missing"),
        of("clamped_both", _claims("clamped_swiglu", _GPT_OSS), "clamp-both-sides"),
        of("clamped_concatenated", _claims("clamped_swiglu", _GPT_OSS), "interleaved-read-as-halves"),
        of("mlp_transposed", _claims("gated_ffn"), "weight-not-transposed"),
        of("mlp_swapped", _claims("gated_ffn"), "weights-swapped"),
        of("geglu_linear_no_bias", _claims("gated_linear", activation="gelu", bias=True), "bias-dropped"),
        of("swiglu_linear_bias_twice", _claims("swiglu_linear", bias=True), "", "wrong-value"),
        of("swiglu_linear_biases_swapped", _claims("swiglu_linear", bias=True), "", "wrong-value"),
    ]


def _gradients() -> Sequence[Wrong]:
    def of(name: str, options: Mapping[str, Any], diagnosis: str = "", finding: str = "") -> Wrong:
        return Wrong(f"torch_gradients.py:{name}", {"framework": "torch", **options}, diagnosis, finding)

    return [
        of("SwigluHalvesSwapped", _claims("swiglu"), "gradient-halves-swapped"),
        of("SwigluPairSwapped", _claims("gated_unit"), "gradient-halves-swapped"),
        of("SwigluOverwrites", _claims("gated_unit"), "input-overwritten", "second-backward-differs"),
        of("SwigluScratch", _claims("gated_unit"), "", "second-backward-differs"),
        of("SiluWithoutX", _claims("silu"), "", "wrong-gradient"),
        of("GeluMixed", _claims("gelu"), "", "wrong-gradient"),
        of("ClampedStraightThrough", _claims("clamped_swiglu", _GPT_OSS), "", "wrong-gradient"),
        of("SwishBetaOfOneRow", _claims("swish", beta="vector"), "beta-gradient-not-summed"),
        of(
            "SiluOfSavedOutput",
            _claims("silu", _DOUBLE, require=("double-backward",)),
            "",
            "double-backward-wrong",
        ),
        of("swish_detached_sigmoid", _claims("swish"), "gradient-stopped"),
        of("swiglu_value_by_data", _claims("swiglu", _PAIR), "gradient-stopped"),
        of("silu_through_numpy", _claims("silu"), "", "gradient-stopped"),
        of("gelu_no_grad", _claims("gelu"), "", "gradient-stopped"),
        of("SigmoidInHalf", _claims("sigmoid"), "", "wrong-gradient"),
        of("BilinearForgets", _claims("bilinear", _PAIR), "gradient-stopped"),
    ]


def _jax() -> Sequence[Wrong]:
    def of(name: str, options: Mapping[str, Any], diagnosis: str = "", finding: str = "") -> Wrong:
        return Wrong(f"jax_wrong.py:{name}", options, diagnosis, finding)

    return [
        of("gelu_by_default", _claims("gelu", _VALUES), "gelu-tanh-for-erf"),
        of("geglu_erf", _claims("geglu", _VALUES, approximate="tanh"), "gelu-erf-for-tanh"),
        of("swiglu_gate_first", _claims("swiglu", _VALUES, _BRAIN), "gate-order"),
        of("reglu_other", _claims("reglu", _VALUES, layout="gate_first"), "gate-order"),
        of("swish_scaled", _claims("swish", beta="scalar"), "beta-scales-output"),
        of("swish_beta_outside", _claims("swish", beta="array"), "beta-outside-sigmoid"),
        of("silu_by_exp", _claims("silu", _VALUES), "", "wrong-value"),
        of("swiglu_of_product", _claims("swiglu", _PAIR), "product-activated"),
        of("clamped_no_clamp", _claims("clamped_swiglu", _VALUES, _GPT_OSS), "clamp-missing"),
        of("clamped_as_halves", _claims("clamped_swiglu", _VALUES, _GPT_OSS), "interleaved-read-as-halves"),
        of("swiglu_plain", _claims("swiglu", _CONTRACT, _BRAIN), "double-rounding"),
        of("swiglu_plain", _claims("swiglu", _CONTRACT), "tail-underflow"),
        of("silu_single", _claims("silu", _VALUES, _DOUBLE), "float32-arithmetic-in-float64"),
        of("swish_stopped", _claims("swish"), "gradient-stopped"),
        of("swiglu_gate_stopped", _claims("gated_unit"), "gradient-stopped"),
        of("linear_no_bias", _claims("gated_linear", _VALUES, bias=True), "bias-dropped"),
        of("linear_swapped", _claims("glu_linear"), "weights-swapped"),
        of("linear_transposed", _claims("swiglu_linear", _VALUES), "weight-not-transposed"),
        of("swiglu_rule_swapped", _claims("gated_unit"), "gradient-halves-swapped"),
        of("silu_rule_in_single", _claims("silu", _BRAIN), "", "wrong-gradient-dtype"),
        of("swish_rule_mean", _claims("swish", beta="scalar"), "", "wrong-gradient"),
        of("swish_rule_unsummed", _claims("swish", beta="vector"), "", "raises"),
        of("Geglu", _claims("geglu", _VALUES), "gelu-tanh-for-erf"),
        of("Swiglu", _claims("swiglu"), "gate-order"),
    ]


def _onnx() -> Sequence[Wrong]:
    def of(name: str, options: Mapping[str, Any], diagnosis: str = "", finding: str = "") -> Wrong:
        return Wrong(name, {"framework": "onnxruntime", **options}, diagnosis, finding)

    reference = {"framework": "onnx-reference"}
    return [
        of("swish_scaled", _claims("swish", beta=1.5), "beta-scales-output"),
        of("gelu_tanh", _claims("gelu"), "gelu-tanh-for-erf"),
        of("gelu_erf", _claims("gelu", approximate="tanh"), "gelu-erf-for-tanh"),
        of("gelu_quick", _claims("gelu", reference), "gelu-sigmoid"),
        of("silu_exp", _claims("silu", reference), "", "wrong-value"),
        of("swiglu_first", _claims("swiglu"), "gate-order"),
        of("swiglu_last_half", _claims("swiglu", _CONTRACT, _HALF, reference), "double-rounding"),
        of("clamped_both", _claims("clamped_swiglu", _GPT_OSS), "clamp-both-sides"),
        of("clamped_halves", _claims("clamped_swiglu", _GPT_OSS), "interleaved-read-as-halves"),
        of("clamped_no_offset", _claims("clamped_swiglu", _GPT_OSS), "offset-missing"),
        of("linear_swapped", _claims("swiglu_linear"), "weights-swapped"),
        of("linear_no_bias", _claims("swiglu_linear", bias=True), "bias-dropped"),
        of("swish_24", _claims("silu", _CONTRACT), "", "wrong-value"),
    ]


def _c() -> Sequence[Wrong]:
    def of(name: str, options: Mapping[str, Any], diagnosis: str = "", finding: str = "") -> Wrong:
        return Wrong(f"kernels_wrong:{name}", options, diagnosis, finding)

    return [
        of("silu_tail", _claims("silu"), "", "depends-on-batch"),
        of("silu_expf", _claims("silu", _DOUBLE), "float32-arithmetic-in-float64"),
        of("silu_schraudolph", _claims("silu"), "", "wrong-value"),
        of("silu_overwrites", _claims("silu"), "input-overwritten", "input-overwritten"),
        of("silu_fixed_scratch", _claims("silu"), "", "depends-on-batch"),
        of("silu_aligned", _claims("silu"), "", "depends-on-alignment"),
        of("silu_truncates", _claims("silu", _CONTRACT, _BRAIN), "", "wrong-value"),
        of("gelu_tanh", _claims("gelu"), "gelu-tanh-for-erf"),
        of("silu_null", _claims("silu"), "", "crashes"),
        of("swiglu_first", _claims("swiglu"), "gate-order"),
        of("swiglu_product", _claims("gated_unit"), "product-activated"),
        of("swiglu_up", _claims("gated_unit"), "value-activated"),
        of("swiglu_crossed", _claims("gated_unit", _DOUBLE), "gradient-halves-swapped"),
        of("clamped_both", _claims("clamped_swiglu", _GPT_OSS), "clamp-both-sides"),
        of("clamped_loses_nan", _claims("clamped_swiglu", _GPT_OSS), "", "wrong-value"),
    ]


WRONG: Final[Sequence[Wrong]] = (*_numpy(), *_misbehaving(), *_torch(), *_gradients(), *_jax(), *_onnx(), *_c())


def _honest() -> Sequence[Honest]:
    compiled, jitted, runtime = ({"framework": name} for name in ("torch-compiled", "jax-jit", "onnxruntime"))
    table: Sequence[tuple[str, Mapping[str, Any]]] = [
        ("numpy_honest.py:silu_plain", _claims("silu", gradient="numpy_honest.py:silu_plain_gradient")),
        ("numpy_honest.py:silu_of_positive", _claims("silu", _CONTRACT, _HALF)),
        ("numpy_honest.py:silu_by_tanh", _claims("silu", _CONTRACT, _HALF)),
        ("numpy_honest.py:silu_by_logaddexp", _claims("silu", _CONTRACT)),
        ("numpy_honest.py:swish_stable", _claims("swish", _CONTRACT, _DOUBLE)),
        ("numpy_honest.py:gelu_plain", _claims("gelu", _HALF)),
        ("numpy_honest.py:swiglu_plain", _claims("swiglu", _BRAIN)),
        ("numpy_honest.py:clamped_plain", _claims("clamped_swiglu", _GPT_OSS)),
        ("numpy_honest.py:glu_linear_plain", _claims("glu_linear", bias=True)),
        ("gated.numpy_ref:swiglu", _claims("swiglu", _CONTRACT)),
        ("torch.nn.functional:silu", _claims("silu", dtypes=("float32", "bfloat16"))),
        ("torch.nn.functional:glu", _claims("glu")),
        ("torch.nn.functional:gelu", _claims("gelu")),
        ("torch_honest.py:gelu_tanh", _claims("gelu", approximate="tanh")),
        ("torch_honest.py:swiglu_chunk", _claims("swiglu", _BRAIN)),
        ("torch_honest.py:swiglu_chunk", _claims("swiglu", compiled)),
        ("torch_honest.py:swiglu_pair", _claims("gated_unit")),
        ("torch_honest.py:LlamaAct", _claims("swiglu", layout="gate_first")),
        ("torch_honest.py:GluLayer", _claims("glu", _DOUBLE)),
        ("torch_honest.py:SiluByHand", _claims("silu")),
        ("torch_honest.py:clamped", _claims("clamped_swiglu", _GPT_OSS)),
        ("torch_honest.py:llama_mlp", _claims("gated_ffn")),
        ("torch_honest.py:swish_learned", _claims("swish", beta="vector")),
        ("gated.torch_impl:swiglu", _claims("swiglu", _CONTRACT, dtypes=("bfloat16", "float32"))),
        ("gated.torch_impl:clamped_swiglu", _claims("clamped_swiglu", _CONTRACT)),
        ("jax.nn:silu", _claims("silu", dtypes=("float32", "bfloat16"))),
        ("jax.nn:glu", _claims("glu")),
        ("jax.nn:gelu", _claims("gelu", approximate="tanh")),
        ("jax_honest.py:gelu_erf", _claims("gelu")),
        ("jax_honest.py:swiglu", _claims("swiglu", jitted)),
        ("jax_honest.py:swiglu_pair", _claims("gated_unit", _BRAIN)),
        ("jax_honest.py:gated_linear", _claims("gated_linear", bias=True)),
        ("jax_honest.py:Geglu", _claims("geglu", approximate="tanh")),
        ("jax_honest.py:Swiglu", _claims("swiglu", layout="gate_first")),
        ("gated.jax_impl:swish", _claims("swish", _CONTRACT, beta="scalar")),
        ("gated.jax_impl:gated_unit", _claims("gated_unit", _CONTRACT, jitted)),
        ("swiglu_last", _claims("swiglu", {"framework": "onnx-reference"})),
        ("clamped", _claims("clamped_swiglu", _GPT_OSS, {"framework": "onnx-reference"})),
        ("linear", _claims("swiglu_linear", runtime)),
        ("kernels_honest:silu", _claims("silu")),
        ("kernels_honest:silu_wide", _claims("silu", _CONTRACT)),
        ("kernels_honest:swiglu", _claims("gated_unit")),
        ("kernels_honest:clamped", _claims("clamped_swiglu", _GPT_OSS)),
    ]
    return [Honest(target, options) for target, options in table]


HONEST: Final[Sequence[Honest]] = _honest()


def _elsewhere(one: Wrong) -> bool:
    """Whether an id is left to the other frameworks, where wrong implementations have it, too."""
    if one.target.partition(":")[2] in ("swiglu_gate_first", "swish_stopped", "linear_transposed"):
        return False
    others = (other for other in WRONG if not other.target.startswith("jax_"))
    return bool(one.diagnosis) and any(other.diagnosis == one.diagnosis for other in others)


def _more() -> frozenset[int]:
    """What adds time and no kind: honest ones named here, and wrong ones whose ids one before has in the framework."""
    slow = {
        *(
            "gated.jax_impl:gated_unit",
            "gated.jax_impl:swish",
            "gated.torch_impl:clamped_swiglu",
            "jax.nn:gelu",
            "jax.nn:silu",
            "torch.nn.functional:gelu",
        ),
        *("jax_honest.py:gated_linear", "jax_honest.py:gelu_erf", "jax_honest.py:Geglu", "jax_honest.py:swiglu"),
        *("torch_honest.py:GluLayer", "torch_honest.py:gelu_tanh", "torch_honest.py:swiglu_chunk"),
        *("torch_honest.py:swiglu_pair", "torch_honest.py:swish_learned"),
    }
    more = {id(one) for one in HONEST if one.target in slow}
    seen: set[tuple[str, str, str]] = set()
    for one in WRONG:
        framework = one.target.partition("_")[0]
        # JAX compiles for seconds: an id that another framework has, too, every run has from there, but for some.
        of = framework if one.diagnosis and framework != "jax" else ""
        kind = (one.diagnosis, one.finding, of)
        if framework in ("torch", "jax") and (kind in seen or (framework == "jax" and _elsewhere(one))):
            more.add(id(one))
        seen.add(kind)
    return frozenset(more)


MORE: Final = _more()
"""The ``id()`` of those that are graded with ``pytest -m collection`` only."""
