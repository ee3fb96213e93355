"""ipykernel's shell channel with cells as coroutines: who runs when, and what each request is told.

Plain cells pass one lane, in order; ``%%preempt`` cells and everything that is not a cell go past it.
User code (cells, comm callbacks, completion) runs in coroutines; ipykernel's own code runs on the loop.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from contextvars import Context
from typing import Any

import zmq
from IPython.core.error import UsageError
from ipykernel.jsonutil import json_clean

from .. import policy, scheduler
from ..errors import CellTimeout
from .cells import Cell, current_cell, last_cell, running
from .options import CellOptions, defaults, parse_cell_line, split_cell

_COMM = {"comm_open", "comm_msg", "comm_close"}
_INTROSPECT = {"complete_request", "inspect_request"}


class Lanes:
    """State of one loaded kernel. ``base``: the context that plain cells inherit and leave behind."""

    def __init__(self, base: Context) -> None:
        self.base = base
        self.plain = asyncio.Lock()
        self.comm = asyncio.Lock()
        self.introspect = asyncio.Lock()
        self.stdin = asyncio.Lock()
        self.tasks: set[asyncio.Task[Any]] = set()

    def release(self, cell: Cell) -> None:
        """Let the next plain cell start. Idempotent."""
        if cell.holds_lane:
            cell.holds_lane = False
            self.plain.release()


class CellKernel:
    """Mixin over IPythonKernel; put on by extension.load, taken off by extension.unload."""

    _opencoro: Lanes

    # -- arrival -------------------------------------------------------------------------------------
    async def shell_main(self: Any, subshell_id: str | None, msg: Any) -> None:
        if subshell_id is not None or not defaults.on:
            await super().shell_main(subshell_id, msg)  # type: ignore[misc]
            return
        kind, content = self._opencoro_peek(msg)
        lanes = self._opencoro
        if kind == "execute_request":
            await self._opencoro_execute(msg, content)
        elif kind is None:  # "stop aborting" keeps its place among the plain cells
            async with lanes.plain:
                await self.dispatch_shell(msg, subshell_id=None)
        elif kind in _COMM or kind in _INTROSPECT:
            async with lanes.comm if kind in _COMM else lanes.introspect:
                await self._opencoro_dispatch(msg, lanes.base.copy(), driven=True)
        else:
            await self._opencoro_dispatch(msg, lanes.base.copy())

    def _opencoro_peek(self: Any, msg: Any) -> tuple[str | None, dict[str, Any]]:
        """(message type, content) without consuming the message; type None: not a message."""
        try:
            _, frames = self.session.feed_identities(msg, copy=False)
            head = self.session.deserialize(frames, content=False, copy=False)
            content = self.session.unpack(head["content"])
            return head["header"]["msg_type"], content if isinstance(content, dict) else {}
        except Exception:
            return None, {}

    async def _opencoro_dispatch(self: Any, msg: Any, context: Context, driven: bool = False) -> None:
        work = self.dispatch_shell(msg, subshell_id=None)
        if driven:
            work = _awaited(scheduler.drive(work, name="request", context=context, priority=policy.HUB_PRIORITY))
        await asyncio.get_running_loop().create_task(work, context=context)

    # -- cells ---------------------------------------------------------------------------------------
    async def _opencoro_execute(self: Any, msg: Any, content: dict[str, Any]) -> None:
        lanes = self._opencoro
        code = content.get("code") if isinstance(content.get("code"), str) else ""
        split = split_cell(code)
        options, plain = CellOptions(slice_s=defaults.slice_s), defaults.policy == "ordered"
        if split is not None:
            plain = False
            try:
                options = parse_cell_line(split[0])
            except UsageError:
                pass  # told by the input transformer, as this request's error
        if plain:
            await lanes.plain.acquire()
        cell = None
        try:
            context = lanes.base.copy()
            number = self.shell.execution_count
            cell = Cell(options, plain=plain, number=number)
            cell.holds_lane = plain
            silent = bool(content.get("silent", False))
            if code.strip() and not silent and content.get("store_history", True) and not self._aborting:
                self.shell.execution_count = number + 1
            cell.bind(context)
            await self._opencoro_dispatch(msg, context)
            if cell.holds_lane:
                lanes.base = context.copy()
        finally:
            if cell is None and plain:
                lanes.plain.release()
            elif cell is not None:
                lanes.release(cell)
                if not cell.executions:
                    cell.finish()

    async def do_execute(self: Any, code: str, silent: bool, *args: Any, **kwargs: Any) -> dict[str, Any]:
        cell = current_cell()
        body = super().do_execute(code, silent, *args, **kwargs)  # type: ignore[misc]
        if cell is None or threading.current_thread() is not threading.main_thread():
            return await body
        # In the cell's own context, not a copy: what a plain cell sets, later cells see (as in ipykernel).
        task = asyncio.get_running_loop().create_task(self._opencoro_run(cell, body), context=cell.context)
        self._opencoro.tasks.add(task)
        task.add_done_callback(self._opencoro.tasks.discard)
        cell.reply_early = asyncio.get_running_loop().create_future()
        if cell.detached:
            cell.reply_early.set_result(None)
        await asyncio.wait({task, cell.reply_early}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        return {"status": "ok", "execution_count": cell.number, "user_expressions": {}, "payload": []}

    async def _opencoro_run(self: Any, cell: Cell, body: Any) -> dict[str, Any]:
        options, loop = cell.options, asyncio.get_running_loop()

        def over(what: str, limit: float | None) -> None:
            cell.throw(CellTimeout(f"cell {cell.name} was ended after {limit:g} s of {what}"), insist=True)

        execution = scheduler.drive(
            body, name=cell.name, slice_s=options.slice_s, priority=options.priority, context=cell.context,
            cpu_limit_ns=int((options.cpu_limit_s or 0) * 1e9),
            on_cpu_limit=lambda: over("CPU time", options.cpu_limit_s))
        cell.add(execution)
        timer = loop.call_later(options.timeout_s, over, "wall clock", options.timeout_s) \
            if options.timeout_s else None
        try:
            return await execution
        except (Exception, asyncio.CancelledError, KeyboardInterrupt) as e:
            return self._opencoro_failed(cell, e)
        finally:
            if timer is not None:
                timer.cancel()
            cell.finish()
            cell.remove(execution)

    def _opencoro_failed(self: Any, cell: Cell, e: BaseException) -> dict[str, Any]:
        """The cell never got to its own error handling: it was abandoned, or hit between its lines."""
        text = f"{type(e).__name__}: {e}"
        error = {"ename": type(e).__name__, "evalue": str(e), "traceback": [text]}
        self.session.send(self.iopub_socket, "error", error, parent=self.get_parent("shell"),
                          ident=self._topic("error"))
        return {"status": "error", "execution_count": cell.number, "user_expressions": {}, "payload": [], **error}

    def _abort_queues(self: Any, subshell_id: str | None = None) -> None:
        cell = last_cell()
        if cell is None or cell.plain:
            super()._abort_queues(subshell_id)  # type: ignore[misc]

    def set_parent(self: Any, ident: Any, parent: Any, channel: str = "shell") -> None:
        """Requests that are no cells must not become the parent of what threads of a cell print."""
        kind = (parent.get("header") or {}).get("msg_type") if isinstance(parent, dict) else None
        if channel != "shell" or kind == "execute_request" or not running:
            super().set_parent(ident, parent, channel)  # type: ignore[misc]
            return
        owners = [o for o in (self.shell, self.shell.displayhook, self.shell.display_pub, sys.stdout, sys.stderr)
                  if hasattr(o, "_parent_header_global")]
        kept, context = [o._parent_header_global for o in owners], self._shell_context
        super().set_parent(ident, parent, channel)  # type: ignore[misc]
        for owner, value in zip(owners, kept, strict=True):
            owner._parent_header_global = value
        self._shell_context = context

    # -- interrupt -----------------------------------------------------------------------------------
    def pre_handler_hook(self) -> None:
        """SIGINT has one handler while the extension is loaded (extension.py)."""

    def post_handler_hook(self) -> None:
        """See pre_handler_hook."""

    def _cancel_on_sigint(self, future: Any) -> AbstractContextManager[None]:
        return nullcontext()

    def _opencoro_sigint(self: Any, signum: int, frame: Any) -> None:
        """KeyboardInterrupt in the plain cell that runs; if there is none, in every other one."""
        cells = [c for c in running.values() if c.holds_lane] or list(running.values())
        now, here = scheduler.current(), False
        for cell in cells:
            if cell.executions and cell.executions[-1].co is now:
                here = True
            else:
                cell.throw(KeyboardInterrupt())
        if here:
            raise KeyboardInterrupt

    # -- input() -------------------------------------------------------------------------------------
    @property
    def _allow_stdin(self) -> bool:
        cell = current_cell()
        return cell is not None and cell.allow_stdin

    @_allow_stdin.setter
    def _allow_stdin(self, value: bool) -> None:
        cell = current_cell()
        if cell is not None:
            cell.allow_stdin = value

    def _forward_input(self, allow_stdin: bool = False) -> None:
        self._allow_stdin = allow_stdin  # input and getpass stay forwarded while the extension is loaded

    def _restore_input(self) -> None:
        """See _forward_input."""

    def _input_request(self: Any, prompt: str, ident: Any, parent: Any, password: bool = False) -> str:
        if scheduler.current() is None or threading.current_thread() is not threading.main_thread():
            return super()._input_request(prompt, ident, parent, password)  # type: ignore[misc]
        sys.stdout.flush()
        sys.stderr.flush()
        asked = asyncio.ensure_future(self._opencoro_ask(prompt, ident, parent, password))
        try:
            value = scheduler.wait_for_future(asked)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("Interrupted by user") from None
        if value == "\x04":
            raise EOFError
        return value

    async def _opencoro_ask(self: Any, prompt: str, ident: Any, parent: Any, password: bool) -> str:
        async with self._opencoro.stdin:  # cells that ask at once are served one after the other
            while self.stdin_socket.poll(0):
                self.stdin_socket.recv_multipart(zmq.NOBLOCK)  # stale replies
            self.session.send(self.stdin_socket, "input_request",
                              json_clean({"prompt": prompt, "password": password}), parent, ident=ident)
            while True:
                if self.stdin_socket.poll(0):
                    _, reply = self.session.recv(self.stdin_socket)
                    if reply is not None:
                        value = reply["content"].get("value", "")
                        return value if isinstance(value, str) else ""
                await asyncio.sleep(0.01)  # ipykernel's own poll interval


async def _awaited(execution: Any) -> Any:
    return await execution


def install_sigint(kernel: Any) -> None:
    """One SIGINT handler while loaded; what an idle kernel had is kept for unload."""
    if not hasattr(kernel, "saved_sigint_handler"):
        kernel.saved_sigint_handler = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, kernel._opencoro_sigint)
