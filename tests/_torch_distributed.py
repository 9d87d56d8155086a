"""Tests in several processes: a group of them runs all checks of its size, one after another, and writes what it found.

``python tests/_torch_distributed.py RANK SIZE FOLDER`` is one process of a group. The group meets in a file, so that no
port is taken, and talks by gloo over the loopback device. Which check a process is in stands in its own file: a check
that hangs is named.
"""

from __future__ import annotations

import datetime
import fcntl
import importlib
import json
import os
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Placement, Replicate, distribute_tensor
from torch.utils._python_dispatch import TorchDispatchMode

Tensor = torch.Tensor

SIZES: Final = (2, 4)
GROUP_LIMIT: Final = 180.0
"""Seconds that a group may take: several times what it takes on two slow cores."""
CHECK_LIMIT: Final = 40.0
"""Seconds that a process waits for the others, in a collective and after each check."""


# Checks


@dataclass
class World:
    """A process's place in its group."""

    rank: int
    size: int
    folder: Path

    def mesh(self, *shape: int) -> DeviceMesh:
        """A mesh of this shape over the group; without one, of one dimension."""
        names = {1: ("tp",), 2: ("dp", "tp")}[len(shape) or 1]
        return init_device_mesh("cpu", shape or (self.size,), mesh_dim_names=names)


CHECKS: Final[dict[int, dict[str, Callable[[World], None]]]] = {size: {} for size in SIZES}


def check(*sizes: int) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
    """Registers a function as a check for groups of these sizes; its name says what it proves."""

    def register(one: Callable[[World], None]) -> Callable[[World], None]:
        for size in sizes:
            CHECKS[size][one.__name__] = one
        return one

    return register


def placed(x: Tensor, mesh: DeviceMesh, placements: tuple[Placement, ...]) -> DTensor:
    """``x`` in these placements. What is pending is a half, whose sum is exact, on the first two processes."""
    placements = tuple(placements)
    pending = [dim for dim, one in enumerate(placements) if one.is_partial()]
    if not pending:
        return distribute_tensor(x, mesh, placements)
    (dim,) = pending
    rest = distribute_tensor(x, mesh, [Replicate() if one.is_partial() else one for one in placements])
    share = 0.5 if mesh.get_local_rank(dim) < 2 else 0.0
    return DTensor.from_local(
        rest.to_local() * share, mesh, placements, run_check=False, shape=x.shape, stride=x.stride()
    )


def full(x: Tensor | None) -> Any:
    """The whole tensor, on every process."""
    return x.full_tensor() if isinstance(x, DTensor) else x


class Collectives(TorchDispatchMode):
    """Counts the collective operations within."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(one, DTensor) for one in types):
            return NotImplemented  # its parts come again
        library, name = func._schema.name.split("::")
        if "c10d" in library and name not in ("wait_tensor", "_wrap_tensor_autograd"):
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))

    def take(self) -> dict[str, int]:
        """The counts since the last time."""
        counts, self.counts = dict(self.counts), Counter()
        return counts


# One process of a group


def _run(world: World) -> None:
    store = dist.FileStore(str(world.folder / "store"), world.size)
    limit = datetime.timedelta(seconds=CHECK_LIMIT)
    dist.init_process_group("gloo", store=store, rank=world.rank, world_size=world.size, timeout=limit)
    log = (world.folder / f"{world.rank}.jsonl").open("w")

    def say(**fact: Any) -> None:
        print(json.dumps(fact), file=log, flush=True)

    for name, one in CHECKS[world.size].items():
        say(check=name, state="begun")
        start = time.perf_counter()
        try:
            torch.manual_seed(0)
            one(world)
        except BaseException:
            say(check=name, state="failed", text=traceback.format_exc())
        else:
            say(check=name, state="passed", seconds=round(time.perf_counter() - start, 2))
        # Not a collective: one that failed alone has left the others within theirs.
        store.set(f"{name}/{world.rank}", "left")
        store.wait([f"{name}/{rank}" for rank in range(world.size)], limit)
    dist.destroy_process_group()


# The group, from outside


def environment() -> dict[str, str]:
    """That of a process: it finds the tests, and its group over the loopback device."""
    loopback = "lo" if Path("/sys/class/net/lo").exists() else "lo0"
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])
    return os.environ | {
        "GLOO_SOCKET_IFNAME": loopback,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (path, os.environ.get("PYTHONPATH")))),
    }


def _run_group(size: int, folder: Path) -> None:
    """Runs a group to its end, or to its time limit."""
    processes = []
    for rank in range(size):
        with (folder / f"{rank}.out").open("w") as out:
            command = [sys.executable, __file__, str(rank), str(size), str(folder)]
            processes.append(subprocess.Popen(command, stdout=out, stderr=out, env=environment()))
    end = time.monotonic() + GROUP_LIMIT
    try:
        while any(process.poll() is None for process in processes) and time.monotonic() < end:
            if any(process.poll() for process in processes):  # one broke down: none waits longer than this for another
                end = min(end, time.monotonic() + CHECK_LIMIT)
            time.sleep(0.1)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _read(size: int, folder: Path) -> dict[str, dict[str, str]]:
    """What went wrong, by check and rank."""
    faults: dict[str, dict[str, str]] = {}
    for rank in range(size):
        log, out = folder / f"{rank}.jsonl", (folder / f"{rank}.out").read_text()[-2000:]
        facts = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        states = {fact["check"]: fact for fact in facts}
        for name in CHECKS[size]:
            fact = states.get(name, {"state": "not begun"})
            if fact["state"] != "passed":
                text = fact.get("text", f"{fact['state']}, and not finished; the process wrote:\n{out}")
                faults.setdefault(name, {})[str(rank)] = text
    return faults


def import_checks() -> None:
    """Imports the modules that register checks."""
    for subject in ("units", "modules", "sharded", "docs"):
        importlib.import_module(f"_torch_distributed_{subject}")


def faults_of(size: int, root: Path) -> tuple[dict[str, dict[str, str]], Path]:
    """What went wrong in the group of this size, by check and rank, and its folder; it is run once for all workers."""
    folder = root / f"group-of-{size}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "done"
        if not done.exists():
            _run_group(size, folder)
            done.touch()
    return _read(size, folder), folder


if __name__ == "__main__":
    # The checks register with the module of this name, which is not __main__.
    import _torch_distributed as this

    this.import_checks()
    this._run(this.World(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
