"""The monitor and the signal handler under the sanitizers, in a C program: ThreadSanitizer delays signals and knows
no switched stacks, so it cannot watch a whole Python."""

import ctypes
import os
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NATIVE = HERE.parent.parent / "native"
ROUNDS = os.environ.get("MONITOR_ROUNDS", "60")  # a few seconds; make tsan: more
ADDR_NO_RANDOMIZE = 0x0040000


def fixed_addresses():
    """Where the kernel spreads addresses wider than libtsan expects, it exits ("unexpected memory mapping")."""
    ctypes.CDLL(None).personality(ADDR_NO_RANDOMIZE)  # where a container forbids it, nothing changes


@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined"])
def test_the_monitor_asks_each_slice_once_it_is_over_and_no_other(sanitizer, tmp_path):
    program = tmp_path / "monitor_tsan"
    flags = ["-std=gnu11", f"-fsanitize={sanitizer}", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"]
    sources = [HERE / "monitor_tsan.c", NATIVE / "monitor.c", NATIVE / "signals.c"]
    built = subprocess.run(["cc", *flags, f"-I{NATIVE}", *sources, "-o", program], capture_output=True, text=True)
    assert built.returncode == 0, f"cc cannot build with -fsanitize={sanitizer}:\n{built.stderr[-3000:]}"
    env = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}  # make asan preloads another sanitizer
    env["UBSAN_OPTIONS"] = "halt_on_error=1:print_stacktrace=1"
    ran = subprocess.run([program, ROUNDS], capture_output=True, text=True, env=env, timeout=150,
                         preexec_fn=fixed_addresses)
    assert ran.returncode == 0, f"exit {ran.returncode}\n{ran.stdout}\n{ran.stderr[-8000:]}"
