"""Terminal IPython, in a real terminal."""

import os
import sys

import pexpect
import pytest


def test_preempt_runs_a_cell_and_limits_and_ctrl_c_end_it(tmp_path):
    shell = pexpect.spawn(sys.executable, ["-m", "IPython", "--simple-prompt", "--no-banner", "--colors=NoColor"],
                          encoding="utf-8", timeout=30, env={**os.environ, "IPYTHONDIR": str(tmp_path)})
    try:
        shell.expect_exact("In [1]:")
        shell.sendline("%load_ext opencoro_ipy")
        shell.expect_exact("only %%preempt cells are coroutines")
        shell.expect_exact("In [2]:")
        shell.sendline("r = get_ipython().run_cell_magic('preempt', '--timeout 200ms', 'while True: pass')")
        shell.expect("CellTimeout: .*0.2 s of wall clock")
        shell.expect_exact("In [3]:")
        shell.sendline("get_ipython().run_cell_magic('preempt', '', 'print(\"g\" + \"o\")\\nwhile True: pass')")
        shell.expect_exact("\r\ngo")
        shell.sendintr()
        shell.expect_exact("KeyboardInterrupt")
        shell.expect_exact("In [4]:")
        shell.sendline("get_ipython().run_cell_magic('preempt', '--detach', '1')")
        shell.expect_exact("UsageError: --detach needs IPython's own prompt")
        shell.sendline("%unload_ext opencoro_ipy")
        shell.sendline("'preempt' in get_ipython().magics_manager.magics['cell']")
        shell.expect_exact("False")
    finally:
        shell.close(force=True)


DETACH = "get_ipython().run_cell_magic('preempt', '--detach {}', {!r})"


@pytest.fixture
def prompt(tmp_path):
    """A function that types lines at IPython's own prompt."""
    shell = pexpect.spawn(sys.executable, ["-m", "IPython", "--no-banner", "--colors=NoColor", "--no-confirm-exit"],
                          encoding="utf-8", timeout=60, dimensions=(40, 200),
                          env={**os.environ, "IPYTHONDIR": str(tmp_path), "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"})
    shell.expect(r"In \[")

    def type_(line):
        shell.send(line + "\r")
        return shell

    type_("%load_ext opencoro_ipy").expect_exact("only %%preempt cells are coroutines")
    yield type_
    shell.close(force=True)


def test_a_detached_cell_goes_on_while_the_prompt_waits(prompt):
    prompt(DETACH.format("--name spin", "n = 0\nwhile True:\n  n += 1\n  if n == 99999: print('n' * 5)")).expect("nnnnn")
    prompt("a = n; 1234 * 2").expect_exact("2468")
    prompt("n > a and 'went' + ' on'").expect_exact("went on")
    prompt("%coroutines").expect(r"spin +suspended")
    prompt("%coroutines cancel spin").expect(r"CellCancelled: cell spin was cancelled")
    prompt("%coroutines").expect(r"spin +cancelled")


def test_a_detached_cell_may_await_fail_and_run_into_its_limit(prompt):
    code = "import asyncio; await asyncio.sleep(0.1); print('a' * 5); await asyncio.sleep(99)"
    prompt(DETACH.format("--timeout 1s", code)).expect("aaaaa")
    prompt("").expect("CellTimeout: .* 1 s of wall clock")
    prompt(DETACH.format("", "1 / 0")).expect("ZeroDivisionError: division by zero")
    prompt(DETACH.format("", "1 +")).expect("SyntaxError")
    prompt("'still' + ' here'").expect_exact("still here")


def test_leaving_the_terminal_with_a_detached_cell_is_quiet(prompt):
    prompt(DETACH.format("", "while True: pass"))
    shell = prompt("exit")
    shell.expect(pexpect.EOF)
    assert "Traceback" not in shell.before and "destroyed" not in shell.before
    shell.close()
    assert shell.exitstatus == 0
