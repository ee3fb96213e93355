"""Cells: one per execute request, found by id or name. Main thread only."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

from .. import scheduler
from ..errors import CellCancelled, CellTimeout
from ..scheduler import Execution
from ..states import label
from .options import CellOptions

_cell: ContextVar[Cell | None] = ContextVar("opencoro_cell", default=None)
running: dict[int, Cell] = {}  # by id, in order of start
finished: deque[tuple[str, ...]] = deque(maxlen=20)  # rows for %coroutines


class Cell:
    """An execute request while it runs. Its executions: do_execute, and inside it an ``await`` cell's."""

    def __init__(self, options: CellOptions, *, number: int, lane: asyncio.Lock | None = None) -> None:
        self.options = options
        self.lane = lane  #: held, so that plain cells come in order; None: concurrent, or it has left
        self.number = number  #: its execution count
        self.count = number  #: what ``shell.execution_count`` is for its code
        self.done = False
        self.detached = options.detach
        self.values: dict[Any, Any] = {}  #: what the shell keeps per cell (shell.py)
        self.executions: list[Execution] = []
        self.started_ns = time.monotonic_ns()
        self.depth = 0
        self._cpu_s, self._preempted = 0.0, 0  #: kept when an execution is gone
        self.reply_early: asyncio.Future[None] | None = None  #: done: reply now, the cell goes on
        self.error: str | None = None  #: name of the exception that it ended with
        self.id = 0
        self.name = options.name or f"[{number}]"

    def bind(self, context: Any) -> None:
        """Code that runs in ``context`` belongs to this cell."""
        self.context = context
        context.run(_cell.set, self)

    def add(self, execution: Execution) -> None:
        """Another coroutine of this cell; the first one gives the cell its id."""
        if not self.executions:
            self.id = execution.co.id
            running[self.id] = self
        self.executions.append(execution)

    def remove(self, execution: Execution) -> None:
        self.executions.remove(execution)

    def finish(self) -> None:
        """It has ended: keep a row of it."""
        if self.id in running:
            finished.append(self.row())
            del running[self.id]
        self.done = True

    def throw(self, exception: BaseException, *, insist: bool = False) -> None:
        """Raise in the innermost coroutine."""
        if self.executions:
            self.executions[-1].throw(exception, insist=insist)

    def cancel(self) -> None:
        """End it, whatever it catches."""
        self.throw(CellCancelled(f"cell {self.name} was cancelled"), insist=True)

    def leave_lane(self) -> None:
        """Let the next plain cell start. Idempotent."""
        lane, self.lane = self.lane, None
        if lane is not None:
            lane.release()

    def pause(self, on: bool) -> None:
        """Suspended by the user, or going on."""
        for execution in self.executions:
            execution.pause() if on else execution.unpause()
        if on:
            self.leave_lane()

    def detach(self) -> None:
        """Reply now and go on."""
        self.detached = True
        if self.reply_early is not None and not self.reply_early.done():
            self.reply_early.set_result(None)
        self.leave_lane()

    @property
    def paused(self) -> bool:
        return any(e.paused for e in self.executions)

    def row(self) -> tuple[str, ...]:
        """id, name, state, CPU, elapsed, preemptions: for %coroutines."""
        cos = [e.co for e in self.executions]
        if self.error is not None:
            state = "cancelled" if self.error == CellCancelled.__name__ else "error"
        else:
            state = "paused" if self.paused else label(cos[-1].state) if cos else "ended"
        self._cpu_s = max(self._cpu_s, sum(c.cpu_s for c in cos))
        self._preempted = max(self._preempted, sum(c.preemptions for c in cos))
        elapsed = (time.monotonic_ns() - self.started_ns) / 1e9
        return (str(self.id), self.name, state, f"{self._cpu_s:.2f} s", f"{elapsed:.2f} s", str(self._preempted))


async def run(cell: Cell, body: Coroutine[Any, Any, Any], error: Callable[[Any], str | None]) -> Any:
    """Drive ``body`` as the cell, within the cell's limits; its value or its exception.

    error: from the value, the name of the exception that the user was shown.
    """
    options = cell.options

    def over(what: str, limit: float | None) -> None:
        cell.throw(CellTimeout(f"cell {cell.name} was ended after {limit:g} s of {what}"), insist=True)

    execution = scheduler.drive(
        body, name=cell.name, slice_s=options.slice_s, priority=options.priority, context=cell.context,
        cpu_limit_ns=int((options.cpu_limit_s or 0) * 1e9),
        on_cpu_limit=lambda: over("CPU time", options.cpu_limit_s))
    cell.add(execution)
    timer = asyncio.get_running_loop().call_later(options.timeout_s, over, "wall clock", options.timeout_s) \
        if options.timeout_s else None
    try:
        value = await execution
        cell.error = error(value)
        return value
    except BaseException as e:
        cell.error = type(e).__name__
        raise
    finally:
        if timer is not None:
            timer.cancel()
        cell.finish()
        cell.remove(execution)


def current_cell() -> Cell | None:
    """The cell whose code runs now, or None."""
    cell = _cell.get()
    return None if cell is None or cell.done else cell


def last_cell() -> Cell | None:
    """The cell this request belongs to, also after it has ended."""
    return _cell.get()


def find(ref: str) -> Cell:
    """By id or name; LookupError that says what is allowed."""
    matches = [c for c in running.values() if str(c.id) == ref or c.name == ref]
    if len(matches) == 1:
        return matches[0]
    known = ", ".join(f"{c.id} ({c.name})" for c in running.values()) or "none runs"
    raise LookupError(f"{'several cells are' if matches else 'no running cell is'} called {ref!r}; running: {known}")
