"""Terminal IPython: ``%%preempt`` runs its cell in the foreground, where Ctrl-C and limits end it.

With ``--detach`` the cell goes on while the prompt waits for input: IPython's asyncio integration
(``%gui asyncio``) runs the prompt on the user's event loop, and that loop schedules the cell.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextvars import copy_context
from typing import Any

from IPython.core.async_helpers import get_asyncio_loop
from IPython.core.error import UsageError

from .. import policy
from ..coroutine import Coroutine
from ..errors import CellTimeout
from . import cells, magics
from .options import CellOptions, cell_options, parse_cell_line

_tasks: set[Any] = set()  # asyncio keeps weak references only


def load(shell: Any) -> None:
    """Register the magics."""

    def preempt(line: str, cell: str) -> None:
        options = parse_cell_line(line)
        if options.detach:
            _detach(shell, cell, options)
        else:
            run(Coroutine(lambda suspender, arg: shell.run_cell(cell), name=options.name, slice_s=options.slice_s),
                options)

    preempt.__doc__ = cell_options.__doc__
    shell.register_magics(magics.OpenCoroMagics(shell))
    shell.register_magic_function(preempt, "cell", "preempt")


def unload(shell: Any) -> None:
    """Take them away; cells that still run are cancelled. Idempotent."""
    for cell in list(cells.running.values()):
        cell.cancel()
    magics.remove(shell)


def _detach(shell: Any, code: str, options: CellOptions) -> None:
    """Start the cell on the loop that the prompt will run on."""
    if not getattr(shell, "pt_app", None):
        raise UsageError("--detach needs IPython's own prompt, which --simple-prompt replaces")
    if shell.active_eventloop not in (None, "asyncio"):
        raise UsageError(f"--detach needs the prompt on asyncio, and %gui {shell.active_eventloop} is active")
    if shell.active_eventloop is None:
        shell.enable_gui("asyncio")
    loop, context = get_asyncio_loop(), copy_context()
    cell = cells.Cell(options, number=shell.execution_count)
    cell.bind(context)
    task = loop.create_task(_detached(shell, cell, code), context=context)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


async def _detached(shell: Any, cell: cells.Cell, code: str) -> None:
    async def body() -> str | None:
        """What shell.run_cell does, on the loop that runs already."""
        transformed, failure, result = code, None, None
        try:
            transformed = shell.transform_cell(code)
        except Exception:
            failure = sys.exc_info()
        try:
            result = await shell.run_cell_async(code, transformed_cell=transformed, preprocessing_exc_tuple=failure)
        finally:
            shell.events.trigger("post_execute")
            shell.events.trigger("post_run_cell", result)
        error = result.error_before_exec or result.error_in_exec
        return type(error).__name__ if error is not None else None

    try:
        await cells.run(cell, body(), lambda name: name)
    except (Exception, asyncio.CancelledError, KeyboardInterrupt) as e:
        print(f"{type(e).__name__}: {e}", file=sys.stderr)  # abandoned, or hit between the cell's lines


def run(co: Coroutine, options: CellOptions) -> None:
    """Slices until it ends. CellTimeout if it had to be abandoned after a limit."""
    limit, given_up_ns = None, 0
    while not co.done:
        try:
            co.resume()
            over = _over(co, options)
            if over is not None and limit is None:
                limit, given_up_ns = over, time.monotonic_ns() + int(policy.GRACE_S * 1e9)
                co.throw(limit)
            elif limit is not None and not co.done and time.monotonic_ns() > given_up_ns:
                co.abandon()
                raise limit
        except KeyboardInterrupt:  # hit between two slices: it was meant for the cell
            if not co.done:
                co.throw(KeyboardInterrupt())


def _over(co: Coroutine, options: CellOptions) -> CellTimeout | None:
    elapsed_s = (time.monotonic_ns() - co.created_ns) / 1e9
    if options.timeout_s and elapsed_s > options.timeout_s:
        return CellTimeout(f"cell {co.name} was ended after {options.timeout_s:g} s of wall clock")
    if options.cpu_limit_s and co.cpu_s > options.cpu_limit_s:
        return CellTimeout(f"cell {co.name} was ended after {options.cpu_limit_s:g} s of CPU time")
    return None
