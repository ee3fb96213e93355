"""Preempted cells beside what else lives in a kernel: threads, a debugger, payloads, big C extensions."""

import queue
import time


def test_threads_print_under_the_cell_that_started_them(kernel):
    code = ("%%preempt\nimport threading, time\n"
            "def say_{0}(i, nest):\n"
            "    for k in range(5): print('{0}', i, k); time.sleep(0.02)\n"
            "    if nest: t = threading.Thread(target=say_{0}, args=(9, False)); t.start(); t.join()\n"
            "ts_{0} = [threading.Thread(target=say_{0}, args=(i, i == 0)) for i in range(3)]\n"
            "for t in ts_{0}: t.start()\n"
            "for t in ts_{0}: t.join()\nprint('{0} joined')")
    cells = {name: kernel.start(code.replace("{0}", name)) for name in ("red", "blue")}
    for name, cell in cells.items():
        assert kernel.reply(cell)["status"] == "ok"
        other = {"red": "blue", "blue": "red"}[name]
        kernel.until(lambda n=name, c=cell: kernel.text(c).count(n) == 21, what="all that the threads print")
        assert other not in kernel.text(cell)


def test_a_thread_that_outlives_its_cell_prints_under_it_and_unload_restores_start(kernel):
    cell = kernel.start("import threading, time\nstop = threading.Event()\n"
                        "def late(): stop.wait(); print('late')\n"
                        "t = threading.Thread(target=late); t.start()")
    kernel.reply(cell)
    kernel.run("%unload_ext opencoro_ipy")
    kernel.run("stop.set()")
    kernel.until(lambda: "late" in kernel.text(cell), what="the late line")
    assert kernel.value("threading.Thread.start.__module__, threading.Thread.start.__qualname__, "
                        "'_bootstrap' in vars(t)") == "('threading', 'Thread.start', False)"
    assert kernel.value("hasattr(threading.Thread.start, '__wrapped__')") == "False"


def test_starting_threads_beside_a_cell_that_holds_their_lock_does_not_block(kernel):
    """threading's own lock may be held by a suspended cell: start() must not be a protected frame."""
    cells = [kernel.start("%%preempt --slice 0.1ms\nimport threading\nfor _ in range(1500): " + code) for code in
             ("threading.enumerate()", "t = threading.Thread(target=int); t.start(); t.join()",
              "u = threading.Thread(target=int); u.start(); u.join()")]
    for cell in cells:
        assert kernel.reply(cell, timeout=90)["status"] == "ok"


def test_payloads_go_with_the_reply_of_their_cell(kernel):
    beside = kernel.start("%%preempt\nimport time\nget_ipython().set_next_input('beside')\nprint('go', flush=True)\n"
                          "end = time.monotonic() + 1\nwhile time.monotonic() < end: pass")
    kernel.busy(beside)
    here = kernel.run("get_ipython().set_next_input('here')")
    assert [p["text"] for p in here["payload"]] == ["here"]
    assert [p["text"] for p in kernel.reply(beside)["payload"]] == ["beside"]


def test_a_plain_cell_that_was_suspended_and_fails_later_aborts_nothing(kernel):
    cell = kernel.start("print('go', flush=True)\nimport time\nend = time.monotonic() + 0.5\n"
                        "while time.monotonic() < end: pass\n1 / 0")
    kernel.busy(cell)
    number = kernel.iopub[cell][1]["content"]["execution_count"]
    kernel.run(f"%%preempt\n%coroutines suspend [{number}]")
    runs = kernel.start("import time\nprint('go', flush=True)\ntime.sleep(1.5)\n'done'")
    queued = kernel.start("'queued'")
    kernel.busy(runs)
    kernel.run(f"%%preempt\n%coroutines resume [{number}]")
    assert kernel.reply(cell)["ename"] == "ZeroDivisionError"
    assert kernel.reply(runs)["status"] == kernel.reply(queued)["status"] == "ok"


def test_an_error_in_a_plain_cell_still_aborts_what_is_queued_behind_it(kernel):
    cell, queued = kernel.start("import time; time.sleep(0.3); 1 / 0"), kernel.start("1")
    assert kernel.reply(cell)["status"] == "error"
    assert kernel.reply(queued)["status"] == "aborted"


def test_rust_and_pybind_libraries_in_overlapping_cells(kernel):
    kernel.run("import polars as pl, pydantic, numpy as np, matplotlib; matplotlib.use('Agg')", timeout=120)
    kernel.run("from matplotlib.figure import Figure\nimport io\n"
               "class M(pydantic.BaseModel):\n    x: int\n"
               "    @pydantic.field_validator('x')\n    @classmethod\n"
               "    def c(cls, v):\n        return v if sum(range(v)) >= 0 else None")
    cells = [kernel.start("%%preempt --slice 1ms\n" + code) for code in (
        "for i in range(60): r1 = pl.DataFrame({'a': range(200)}).select(\n"
        "    pl.col('a').map_elements(lambda v: sum(range(v % 50)) + v, return_dtype=pl.Int64).sum()).item()",
        "r2 = sum(M(x=i % 100).x for i in range(20000))",
        "for i in range(4):\n    f = Figure(); f.subplots().plot(range(100)); b = io.BytesIO(); f.savefig(b)\n"
        "r3 = b.getvalue()[:4]")]
    for cell in cells:
        assert kernel.reply(cell, timeout=120)["status"] == "ok"
    want = sum(sum(range(v % 50)) + v for v in range(200)), sum(i % 100 for i in range(20000)), b"\x89PNG"
    assert kernel.value("(r1, r2, r3)") == repr(want)


class Debugger:
    """The debug adapter protocol over the control channel."""

    def __init__(self, kernel):
        self.kernel, self.seq, self.events = kernel, 0, []

    def ask(self, command, **arguments):
        self.seq += 1
        content = {"type": "request", "seq": self.seq, "command": command, "arguments": arguments}
        msg = self.kernel.kc.session.msg("debug_request", content)
        self.kernel.kc.control_channel.send(msg)
        end = time.monotonic() + 30
        while True:
            assert time.monotonic() < end, command
            try:
                got = self.kernel.kc.get_control_msg(timeout=1)
            except queue.Empty:
                continue
            if got["parent_header"]["msg_id"] == msg["header"]["msg_id"]:
                assert got["content"].get("success", True), got["content"]
                return got["content"].get("body", {})

    def stopped(self):
        return [m["content"]["body"] for messages in self.kernel.iopub.values() for m in messages
                if m["msg_type"] == "debug_event" and m["content"].get("event") == "stopped"]


def test_no_preemption_while_a_debugger_has_stopped_a_cell(kernel):
    kernel.run("n = 0; stop = False")
    debugger = Debugger(kernel)
    debugger.ask("initialize", clientID="test", adapterID="", pathFormat="path", linesStartAt1=True,
                 columnsStartAt1=True, supportsVariableType=True)
    debugger.ask("attach")
    code = "a = 1\nb = a + 1\nfor i in range(3_000_000): b += 1\n'end'"
    path = debugger.ask("dumpCell", code=code)["sourcePath"]
    debugger.ask("setBreakpoints", breakpoints=[{"line": 2}], source={"path": path}, sourceModified=False)
    debugger.ask("configurationDone")
    beside = kernel.start("%%preempt\nprint('go', flush=True)\nwhile not stop: n += 1")
    kernel.busy(beside)
    cell = kernel.start(code)
    kernel.until(debugger.stopped, what="the stop at the breakpoint")
    frames = debugger.ask("stackTrace", threadId=debugger.stopped()[0]["threadId"])["stackFrames"]
    assert frames[0]["line"] == 2
    first = debugger.ask("evaluate", expression="n", frameId=frames[0]["id"])["result"]
    kernel.pump(0.3)
    assert debugger.ask("evaluate", expression="n", frameId=frames[0]["id"])["result"] == first
    debugger.ask("evaluate", expression="n", frameId=frames[0]["id"])
    debugger.ask("continue", threadId=debugger.stopped()[0]["threadId"])
    assert kernel.reply(cell, timeout=60)["status"] == "ok"
    debugger.ask("disconnect", restart=False, terminateDebuggee=False)
    assert kernel.value("b") == "3000002" and beside not in kernel.replies
    kernel.run("stop = True")
    assert kernel.reply(beside)["status"] == "ok"
