"""How many inputs a second a core does in an exhaustive sweep, and how long a whole sweep takes at that rate.

    python benchmarks/sweeps.py [--units N] [--cores N] [SWEEP ...]

Units are drawn evenly over the sweep, the same for each backend, and run in one process with one thread, call and
measurement together; the first unit of each, which loads and compiles, is not counted.
"""

from __future__ import annotations

import argparse
import os
import time

from gated.conformance.backends import is_installed, load
from gated.conformance.sweeps.catalogue import SWEEPS
from gated.conformance.sweeps.running import ONE_THREAD, measure_unit
from gated.contract import BACKENDS


def main() -> None:
    """Prints a line for each sweep and backend."""
    # Before a framework is loaded.
    os.environ.update({name: os.environ.get(name, value) for name, value in ONE_THREAD.items()})
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wide = [name for name, sweep in SWEEPS.items() if sweep.inputs > 1 << 16]
    parser.add_argument("sweeps", nargs="*", default=wide, choices=wide, metavar="SWEEP", help=f"of {', '.join(wide)}")
    parser.add_argument("--units", type=int, default=16, help="units of each sweep that are timed (default: 16)")
    parser.add_argument("--cores", type=int, default=2, help="for how many cores to reckon (default: 2)")
    options = parser.parse_args()
    print(f"{'sweep':20} {'backend':8} {'inputs/s/core':>14} {'whole sweep on ' + str(options.cores) + ' cores':>24}")
    for name in options.sweeps:
        sweep = SWEEPS[name]
        # An odd multiple of a fraction of the sweep: no unit of nan alone, nor all of one sign.
        units = [(2 * i + 1) * sweep.units // (2 * options.units) for i in range(options.units)]
        for backend in filter(is_installed, BACKENDS):
            adapter = load(backend)
            measure_unit(name, adapter, units[0])
            start = time.perf_counter()
            for unit in units:
                measure_unit(name, adapter, unit)
            rate = len(units) * sweep.unit / (time.perf_counter() - start)
            minutes = sweep.inputs / rate / options.cores / 60
            print(f"{name:20} {backend:8} {rate:14,.0f} {minutes:20.1f} min", flush=True)


if __name__ == "__main__":
    main()
