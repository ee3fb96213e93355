"""%%preempt, %preempt and %coroutines."""

from __future__ import annotations

from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_magic, magics_class

from ..monitor import Monitor
from . import cells, options

_HEAD = ("id", "name", "state", "CPU", "elapsed", "preempted")


def table() -> str:
    """All cells that run and the last that ended."""
    rows = [_HEAD, *(c.row() for c in cells.running.values()), *reversed(cells.finished)]
    widths = [max(len(r[i]) for r in rows) for i in range(len(_HEAD))]
    return "\n".join("  ".join(t.ljust(w) for t, w in zip(r, widths, strict=True)).rstrip() for r in rows)


@magics_class
class OpenCoroMagics(Magics):
    """The line magics, of kernels and of terminal IPython."""

    @line_magic
    def preempt(self, line: str) -> None:
        """Status; ``%preempt on|off``, ``--slice 5ms``, ``--policy ordered|concurrent`` set defaults."""
        if line.strip():
            options.set_defaults(line)
        d, stats = options.defaults, Monitor.stats()
        deferred = ", ".join(f"{k} {v}" for k, v in stats["deferred"].items() if v) or "none"
        print(f"preemption {'on' if d.on else 'off'}, slice {d.slice_s * 1e3:g} ms, policy {d.policy}; "
              f"{len(cells.running)} cell(s) running, {stats['preempted']} preemptions, deferred: {deferred}")

    @line_magic
    def coroutines(self, line: str) -> None:
        """A table of the cells; ``suspend|resume|cancel|detach ID`` acts on one (an id or a name)."""
        words = line.split(maxsplit=1)
        if not words:
            print(table())
            return
        if len(words) != 2 or words[0] not in ("suspend", "resume", "cancel", "detach"):
            raise UsageError(f"%coroutines {line!r}: suspend, resume, cancel or detach, and an id or a name")
        try:
            cell = cells.find(words[1].strip())
        except LookupError as e:
            raise UsageError(str(e)) from None
        if words[0] == "cancel":
            cell.cancel()
        elif words[0] == "detach":
            cell.detach()
        else:
            cell.pause(words[0] == "suspend")


def remove(shell: Any) -> None:
    """Take them, and ``%%preempt``, away. Idempotent."""
    for kind, name in (("line", "preempt"), ("line", "coroutines"), ("cell", "preempt")):
        shell.magics_manager.magics[kind].pop(name, None)
    shell.magics_manager.registry.pop("OpenCoroMagics", None)
