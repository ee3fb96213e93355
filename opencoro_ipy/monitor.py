"""The monitor's life: started with its first user, stopped and joined with its last. Main thread only.

Owns the trip signal (the highest real-time signal that is free), the gc callback and the lock shims:
what is installed here is restored here.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from typing import Any

from . import _native, guard
from .errors import MonitorError

_users = 0
_pid = os.getpid()
_trip: int | None = None
_old_trip: Any = None


def why_not() -> str | None:
    """One sentence why preemption cannot be given here, or None."""
    if not sys.platform.startswith("linux"):
        return f"preemption is not available on {sys.platform} yet"
    if threading.current_thread() is not threading.main_thread():
        return "coroutines are preempted on the main thread only, and this is another thread"
    return None


def _free_signal() -> int:
    for number in range(signal.SIGRTMAX, signal.SIGRTMIN, -1):
        if signal.getsignal(number) == signal.SIG_DFL:
            return number
    raise MonitorError("every real-time signal is taken by somebody else's handler")


def acquire() -> None:
    """One more user. MonitorError with the reason if preemption cannot be given."""
    global _users, _pid, _trip, _old_trip
    reason = why_not()
    if reason:
        raise MonitorError(reason)
    if _pid != os.getpid():  # forked: the parent's users are not ours
        _pid, _users = os.getpid(), 0
    if _users == 0:
        trip = _trip if _trip is not None else _free_signal()
        guard.configure()
        old = signal.signal(trip, _native.trip)
        try:
            _native.start(trip)
        except OSError as e:
            signal.signal(trip, old)
            raise MonitorError(f"the monitor thread could not be started: {e}") from e
        if _trip is None:
            _trip, _old_trip = trip, old
            gc.callbacks.append(_native.gc_callback)
            guard.install_locks()
    _users += 1


def release() -> None:
    """One user less. The last one stops and joins the thread and restores what was replaced."""
    global _users, _trip, _old_trip
    if _pid != os.getpid() or _users == 0:
        return
    _users -= 1
    if _users or _trip is None:
        return
    _native.stop()
    guard.restore_locks()
    if _native.gc_callback in gc.callbacks:
        gc.callbacks.remove(_native.gc_callback)
    if signal.getsignal(_trip) is _native.trip:
        signal.signal(_trip, _old_trip)
    _trip = _old_trip = None


class Monitor:
    """What the monitor did, for users: ``Monitor.stats()`` and ``Monitor.running()``."""

    @staticmethod
    def stats() -> dict[str, Any]:
        """Counters since the process began; histograms: bucket i counts [2**i, 2**(i+1)) ns."""
        return _native.stats()

    @staticmethod
    def running() -> bool:
        """Is there a monitor thread?"""
        return _native.state()["monitor"]


def percentile_ns(histogram: list[int], q: float) -> int:
    """Upper edge (ns) of the bucket that holds quantile ``q``; 0 for an empty histogram."""
    total, seen = sum(histogram), 0
    for i, n in enumerate(histogram):
        seen += n
        if total and seen >= q * total:
            return 1 << (i + 1)
    return 0
