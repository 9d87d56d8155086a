"""``gated info``: the versions, the devices, and which path each function takes on them."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path as File
from typing import Any, Final, NamedTuple

from gated.commands._shared import OK, UsageError, backend_names, backends, console, require, writable, write_json
from gated.contract import ARRAY_PARAMETERS, BACKENDS

__all__ = ["add"]

_PROJECTED: Final = tuple(name for name, parameters in ARRAY_PARAMETERS.items() if "W" in parameters)
_ELEMENTWISE: Final = tuple(name for name in ARRAY_PARAMETERS if name not in _PROJECTED)
_DERIVATIVES: Final = ("vjp", "jvp")
_SCALED: Final = "plain operations in scaled arithmetic"
_BETWEEN: Final = "; between its matrix products, the path of the elementwise functions"
_KERNELS: Final = "; kernels inside gated.jax_impl.kernels.fused_projections on TPUs and GPUs"


class Path(NamedTuple):
    """How some functions are computed on a device in a mode."""

    device: str
    mode: str
    functions: tuple[str, ...]
    path: str


class Found(NamedTuple):
    """What is known of a backend: its devices by name, the paths on them, and whether Triton kernels are used."""

    devices: Mapping[str, str]
    paths: Sequence[Path]
    kernels: str | None = None


def add(commands: Any) -> None:
    """Adds the parser to the subparsers."""
    info = commands.add_parser(
        "info",
        help="print the versions, the devices and which path each function takes",
        description="Prints the versions, the devices that the frameworks find, and how each function is computed on "
        "them. A framework is imported to be asked; --backends numpy asks none. Exit 0; 2: wrong usage.",
    )
    known = ", ".join(BACKENDS)
    info.add_argument("--backends", type=backend_names, metavar="LIST", help=f"of {known} (default: those installed)")
    info.add_argument("--json", type=File, metavar="FILE", help="also write it to FILE")
    info.set_defaults(run=_info, device=None)


def _info(options: argparse.Namespace) -> int:
    require("rich", "cli")
    writable(options.json)
    names, skipped = backends(options)
    found: dict[str, Found] = {}
    for name in names:
        try:
            importlib.import_module(BACKENDS[name].module)
            found[name] = _OF_BACKEND[name]()
        except (ImportError, OSError, RuntimeError) as error:  # installed, and broken on this machine
            skipped[name] = f"{BACKENDS[name].requires} cannot be used: {error}"
            if options.backends is not None:
                raise UsageError(skipped[name]) from error
    _print(found, skipped)
    write_json(options.json, _as_json(found, skipped))
    return OK


# What each backend does


def _numpy() -> Found:
    path = "NumPy on pairs of float64, in blocks; a result is rounded once"
    functions = (*ARRAY_PARAMETERS, *_DERIVATIVES)
    return Found({"cpu": platform.machine()}, [Path("cpu", "eager", functions, path)])


def _torch() -> Found:
    from gated.torch_impl import kernels

    devices = _torch_devices()
    by_path: dict[tuple[str, str], list[str]] = {}
    for name in devices:
        by_path.setdefault((name.partition(":")[0], _torch_eager(name)), []).append(name)
    kinds = [kind for kind, _ in by_path]
    paths = []
    for (kind, eager), names in by_path.items():
        device = kind if kinds.count(kind) == 1 else ", ".join(names)
        paths += [
            Path(device, "eager", _ELEMENTWISE, eager),
            Path(device, "eager", _PROJECTED, "torch.nn.functional.linear" + _BETWEEN),
            Path(device, "eager", _DERIVATIVES, "the path of the function they are given; tangents as in forward mode"),
            Path(device, "forward mode", _ELEMENTWISE, _SCALED),
            Path(device, "compiled", tuple(ARRAY_PARAMETERS), "plain operations, which the compiler fuses"),
        ]
    return Found(devices, paths, kernels.status())


def _torch_eager(device: str) -> str:
    """The path of an elementwise function in eager mode, of its value and of its gradients."""
    import torch

    from gated.torch_impl import kernels

    if device == "cpu":
        return "blocks that stay in cache, in plain arithmetic where a block's numbers admit it, in scaled elsewhere"
    return "Triton kernels" if kernels.serve(torch.empty(0, device=device)) else _SCALED


def _torch_devices() -> dict[str, str]:
    import torch

    threads = torch.get_num_threads()
    devices = {"cpu": f"{threads} thread{'' if threads == 1 else 's'}"}
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator()
        assert kind is not None
        name_of = getattr(torch.get_device_module(kind), "get_device_name", None)
        for index in range(torch.accelerator.device_count()):
            name = str(name_of(index)) if name_of else kind.type
            devices[f"{kind.type}:{index}"] = f"{name}, ROCm {torch.version.hip}" if torch.version.hip else name
    return devices


def _jax() -> Found:
    import jax

    devices = {f"{device.platform}:{device.id}": str(device.device_kind) for device in jax.devices()}
    paths = []
    for device in dict.fromkeys(name.partition(":")[0] for name in devices):
        paths += [
            Path(device, "eager or jit", _ELEMENTWISE, "XLA: one computation a call, which it fuses"),
            Path(device, "eager or jit", _PROJECTED, "XLA" + _BETWEEN + _KERNELS),
            Path(device, "eager or jit", _DERIVATIVES, "the path of the function they are given"),
        ]
    return Found(devices, paths)


_OF_BACKEND: Final[Mapping[str, Callable[[], Found]]] = {"numpy": _numpy, "torch": _torch, "jax": _jax}


# What is shown


def _versions() -> dict[str, str]:
    from gated.conformance.versions import versions

    found = versions()
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found["triton"] = importlib.metadata.version("triton")
    return found


def _print(found: Mapping[str, Found], skipped: Mapping[str, str]) -> None:
    from rich import box
    from rich.table import Table

    terminal = console()
    terminal.print(", ".join(f"{name} {version}" for name, version in _versions().items()))
    for name, one in found.items():
        terminal.print(f"{name}: {', '.join(f'{device} ({what})' for device, what in one.devices.items())}")
        if one.kernels is not None:
            terminal.print(f"Triton kernels: {one.kernels}")
    for name, reason in skipped.items():
        terminal.print(f"skipped: {name}: {reason}")
    table = Table(box=box.SIMPLE_HEAD if terminal.is_terminal else box.ASCII2, pad_edge=False, header_style="bold")
    for column in ("backend", "device", "mode"):
        table.add_column(column, no_wrap=True)
    for column in ("functions", "path"):
        table.add_column(column, overflow="fold")
    for name, one in found.items():
        for path in one.paths:
            table.add_row(name, path.device, path.mode, ", ".join(path.functions), path.path)
        table.add_section()
    if found:
        terminal.print(table)


def _as_json(found: Mapping[str, Found], skipped: Mapping[str, str]) -> dict[str, Any]:
    return {
        "versions": _versions(),
        "backends": {
            name: {
                "devices": dict(one.devices),
                "paths": [{**path._asdict(), "functions": list(path.functions)} for path in one.paths],
                **({} if one.kernels is None else {"triton_kernels": one.kernels}),
            }
            for name, one in found.items()
        },
        "skipped": dict(skipped),
    }
