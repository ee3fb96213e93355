"""Terminal IPython: ``%%preempt`` runs its cell as a coroutine in the foreground; Ctrl-C and limits end it."""

from __future__ import annotations

import time
from typing import Any

from IPython.core.error import UsageError

from .. import policy
from ..coroutine import Coroutine
from ..errors import CellTimeout
from .options import CellOptions, cell_options, parse_cell_line


def load(shell: Any) -> None:
    """Register the magic."""

    def preempt(line: str, cell: str) -> None:
        options = parse_cell_line(line)
        if options.detach:
            raise UsageError("--detach needs a kernel: in a terminal the cell runs in the foreground")
        run(Coroutine(lambda suspender, arg: shell.run_cell(cell), name=options.name, slice_s=options.slice_s),
            options)

    preempt.__doc__ = cell_options.__doc__
    shell.register_magic_function(preempt, "cell", "preempt")


def unload(shell: Any) -> None:
    """Take it away. Idempotent."""
    shell.magics_manager.magics["cell"].pop("preempt", None)


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
