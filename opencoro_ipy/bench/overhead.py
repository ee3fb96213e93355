"""Overhead: what the extension costs when nobody needs it, and what sharing the thread costs.

Wall clock has the machine's other load in it; the CPU time of the whole process, the monitor thread included, has
less of it. Both are shown.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import opencoro_ipy

from . import Say
from .child import Child
from .kernels import Kernel
from .stats import median_of_ratios
from .table import Bar, Row, version
from .workload import add_up

SUMMARY = "fixed work with the extension loaded against without; 1 to 64 coroutines against one after the other"
LOADED, SHARED = Bar(1.01), Bar(1.02)
_WORK = """
import time
def pure(n):
    x = 0
    for i in range(n * 10_000):
        x += i & 7
def native(n):
    import numpy
    a = numpy.ones((100, 100))
    for _ in range(n):
        numpy.exp(a @ a / 1e4)
def mixed(n):
    import numpy
    for i in range(n):
        words = {str(k): [k] * 3 for k in range(200)}
        numpy.cumsum(numpy.asarray([len(w) for w in words]))
        sorted(words, key=hash)
def timed(f, n):
    wall, cpu = time.perf_counter(), time.process_time()
    f(n)
    return time.perf_counter() - wall, time.process_time() - cpu
"""
_WORKS = {"pure": "pure Python", "native": "numpy", "mixed": "Python and numpy"}


def _timed(kernel: Kernel, work: str, n: int) -> list[float]:
    kernel.execute(f"_took = timed({work}, {n})", 300)
    return kernel.value("_took")


def _ratios(what: str, pairs: list[tuple[list[float], list[float]]], bar: Bar | None) -> list[Row]:
    rows = []
    for i, clock in enumerate(("wall clock", "CPU time")):
        m = median_of_ratios((a[i], b[i]) for a, b in pairs)
        rows.append(Row("overhead", f"{what}, {clock}", m.value, "x", (m.low, m.high), bar,
                        detail={"pairs_s": [(a[i], b[i]) for a, b in pairs]}))
    return rows


def loaded(seconds: float, pairs: int, say: Say) -> Iterator[Row]:
    """Two kernels, one with the extension, work in turn; who is first alternates."""
    with Kernel(["-m", "ipykernel_launcher"]) as with_it, Kernel(["-m", "ipykernel_launcher"]) as without:
        for kernel in (with_it, without):
            kernel.ready()
            kernel.execute(_WORK)
        with_it.execute("%load_ext opencoro_ipy")
        for work, name in _WORKS.items():
            if work != "pure" and version("numpy") is None:
                yield Row("overhead", f"extension loaded / not: {name}", None, note="not installed")
                continue
            n = 10
            while (took := min(_timed(without, work, n)[0], _timed(with_it, work, n)[0])) < 0.05:
                n *= 4
            n = max(int(n * seconds / took), 1)
            say(f"extension loaded or not: {name}, {pairs} pairs of {seconds:g} s")
            found = []
            for i in range(pairs):
                got = {k: _timed(k, work, n) for k in ((with_it, without) if i % 2 else (without, with_it))}
                found.append((got[with_it], got[without]))
            yield from _ratios(f"extension loaded / not: {name}, {seconds:g} s", found,
                               LOADED if work != "mixed" else None)


def shared(count: int, slice_s: float, seconds: float) -> Iterator[tuple[list[float], list[float]]]:
    """For ever: (wall, CPU) of so many coroutines together, and of the same calls one after the other."""
    start = time.perf_counter()
    add_up(1_000_000)
    each = max(int(1_000_000 * seconds / (time.perf_counter() - start) / count), 1)

    async def together() -> None:
        await asyncio.gather(*(opencoro_ipy.run(add_up, each, slice_s=slice_s) for _ in range(count)))

    async def in_turn() -> None:
        for _ in range(count):
            add_up(each)

    for i in range(1 << 30):
        got = {}
        for way in (together, in_turn) if i % 2 else (in_turn, together):
            wall, cpu = time.perf_counter(), time.process_time()
            asyncio.run(way())
            got[way] = [time.perf_counter() - wall, time.process_time() - cpu]
        yield got[together], got[in_turn]


def run(quick: bool, say: Say) -> list[Row]:
    """Kernels first, then bare coroutines."""
    rows = list(loaded(0.15 if quick else 3.0, 5 if quick else 7, say))
    for count in (1, 2, 8, 64):
        for slice_s in (0.010, 0.001):
            seconds, pairs = (0.1, 3) if quick else (0.5, 7)
            what = f"{count} coroutines at {slice_s * 1e3:g} ms / one after the other"
            if count == 1:
                if slice_s == 0.001:
                    continue  # one that is alone has no slice clock
                what = "1 coroutine / a call"
            say(what)
            with Child(shared, count=count, slice_s=slice_s, seconds=seconds) as child:
                found = [child.next() for _ in range(pairs)]
            rows += _ratios(what, found, SHARED if (count, slice_s) == (2, 0.010) else None)
    return rows
