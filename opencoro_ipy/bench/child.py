"""Measuring in a fresh process: what one case leaves in memory or in caches does not reach the next."""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

# Not the folder that the user happens to stand in. BLAS with one thread: every busy thing is busy on one core.
ENVIRONMENT = {**os.environ, "PYTHONSAFEPATH": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
               "OMP_NUM_THREADS": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
TIMEOUT_S = 90.0  # a child that takes longer hangs
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_SERVE = """
import json, sys
from importlib import import_module
module, name, arguments = json.loads(sys.argv[1])
for answer in getattr(import_module(module), name)(**arguments):
    print(json.dumps(answer), flush=True)
    if not sys.stdin.readline():
        break
"""


def die_with_parent() -> None:
    """A preexec_fn: SIGKILL when the benchmark is gone. One that stands still could not end by itself."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Child:
    """A generator function in a process of its own: each ``next()`` lets it run to its next ``yield``.

    It is called by name, and what it yields goes through JSON. RuntimeError with its stderr if it fails.
    """

    def __init__(self, function: Callable[..., Any], **arguments: Any) -> None:
        self._called = False
        call = json.dumps([function.__module__, function.__name__, arguments])
        self._process = subprocess.Popen([sys.executable, "-c", _SERVE, call], env=ENVIRONMENT, text=True,
                                         preexec_fn=die_with_parent,
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def next(self) -> Any:
        """What it yields next."""
        assert self._process.stdin is not None and self._process.stdout is not None
        if self._called:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        self._called = True
        if not select.select([self._process.stdout], [], [], TIMEOUT_S)[0]:
            raise RuntimeError(f"no answer within {TIMEOUT_S:g} s")
        line = self._process.stdout.readline()
        if not line:
            _, errors = self._process.communicate(timeout=TIMEOUT_S)
            raise RuntimeError(f"exit status {self._process.returncode}: {errors.strip()[-2000:]}")
        return json.loads(line)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()  # nothing that it does at its end is of interest
        self._process.communicate()


def once(function: Callable[..., Any], **arguments: Any) -> Any:
    """What the generator function yields first, from a process of its own."""
    with Child(function, **arguments) as child:
        return child.next()
