"""Coroutine: a greenlet, the state machine, and the slice it is given. Main thread only.

The switch away happens in native/module.c (trip); the switch back is ``resume``. Preemption is armed by
``resume``, not by a listener. A coroutine may resume another: the inner one returns to whoever resumed it.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import itertools
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import greenlet

from . import _native, events, isolation, monitor, policy
from .errors import StateError
from .states import (
    TERMINAL, TRANSITIONS, Cancelled, Complete, Error, Ready, Running, State, Suspended,
)

_ids = itertools.count(1)
_current: Coroutine | None = None
_live: weakref.WeakSet[Coroutine] = weakref.WeakSet()
_RUNNING, _PREEMPTED = Running(), Suspended(None, 0)  # made once: a frozen dataclass is slow to make
_CLOSE_SLICES = 20  # close() lets `except` and `finally` blocks run for this many slices


class _Yield:
    """What a coroutine sends to its resumer when it suspends by itself."""

    __slots__ = ("value", "until", "reason")

    def __init__(self, value: Any, until: int, reason: str) -> None:
        self.value, self.until, self.reason = value, until, reason


class Suspender:
    """Handed to a coroutine's function: how it gives way by itself."""

    __slots__ = ("_co",)

    def __init__(self, co: Coroutine) -> None:
        self._co = weakref.ref(co)

    @staticmethod
    def current() -> Suspender | None:
        """The suspender of the running coroutine, or None outside of one."""
        co = current()
        return co._suspender if co is not None else None

    def suspend_with(self, value: Any = None, *, _until: int = 0, _reason: str = "yielded") -> Any:
        """State becomes ``Suspended(value, 0)``; returns the argument of the next ``resume``.

        StateError if this coroutine is not the one that runs.
        """
        co = self._co()
        if co is None or co is not _current or co._hub is None:
            raise StateError("only the running coroutine can suspend itself")
        co._leaf = greenlet.getcurrent()
        return co._hub.switch(_Yield(value, _until, _reason))

    def delay(self, seconds: float) -> Any:
        """Suspended for at least ``seconds``; ValueError if negative."""
        if not seconds >= 0:
            raise ValueError(f"a delay is not negative: {seconds!r}")
        return self.suspend_with(None, _until=time.monotonic_ns() + int(seconds * 1e9), _reason="delayed")

    def cancel(self) -> None:
        """End this coroutine: ``finally`` blocks run, state becomes Cancelled."""
        co = self._co()
        if co is None or co is not _current:
            raise StateError("only the running coroutine can cancel itself")
        co._cancelling = True
        raise asyncio.CancelledError


class Coroutine:
    """``fn(suspender, arg)`` as a preemptible coroutine.

    name: label (default ``coroutine-ID``); priority: smaller runs first under a scheduler;
    slice_s: seconds of a slice; context: a ``contextvars.Context`` (default: a copy of the current one).
    """

    def __init__(self, fn: Callable[[Suspender, Any], Any], *, name: str | None = None, priority: int = 0,
                 slice_s: float = policy.SLICE_S, context: contextvars.Context | None = None) -> None:
        if not callable(fn):
            raise TypeError(f"fn must be callable, not {type(fn).__name__}")
        self.id = next(_ids)
        self.name = name if name is not None else f"coroutine-{self.id}"
        self.priority = priority
        self.slice_ns = policy.slice_ns(slice_s)
        self.local: dict[str, Any] = {}  #: coroutine_local storage
        self.cpu_ns = 0  #: own CPU time, ns
        self.preemptions = 0
        self.created_ns = time.monotonic_ns()
        self._fn = fn
        self._state: State = Ready()
        self._suspender = Suspender(self)
        self._private = isolation.Private()
        self._throw: BaseException | None = None
        self._cancelling = False
        self._inhibited = 0
        self._holds_monitor = False
        self._hub: greenlet.greenlet | None = None
        body = weakref.WeakMethod(self._body)
        self._greenlet = self._leaf = greenlet.greenlet(lambda arg: body()(arg))  # type: ignore[misc]
        self._greenlet.gr_context = context if context is not None else contextvars.copy_context()
        # Identity for locks: never 0, never a thread's (those are addresses, and even).
        self._ident = (self.id << 1) | 1

    @property
    def state(self) -> State:
        """The state now."""
        return self._state

    @property
    def cpu_s(self) -> float:
        """Own CPU time so far, seconds."""
        return self.cpu_ns / 1e9

    @property
    def done(self) -> bool:
        """Complete, Cancelled or Error."""
        return isinstance(self._state, TERMINAL)

    def __repr__(self) -> str:
        return f"<Coroutine {self.id} {self.name!r} {self._state!r}>"

    def _change(self, new: State, reason: str) -> None:
        old = self._state
        if type(new) not in TRANSITIONS[type(old)]:
            raise StateError(f"{type(old).__name__} -> {type(new).__name__} is not a transition")
        self._state = new
        if isinstance(new, TERMINAL):
            _live.discard(self)
            if self._holds_monitor:
                self._holds_monitor = False
                monitor.release()
        events.emit(self, old, new, reason)

    def _body(self, arg: Any) -> Any:
        try:
            return Complete(self._fn(self._suspender, arg))
        except BaseException as e:
            return self._ended_by(e)

    def _ended_by(self, e: BaseException) -> State:
        if isinstance(e, greenlet.GreenletExit) or (isinstance(e, asyncio.CancelledError) and self._cancelling):
            return Cancelled()
        return Error(e)

    def resume(self, arg: Any = None, *, slice_ns: int | None = None, floor_ns: int = 0,
               until_ns: int = 0) -> State:
        """Run until it suspends, is preempted, ends; the new state.

        ``arg`` is fn's argument the first time, later what ``suspend_with`` returns. Before
        ``Suspended.until`` nothing runs. For schedulers: slice_ns (0: no slice clock), floor_ns (not 0:
        events of the watched loop preempt after that long), until_ns (monotonic ns: preempt then).
        StateError if it is running or has ended; MonitorError if preemption cannot be given here.
        """
        global _current
        state = self._state
        if isinstance(state, Running) or isinstance(state, TERMINAL):
            raise StateError(f"a coroutine that is {type(state).__name__} cannot be resumed")
        if isinstance(state, Suspended) and state.until and self._throw is None:
            if time.monotonic_ns() < state.until:
                return state
        if not self._holds_monitor:
            monitor.acquire()
            self._holds_monitor = True
            _live.add(self)
        thrown, self._throw = self._throw, None
        if thrown is not None and isinstance(state, Ready):
            self._change(Cancelled(), "cancelled")
            return self._state
        self._change(_RUNNING, "started" if isinstance(state, Ready) else "resumed")
        hub = greenlet.getcurrent()
        if self._greenlet.parent is not hub:
            self._greenlet.parent = hub
        outer, _current, self._hub = _current, self, hub
        self._private.enter()
        _native.begin(self._ident, self.slice_ns if slice_ns is None else slice_ns, floor_ns, until_ns,
                      self._inhibited)
        try:
            sent = self._leaf.throw(thrown) if thrown is not None else self._leaf.switch(arg)
            if isinstance(sent, greenlet.GreenletExit):
                raise sent
        except BaseException as e:  # it was preempted just outside of _body's try, and then thrown into
            if not self._greenlet.dead:
                raise
            sent = self._ended_by(e)
        finally:
            cpu_ns, self._inhibited = _native.end()
            _current, self._hub = outer, None
            self._private.leave()
            self.cpu_ns += cpu_ns
        return self._left_with(sent)

    def _left_with(self, sent: Any) -> State:
        """What the switch back brought: a leaf greenlet (preempted), a _Yield, or the end."""
        if isinstance(sent, greenlet.greenlet):
            self._leaf = sent
            self.preemptions += 1
            self._change(_PREEMPTED, "slice over")
        elif isinstance(sent, _Yield):
            self._change(Suspended(sent.value, sent.until), sent.reason)
        elif isinstance(sent, Complete):
            self._change(sent, "finished")
        elif isinstance(sent, Cancelled):
            self._change(sent, "cancelled")
        else:
            self._change(sent, "failed")
        return self._state

    def throw(self, exception: BaseException) -> None:
        """Raise ``exception`` inside at its next resume, at the place where it is suspended."""
        if self.done:
            raise StateError("it has ended")
        self._throw = exception

    def cancel(self, exception: BaseException | None = None) -> None:
        """CancelledError (or ``exception``) at the next resume; one that never ran is Cancelled at once."""
        if self.done:
            return
        self._cancelling = True
        if isinstance(self._state, Ready):
            self._change(Cancelled(), "cancelled")
        else:
            self._throw = exception if exception is not None else asyncio.CancelledError()

    def abandon(self) -> None:
        """Never resume it again, run none of its code; its memory is kept. State becomes Cancelled."""
        if self.done:
            return
        _native.immortalise(self._greenlet)
        _native.immortalise(self._leaf)
        _native.immortalise(self)
        self._change(Cancelled(), "abandoned")

    def close(self) -> None:
        """End it: GreenletExit inside, ``finally`` blocks run for a bounded time, then it is abandoned."""
        if self.done:
            return
        if isinstance(self._state, Running):
            raise StateError("a running coroutine cannot be closed")
        for _ in range(_CLOSE_SLICES):
            self._cancelling = True
            if isinstance(self._state, Ready):
                self._change(Cancelled(), "cancelled")
                return
            self._throw = greenlet.GreenletExit()
            self.resume()
            if self.done:
                return
        self.abandon()

    def __del__(self) -> None:
        # Running foreign code from a destructor (perhaps inside the collector) is not safe: keep the stack.
        if getattr(self, "_state", None) is not None and not self.done and self._holds_monitor:
            if sys is not None and _native is not None and not isinstance(self._state, Ready):
                _native.immortalise(self._greenlet)
                _native.immortalise(self._leaf)
                monitor.release()


def co(fn: Callable[[Suspender, Any], Any], **options: Any) -> Coroutine:
    """The seed's ``co!``: ``Coroutine(fn, **options)``."""
    return Coroutine(fn, **options)


def current() -> Coroutine | None:
    """The coroutine that runs now, or None; None on other threads than the main one."""
    return _current if threading.current_thread() is threading.main_thread() else None


@atexit.register
def _close_all() -> None:
    """Interpreter exit: suspended coroutines get their ``finally`` blocks, with a bound."""
    for each in list(_live):
        if not each.done and not isinstance(each.state, Running):
            each.close()
        elif not each.done:
            each._holds_monitor = False
            monitor.release()
