"""The child process: what a target prints, hangs in, or dies of is a reply; nothing of it reaches the parent."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _check import PAIR, TARGETS, UNARY, Array, compiled, integers, needs, pair_of, same_bits
from hypothesis import given
from hypothesis import strategies as st
from strategies import SHAPES, any_bits

from gated.conformance.error import FORMATS
from gated.conformance.grading import _messages as messages
from gated.conformance.grading import child, local
from gated.conformance.grading.claim import Claim
from gated.conformance.grading.exchange import ARRANGEMENTS, TASKS, Facts, Failure, Reply, Request
from gated.conformance.grading.target import TargetError
from gated.contract import DTYPES

HANG, SEGFAULT, EXIT, SYSTEM_EXIT, INTERRUPT, PRINT, C_PRINT, STOP, CLOSE = range(1, 10)
SECONDS = 3.0
"""The time limit of targets that hang; a reply that does not hang takes a thousandth of it."""


@contextmanager
def running(target: str, claim: Claim = UNARY, *, timeout: float = 60.0, **options: Any) -> Iterator[child.ChildRunner]:
    text = target if target.startswith(("/", "gated.")) else str(TARGETS / target)
    runner = child.start(text, claim, timeout=timeout, **options)
    try:
        yield runner
    finally:
        runner.close()


def of(command: int) -> Request:
    return Request("value", (np.full((2, 2), command, np.float32),))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


def ends(pid: int, seconds: float = 10.0) -> bool:
    """Whether a process ends within the time."""
    until = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not alive(pid)


# Messages


@st.composite
def array(draw: st.DrawFn) -> Array:
    return draw(any_bits(FORMATS[draw(st.sampled_from(DTYPES))]).arrays(draw(st.sampled_from(SHAPES))))


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def sent(header: dict[str, Any], buffers: list[bytes]) -> Any:
    """What the other end of a socket receives."""
    here, there = socket.socketpair()
    with here, there:
        thread = threading.Thread(target=messages.send, args=(here, header, buffers))
        thread.start()
        received = messages.receive(there, 10.0)
        thread.join()
    return received


def same(one: Any, other: Any) -> bool:
    """Equality in which arrays are equal by their bits."""
    if isinstance(one, np.ndarray):
        return same_bits(other, one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@given(
    st.builds(
        Request,
        task=st.sampled_from(TASKS),
        arguments=st.lists(array(), min_size=1, max_size=3).map(tuple),
        cotangent=st.none() | array(),
        directions=st.lists(array(), max_size=2).map(tuple),
        arrangement=st.sampled_from(ARRANGEMENTS),
        backwards=st.integers(1, 3),
    )
)
def test_a_request_arrives_as_it_was_sent(request: Request) -> None:
    arrived = messages.request_from(*sent(*messages.pack_request(request)))
    assert all(same(getattr(request, name), getattr(arrived, name)) for name in request.__dataclass_fields__)


@given(
    st.builds(
        Reply,
        value=st.none() | array(),
        cotangents=st.lists(st.lists(st.none() | array(), max_size=3).map(tuple), max_size=2).map(tuple),
        overwritten=st.lists(TEXTS, max_size=2).map(tuple),
        failure=st.none() | st.builds(Failure, kind=TEXTS, text=TEXTS),
        noise=TEXTS,
    )
)
def test_a_reply_arrives_as_it_was_sent(reply: Reply) -> None:
    arrived = messages.reply_from(*sent(*messages.pack_reply(reply)))
    assert all(same(getattr(reply, name), getattr(arrived, name)) for name in reply.__dataclass_fields__)


@pytest.mark.parametrize("dtype", ["bool", "int8", "int64", "uint16", "complex64", "float8_e4m3fn", "bfloat16"])
def test_other_dtypes_arrive_too(dtype: str) -> None:
    import ml_dtypes

    x = np.arange(6).reshape(2, 3).astype(getattr(ml_dtypes, dtype, dtype))
    assert same_bits(messages.reply_from(*sent(*messages.pack_reply(Reply(x)))).value, x)


@pytest.mark.parametrize("claim", [UNARY, PAIR, Claim.of("clamped_swiglu"), Claim.of("swish", beta="vector")])
def test_claims_and_facts_arrive_as_they_were_sent(claim: Claim) -> None:
    facts = Facts("t", "c", "symbol", "cpu", True, ("float32",), False, "none", {"a": "1"}, "noise", {"W": (2, 3)})
    header, _ = sent({"claim": messages.pack_claim(claim), "facts": messages.pack_facts(facts)}, [])
    assert messages.claim_from(header["claim"]) == claim
    assert messages.facts_from(header["facts"]) == facts


# What goes well


def test_a_numpy_target_is_run_and_its_facts_are_told() -> None:
    with running(
        "numpy_targets.py:product", PAIR, gradient=str(TARGETS / "numpy_targets.py:product_gradient")
    ) as runner:
        facts = runner.facts
        assert (facts.framework, facts.kind, facts.device, facts.gradients) == ("numpy", "function", "cpu", True)
        assert facts.versions["numpy"] == np.__version__ and facts.noise == ""
        gate, value, dy, *_ = pair_of()
        first, second = runner.run([Request("value", (gate, value)), Request("gradient", (gate, value), dy)])
        assert same_bits(first.value, gate * value) and first.noise == ""
        assert same_bits(second.cotangents[0][0], dy * value)


@pytest.mark.parametrize(
    ("target", "framework", "claim"),
    [
        ("torch_targets.py:product", "torch", PAIR),
        ("jax_targets.py:product", "jax", PAIR),
        ("tensorflow_targets.py:product", "tensorflow", PAIR),
        ("keras_targets.py:product", "keras", PAIR),
    ],
)
def test_a_framework_in_the_child_is_guessed_and_says_nothing(target: str, framework: str, claim: Claim) -> None:
    needs(framework)
    with running(target, claim) as runner:
        gate, value, dy, *_ = pair_of()
        (reply,) = runner.run([Request("gradient", (gate, value), dy)])
        assert runner.facts.framework == framework
        assert runner.facts.noise == "" and reply.noise == "" and reply.failure is None
        assert same_bits(reply.value, gate * value) and same_bits(reply.cotangents[0][1], dy * gate)


def test_a_module_of_the_path_here_is_importable_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pkg_of_targets").mkdir()
    (tmp_path / "pkg_of_targets" / "inner.py").write_text("def same(x):\n    return x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    text = "pkg_of_targets.inner:same"
    runner = child.start(text, UNARY)
    try:
        x = integers("float32", (2, 3), 0)
        assert runner.facts.name == text and same_bits(runner.run([Request("value", (x,))])[0].value, x)
    finally:
        runner.close()


def test_arrays_of_megabytes_go_there_and_back() -> None:
    x = np.random.default_rng(0).integers(0, 2**16, 2**22).astype(np.uint16).view(np.float16)
    with running("numpy_targets.py:identity", timeout=30) as runner:
        (reply,) = runner.run([Request("value", (x,))])
    assert same_bits(reply.value, x)


def test_a_request_costs_little() -> None:
    with running("numpy_targets.py:identity") as runner:
        request = Request("value", (np.zeros((8, 64), np.float32),))
        runner.run([request] * 10)
        start = time.perf_counter()
        runner.run([request] * 200)
        # Measured at 0.2 ms; a check of one dtype makes some dozens.
        assert (time.perf_counter() - start) / 200 < 0.01


# What goes wrong


def test_prints_of_python_and_of_c_are_noise_and_reach_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    with running("misbehaving.py:on_demand") as runner:
        assert runner.facts.noise == ""
        python, c, none = runner.run([of(PRINT), of(C_PRINT), of(0)])
    assert set(python.noise.splitlines()) == {"hello from Python", "and again"}
    assert c.noise == "hello from C"
    assert none.noise == ""
    assert all(one.value is not None and one.failure is None for one in (python, c, none))
    assert capfd.readouterr() == ("", "")


def test_prints_of_a_shared_library_are_noise(tmp_path: Path) -> None:
    with running(f"{compiled(tmp_path)}:prints") as runner:
        (reply,) = runner.run([Request("value", (integers("float32", (4,), 0),))])
    assert reply.noise == "hello from C" and reply.value is not None


def test_noise_is_cut_and_a_frameworks_log_is_none() -> None:
    with running("misbehaving.py:chatters") as runner:
        first, second = runner.run([of(0), of(0)])
        assert first.noise == second.noise == "x" * 2000
    with running("misbehaving.py:logs_as_a_framework") as runner:
        assert runner.run([of(0)])[0].noise == ""


def test_noise_while_loading_is_a_fact(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text("print('loading')\ndef f(x):\n    return x\n")
    with running(f"{tmp_path}/loud.py:f") as runner:
        assert runner.facts.noise == "loading" and runner.run([of(0)])[0].noise == ""


def test_warnings_are_no_noise(tmp_path: Path) -> None:
    (tmp_path / "warns.py").write_text("import numpy as np\ndef f(x):\n    return np.exp(x * 1e5)\n")
    with running(f"{tmp_path}/warns.py:f") as runner:
        assert runner.run([of(5)])[0].noise == ""


@pytest.mark.parametrize(
    ("command", "kind", "text"),
    [
        (SEGFAULT, "crash", "SIGSEGV"),
        (EXIT, "crash", "exit status 3"),
        (SYSTEM_EXIT, "raised", "SystemExit: enough"),
        (INTERRUPT, "raised", "KeyboardInterrupt"),
        (HANG, "hang", "no result within 3 s"),
        (STOP, "hang", "no result within 3 s"),
    ],
)
def test_what_a_target_dies_of_is_named_and_the_next_request_runs(command: int, kind: str, text: str) -> None:
    with running("misbehaving.py:on_demand", timeout=SECONDS) as runner:
        before, failing, after = runner.run([of(0), of(command), of(0)])
        assert failing.failure == Failure(kind, text)
        assert before.failure is None and after.failure is None
        assert same_bits(after.value, np.zeros((2, 2), np.float32))


def test_a_target_that_closes_everything_is_a_crash() -> None:
    with running("misbehaving.py:on_demand", timeout=60) as runner:
        (reply,) = runner.run([of(CLOSE)])
    assert reply.failure == Failure("crash", "the process closed its connection")


def test_a_hang_with_the_interpreters_lock_held_is_ended() -> None:
    with running("misbehaving.py:hangs_in_c", timeout=SECONDS) as runner:
        start = time.monotonic()
        (reply,) = runner.run([of(0)])
        assert reply.failure == Failure("hang", "no result within 3 s")
        assert time.monotonic() - start < 2 * SECONDS


def test_a_target_that_always_crashes_is_given_up_after_three_restarts() -> None:
    with running("misbehaving.py:on_demand") as runner:
        replies = runner.run([of(SEGFAULT)] * 4 + [of(0)] * 2)
        assert [one.failure for one in replies] == [Failure("crash", "SIGSEGV")] * 6
        start = time.monotonic()
        runner.run([of(0)] * 100)
        assert time.monotonic() - start < 0.1


def test_a_target_waits_for_no_input() -> None:
    with running("misbehaving.py:reads_input") as runner:
        failure = runner.run([of(0)])[0].failure
    assert failure is not None and failure.kind == "raised" and failure.text.startswith("EOFError")


@pytest.mark.parametrize("target", ["pid", "starts_another"])
def test_a_closed_runner_has_no_process_and_what_it_started_ends_too(target: str) -> None:
    with running(f"misbehaving.py:{target}") as runner:
        value = runner.run([Request("value", (np.zeros(1, np.float64),))])[0].value
        assert value is not None
        pid = int(value[0])
        assert alive(pid)
    assert ends(pid)
    assert runner.run([of(0)])[0].failure == Failure("crash", "the runner is closed")


@pytest.mark.parametrize("hang", ["time.sleep(600)", "ctypes.PyDLL(None).sleep(600)"])
def test_the_child_dies_with_its_parent(tmp_path: Path, hang: str) -> None:
    """Also in the middle of a request, with the interpreter's lock held."""
    (tmp_path / "long.py").write_text(
        "import ctypes, os, time\ndef f(x):\n"
        f"    open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n    {hang}\n"
    )
    code = f"""
        import numpy as np
        from gated.conformance.grading import child
        from gated.conformance.grading.claim import Claim
        from gated.conformance.grading.exchange import Request
        runner = child.start({str(tmp_path / "long.py") + ":f"!r}, Claim.of("silu"), framework="numpy")
        runner.run([Request("value", (np.zeros(1, np.float32),))])
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    try:
        until = time.monotonic() + 30
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert time.monotonic() < until and parent.poll() is None
            time.sleep(0.02)
        pid = int((tmp_path / "pid").read_text())
        assert alive(pid)
    finally:
        parent.kill()
        parent.wait()
    if not ends(pid):
        os.kill(pid, signal.SIGKILL)
        pytest.fail("the child outlives its parent")


# What cannot be loaded


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise ValueError('at import')", r"broken\.py: its import raised ValueError: at import"),
        ("import sys; sys.exit(2)", r"broken\.py: its import raised SystemExit: 2"),
        ("def f(:", r"broken\.py: its import raised SyntaxError"),
        ("f = 3", "must be callable, got int"),
        ("def ff(x): return x", "has no attribute f; nearest: ff"),
        ("import os; os._exit(4)", "loading it ends the process: exit status 4"),
        ("import ctypes; ctypes.string_at(0)", "loading it ends the process: SIGSEGV"),
        ("import time; time.sleep(600)", "loading it does not end: no result within 3 s"),
        (
            "import torch, jax\ndef f(x): return torch.abs(jax.numpy.abs(x))",
            "names jax and torch; say which with --framework",
        ),
        ("import missing_module", "ModuleNotFoundError: No module named 'missing_module'$"),
    ],
)
def test_what_cannot_be_loaded_is_one_line_here(tmp_path: Path, source: str, message: str) -> None:
    if "torch" in source:
        needs("torch")
        needs("jax")
    (tmp_path / "broken.py").write_text(source + "\n")
    with pytest.raises(TargetError, match=message) as error:
        child.start(f"{tmp_path}/broken.py:f", UNARY, timeout=SECONDS)
    assert "\n" not in str(error.value)


def test_other_things_that_cannot_be_loaded(tmp_path: Path) -> None:
    file = str(TARGETS / "numpy_targets.py")
    with pytest.raises(TargetError, match="there is no file"):
        child.start(str(tmp_path / "none.py:f"), UNARY)
    with pytest.raises(TargetError, match="there is no module no_such_package"):
        child.start("no_such_package.x:f", UNARY)
    with pytest.raises(TargetError, match="--framework must be one of"):
        child.start(f"{file}:silu", UNARY, framework="mxnet")
    with pytest.raises(TargetError, match="--device"):
        child.start(f"{file}:silu", UNARY, device="abacus")
    with pytest.raises(TargetError, match="has no attribute none"):
        child.start(f"{file}:silu", UNARY, gradient=f"{file}:none")
    with pytest.raises(ValueError, match="timeout must be a positive number of seconds, got 0"):
        child.start(f"{file}:silu", UNARY, timeout=0)


def test_a_missing_framework_is_named_from_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package in front of the path that cannot be found stands for one that is not installed."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'onnxruntime' else find(name, package)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(ModuleNotFoundError, match=r"needs the package onnxruntime, .* pip install onnxruntime onnx"):
        child.start(str(TARGETS / "numpy_targets.py:silu"), UNARY, framework="onnxruntime")


# In this process


def test_a_callable_is_run_here() -> None:
    runner = local.start(lambda gate, value: gate * value, PAIR)
    gate, value, *_ = pair_of()
    (reply,) = runner.run([Request("value", (gate, value))])
    assert same_bits(reply.value, gate * value) and runner.facts.framework == "numpy"
    runner.close()


def test_prints_here_are_noise_too() -> None:
    def loud(x: Any) -> Any:
        print("hello")
        print("again", file=sys.stderr)
        return x

    with redirect_stdout(io.StringIO()) as outside:
        (reply,) = local.start(loud, UNARY).run([of(0)])
    assert reply.noise == "hello\nagain" and outside.getvalue() == ""


def test_warnings_here_are_neither_noise_nor_errors() -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (reply,) = local.start(lambda x: np.exp(x * 1e5), UNARY).run([of(5)])
    assert reply.failure is None and reply.noise == ""


def test_what_is_no_callable_is_refused_here() -> None:
    with pytest.raises(TargetError, match="must be callable or a target's text, got int"):
        local.start(3, UNARY)  # type: ignore[arg-type]
