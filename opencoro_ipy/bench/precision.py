"""Precision: how long a slice of 10 ms really is, and how long what wants the loop waits for it.

Two spinners take turns and stamp the time; a slice is from the first to the last stamp of one before the first
of the other, so it is measured by the code that runs in it. The machine's own hiccups are in these figures:
the row "a bare loop" says how long that loop is held up when nothing preempts it, in the same minute.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import opencoro_ipy

from . import Say
from .child import once
from .stats import measure, median_of_ratios, percentile
from .table import Bar, Row
from .workload import stamp

SUMMARY = "slice length and overshoot p50, p99, max; time from one to the other; time from request to switched"
OVERSHOOT_US = Bar(250)
OPEN_COROUTINE_US = Bar(998)  # open-coroutine's own p99 over a slice of 10 ms, measured on a quiet machine
_GAP_NS = 20_000  # a loop that stamps each 0.1 us was away if there is a gap of this length
_STAMPS = ("import os, sys, time, random\n"
           "while True:\n"
           "    time.sleep(0.005 + 0.01 * random.random())\n"
           "    os.write(1, time.perf_counter_ns().to_bytes(8, 'little'))\n")


def edges(bursts: list[tuple[int, int, Any]]) -> list[tuple[int, int, Any]]:
    """Bursts (first, last, who) as slices: neighbours of the same spinner are one that the machine interrupted."""
    out: list[tuple[int, int, Any]] = []
    for first, last, who in sorted(bursts):
        if out and out[-1][2] == who:
            out[-1] = (out[-1][0], last, who)
        else:
            out.append((first, last, who))
    return out


def slices(seconds: float, slice_s: float) -> Iterator[dict[str, list[float]]]:
    """Slice lengths, gaps between one and the other, and what holds up a bare loop per slice: all in us."""
    bursts: list[tuple[int, int, Any]] = []

    async def main() -> None:
        until = time.perf_counter_ns() + int(seconds * 1e9)
        await asyncio.gather(*(opencoro_ipy.run(stamp, until, bursts, who, _GAP_NS, slice_s=slice_s) for who in (1, 2)))

    asyncio.run(main())
    found = edges(bursts)
    full = found[2:-2]  # not the first, which start the monitor, and not the last, which end early
    alone: list[tuple[int, int, Any]] = []
    start = time.perf_counter_ns()
    stamp(start + int(seconds * 1e9), alone, 0, _GAP_NS)
    held = [0.0] * int(seconds / slice_s)
    for (_, last, _), (first, _, _) in zip(alone, alone[1:], strict=False):
        at = min(int((last - start) / 1e9 / slice_s), len(held) - 1)
        held[at] += (first - last) / 1e3
    yield {"length": [(last - first) / 1e3 for first, last, _ in full],
           "gap": [(b[0] - a[1]) / 1e3 for a, b in zip(full, full[1:], strict=False)], "held": held}


def requests(rounds: int, seconds: float) -> Iterator[list[list[list[float]]]]:
    """Rounds of (busy us, idle us): another process writes the time into a pipe; when does the loop read it?"""
    taken: list[float] = []

    async def main() -> list[list[list[float]]]:
        reading, writing = os.pipe()
        loop = asyncio.get_running_loop()

        def read() -> None:
            now, sent = time.perf_counter_ns(), os.read(reading, 8)
            taken.append((now - int.from_bytes(sent, "little")) / 1e3)

        loop.add_reader(reading, read)
        writer = subprocess.Popen([sys.executable, "-c", _STAMPS], stdout=writing)
        out = []
        try:
            await asyncio.sleep(0.3)
            for _ in range(rounds):
                taken.clear()
                await opencoro_ipy.run(stamp, time.perf_counter_ns() + int(seconds * 1e9), [], 0, _GAP_NS)
                busy = taken.copy()
                taken.clear()
                await asyncio.sleep(seconds)
                out.append([busy, taken.copy()])
        finally:
            writer.kill()
            writer.wait()
            loop.remove_reader(reading)
        return out

    yield asyncio.run(main())


def _figures(what: str, values: list[float], bars: dict[str, Bar] | None = None) -> list[Row]:
    """Spread: of the same quantile over fifths of the values, in the order in which they were measured."""
    rows, fifth = [], max(len(values) // 5, 1)
    parts = [values[i:i + fifth] for i in range(0, len(values), fifth)]
    for name, q in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
        m = measure([percentile(part, q) for part in parts])
        rows.append(Row("precision", f"{what}, {name}", percentile(values, q), "us", (m.low, m.high),
                        (bars or {}).get(name), detail={"n": len(values)}))
    return rows


def run(quick: bool, say: Say) -> list[Row]:
    """Fresh processes, one after the other."""
    rows: list[Row] = []
    for slice_s in (0.010, 0.001):
        ms = f"{slice_s * 1e3:g} ms"
        say(f"slices of {ms}")
        found = [once(slices, seconds=0.8 if quick else 4.0, slice_s=slice_s) for _ in range(1 if quick else 2)]
        all_ = {k: [v for f in found for v in f[k]] for k in found[0]}
        over = [v - slice_s * 1e6 for v in all_["length"]]
        ten = slice_s == 0.010
        rows += _figures(f"slice of {ms}: length", all_["length"])
        rows += _figures(f"slice of {ms}: overshoot", over, {"p99": OVERSHOOT_US} if ten else None)
        if ten:
            rows.append(Row("precision", "the same p99, against open-coroutine's own 998 us",
                            percentile(over, 0.99), "us", None, OPEN_COROUTINE_US))
        rows += _figures(f"slice of {ms}: from one's last step to the other's first", all_["gap"])
        rows += _figures(f"a bare loop without coroutines: held up per {ms}", all_["held"])
        hiccup = [(percentile([v - slice_s * 1e6 for v in f["length"]], 0.99), max(percentile(f["held"], 0.99), 1.0))
                  for f in found]
        ratio = median_of_ratios(hiccup)
        rows.append(Row("precision", f"slice of {ms}: overshoot p99 / bare loop held up p99", ratio.value, "x",
                        (ratio.low, ratio.high)))
    say("from request to switched")
    rounds = once(requests, rounds=3 if quick else 10, seconds=0.3 if quick else 0.7)
    rows += _figures("a byte from another process to its callback, runaway alone", [v for b, _ in rounds for v in b])
    rows += _figures("the same, loop idle", [v for _, i in rounds for v in i])
    m = median_of_ratios((measure(b).value, measure(i).value) for b, i in rounds)
    rows.append(Row("precision", "a byte from another process to its callback, runaway / idle", m.value, "x",
                    (m.low, m.high), detail={"rounds": len(rounds)}))
    return rows
