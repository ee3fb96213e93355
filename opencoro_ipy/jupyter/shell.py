"""What the shell keeps once, and overlapping cells need each for themselves.

The classes of the shell, its display hook and its history manager are replaced by subclasses whose
attributes look up the current cell; unload puts the old classes back.
"""

from __future__ import annotations

from typing import Any

from IPython.core.payload import PayloadManager

from .. import scheduler
from .cells import current_cell
from .options import parse_cell_line, split_cell


def per_cell(name: str, default: Any = None) -> property:
    """An attribute with a value for each cell, and one for code outside of cells."""

    def get(self: Any) -> Any:
        cell = current_cell()
        values = cell.values if cell is not None else self.__dict__.setdefault("_opencoro", {})
        return values.get((id(self), name), default)

    def put(self: Any, value: Any) -> None:
        cell = current_cell()
        values = cell.values if cell is not None else self.__dict__.setdefault("_opencoro", {})
        values[id(self), name] = value

    return property(get, put)


class CellDisplayHook:
    """Mixin: results, messages and prompt numbers of overlapping cells do not mix."""

    exec_result = per_cell("exec_result")
    msg = per_cell("msg")
    _is_active = per_cell("_is_active", False)

    def quiet(self) -> bool:
        cell = current_cell()
        inputs = self.shell.history_manager.input_hist_parsed  # type: ignore[attr-defined]
        if cell is not None and 0 < cell.number < len(inputs) and cell.count > cell.number:
            return self.semicolon_at_end_of_expression(inputs[cell.number])  # type: ignore[attr-defined]
        return super().quiet()  # type: ignore[misc]


class CellHistory:
    """Mixin: In[n] is at place n, in whichever order overlapping cells begin."""

    def store_inputs(self, line_num: int, source: str, source_raw: str | None = None) -> None:
        super().store_inputs(line_num, source, source_raw)  # type: ignore[misc]
        for inputs in (self.input_hist_parsed, self.input_hist_raw):  # type: ignore[attr-defined]
            value = inputs.pop()
            while len(inputs) <= line_num:
                inputs.append("")
            inputs[line_num] = value


class CellShell:
    """Mixin: execution counts and tracebacks per cell; ``await`` cells are driven like the others."""

    _last_traceback = per_cell("_last_traceback")
    _last_traceback_during_displayhook = per_cell("_last_traceback_during_displayhook", False)

    @property
    def payload_manager(self) -> Any:
        """A cell's payloads (``set_next_input``, the pager) go with its own reply."""
        cell = current_cell()
        if cell is None:
            return super().payload_manager  # type: ignore[misc]
        key = id(self), "payload_manager"
        if key not in cell.values:
            cell.values[key] = PayloadManager(parent=self)  # type: ignore[arg-type]
        return cell.values[key]

    @property
    def execution_count(self) -> int:
        cell = current_cell()
        return self.__dict__["_opencoro_count"] if cell is None else cell.count

    @execution_count.setter
    def execution_count(self, value: int) -> None:
        cell = current_cell()
        count = self.__dict__["_opencoro_count"]
        if cell is None:
            self.__dict__["_opencoro_count"] = value
        else:
            self.__dict__["_opencoro_count"] = value if value < cell.count else max(count, value)
            cell.count = value

    async def run_cell_async(self, raw_cell: str, store_history: bool = False, silent: bool = False,
                             shell_futures: bool = True, **kwargs: Any) -> Any:
        cell = current_cell()
        body = super().run_cell_async(raw_cell, store_history, silent, shell_futures,  # type: ignore[misc]
                                      **kwargs)
        if cell is None:
            return await body
        if cell.depth and store_history and not silent:  # get_ipython().run_cell in a cell: the next number
            cell.count = max(cell.count, self.__dict__["_opencoro_count"])
        cell.depth += 1
        try:
            if scheduler.current() is not None:  # a plain cell: this is inside its coroutine already
                return await body
            options = cell.options
            execution = scheduler.drive(body, name=cell.name, slice_s=options.slice_s, priority=options.priority)
            execution.paused = cell.paused
            cell.add(execution)
            try:
                return await execution
            finally:
                cell.remove(execution)
        finally:
            cell.depth -= 1


def hide_preempt_line(lines: list[str]) -> list[str]:
    """Input transformer: the ``%%preempt`` line becomes a comment, so that line numbers stay.

    Above another cell magic it goes altogether. Bad options are a UsageError before anything runs.
    """
    found = split_cell("".join(lines))
    if found is None:
        return lines
    parse_cell_line(found[0])
    rest = found[1].splitlines(keepends=True)
    if found[1].lstrip().startswith("%%"):
        return rest
    return ["# %%preempt\n", *rest]


def swap_class(obj: Any, mixin: type) -> type:
    """Give ``obj`` the class (mixin, its old class); returns the old one."""
    old = type(obj)
    obj.__class__ = type(mixin.__name__, (mixin, old), {"__module__": old.__module__})
    return old
