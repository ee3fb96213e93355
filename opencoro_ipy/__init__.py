"""Preemptible coroutines for Jupyter: a notebook kernel that a running cell cannot freeze.

``%load_ext opencoro_ipy`` in a notebook, or ``await opencoro_ipy.run(fn, *args)`` in any asyncio program.
"""

from typing import Any

from .coroutine import Coroutine, Suspender, co, current
from .errors import CellCancelled, CellTimeout, MonitorError, OpenCoroError, StateError
from .events import Listener, add_listener, remove_listener
from .guard import no_preempt
from .monitor import Monitor
from .scheduler import run
from .states import Cancelled, Complete, Error, Ready, Running, Suspended, Syscall

__version__ = "0.1.0"
__all__ = [
    "Cancelled", "CellCancelled", "CellTimeout", "Complete", "Coroutine", "Error", "Listener", "Monitor",
    "MonitorError", "OpenCoroError", "Ready", "Running", "StateError", "Suspended", "Suspender", "Syscall",
    "add_listener", "co", "current", "no_preempt", "remove_listener", "run",
]


def load_ipython_extension(ipython: Any) -> None:
    """``%load_ext opencoro_ipy``"""
    from .jupyter.extension import load

    load(ipython)


def unload_ipython_extension(ipython: Any) -> None:
    """``%unload_ext opencoro_ipy``"""
    from .jupyter.extension import unload

    unload(ipython)
