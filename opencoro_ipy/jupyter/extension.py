"""Load and unload: what load puts on, unload takes off, twice in a row or in any order."""

from __future__ import annotations

import builtins
from contextvars import copy_context
from typing import Any

from .. import monitor
from . import cells, kernel as kernel_module, magics, terminal, threads
from .options import cell_options, parse_cell_line
from .shell import CellDisplayHook, CellHistory, CellShell, hide_preempt_line, swap_class

_loaded: list[tuple[Any, type]] = []  # (object, its old class)


def load(shell: Any) -> None:
    """Every cell from the next one on is a preemptible coroutine. Prints why not, if it cannot be."""
    if _loaded:
        return
    reason = monitor.why_not()
    kernel: Any = getattr(shell, "kernel", None)
    if reason is None and kernel is None:
        reason = "this IPython has no kernel, so only %%preempt cells are coroutines"
        terminal.load(shell)
    elif reason is None and not hasattr(kernel, "shell_channel_thread"):
        reason = "this kernel is older than ipykernel 7.1"
    if reason is None:
        try:
            monitor.acquire()
        except monitor.MonitorError as e:
            reason = str(e)
    if reason is not None:
        print(f"opencoro_ipy: cells run as before: {reason}.")
        return
    count = shell.execution_count
    shell.__dict__["_opencoro_count"] = count
    lanes = kernel_module.Lanes(copy_context(), kernel._main_asyncio_lock)
    allow_stdin = kernel._allow_stdin
    if builtins.input != kernel.raw_input:
        kernel._forward_input(True)
    for obj, mixin in ((shell, CellShell), (shell.displayhook, CellDisplayHook),
                       (shell.history_manager, CellHistory), (kernel, kernel_module.CellKernel)):
        _loaded.append((obj, swap_class(obj, mixin)))
    kernel._opencoro_lanes = lanes
    kernel._allow_stdin = allow_stdin  # the rest of this cell may ask, too
    shell.display_trap.__enter__()  # held: their nesting counters are per process
    shell.builtin_trap.__enter__()
    shell.input_transformer_manager.cleanup_transforms.insert(0, hide_preempt_line)
    shell.register_magics(magics.OpenCoroMagics(shell))

    def preempt(line: str, cell: str) -> None:
        parse_cell_line(line)  # reached below another cell magic only: it runs where it stands
        shell.run_cell(cell).raise_error()

    preempt.__doc__ = cell_options.__doc__
    shell.register_magic_function(preempt, "cell", "preempt")
    threads.install(kernel)
    kernel_module.install_sigint(kernel)
    if hasattr(kernel, "io_loop"):  # started already: hand the new shell_main to the channel
        kernel.shell_channel_thread.manager.set_on_recv_callback(kernel.shell_main)


def unload(shell: Any) -> None:
    """Everything is as before; cells that still run concurrently are cancelled."""
    if not _loaded:
        terminal.unload(shell)
        return
    kernel = shell.kernel
    me = cells.current_cell()
    for cell in list(cells.running.values()):
        if cell is not me:
            cell.cancel()
    lanes = kernel.__dict__.pop("_opencoro_lanes")
    lanes.closed = True
    allow_stdin = kernel._allow_stdin
    count = shell.__dict__.pop("_opencoro_count")
    traceback = shell._last_traceback
    while _loaded:
        obj, old = _loaded.pop()
        obj.__class__ = old
        obj.__dict__.pop("_opencoro", None)
    shell.execution_count = count
    shell._last_traceback = traceback
    shell._last_traceback_during_displayhook = False
    shell.displayhook.msg = None
    shell.display_trap.__exit__(None, None, None)
    shell.builtin_trap.__exit__(None, None, None)
    transforms = shell.input_transformer_manager.cleanup_transforms
    if hide_preempt_line in transforms:
        transforms.remove(hide_preempt_line)
    magics.remove(shell)
    threads.restore()
    kernel._allow_stdin = allow_stdin
    kernel_module.restore_sigint(kernel, lanes)
    if hasattr(kernel, "io_loop"):
        kernel.shell_channel_thread.manager.set_on_recv_callback(kernel.shell_main)
    monitor.release()
