"""Scale: many suspended coroutines, beside as many greenlets, asyncio tasks and threads.

Memory is resident memory of a fresh process, before and after. A switch is there and back; it is timed on the
same ten while the others are suspended, and once over all of them in turn, where each has left the caches.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import greenlet

import opencoro_ipy

from . import Say
from .child import Child
from .kernels import Kernel
from .stats import median_of_ratios, measure
from .table import Bar, Row
from .workload import run_cell, yield_for_ever

SUMMARY = "10, 1,000, 10,000 suspended coroutines: memory each, switch time; greenlets, asyncio tasks, threads"
SWITCH, MEMORY_KIB = Bar(1.5), Bar(16)
COUNTS = {"coroutine": (10, 1000, 10000), "coroutine in an exec'd cell": (10, 1000, 10000),
          "greenlet": (10, 1000, 10000), "asyncio task": (10, 1000, 10000), "thread": (10, 1000)}
_FEW = 10


def resident_kib(pid: int | str = "self") -> float:
    """Resident memory of a process."""
    with open(f"/proc/{pid}/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024


def _each(things: list[Any], switch: Callable[[Any], Any], n: int) -> float:
    start = time.perf_counter()
    for thing in itertools.islice(itertools.cycle(things), n):
        switch(thing)
    return (time.perf_counter() - start) / n * 1e6


def _started(co: opencoro_ipy.Coroutine) -> opencoro_ipy.Coroutine:
    co.resume()
    return co


def _coroutine() -> Any:
    return _started(opencoro_ipy.Coroutine(yield_for_ever))


def _cell() -> Any:
    return _started(opencoro_ipy.Coroutine(run_cell, slice_s=0.0001))


def _greenlet() -> Any:
    main = greenlet.getcurrent()

    def body() -> None:
        while True:
            main.switch()

    g = greenlet.greenlet(body)
    g.switch()
    return g


class _Thread:
    """A thread that waits for a lock, and gives another back."""

    def __init__(self) -> None:
        self.go, self.gone = threading.Lock(), threading.Lock()
        self.go.acquire()
        self.gone.acquire()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            self.go.acquire()
            self.gone.release()

    def switch(self) -> None:
        self.go.release()
        self.gone.acquire()


MAKE: dict[str, tuple[Callable[[], Any], Callable[[Any], Any] | None]] = {
    "coroutine": (_coroutine, lambda c: c.resume()), "coroutine in an exec'd cell": (_cell, None),
    "greenlet": (_greenlet, lambda g: g.switch()), "thread": (_Thread, lambda t: t.switch())}


def suspended(kind: str, count: int, switches: int) -> Iterator[dict[str, float]]:
    """First {"kib": memory each}, then for ever {"few": us per switch among ten, "all": among all}."""
    if kind == "asyncio task":
        yield from _tasks(count, switches)
        return
    make, switch = MAKE[kind]
    kept = [make() for _ in range(_FEW)]  # what the first ones load is not counted
    before = resident_kib()
    kept += [make() for _ in range(count)]
    yield {"kib": max(resident_kib() - before, 0) / count}
    del kept[:_FEW if count > _FEW else 0]
    while switch is not None:
        yield {"few": _each(kept[:_FEW], switch, switches),
               "all": _each(kept, switch, max(switches, count))}


def _tasks(count: int, switches: int) -> Iterator[dict[str, float]]:
    loop = asyncio.new_event_loop()

    async def wait() -> None:
        await loop.create_future()

    async def turns(n: int) -> None:
        for _ in range(n):
            await asyncio.sleep(0)

    async def start(n: int) -> list[asyncio.Task[None]]:
        tasks = [loop.create_task(wait()) for _ in range(n)]
        await asyncio.sleep(0)
        return tasks

    async def switch(among: int) -> float:
        each = max(switches // among, 1)
        begun = time.perf_counter()
        await asyncio.gather(*(turns(each) for _ in range(among)))
        return (time.perf_counter() - begun) / each / among * 1e6

    kept = loop.run_until_complete(start(_FEW))
    before = resident_kib()
    kept += loop.run_until_complete(start(count))
    yield {"kib": max(resident_kib() - before, 0) / count}
    while True:
        yield {"few": loop.run_until_complete(switch(_FEW)), "all": loop.run_until_complete(switch(count))}


def cells_kib(count: int) -> float:
    """Memory of one suspended cell in a kernel: ``count`` detached runaways, less as many cells that ended."""
    with Kernel(["-m", "ipykernel_launcher"]) as kernel:
        kernel.ready()
        kernel.execute("%load_ext opencoro_ipy")

        def grown(body: str, n: int) -> float:
            before = resident_kib(kernel.pid)
            for _ in range(n):
                kernel.execute(f"%%preempt --detach\n{body}")
            return resident_kib(kernel.pid) - before

        grown("x = 1", 100)
        ended = grown("x = 1", count)
        grown("while True: pass", 5)
        return max(grown("while True: pass", count) - ended, 0) / count


def run(quick: bool, say: Say) -> list[Row]:
    """A process for each kind and count; those of a kind take turns."""
    rows: list[Row] = []
    few: dict[tuple[str, int], list[float]] = {}
    for kind, counts in COUNTS.items():
        say(f"{kind}: {', '.join(f'{c:,}' for c in counts)}")
        memory: dict[int, list[float]] = {c: [] for c in counts}
        for _ in range(1 if quick else 2):
            children = {c: Child(suspended, kind=kind, count=c, switches=1000 if quick else 10000) for c in counts}
            try:
                for c, child in children.items():
                    memory[c].append(child.next()["kib"])
                if MAKE.get(kind, (None, True))[1] is not None:
                    turns = [{c: child.next() for c, child in children.items()} for _ in range(2 if quick else 7)]
                    for c in counts:
                        few.setdefault((kind, c), []).extend(s[c]["few"] for s in turns)
                        few.setdefault((kind, -c), []).extend(s[c]["all"] for s in turns)
            finally:
                for child in children.values():
                    child.__exit__()
        for c in counts:
            m = measure(memory[c])
            bar = MEMORY_KIB if c == 10000 and kind.startswith("coroutine") else None
            rows.append(Row("scale", f"memory of one {kind}, {c:,} suspended", m.value, "KiB", (m.low, m.high), bar))
    for (kind, c), values in few.items():
        m, base = measure(values), COUNTS[kind][0]
        what = f"one {kind} of {'the same ten' if c > 0 else 'all'}, {abs(c):,} suspended"
        rows.append(Row("scale", f"switch to {what}", m.value, "us", (m.low, m.high)))
        if abs(c) != base:
            r = median_of_ratios(zip(values, few[kind, base], strict=True))
            bar = SWITCH if (kind, c) == ("coroutine", 10000) else None
            rows.append(Row("scale", f"switch to {what}, against {base}", r.value, "x", (r.low, r.high), bar))
    for kind in ("greenlet", "asyncio task"):
        r = median_of_ratios(zip(few["coroutine", 10000], few[kind, 10000], strict=True))
        what = f"switch to one coroutine against one {kind}, 10,000 suspended"
        rows.append(Row("scale", what, r.value, "x", (r.low, r.high)))
    n = 40 if quick else 200
    say(f"{n} suspended cells in a kernel")
    m = measure([cells_kib(n) for _ in range(1 if quick else 2)])
    what = f"memory of one cell in a kernel, {n} suspended"
    rows.append(Row("scale", what, m.value, "KiB", (m.low, m.high), MEMORY_KIB))
    return rows
