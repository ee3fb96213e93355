"""``python -m opencoro_ipy.bench``: it measures what it says and shows it. No test here judges a figure."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from opencoro_ipy.bench import CASES, precision, stats, table
from opencoro_ipy.bench.child import once
from opencoro_ipy.bench.contenders import PEERS
from opencoro_ipy.bench.table import Bar, Row


def bench(*args, timeout=170):
    return subprocess.run([sys.executable, "-m", "opencoro_ipy.bench", *args], capture_output=True, text=True,
                          timeout=timeout)


# -- the command ---------------------------------------------------------------------------------------
def test_list_has_a_line_for_each_case():
    ran = bench("--list")
    assert ran.returncode == 0
    assert [line.split()[0] for line in ran.stdout.splitlines()] == list(CASES)
    assert all(len(line.split()) > 5 for line in ran.stdout.splitlines())


@pytest.mark.parametrize("only", ["nonsense", "fairness,nonsense", "", ","])
def test_an_unknown_case_is_an_error_that_lists_what_there_is(only):
    ran = bench("--only", only)
    assert ran.returncode == 2 and not ran.stdout and "Traceback" not in ran.stderr
    assert all(name in ran.stderr for name in CASES)


def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path):
    ran = bench("--only", "fairness", "--json", str(tmp_path / "no" / "out.json"), timeout=30)
    assert ran.returncode == 2 and "--json" in ran.stderr and "Traceback" not in ran.stderr


def test_quick_cases_yield_every_row_with_figures(tmp_path):
    ran = bench("--quick", "--only", "scale,fairness,precision", "--json", str(tmp_path / "out.json"))
    assert ran.returncode == 0, ran.stderr
    got = json.loads((tmp_path / "out.json").read_text())
    assert got["quick"] is True and not got["failed"] and got["machine"]["cores"] and got["machine"]["cpu"]
    assert got["machine"]["versions"]["opencoro-ipy"] and got["machine"]["python"]
    rows = {(r["case"], r["what"]): r for r in got["rows"]}
    assert len(rows) == len(got["rows"])  # no row says the same as another
    for row in got["rows"]:
        assert math.isfinite(row["value"]) and all(math.isfinite(v) for v in row["spread"] or []), row
    names = " / ".join(what for _, what in rows)
    for wanted in ("2 equal runaways", "8 equal runaways", "64 equal runaways", "overshoot, p50", "overshoot, p99",
                   "overshoot, max", "10 ms: length, p50", "byte from another process to its callback",
                   "of the same ten, 10,000 suspended, against 10", "memory of one coroutine, 10,000",
                   "memory of one thread", "memory of one greenlet", "memory of one asyncio task",
                   "memory of one cell in a kernel"):
        assert wanted in names, wanted
    assert {(r["what"], r["bar"]) for r in got["rows"] if r["bar"]} >= {
        ("slice of 10 ms: overshoot, p99", "<= 250"),
        ("switch to one coroutine of the same ten, 10,000 suspended, against 10", "<= 1.5")}
    assert rows["precision", "slice of 10 ms: length, p50"]["value"] > 5000  # preempted by the clock, not at random
    fair = next(r for r in got["rows"] if r["what"].startswith("8 equal runaways") and "coroutines" in r["what"])
    assert fair["value"] > 0.5 and fair["bar"] == ">= 0.999"  # 0.125: only one of them ran
    table_lines = [line for line in ran.stdout.splitlines() if line.startswith("|")]
    assert len(table_lines) == len(rows) + 2 and "precision" in ran.stderr


@pytest.mark.kernel
def test_plain_ipykernel_is_blocked_and_ours_answers(tmp_path):
    ran = bench("--quick", "--only", "responsiveness", "--json", str(tmp_path / "out.json"))
    assert ran.returncode == 0, ran.stderr
    rows = {r["what"]: r for r in json.loads((tmp_path / "out.json").read_text())["rows"]}
    blocked = rows["pure Python: ipykernel: every request"]
    assert blocked["note"] == "blocked" and blocked["value"] is None
    for request in ("kernel_info", "complete", "inspect", "comm", "execute"):
        ours = rows[f"pure Python: opencoro-ipy: {request}"]
        assert ours["value"] > 0 and ours["bar"] == "<= 1.2" and ours["busy_p50_ms"] > 0
        assert rows[f"pure Python: ipykernel, subshell: {request}"]["value"] > 0
    for peer in PEERS:
        assert any(what.startswith(f"pure Python: {peer.name}") for what in rows), peer  # measured or "not installed"
    assert "blocked" in ran.stdout


# -- rows ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("value, bar, verdict", [
    (1.0, None, "no bar"), (1.01, Bar(1.01), "met"), (1.02, Bar(1.01), "not met"), (0.95, Bar(0.95, least=True), "met"),
    (0.94, Bar(0.95, least=True), "not met"), (None, Bar(1), "not met"), (None, None, "no bar"),
])
def test_a_row_says_whether_its_bar_is_met(value, bar, verdict):
    assert Row("c", "w", value, bar=bar).verdict == verdict


def test_the_table_has_a_line_for_each_row_and_says_why_there_is_no_value():
    text = table.table([Row("c", "first", 1.23456, "x", (1.0, 2.0), Bar(2)), Row("c", "second", None, note="blocked")])
    head, rule, first, second = text.splitlines()
    assert [c.strip() for c in first.strip("|").split("|")] == ["c", "first", "1.235 x", "1.000 - 2.000", "<= 2", "met"]
    assert [c.strip() for c in second.strip("|").split("|")] == ["c", "second", "blocked", "", "", "no bar"]
    assert len({len(line) for line in (head, rule, first, second)}) == 1


# -- figures -------------------------------------------------------------------------------------------
def test_percentiles_are_linear_between_neighbours():
    assert stats.percentile([3, 1, 2], 0.5) == 2 and stats.percentile([1, 2], 0.5) == 1.5
    assert stats.percentile(range(101), 0.99) == 99
    assert stats.percentile([5, 7], 1) == 7 and stats.percentile([5], 0) == 5
    for values, q in (([], 0.5), ([1], 1.1), ([1], -0.1)):
        with pytest.raises(ValueError):
            stats.percentile(values, q)


def test_the_median_of_ratios_is_not_the_ratio_of_medians():
    pairs = [(1, 1), (10, 5), (9, 3)]  # medians 9 and 3 would give 3
    assert stats.median_of_ratios(pairs) == pytest.approx((2, 1.2, 2.8))
    assert stats.ratio_of_blocks([([1, 2, 100], [1]), ([4], [1, 1, 50])]) == pytest.approx((3, 2.2, 3.8))


@pytest.mark.parametrize("shares, index", [([5, 5, 5, 5], 1), ([1, 0, 0, 0], 0.25), ([1, 2, 3], 36 / 42), ([7], 1)])
def test_jain(shares, index):
    assert stats.jain(shares) == pytest.approx(index)


def test_jain_of_nothing_is_an_error():
    with pytest.raises(ValueError):
        stats.jain([0, 0])


def test_a_slice_that_the_machine_interrupted_is_one_slice():
    bursts = [(0, 4, 1), (6, 10, 1), (11, 20, 2), (21, 30, 1)]
    assert precision.edges(bursts[::-1]) == [(0, 10, 1), (11, 20, 2), (21, 30, 1)]


# -- processes of their own ------------------------------------------------------------------------------
def test_a_child_that_fails_tells_why():
    with pytest.raises(RuntimeError, match="unexpected keyword argument 'nonsense'"):
        once(precision.slices, nonsense=1)


def test_a_kernel_that_stands_still_ends_with_the_benchmark():
    """SIGSTOP keeps it from noticing that its parent is gone: without PR_SET_PDEATHSIG it would stay for ever."""
    code = ("from opencoro_ipy.bench.kernels import Kernel\nk = Kernel(['-m', 'ipykernel_launcher'])\nk.freeze()\n"
            "print(k.pid, flush=True)\ninput()")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as parent:
        pid = int(parent.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        parent.kill()
    end = time.monotonic() + 10
    try:
        while Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
            assert time.monotonic() < end
            time.sleep(0.02)
    finally:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
