"""Who runs next on an event loop: one slice at a time, the loop's own work first (bounded, see policy.py).

A loop has one run queue. Its pump is one callback of the loop for each slice: it lets the loop go first,
picks, runs the slice, and asks for its next turn, which comes after the loop's next look at I/O.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import time
import weakref
from typing import TYPE_CHECKING, Any

from . import _native, policy

if TYPE_CHECKING:
    from .scheduler import Execution

_queues: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, RunQueue] = weakref.WeakKeyDictionary()


class RunQueue:
    """The executions of one loop that are ready to run."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._ready: list[Execution] = []  # in order of arrival
        self._pumping = False  # the pump has a turn coming
        self._since_ns = 0  # since when somebody is ready and none runs: the loop's own time
        self._credit_ns = 0
        queue = getattr(loop, "_ready", None)
        self._loop_ready: Any = queue if type(queue).__name__ == "deque" else None
        self._loop_timers: Any = getattr(loop, "_scheduled", None)
        selector = getattr(loop, "_selector", None)
        try:
            self._fd: int = selector.fileno() if selector is not None else -1
        except (AttributeError, ValueError):
            self._fd = -1
        #: can the monitor see that the loop has something to do?
        self.sees_loop = self._fd >= 0 and self._loop_ready is not None and self._loop_timers is not None

    def add(self, execution: Execution) -> None:
        """It is ready to run. Idempotent."""
        if execution not in self._ready:
            execution.passed_ns = 0
            if not self._ready:
                self._since_ns = time.monotonic_ns()
            self._ready.append(execution)
            self._pump_soon()

    def discard(self, execution: Execution) -> None:
        """It is not, or no longer."""
        if execution in self._ready:
            self._ready.remove(execution)

    def alone(self) -> bool:
        """Does nobody else wait for a slice?"""
        return not self._ready

    def floor_ns(self) -> int:
        """How long the next slice runs before an event of the loop may preempt it."""
        return policy.floor_ns(self._credit_ns)

    def next_timer_ns(self) -> int:
        """Monotonic ns of the loop's next timer, 0: none."""
        timers = self._loop_timers
        return int(timers[0]._when * 1e9) if timers else 0

    def watch(self) -> None:
        """Have the monitor preempt what runs now when this loop has something to do."""
        _native.watch(self._fd, self._loop_ready) if self.sees_loop else _native.watch(-1, None)

    def _pump_soon(self) -> None:
        loop = self._loop()
        if not self._pumping and loop is not None:
            self._pumping = True
            # It belongs to no cell. A context of its own each time: inside a nested loop (nest_asyncio) it runs twice.
            loop.call_soon(self._pump, context=contextvars.Context())

    def _pump(self) -> None:
        self._pumping = False
        if not self._ready:
            return
        now = time.monotonic_ns()
        if self._loop_ready and now - self._since_ns < policy.hub_bound_ns(self._credit_ns):
            self._pump_soon()  # the loop goes first
            return
        self._credit_ns = policy.credit_ns(self._credit_ns, 0, now - self._since_ns)
        index = 0
        if len(self._ready) > 1:
            index = policy.pick([(e.co.priority, e.co.preemptions == 0, e.passed_ns) for e in self._ready],
                                self._credit_ns)
        execution = self._ready[index]
        passed_over = self._ready[:index]
        del self._ready[index]
        try:
            with _AsTask(self._loop(), execution.task):
                execution.slice(self)
        finally:
            self._since_ns = time.monotonic_ns()
            length = self._since_ns - now
            account = (0, length) if policy.is_service(execution.co.priority) else (length, 0)
            self._credit_ns = policy.credit_ns(self._credit_ns, *account)
            for passed in passed_over:
                passed.passed_ns += length
            if self._ready:
                self._pump_soon()


class _AsTask:
    """asyncio's current task is the one that awaits the execution (asyncio.timeout and TaskGroup need it)."""

    __slots__ = ("_loop", "_task", "_outer")

    def __init__(self, loop: Any, task: asyncio.Task[Any] | None) -> None:
        self._loop, self._task = loop, task

    if sys.version_info >= (3, 12):
        def __enter__(self) -> None:
            self._outer = asyncio.tasks._swap_current_task(self._loop, self._task)  # type: ignore[attr-defined]

        def __exit__(self, *exc: object) -> None:
            asyncio.tasks._swap_current_task(self._loop, self._outer)  # type: ignore[attr-defined]
    else:
        def __enter__(self) -> None:
            self._outer = asyncio.current_task(self._loop)
            self._swap(self._outer, self._task)

        def __exit__(self, *exc: object) -> None:
            self._swap(asyncio.current_task(self._loop), self._outer)

        def _swap(self, old: asyncio.Task[Any] | None, new: asyncio.Task[Any] | None) -> None:
            if old is not None:
                asyncio.tasks._leave_task(self._loop, old)
            if new is not None:
                asyncio.tasks._enter_task(self._loop, new)


def queue_of(loop: asyncio.AbstractEventLoop) -> RunQueue:
    """The loop's run queue; made on first use."""
    found = _queues.get(loop)
    if found is None:
        found = _queues[loop] = RunQueue(loop)
    return found
