"""Tests over several devices: groups of processes run all their checks, one after another, and write what they found.

``python tests/_jax_sharded.py GROUP RANK PORT FOLDER`` is one process of a group. The group ``"devices"`` is one that
has eight virtual devices of the CPU; ``"processes"`` is two with four each, which meet at a port of the loopback device
and talk by gloo. Which check a process is in stands in its own file: a check that hangs is named.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import re
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

PROCESSES: Final = {"devices": 1, "processes": 2}
DEVICES: Final = 8
"""Of a group, in all its processes."""
SUBJECTS: Final = {"devices": ("units", "packed", "blocks", "modules", "docs"), "processes": ("processes",)}
LIMIT: Final = 240.0
"""Seconds that a group may take: several times what it takes on two slow cores."""

Check = Callable[[Path], None]
CHECKS: Final[dict[str, dict[str, Check]]] = {group: {} for group in PROCESSES}


def check(group: str) -> Callable[[Check], Check]:
    """Registers a function as a check of a group; its name says what it proves. It gets a folder to write in."""

    def register(one: Check) -> Check:
        CHECKS[group][one.__name__] = one
        return one

    return register


# What the compiler made


_COLLECTIVE = re.compile(
    r"= (?P<shapes>\S+|\(.*?\)) (?P<name>(?:ragged-)?all-[a-z]+|reduce-scatter|collective-[a-z]+)(?:-start)?\("
)


def sent(text: str) -> dict[str, list[tuple[int, ...]]]:
    """The arrays that each kind of collective operation of a compiled program has, by their shapes on one device.

    Operations that the compiler combined count as the single ones do. It also transposes and reshapes: the axes come in
    the order of their sizes, without those of size 1.
    """
    found: dict[str, list[tuple[int, ...]]] = {}
    for match in _COLLECTIVE.finditer(text):
        for shape in re.findall(r"[a-z]+\d+\[([\d,]*)\]", match["shapes"]):
            sizes = tuple(sorted(int(size) for size in shape.split(",") if size and size != "1"))
            found.setdefault(match["name"], []).append(sizes)
    return {name: sorted(shapes) for name, shapes in sorted(found.items())}


def compiled(f: Any, *arguments: Any, **options: Any) -> tuple[Any, dict[str, list[tuple[int, ...]]]]:
    """``f`` compiled for the arguments, and what it sends."""
    import jax

    executable = jax.jit(f, **options).lower(*arguments).compile()
    return executable, sent(executable.as_text())


# One process of a group


def _run(group: str, rank: int, port: int, folder: Path) -> None:
    import jax

    if PROCESSES[group] > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{port}", PROCESSES[group], rank, initialization_timeout=60)
    assert jax.device_count() == DEVICES, jax.devices()
    log = (folder / f"{rank}.jsonl").open("w")

    def say(**fact: Any) -> None:
        print(json.dumps(fact), file=log, flush=True)

    for name, one in CHECKS[group].items():
        say(check=name, state="begun")
        start = time.process_time()
        own = folder / name
        own.mkdir(exist_ok=True)
        try:
            one(own)
        except BaseException:
            say(check=name, state="failed", text=traceback.format_exc())
        else:
            say(check=name, state="passed", cpu_seconds=round(time.process_time() - start, 2))


# The group, from outside


def environment(group: str) -> dict[str, str]:
    """That of a process: it finds the tests, has its share of the devices, and few threads."""
    here = Path(__file__).parent
    flags = f"--xla_force_host_platform_device_count={DEVICES // PROCESSES[group]}"
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(here), os.environ.get("PYTHONPATH"), str(here.parent)))),
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags} --xla_cpu_multi_thread_eigen=false",
    }


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _run_group(group: str, folder: Path) -> None:
    """Runs a group to its end, or to its time limit."""
    processes, port = [], _free_port()
    for rank in range(PROCESSES[group]):
        with (folder / f"{rank}.out").open("w") as out:
            command = [sys.executable, __file__, group, str(rank), str(port), str(folder)]
            processes.append(subprocess.Popen(command, stdout=out, stderr=out, env=environment(group)))
    end = time.monotonic() + LIMIT
    try:
        # One that broke down leaves the others within a collective: they are not waited for.
        while any(one.poll() is None for one in processes) and time.monotonic() < end:
            if any(one.poll() for one in processes):
                end = min(end, time.monotonic() + 10)
            time.sleep(0.1)
    finally:
        for rank, one in enumerate(processes):
            left = one.poll()
            one.kill()
            one.wait()
            with (folder / f"{rank}.out").open("a") as out:
                print("stopped while it ran" if left is None else f"left with status {left}", file=out)


def _read(group: str, folder: Path) -> dict[str, dict[int, str]]:
    """What went wrong, by check and rank."""
    faults: dict[str, dict[int, str]] = {}
    for rank in range(PROCESSES[group]):
        log, out = folder / f"{rank}.jsonl", (folder / f"{rank}.out").read_text()[-2000:]
        facts = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        states = {fact["check"]: fact for fact in facts}
        for name in CHECKS[group]:
            fact = states.get(name, {"state": "not begun"})
            if fact["state"] != "passed":
                text = fact.get("text", f"{fact['state']}, and not finished; the process wrote:\n{out}")
                faults.setdefault(name, {})[rank] = text
    return faults


def import_checks(group: str) -> None:
    """Imports the modules that register the checks of a group."""
    for subject in SUBJECTS[group]:
        importlib.import_module(f"_jax_sharded_{subject}")


def faults_of(group: str, root: Path) -> dict[str, dict[int, str]]:
    """What went wrong in a group, by check and rank; it is run once for all workers of pytest-xdist."""
    folder = root / f"jax-{group}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "done"
        if not done.exists():
            _run_group(group, folder)
            done.touch()
    return _read(group, folder)


def session_folder(factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of pytest-xdist have in common."""
    root = factory.getbasetemp()
    return root.parent if "PYTEST_XDIST_WORKER" in os.environ else root


def fail_for(group: str, name: str, root: Path) -> None:
    """Fails the test of a check, with what its processes said."""
    faults = faults_of(group, root).get(name, {})
    if faults:
        texts = "\n".join(f"rank {rank}: {text}" for rank, text in faults.items())
        pytest.fail(f"{name}: failed on {len(faults)} of {PROCESSES[group]} processes\n{texts}", pytrace=False)


if __name__ == "__main__":
    # The checks register with the module of this name, which is not __main__.
    import _jax_sharded as this

    this.import_checks(sys.argv[1])
    this._run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
