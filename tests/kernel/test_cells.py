"""What a user sees, over the real protocol, in a real kernel."""

import time

RUNAWAY = "print('go', flush=True)\nwhile True: pass"
# spin(): up to CPython 3.12 an exception at the jump of `while True: pass` misses the try around the loop
SWALLOWS = "def spin():\n  while True: pass\nprint('go', flush=True)\nwhile True:\n  try: spin()\n  except BaseException: pass"


def test_a_runaway_cell_leaves_the_kernel_live_and_can_be_interrupted(kernel):
    cell = kernel.start(RUNAWAY)
    kernel.busy(cell)
    slow = []
    for ask in (lambda: kernel.kc.complete("impor"), lambda: kernel.kc.inspect("print"),
                lambda: kernel.kc.is_complete("for"), kernel.kc.kernel_info, lambda: kernel.kc.history(n=3)):
        for _ in range(5):
            start = time.monotonic()
            kernel.reply(ask(), timeout=10)
            slow.append(time.monotonic() - start)
    assert sorted(slow)[len(slow) // 2] < 1
    assert kernel.run("%%preempt\n1 + 1")["status"] == "ok"
    assert cell not in kernel.replies
    kernel.km.interrupt_kernel()
    assert kernel.reply(cell)["ename"] == "KeyboardInterrupt"
    assert kernel.value("40 + 2") == "42"


def test_plain_cells_keep_their_order(kernel):
    cells = [kernel.start(f"import time; time.sleep({0.05 if i % 2 else 0}); print({i})") for i in range(6)]
    for cell in cells:
        assert kernel.reply(cell)["status"] == "ok"
    counts = [kernel.replies[c][0]["execution_count"] for c in cells]
    assert counts == sorted(counts) and len(set(counts)) == 6


def test_an_error_aborts_what_is_queued_behind_it_but_not_concurrent_cells(kernel):
    bad = kernel.start("import time; time.sleep(0.2); 1/0")
    queued = kernel.start("print('never')")
    beside = kernel.start("%%preempt\n5")
    assert kernel.reply(beside)["status"] == "ok"
    assert kernel.reply(bad)["ename"] == "ZeroDivisionError"
    assert kernel.reply(queued)["status"] == "aborted"
    kernel.idle(queued)
    assert kernel.run("%%preempt\n1/0")["status"] == "error"
    assert kernel.value("1") == "1"


def test_counts_results_and_outputs_of_overlapping_cells_agree(kernel):
    """Every peer gets this wrong."""
    code = "%%preempt --slice 1ms\nx = 0\nfor i in range({n}): x += i\nprint('cell {i}')\n('value', {i}, x)"
    cells = [kernel.start(code.format(i=i, n=200_000 + 50_000 * (i % 3))) for i in range(12)]
    for i, cell in enumerate(cells):
        content = kernel.reply(cell)
        kernel.idle(cell)
        assert content["status"] == "ok"
        n = content["execution_count"]
        messages = kernel.iopub[cell]
        inputs = [m for m in messages if m["msg_type"] == "execute_input"]
        results = [m for m in messages if m["msg_type"] == "execute_result"]
        assert [m["content"]["execution_count"] for m in inputs + results] == [n, n]
        assert results[0]["content"]["data"]["text/plain"].startswith(f"('value', {i},")
        assert kernel.text(cell) == f"cell {i}\n"
        assert messages[-1]["content"].get("execution_state") == "idle"
        assert kernel.value(f"Out[{n}][1], 'cell {i}' in In[{n}], _{n}[1]") == f"({i}, True, {i})"


def test_await_cells_overlap_too(kernel):
    a = kernel.start("%%preempt\nimport asyncio\nfor i in range(3): await asyncio.sleep(0.05); print('a', i)\n'A'")
    b = kernel.start("%%preempt\nimport asyncio\nfor j in range(3): await asyncio.sleep(0.05); print('b', j)\n'B'")
    assert kernel.reply(a)["status"] == kernel.reply(b)["status"] == "ok"
    kernel.idle(a), kernel.idle(b)
    assert kernel.text(a) == "a 0\na 1\na 2\n" and kernel.text(b) == "b 0\nb 1\nb 2\n"


def test_an_await_cell_can_be_interrupted_while_it_waits(kernel):
    cell = kernel.start("import asyncio\nprint('go', flush=True)\nawait asyncio.sleep(600)")
    kernel.busy(cell)
    kernel.km.interrupt_kernel()
    assert kernel.reply(cell)["status"] == "error"
    assert kernel.value("1") == "1"


def test_interrupt_hits_the_plain_cell_and_not_the_concurrent_one(kernel):
    beside = kernel.start("%%preempt --name beside\n" + RUNAWAY)
    kernel.busy(beside)
    cell = kernel.start(RUNAWAY)
    kernel.busy(cell)
    kernel.km.interrupt_kernel()
    assert kernel.reply(cell)["ename"] == "KeyboardInterrupt"
    assert beside not in kernel.replies
    kernel.km.interrupt_kernel()  # no plain cell runs: the concurrent ones
    assert kernel.reply(beside)["ename"] == "KeyboardInterrupt"


def test_a_cell_that_swallows_every_exception_can_be_cancelled(kernel):
    cell = kernel.start("%%preempt --name deaf\n" + SWALLOWS)
    kernel.busy(cell)
    assert kernel.run("%coroutines cancel deaf")["status"] == "ok"
    content = kernel.reply(cell, timeout=15)
    assert content["status"] == "error" and content["ename"] == "CellCancelled"
    listing = kernel.start("%coroutines")
    kernel.reply(listing), kernel.idle(listing)
    assert "cancelled" in kernel.text(listing)


def test_suspend_lets_the_next_plain_cell_start_and_resume_goes_on(kernel):
    cell = kernel.start("print('go', flush=True)\nn = 0\nwhile n < 20_000_000: n += 1\n'done'")
    kernel.busy(cell)
    number = kernel.iopub[cell][1]["content"]["execution_count"]
    assert kernel.run(f"%%preempt\n%coroutines suspend [{number}]")["status"] == "ok"
    first = kernel.value("n")
    assert kernel.value("n") == first and cell not in kernel.replies
    assert kernel.run(f"%coroutines resume [{number}]")["status"] == "ok"
    assert kernel.reply(cell, timeout=60)["status"] == "ok"
    assert kernel.value("n") == "20000000"


def test_timeout_cpu_limit_and_detach(kernel):
    for option in ("--timeout 100ms", "--cpu-limit 100ms"):
        content = kernel.run(f"%%preempt {option}\n{RUNAWAY}")
        assert content["ename"] == "CellTimeout", content
    cell = kernel.start("%%preempt --detach\nimport asyncio\nawait asyncio.sleep(0.3)\nprint('later')")
    assert kernel.reply(cell, timeout=5)["status"] == "ok"
    kernel.until(lambda: "later" in kernel.text(cell), what="output after the reply")


def test_bad_options_are_usage_errors_before_anything_runs(kernel):
    for line in ("--slice banana", "--slice 0s", "--timeout -1s", "--priority x", "--cpu-limit 1parsec", "--nonsense",
                 "--slice 1h"):
        cell = kernel.start(f"%%preempt {line}\nprint('ran')")
        assert kernel.reply(cell)["ename"] == "UsageError", line
        kernel.idle(cell)
        assert "ran" not in kernel.text(cell)
    for line in ("%preempt sideways", "%preempt --policy chaos", "%coroutines cancel nobody", "%coroutines fly 1"):
        assert kernel.run(line)["ename"] == "UsageError", line


def test_syntax_errors_and_tracebacks_have_the_right_lines(kernel):
    cell = kernel.start("%%preempt\nx = 1\ny = = 2")
    content = kernel.reply(cell)
    assert content["ename"] == "SyntaxError" and "line 3" in content["evalue"] + "".join(content["traceback"])
    content = kernel.run("%%preempt\ndef f():\n    raise ValueError('mine')\nf()")
    text = "".join(content["traceback"])
    assert content["ename"] == "ValueError" and "opencoro" not in text


def test_nested_magics_and_help(kernel):
    cell = kernel.start("%%preempt\n%%time\n7")
    assert kernel.reply(cell)["status"] == "ok"
    kernel.idle(cell)
    assert "Wall time" in kernel.text(cell)
    assert kernel.run("%%preempt\n%%capture got\nprint('captured')")["status"] == "ok"
    assert kernel.value("got.stdout") == "'captured\\n'"
    cell = kernel.start("%%preempt\n%%bash\necho from bash")
    assert kernel.reply(cell)["status"] == "ok"
    kernel.idle(cell)
    assert "from bash" in kernel.text(cell)
    content = kernel.run("%%preempt?")
    assert "--cpu-limit" in str(content["payload"])


def test_run_cell_inside_a_cell(kernel):
    content = kernel.run("r = get_ipython().run_cell('a = 5; a', store_history=False); r.result")
    assert content["status"] == "ok"
    assert kernel.value("r.result") == "5"


def test_silent_store_history_and_user_expressions(kernel):
    before = int(kernel.value("get_ipython().execution_count"))
    kernel.run("1", silent=True)
    kernel.run("1", store_history=False)
    content = kernel.run("y = 3", user_expressions={"v": "y * 2"})
    assert content["user_expressions"]["v"]["data"]["text/plain"] == "6"
    assert content["execution_count"] == before


def test_two_cells_that_ask_for_input_are_served_one_after_the_other(kernel):
    cells = {n: kernel.start(f"%%preempt\nprint(input('{n}?') * 2)", allow_stdin=True) for n in "ab"}
    for _ in range(2):
        kernel.until(lambda: kernel.inputs, what="an input request")
        assert len(kernel.inputs) == 1
        prompt = kernel.inputs.pop()["content"]["prompt"]
        assert kernel.run("%%preempt\n1")["status"] == "ok"  # live meanwhile
        kernel.kc.input(prompt[0])
    for name, cell in cells.items():
        assert kernel.reply(cell)["status"] == "ok"
        kernel.idle(cell)
        assert name * 2 in kernel.text(cell)


def test_input_can_be_interrupted(kernel):
    cell = kernel.start("input('?')", allow_stdin=True)
    kernel.until(lambda: kernel.inputs, what="an input request")
    kernel.km.interrupt_kernel()
    assert kernel.reply(cell)["ename"] == "KeyboardInterrupt"


def test_context_variables_of_plain_cells_last(kernel):
    kernel.run("import contextvars; v = contextvars.ContextVar('v', default=0); _t = v.set(1)")
    assert kernel.value("v.get()") == "1"


def test_comms_are_answered_while_a_cell_runs(kernel):
    kernel.run("def target(comm, msg):\n    comm.on_msg(lambda m: comm.send(m['content']['data']))\n"
               "get_ipython().kernel.comm_manager.register_target('echo', target)")
    cell = kernel.start(RUNAWAY)
    kernel.busy(cell)
    send = kernel.kc.session.msg
    kernel.kc.shell_channel.send(send("comm_open", {"comm_id": "c1", "target_name": "echo", "data": {}}))
    msg = send("comm_msg", {"comm_id": "c1", "data": {"n": 1}})
    kernel.kc.shell_channel.send(msg)
    mine = msg["header"]["msg_id"]
    kernel.until(lambda: any(m["msg_type"] == "comm_msg" for m in kernel.iopub.get(mine, [])), what="the echo")
    kernel.km.interrupt_kernel()
    kernel.reply(cell)


def test_unload_and_load_again_leave_nothing_behind(kernel):
    probe = ("import threading, signal, sys, builtins; ip = get_ipython(); k = ip.kernel\n"
             "state = lambda: (type(ip).__name__, type(k).__name__, type(ip.displayhook).__name__,"
             "sorted(t.name for t in threading.enumerate()), signal.getsignal(signal.SIGURG),"
             "signal.getsignal(signal.SIGRTMAX), sys.getswitchinterval(), 'preempt' in ip.magics_manager.magics['cell'],"
             "len(ip.input_transformer_manager.cleanup_transforms), threading._CRLock.__module__)")
    for _ in range(3):
        kernel.run("%unload_ext opencoro_ipy")
        kernel.run(probe)
        bare = kernel.value("state()")
        assert "ZMQInteractiveShell" in bare and "CellKernel" not in bare and "_native" not in bare
        count = int(kernel.value("ip.execution_count"))
        assert kernel.run("%load_ext opencoro_ipy")["execution_count"] == count
        assert kernel.run("%load_ext opencoro_ipy")["status"] == "ok"
        assert kernel.run("%%preempt\n1")["status"] == "ok"
    kernel.run("%unload_ext opencoro_ipy")
    assert kernel.value("state()") == bare


def test_a_kernel_is_shut_down_in_order_while_cells_run(kernel):
    kernel.busy(kernel.start(RUNAWAY))
    kernel.busy(kernel.start("%%preempt\n" + SWALLOWS))
    kernel.kc.shutdown()
    end = time.monotonic() + 15
    while kernel.km.is_alive() and time.monotonic() < end:
        kernel.pump()
    assert not kernel.km.is_alive()


def test_matplotlib_inline_figures_belong_to_their_cell(kernel):
    assert kernel.run("%matplotlib inline\nimport matplotlib.pyplot as plt", timeout=90)["status"] == "ok"
    cell = kernel.start("plt.plot([1, 2])\nNone")
    assert kernel.reply(cell, timeout=60)["status"] == "ok"
    kernel.idle(cell)
    assert "image/png" in str([m["content"].get("data", {}).keys() for m in kernel.outputs(cell)])


def interrupted(kernel, code):
    cell = kernel.start(code)
    kernel.busy(cell)
    kernel.km.interrupt_kernel()
    return kernel.reply(cell)["ename"]


def asked(kernel, code):
    cell = kernel.start(code, allow_stdin=True)
    kernel.until(lambda: kernel.inputs, what="an input request")
    kernel.inputs.clear()
    kernel.kc.input("x")
    return kernel.reply(cell)["status"]


def test_loading_as_a_startup_extension_works(startup_kernel):
    cell = startup_kernel.start(RUNAWAY)
    startup_kernel.busy(cell)
    assert startup_kernel.run("%%preempt\n2")["status"] == "ok"
    startup_kernel.km.interrupt_kernel()
    assert startup_kernel.reply(cell)["ename"] == "KeyboardInterrupt"


def test_the_rest_of_a_cell_that_loads_can_be_interrupted(plain_kernel):
    """It runs on the loop: the handler for coroutines ignored its interrupt."""
    assert interrupted(plain_kernel, "%load_ext opencoro_ipy\n" + RUNAWAY) == "KeyboardInterrupt"
    assert interrupted(plain_kernel, RUNAWAY) == "KeyboardInterrupt"


def test_the_rest_of_a_cell_that_loads_may_ask(plain_kernel):
    assert asked(plain_kernel, "%load_ext opencoro_ipy\ninput('?')") == "ok"
    assert asked(plain_kernel, "input('?')") == "ok"


def test_preempt_off_is_plain_ipykernel_and_on_again(kernel):
    kernel.run("%preempt off")
    assert interrupted(kernel, RUNAWAY) == "KeyboardInterrupt"
    assert asked(kernel, "input('?')") == "ok"
    kernel.run("%preempt on")
    cell = kernel.start(RUNAWAY)
    kernel.busy(cell)
    assert kernel.run("%%preempt\n1")["status"] == "ok"
    kernel.km.interrupt_kernel()
    assert kernel.reply(cell)["ename"] == "KeyboardInterrupt"


def test_unload_loses_no_request_and_keeps_the_order(kernel):
    beside = kernel.start("%%preempt\n" + RUNAWAY)
    kernel.busy(beside)
    cell = kernel.start("%unload_ext opencoro_ipy\ny = 0\nfor i in range(5_000_000): y += 1")
    queued = [kernel.start("assert y == 5_000_000"), kernel.start("2")]
    for each in (cell, *queued):
        assert kernel.reply(each)["status"] == "ok"
    assert kernel.reply(beside)["ename"] == "CellCancelled"
    assert interrupted(kernel, RUNAWAY) == "KeyboardInterrupt"


def test_policy_concurrent_lets_plain_cells_overlap(kernel):
    kernel.run("%preempt --policy concurrent")
    cell = kernel.start(RUNAWAY)
    kernel.busy(cell)
    assert kernel.value("1 + 1") == "2"
    kernel.km.interrupt_kernel()
    assert kernel.reply(cell)["ename"] == "KeyboardInterrupt"


def test_a_sleeping_cell_leaves_the_kernel_live_and_sleeps_long_enough(kernel):
    cell = kernel.start("import time\nt = time.monotonic()\nprint('go', flush=True)\ntime.sleep(1.5)\n"
                        "d = time.monotonic() - t")
    kernel.busy(cell)
    for _ in range(10):
        kernel.reply(kernel.kc.kernel_info())
    assert cell not in kernel.replies
    assert kernel.reply(cell)["status"] == "ok"
    assert kernel.value("1.5 <= d < 3") == "True"


def test_subshells_and_nest_asyncio_go_on_working(kernel):
    assert kernel.run("import asyncio, nest_asyncio2; nest_asyncio2.apply()")["status"] == "ok"
    assert kernel.value("asyncio.run(asyncio.sleep(0.01, 5))") == "5"
    kernel.kc.control_channel.send(kernel.kc.session.msg("create_subshell_request", {}))
    subshell = kernel.kc.get_control_msg(timeout=10)["content"]["subshell_id"]
    cell = kernel.start(RUNAWAY)
    kernel.busy(cell)
    content = {"code": "5", "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
    msg = kernel.kc.session.msg("execute_request", content)
    msg["header"]["subshell_id"] = subshell
    kernel.kc.shell_channel.send(msg)
    assert kernel.reply(msg["header"]["msg_id"])["status"] == "ok"
    kernel.km.interrupt_kernel()
    assert kernel.reply(cell)["ename"] == "KeyboardInterrupt"
