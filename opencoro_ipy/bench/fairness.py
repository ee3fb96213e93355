"""Fairness: do equal runaways get equal shares? Jain's index over the work each got done, beside threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import opencoro_ipy

from . import Say
from .child import once
from .stats import jain, measure
from .table import Bar, Row
from .workload import steps_until

SUMMARY = "Jain index of the work done by 2, 8 and 64 equal runaways, beside as many threads"
BAR = {8: Bar(0.999, least=True)}


def coroutines(n: int, seconds: float) -> Iterator[list[int]]:
    """Steps of each of n coroutines."""
    async def main() -> list[int]:
        until = time.perf_counter() + seconds
        return await asyncio.gather(*(opencoro_ipy.run(steps_until, until) for _ in range(n)))

    yield asyncio.run(main())


def threads(n: int, seconds: float) -> Iterator[list[int]]:
    """Steps of each of n threads, interpreter as it comes."""
    steps: list[int] = []
    until = time.perf_counter() + seconds
    all_ = [threading.Thread(target=lambda: steps.append(steps_until(until))) for _ in range(n)]
    for t in all_:
        t.start()
    for t in all_:
        t.join()
    yield steps


def run(quick: bool, say: Say) -> list[Row]:
    """Rounds in turn: coroutines, threads, coroutines, ..."""
    rows = []
    for n in (2, 8, 64):
        seconds, rounds = (1.0 if n == 64 else 0.5, 1) if quick else (5.0, 3 if n == 8 else 2)
        say(f"{n} runaways, {rounds} x {seconds:g} s")
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(jain(once(coroutines, n=n, seconds=seconds)))
            theirs.append(jain(once(threads, n=n, seconds=seconds)))
        for who, values, bar in (("coroutines", ours, BAR.get(n)), ("threads", theirs, None)):
            m = measure(values)
            rows.append(Row("fairness", f"{n} equal runaways, {seconds:g} s: {who}", m.value, "Jain", (m.low, m.high),
                            bar, detail={"values": values}))
    return rows
