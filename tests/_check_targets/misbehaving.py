"""Targets that print, hang, exit or crash, when the first element of x says so."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time

_libc = ctypes.CDLL(None)

HANG, SEGFAULT, EXIT, SYSTEM_EXIT, INTERRUPT, PRINT, C_PRINT, STOP, CLOSE = range(1, 10)


def on_demand(x):
    match int(x.flat[0]):
        case 1:
            time.sleep(600)
        case 2:
            ctypes.string_at(0)
        case 3:
            os._exit(3)
        case 4:
            sys.exit("enough")
        case 5:
            raise KeyboardInterrupt
        case 6:
            print("hello from Python")
            print("and again", file=sys.stderr)
        case 7:
            _libc.puts(b"hello from C")
        case 8:
            os.kill(os.getpid(), signal.SIGSTOP)
        case 9:
            os.closerange(3, 64)
            time.sleep(600)
    return x


def chatters(x):
    print("x" * 5000)
    return x


def logs_as_a_framework(x):
    for line in (
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
        "I0000 00:00:1763955000.000000  1234 cpu_client.cc:470] TfrtCpuClient created.",
        "W1124 04:10:00.123000 1234 torch/_dynamo/convert_frame.py:1358] hit recompile_limit",
        "2026-11-24 03:00:00.123456: I tensorflow/core/platform/cpu_feature_guard.cc:210] optimized",
        "\x1b[1;31m2026-11-24 03:00:00.123456 [E:onnxruntime:, sequential_executor.cc:572] Non-zero status\x1b[m",
        "WARNING:tensorflow:5 out of the last 5 calls to <function f> triggered tf.function retracing.",
        "WARNING:2026-11-24 03:00:00,123:jax._src.xla_bridge:791: An NVIDIA GPU may be present",
    ):
        print(line, file=sys.stderr)
    return x


def hangs_in_c(x):
    # Through PyDLL the interpreter's lock is held: no other thread of Python runs.
    ctypes.PyDLL(None).sleep(600)
    return x


def reads_input(x):
    input()
    return x


def pid(x):
    x[...] = os.getpid()
    return x


def starts_another(x):
    x[...] = subprocess.Popen(["sleep", "600"]).pid
    return x
