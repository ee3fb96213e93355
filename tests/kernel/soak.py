"""``make soak``: matplotlib, scipy, pandas, polars, pydantic and lxml in three overlapping cells, 1 ms slices."""

import json
import os
from pathlib import Path

import pytest

SECONDS = float(os.environ.get("SOAK_SECONDS", "120"))


@pytest.mark.timeout(SECONDS + 240)
def test_soak(kernel):
    setup = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nimport soak_libraries, opencoro_ipy"
    assert kernel.run(setup, timeout=120)["status"] == "ok"
    cells = [kernel.start(f"%%preempt --slice 1ms\nr{i} = soak_libraries.work({SECONDS}, {i})") for i in range(3)]
    asked = 0
    while len([c for c in cells if c in kernel.replies]) < 3:  # and the kernel answers all the time
        kernel.reply(kernel.kc.complete("soak_lib"), timeout=60)
        assert kernel.value(f"{asked} + 1") == str(asked + 1)
        asked += 1
        print(f"\r{asked} requests answered", end="", flush=True)
        assert kernel.km.is_alive()
        kernel.pump(0.2)
    for cell in cells:
        assert kernel.reply(cell)["status"] == "ok", kernel.reply(cell)
    stats = json.loads(kernel.value("__import__('json').dumps(opencoro_ipy.Monitor.stats())").strip("'"))
    rounds = [int(kernel.value(f"r{i}")) for i in range(3)]
    print(f"\n{sum(rounds)} rounds, {stats['preempted']} preemptions, deferred {stats['deferred']}, {stats['pinned']}")
    assert min(rounds) > SECONDS / 2 and stats["preempted"] > SECONDS * 20 and stats["deferred"]["pinned"] > 0
