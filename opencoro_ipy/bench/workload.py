"""Work to be preempted. The runtime protects its own package's frames; these functions pass for a user's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def users(function: F) -> F:
    """Decorator: code of this function, not of functions inside it, may be preempted like any user's."""
    function.__code__ = function.__code__.replace(co_filename="<the benchmark's user>")  # type: ignore[attr-defined]
    return function


@users
def steps_until(until_s: float) -> int:
    """How many steps were done until then (perf_counter)."""
    n, clock = 0, time.perf_counter
    while clock() < until_s:
        n += 1
    return n


@users
def add_up(n: int) -> int:
    """A fixed amount of pure Python."""
    x = 0
    for i in range(n):
        x += i & 7
    return x


@users
def stamp(until_ns: int, bursts: list[tuple[int, int, Any]], who: Any, gap_ns: int) -> None:
    """Appends (first, last, who): stamps in ns (perf_counter) without a gap between two of more than gap_ns."""
    clock = time.perf_counter_ns
    first = last = clock()
    while last < until_ns:
        now = clock()
        if now - last > gap_ns:
            bursts.append((first, last, who))
            first = now
        last = now
    bursts.append((first, last, who))


@users
def yield_for_ever(suspender: Any, _: Any) -> None:
    """A coroutine that suspends itself again and again."""
    while True:
        suspender.suspend_with()


@users
def run_cell(_: Any, __: Any) -> None:
    """A coroutine in the middle of a cell's code."""
    exec(_CELL, {})


_CELL = compile("x = 0\nwhile True: x += 1", "<cell>", "exec")
