"""Terminal IPython, in a real terminal."""

import os
import sys

import pexpect


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
        shell.expect_exact("UsageError: --detach needs a kernel")
        shell.sendline("%unload_ext opencoro_ipy")
        shell.sendline("'preempt' in get_ipython().magics_manager.magics['cell']")
        shell.expect_exact("False")
    finally:
        shell.close(force=True)
