"""What a thread prints belongs to the cell that started it.

ipykernel files the output of threads under the request that came last; with cells that overlap that is the
wrong one. A thread gets the parent headers of its starter, and nothing else of its context.
"""

from __future__ import annotations

import functools
import sys
import threading
from contextvars import ContextVar
from typing import Any

_start = threading.Thread.start
_parents: list[ContextVar[Any]] = []


@functools.wraps(_start)
def _start_with_parents(self: threading.Thread) -> None:
    inherited = [(var, value) for var in _parents if (value := var.get(None)) is not None]
    bootstrap = self._bootstrap  # type: ignore[attr-defined]

    def _bootstrap() -> None:
        for var, value in inherited:
            var.set(value)
        del self._bootstrap  # type: ignore[attr-defined]
        bootstrap()

    if inherited:
        self._bootstrap = _bootstrap  # type: ignore[attr-defined]
    try:
        _start(self)
    except RuntimeError:  # it did not start: leave it as it was
        self.__dict__.pop("_bootstrap", None)
        raise


def install(kernel: Any) -> None:
    """From now on, threads inherit. Idempotent."""
    shell = kernel.shell
    owners: tuple[Any, ...] = (shell.displayhook, shell.display_pub, sys.stdout, sys.stderr)
    _parents[:] = [o._parent_header for o in owners if isinstance(getattr(o, "_parent_header", None), ContextVar)]
    _parents.extend((kernel._shell_parent, kernel._shell_parent_ident))
    threading.Thread.start = _start_with_parents  # type: ignore[method-assign]


def restore() -> None:
    """As before, unless somebody else has wrapped it since: then threads inherit nothing. Idempotent."""
    _parents.clear()
    if threading.Thread.start is _start_with_parents:
        threading.Thread.start = _start  # type: ignore[method-assign]
