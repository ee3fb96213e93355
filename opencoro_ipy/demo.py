"""``python -m opencoro_ipy demo``: a real ipykernel, a runaway cell, and how long others wait meanwhile."""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

COMM = """
def _echo(comm, msg):
    @comm.on_msg
    def _(m): comm.send(m["content"]["data"])
get_ipython().kernel.comm_manager.register_target("echo", _echo)
"""


class Client:
    """A kernel process and the few requests that the demo times."""

    def __init__(self) -> None:
        from jupyter_client.manager import KernelManager

        self.km = KernelManager(kernel_name="python3")
        self.km.kernel_spec.argv[0] = sys.executable
        self.km.start_kernel()
        self.kc = self.km.client()
        self.kc.start_channels()
        self.kc.wait_for_ready(timeout=60)

    def reply(self, msg_id: str, timeout: float = 30) -> dict[str, Any]:
        """The reply to a request; replies to others are dropped."""
        end = time.monotonic() + timeout
        while True:
            msg = self.kc.get_shell_msg(timeout=max(0.01, end - time.monotonic()))
            if msg["parent_header"].get("msg_id") == msg_id:
                return msg["content"]

    def run(self, code: str) -> dict[str, Any]:
        """Execute and wait; RuntimeError if it failed."""
        content = self.reply(self.kc.execute(code))
        if content["status"] != "ok":
            raise RuntimeError(str(content))
        return content

    def echo(self, comm_id: str) -> None:
        """One message to a widget comm and back. Call forget() first: what is unread is read first."""
        msg = self.kc.session.msg("comm_msg", {"comm_id": comm_id, "data": {"t": time.monotonic()}})
        self.kc.shell_channel.send(msg)
        while True:
            got = self.kc.get_iopub_msg(timeout=30)
            if got["msg_type"] == "comm_msg" and got["parent_header"].get("msg_id") == msg["header"]["msg_id"]:
                return

    def forget(self) -> None:
        """Read what other requests have published."""
        while self.kc.iopub_channel.msg_ready():
            self.kc.get_iopub_msg(timeout=1)

    def close(self) -> None:
        self.kc.stop_channels()
        self.km.shutdown_kernel(now=True)


def _time(client: Client, action: Callable[[], Any], n: int = 60) -> list[float]:
    took = []
    for _ in range(n):
        client.forget()
        start = time.perf_counter()
        action()
        took.append((time.perf_counter() - start) * 1e3)
        time.sleep(0.02)  # a person, not a flood
    return sorted(took)


def measure(client: Client) -> tuple[dict[str, tuple[list[float], list[float]]], dict[str, Any]]:
    """{request: (idle ms, busy ms)}, sorted, and the runaway's figures."""
    client.run("%load_ext opencoro_ipy")
    client.run(COMM)
    client.run("data = [1, 2, 3]")
    comm_id = "opencoro-demo"
    client.kc.shell_channel.send(
        client.kc.session.msg("comm_open", {"comm_id": comm_id, "target_name": "echo", "data": {}}))
    actions = {
        "completion": lambda: client.reply(client.kc.complete("data.app")),
        "inspection": lambda: client.reply(client.kc.inspect("print")),
        "widget comm": lambda: client.echo(comm_id),
        "a second cell": lambda: client.reply(client.kc.execute("%%preempt\n1 + 1")),
    }
    for action in actions.values():
        _time(client, action, 5)  # imports and caches
    idle = {name: _time(client, action) for name, action in actions.items()}
    runaway = client.kc.execute("while True: pass")
    time.sleep(0.2)
    busy = {name: _time(client, action) for name, action in actions.items()}
    figures = client.reply(client.kc.execute(
        "%%preempt\nimport json, opencoro_ipy as _o\nfrom opencoro_ipy.jupyter.cells import running as _run",
        user_expressions={"r": "json.dumps([[e.co.preemptions, e.co.cpu_s] for c in _run.values() "
                               "for e in c.executions][0])"}))["user_expressions"]["r"]["data"]["text/plain"]
    preempted, cpu_s = json.loads(figures.strip("'"))
    client.km.interrupt_kernel()
    ended = client.reply(runaway)
    return {n: (idle[n], busy[n]) for n in actions}, {"preempted": preempted, "cpu_s": cpu_s,
                                                      "ended": ended.get("ename")}


def main() -> int:
    """Prints the table; 1 if the runaway could not be ended."""
    client = Client()
    try:
        table, runaway = measure(client)
    finally:
        client.close()
    print(f"`while True: pass` ran {runaway['cpu_s']:.1f} s of CPU, was preempted {runaway['preempted']} times, "
          f"and ended with {runaway['ended']}.\n")
    print("| while it ran       | idle p50 | busy p50 | busy p99 | ratio |")
    print("|--------------------|---------:|---------:|---------:|------:|")
    for name, (idle, busy) in table.items():
        i, b = statistics.median(idle), statistics.median(busy)
        print(f"| {name:18} | {i:5.1f} ms | {b:5.1f} ms | {busy[int(len(busy) * 0.99)]:5.1f} ms | {b / i:5.2f} |")
    print(f"\nCPython {platform.python_version()}, {platform.system()} {platform.machine()}")
    return 0 if runaway["ended"] == "KeyboardInterrupt" else 1
