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
from .cells import Cell, current_cell, last_cell, run, running
from .options import CellOptions, defaults, parse_cell_line, split_cell
from .shell import per_cell

_COMM = {"comm_open", "comm_msg", "comm_close"}
_INTROSPECT = {"complete_request", "inspect_request"}


class Lanes:
    """State of one loaded kernel.

    base: the context that plain cells inherit and leave behind. plain: the kernel's own lock, so that cells
    which ipykernel runs (the one that loads, those after unload or ``%preempt off``) keep their place.
    closed: unloaded; who waited in a lane meanwhile is ipykernel's again. idle_sigint: SIGINT between cells.
    """

    def __init__(self, base: Context, plain: asyncio.Lock) -> None:
        self.base = base
        self.plain = plain
        self.closed = False
        self.idle_sigint: Any = None
        self.comm = asyncio.Lock()
        self.introspect = asyncio.Lock()
        self.stdin = asyncio.Lock()
        self.tasks: set[asyncio.Task[Any]] = set()


class CellKernel:
    """Mixin over IPythonKernel; put on by extension.load, taken off by extension.unload."""

    _opencoro_lanes: Lanes

    # -- arrival -------------------------------------------------------------------------------------
    async def shell_main(self: Any, subshell_id: str | None, msg: Any) -> None:
        if subshell_id is not None or not defaults.on:
            await super().shell_main(subshell_id, msg)  # type: ignore[misc]
            return
        kind, content = self._opencoro_peek(msg)
        lanes = self._opencoro_lanes
        if kind == "execute_request":
            await self._opencoro_execute(msg, content)
        elif kind is None:  # "stop aborting" keeps its place among the plain cells
            async with lanes.plain:
                await self.dispatch_shell(msg, subshell_id=None)
        elif kind in _COMM or kind in _INTROSPECT:
            async with lanes.comm if kind in _COMM else lanes.introspect:
                if lanes.closed:
                    await self.dispatch_shell(msg, subshell_id=None)
                else:
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
        lanes = self._opencoro_lanes
        sent = content.get("code")
        code = sent if isinstance(sent, str) else ""
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
        if lanes.closed:
            try:
                await self.dispatch_shell(msg, subshell_id=None)
            finally:
                lanes.plain.release()
            return
        try:
            context = lanes.base.copy()
            number = self.shell.execution_count
            cell = Cell(options, number=number, lane=lanes.plain if plain else None)
            silent = bool(content.get("silent", False))
            if code.strip() and not silent and content.get("store_history", True) and not self._aborting:
                self.shell.execution_count = number + 1
            cell.bind(context)
            await self._opencoro_dispatch(msg, context)
            if cell.lane is not None:
                lanes.base = context.copy()
        finally:
            if cell is None and plain:
                lanes.plain.release()
            elif cell is not None:
                cell.leave_lane()
                if not cell.executions:
                    cell.finish()

    async def do_execute(self: Any, code: str, silent: bool, *args: Any, **kwargs: Any) -> dict[str, Any]:
        cell = current_cell()
        body = super().do_execute(code, silent, *args, **kwargs)  # type: ignore[misc]
        if cell is None or threading.current_thread() is not threading.main_thread():
            return await body
        # In the cell's own context, not a copy: what a plain cell sets, later cells see (as in ipykernel).
        task = asyncio.get_running_loop().create_task(self._opencoro_run(cell, body), context=cell.context)
        tasks = self._opencoro_lanes.tasks
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        cell.reply_early = asyncio.get_running_loop().create_future()
        if cell.detached:
            cell.reply_early.set_result(None)
        await asyncio.wait({task, cell.reply_early}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        return {"status": "ok", "execution_count": cell.number, "user_expressions": {}, "payload": []}

    async def _opencoro_run(self: Any, cell: Cell, body: Any) -> dict[str, Any]:
        try:
            return await run(cell, body, lambda reply: reply.get("ename"))
        except (Exception, asyncio.CancelledError, KeyboardInterrupt) as e:
            return _failed(self, cell, e)

    def _abort_queues(self: Any, *args: Any) -> None:
        """A cell that failed aborts what waits behind it: nothing does, once it has been suspended or detached."""
        cell = last_cell()
        if cell is None or cell.lane is not None:
            super()._abort_queues(*args)  # type: ignore[misc]

    def set_parent(self: Any, ident: Any, parent: Any, channel: str = "shell") -> None:
        """Requests that are no cells must not become the parent of what threads of a cell print."""
        kind = parent["header"]["msg_type"] if parent else None
        cell = current_cell()
        if cell is not None and cell.lane is None and kind == "execute_request":
            parent["content"]["stop_on_error"] = False  # nothing waits behind it, also after an unload
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
    def _opencoro_on_loop(self: Any) -> bool:
        """Does ipykernel itself run this cell (the one that loads, ``%preempt off``)?"""
        parent = self.get_parent("shell")
        return (last_cell() is None and scheduler.current() is None and bool(parent)
                and parent["header"]["msg_type"] == "execute_request")

    def pre_handler_hook(self: Any) -> None:
        """Cells that are coroutines share one SIGINT handler; the others keep ipykernel's."""
        if self._opencoro_on_loop():
            super().pre_handler_hook()  # type: ignore[misc]

    def post_handler_hook(self: Any) -> None:
        """See pre_handler_hook."""
        if self._opencoro_on_loop():
            super().post_handler_hook()  # type: ignore[misc]

    def _cancel_on_sigint(self: Any, future: Any) -> AbstractContextManager[None]:
        return super()._cancel_on_sigint(future) if last_cell() is None else nullcontext()  # type: ignore[misc]

    def _opencoro_sigint(self: Any, signum: int, frame: Any) -> None:
        """KeyboardInterrupt in the plain cell that runs; if there is none, in every other one."""
        cells = [c for c in running.values() if c.lane is not None] or list(running.values())
        now, here = scheduler.current(), False
        for cell in cells:
            if cell.executions and cell.executions[-1].co is now:
                here = True
            else:
                cell.throw(KeyboardInterrupt())
        if here:
            raise KeyboardInterrupt

    # -- input() -------------------------------------------------------------------------------------
    _allow_stdin = per_cell("_allow_stdin", False)

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
        async with self._opencoro_lanes.stdin:  # cells that ask at once are served one after the other
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


def _failed(kernel: Any, cell: Cell, e: BaseException) -> dict[str, Any]:
    """The cell never got to its own error handling: it was abandoned, or hit between its lines."""
    error = {"ename": type(e).__name__, "evalue": str(e), "traceback": [f"{type(e).__name__}: {e}"]}
    kernel.session.send(kernel.iopub_socket, "error", error, parent=kernel.get_parent("shell"),
                        ident=kernel._topic("error"))
    return {"status": "error", "execution_count": cell.number, "user_expressions": {}, "payload": [], **error}


def install_sigint(kernel: Any) -> None:
    """Our SIGINT handler between and during cells; what an idle kernel had comes back with unload.

    A cell that loads the extension keeps ipykernel's handler to its end: its post hook sets ours.
    """
    if kernel._main_asyncio_lock.locked():
        kernel._opencoro_lanes.idle_sigint = kernel.saved_sigint_handler
        kernel.saved_sigint_handler = kernel._opencoro_sigint
    else:
        kernel._opencoro_lanes.idle_sigint = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGINT, kernel._opencoro_sigint)


def restore_sigint(kernel: Any, lanes: Lanes) -> None:
    """Undo. Inside a cell: as in any cell of ipykernel, whose post hook then sets the idle handler."""
    kernel.saved_sigint_handler = lanes.idle_sigint
    inside = kernel._main_asyncio_lock.locked() or current_cell() is not None
    signal.signal(signal.SIGINT, signal.default_int_handler if inside else lanes.idle_sigint)
