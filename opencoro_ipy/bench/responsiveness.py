"""Responsiveness: round trips of requests while a cell runs, against the same contender idle.

Each contender has two kernels, one idle and one busy. Single requests go to one and the other in turn from one
client, which rests 10 ms between two; a block's ratio is median busy / median idle, and a row is the median over
blocks. The busy kernel keeps one core while its idle twin is asked too, so both meet the same load. Contenders
take turns by blocks: those not asked stand still (SIGSTOP). A contender that does not answer the first request
of a kind in time is "blocked" for that kind.
"""

from __future__ import annotations

import itertools
import mmap
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack

from . import Say
from .contenders import BUSY, OURS, PEERS, REQUESTS, STRONGEST, Contender
from .kernels import Blocked, Kernel
from .stats import median_of_ratios, measure, percentile, ratio_of_blocks
from .table import Bar, Row, version

SUMMARY = "round trips of requests, busy against idle, beside peers; the runaway's throughput meanwhile"
ROUND_TRIP, ADVANTAGE, P99_MS, THROUGHPUT = Bar(1.2), Bar(1.5, least=True), Bar(10), Bar(0.95, least=True)
_REST_S = 0.01  # between two requests: a person, not a flood
_PER_SECOND = 20
_HANGS_S = 15.0  # one that answered before
_COUNTER = """
import mmap
_file = open({path!r}, "r+b")
_shared, _n = mmap.mmap(_file.fileno(), 8), 0
while True:
    for _i in range(1000): pass
    _n += 1
    _shared[:] = _n.to_bytes(8, "little")
"""

Blocks = list[tuple[list[float], list[float]]]  # (busy ms, idle ms) of each block


def _round_trip(contender: Contender, kernel: Kernel, request: str, timeout_s: float) -> float:
    kernel.drain()
    start = time.perf_counter()
    REQUESTS[request](contender, kernel, timeout_s)
    took = (time.perf_counter() - start) * 1e3
    time.sleep(_REST_S)
    return took


class Pair:
    """One contender's two kernels and what was measured on them."""

    def __init__(self, contender: Contender, idle: Kernel, busy: Kernel) -> None:
        self.contender, self.idle, self.busy = contender, idle, busy
        self.blocks: dict[str, Blocks | None] = {r: [] for r in REQUESTS}  # None: blocked

    def block(self, n: int, timeout_s: float) -> None:
        """n requests of each kind to each kernel, in turn."""
        self.busy.thaw()
        time.sleep(0.05)
        for request, blocks in self.blocks.items():
            if blocks is None:
                continue
            idle: list[float] = []
            busy: list[float] = []
            try:
                for _ in range(n):
                    idle.append(_round_trip(self.contender, self.idle, request, _HANGS_S))
                    patience_s = _HANGS_S if blocks or busy else timeout_s
                    busy.append(_round_trip(self.contender, self.busy, request, patience_s))
            except Blocked:
                self.blocks[request] = None
            else:
                blocks.append((busy, idle))
        self.busy.freeze()

    def ratios(self, request: str) -> list[float] | None:
        """Busy / idle of each block."""
        blocks = self.blocks[request]
        return None if blocks is None else [percentile(b, 0.5) / percentile(i, 0.5) for b, i in blocks]


class Kernels:
    """Idle kernels are shared between contenders that configure them alike, and kept for the next busy code."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._idle: dict[tuple[object, ...], Kernel] = {}

    def pairs(self, contenders: list[Contender], code: str) -> tuple[list[Pair], list[tuple[Contender, str]]]:
        """Started together, for a start takes longest; and the peers that did not start, with the reason."""
        new: list[tuple[Contender, Kernel]] = []
        for c in contenders:
            if c.key not in self._idle:
                self._idle[c.key] = self._stack.enter_context(c.start())
                new.append((c, self._idle[c.key]))
        busy = [(c, self._stack.enter_context(c.start())) for c in contenders]
        failed: dict[Contender, str] = {}
        for c, kernel in [*new, *busy]:
            try:
                c.prepare(kernel)
            except (Blocked, RuntimeError) as e:
                if c is OURS:
                    raise
                failed[c] = f"failed: {(str(e).strip() or type(e).__name__).splitlines()[-1][:80]}"
        for c, kernel in busy:
            if c not in failed:
                kernel.start(c.busy(code))
                time.sleep(0.2)
            kernel.freeze()
        return [Pair(c, self._idle[c.key], kernel) for c, kernel in busy if c not in failed], list(failed.items())

    def __enter__(self) -> Kernels:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()


def _rows(busy: str, pair: Pair) -> Iterator[Row]:
    ours, name = pair.contender is OURS, pair.contender.name
    if all(blocks is None for blocks in pair.blocks.values()):
        yield Row("responsiveness", f"{busy}: {name}: every request", None, note="blocked")
        return
    for request, blocks in pair.blocks.items():
        what = f"{busy}: {name}: {request}"
        bar = ROUND_TRIP if ours and busy == "pure Python" else None
        if blocks is None:
            yield Row("responsiveness", what, None, bar=bar, note="blocked")
            continue
        all_busy, all_idle = ([v for block in blocks for v in block[i]] for i in (0, 1))
        m = ratio_of_blocks(blocks)
        figures = {f"{state}_p{q}_ms": percentile(values, q / 100) for q in (10, 50, 99)
                   for state, values in (("busy", all_busy), ("idle", all_idle))}
        yield Row("responsiveness", what, m.value, "x", (m.low, m.high), bar, detail={"n": len(all_busy), **figures})
        if ours and busy == "pure Python":
            each = measure([percentile(b, 0.99) - percentile(i, 0.99) for b, i in blocks])
            later = figures["busy_p99_ms"] - figures["idle_p99_ms"]
            yield Row("responsiveness", f"{what}: busy p99 - idle p99", later, "ms", (each.low, each.high), P99_MS)


def _advantages(pairs: list[Pair]) -> Iterator[Row]:
    """The best peer's ratio against ours, block by block."""
    ours, *peers = pairs
    for request in REQUESTS:
        mine = ours.ratios(request)
        against = [(measure(ratios).value, p.contender.name, ratios) for p in peers if (ratios := p.ratios(request))]
        what = f"pure Python: best peer / opencoro-ipy: {request}"
        if mine is None or not against:
            note = "blocked" if mine is None else "no peer answers"
            yield Row("responsiveness", what, None, bar=None if mine else ADVANTAGE, note=note)
            continue
        _, name, ratios = min(against)
        m = median_of_ratios(zip(ratios, mine, strict=False))
        yield Row("responsiveness", f"{what} ({name})", m.value, "x", (m.low, m.high), ADVANTAGE)


def throughput(contender: Contender, requests: list[str], pairs: int, seconds: float) -> Iterator[Row]:
    """Work of a runaway, read from shared memory: while requests come, against alone, in turn.

    Beside it what could be hoped for at best: one less the kernel's CPU time for such requests, when idle.
    """
    with tempfile.NamedTemporaryFile() as file, contender.start() as kernel:
        file.write(bytes(8))
        file.flush()
        contender.prepare(kernel)
        own: dict[str, list[float]] = {r: [] for r in requests}
        for request in requests:
            for _ in range(20):
                before = kernel.cpu_s()
                REQUESTS[request](contender, kernel, _HANGS_S)
                time.sleep(1 / _PER_SECOND)
                own[request].append(kernel.cpu_s() - before)
        kernel.start(contender.busy(_COUNTER.format(path=file.name)))
        time.sleep(0.5)
        with mmap.mmap(file.fileno(), 8) as shared:

            def speed(request: str | None) -> float:
                start, n = time.perf_counter(), int.from_bytes(shared[:], "little")
                for i in itertools.count(1):
                    if request is not None:
                        REQUESTS[request](contender, kernel, _HANGS_S)
                    time.sleep(max(start + i / _PER_SECOND - time.perf_counter(), 0))
                    if time.perf_counter() - start >= seconds:
                        break
                return (int.from_bytes(shared[:], "little") - n) / (time.perf_counter() - start)

            for request in requests:
                found = []
                for i in range(pairs):
                    order = (request, None) if i % 2 else (None, request)
                    got = {r: speed(r) for r in order}
                    found.append((got[request], got[None]))
                m, left = median_of_ratios(found), measure([1 - _PER_SECOND * s for s in own[request]])
                what = f"pure Python: {contender.name}: the runaway's work, {_PER_SECOND} {request}/s against none"
                bar = THROUGHPUT if contender is OURS and request == "kernel_info" else None
                yield Row("responsiveness", what, m.value, "x", (m.low, m.high), bar, detail={"pairs": found})
                yield Row("responsiveness", f"{what}: what these requests leave of a core, idle", left.value, "x",
                          (left.low, left.high))


def run(quick: bool, say: Say) -> list[Row]:
    """quick: the peers beside the pure-Python loop only."""
    rows: list[Row] = []
    with Kernels() as kernels:
        for busy, code in BUSY.items():
            if busy == "numpy" and version("numpy") is None:
                rows.append(Row("responsiveness", busy, None, note="not installed"))
                continue
            peers = PEERS if busy == "pure Python" or not quick else ()
            here = [c for c in (OURS, *peers) if c.installed]
            say(f"{busy}: starting {len(here)} contenders")
            pairs, failed = kernels.pairs(here, code)
            blocks, n = (2, 2) if quick else (10, 20) if busy == "pure Python" else (6, 5)
            for i in range(blocks):
                say(f"{busy}: block {i + 1} of {blocks}")
                for pair in pairs:
                    # More of ours, for its p99 has a bar.
                    pair.block(n if pair.contender is OURS else min(n, 5), 0.5 if quick else 1.5)
            for pair in pairs:
                rows += _rows(busy, pair)
                pair.busy.close()
            absent = [(c, "not installed") for c in peers if not c.installed]
            rows += [Row("responsiveness", f"{busy}: {c.name}", None, note=why) for c, why in [*failed, *absent]]
            if busy == "pure Python":
                rows += _advantages(pairs)
    for contender in (OURS,) if quick else (OURS, STRONGEST):
        say(f"{contender.name}: throughput")
        rows += throughput(contender, ["kernel_info", "execute", "complete"] if contender is OURS and not quick
                           else ["kernel_info"], 3 if quick else 7, 0.4 if quick else 1.0)
    return rows
