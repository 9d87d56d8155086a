"""Checks in two processes with four devices each: the block over all of them, by ``jax.distributed``."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
from _jax_sharded import DEVICES, PROCESSES, check
from _jax_sharded_blocks import arguments, block, both, cotangent, expected, mesh, placed, within
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from gated.jax_impl.sharding import partition_specs


@check("processes")
def a_process_has_its_share_of_the_devices(_: Path) -> None:
    assert jax.process_count() == PROCESSES["processes"] == 2
    assert len(jax.local_devices()) == DEVICES // 2


@check("processes")
def the_block_is_right_where_both_processes_have_a_part_of_it(_: Path) -> None:
    """Tensor parallelism within each process and data parallelism between them, and the other way round."""
    given, dy = arguments(), cotangent()
    true = expected(given, dy)
    for data, tensor, crossing in ((2, 4, "data"), (4, 2, "tp")):
        on = mesh(data, tensor)
        if crossing == "tp":  # neighbours along this axis are in different processes
            on = jax.sharding.Mesh(on.devices.reshape(tensor, data).T, on.axis_names)
        processes = np.vectorize(lambda device: device.process_index)(on.devices)
        assert len(set(processes[:, 0])) == (2 if crossing == "data" else 1)
        assert len(set(processes[0])) == (2 if crossing == "tp" else 1)
        at = placed(given, on, partition_specs(given, data="data"))
        out = NamedSharding(on, P("data"))
        ends = {"value": out} | {name: one.sharding for name, one in at.items()}
        results = jax.jit(both(block), out_shardings=ends)(at, jax.device_put(dy, out))
        assert not results["value"].is_fully_addressable
        within(results, true)
