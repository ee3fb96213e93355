"""``make soak``: matplotlib, scipy, pandas, polars, pydantic and lxml in three overlapping cells, 1 ms slices."""

import json
import os
from pathlib import Path

import pytest

SECONDS = float(os.environ.get("SOAK_SECONDS", "120"))


FLOOD = 10_000


@pytest.mark.timeout(600)
def test_a_flood_of_comm_messages_is_answered_and_leaves_the_cells_their_half(kernel):
    kernel.run("import time, opencoro_ipy\n"
               "def target(comm, msg):\n    comm.on_msg(lambda m: comm.send(m['content']['data']))\n"
               "get_ipython().kernel.comm_manager.register_target('echo', target)\nstop = False")
    send = kernel.kc.session.msg
    kernel.kc.shell_channel.send(send("comm_open", {"comm_id": "c", "target_name": "echo", "data": {}}))
    cells = [kernel.start(f"%%preempt --name cell{i}\nwhile not stop: pass") for i in range(4)]
    clock = ("import json; from opencoro_ipy.jupyter import cells\nprint(json.dumps([time.thread_time(), "
             "sum(e.co.cpu_s for c in cells.running.values() if c.name[:4] == 'cell' for e in c.executions)]))")

    def clocks():
        cell = kernel.start("%%preempt\n" + clock)
        kernel.reply(cell, timeout=60), kernel.idle(cell)
        return json.loads(kernel.text(cell))

    before, echoes, sent = clocks(), 0, 0
    while echoes < FLOOD:
        while sent < min(FLOOD, echoes + 200):  # never fewer than 100 wait: a flood, within the socket's bounds
            kernel.kc.shell_channel.send(send("comm_msg", {"comm_id": "c", "data": {"n": sent}}))
            sent += 1
        kernel.until(lambda want=echoes + 100: received(kernel) >= min(want, FLOOD), timeout=120, what="echoes")
        echoes = received(kernel)
        print(f"\r{echoes} echoes", end="", flush=True)
    thread_s, cells_s = (b - a for a, b in zip(before, clocks(), strict=True))
    assert sorted(kernel.echoed) == list(range(FLOOD))
    kernel.run("%%preempt\nstop = True")
    assert all(kernel.reply(c)["status"] == "ok" for c in cells)
    print(f"\nthe cells got {cells_s / thread_s:.2f} of the main thread's CPU time")
    assert cells_s / thread_s >= 0.45


def received(kernel):
    """How many echoes so far; takes them out of the kernel's box."""
    kernel.echoed = getattr(kernel, "echoed", [])
    for parent in list(kernel.iopub):
        messages = kernel.iopub[parent]
        if any(m["msg_type"] == "comm_msg" for m in messages):
            kernel.echoed += [m["content"]["data"]["n"] for m in messages if m["msg_type"] == "comm_msg"]
            kernel.iopub[parent] = [m for m in messages if m["msg_type"] != "comm_msg"]
    return len(kernel.echoed)


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
