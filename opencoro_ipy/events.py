"""Listeners: who wants to know that a coroutine changed its state. Runs on the coroutine's thread."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from .states import State

if TYPE_CHECKING:
    from .coroutine import Coroutine

_log = logging.getLogger("opencoro_ipy")


class Listener:
    """Base class of no-op hooks. A listener that raises is logged and dropped.

    ``reason`` is one of "started", "resumed", "slice over", "yielded", "waiting", "cancelled",
    "abandoned", "finished", "failed".
    """

    def on_state_changed(self, co: Coroutine, old: State, new: State, reason: str) -> None:
        """Called for every change, before the hook of the new state."""

    def on_running(self, co: Coroutine, old: State, new: State, reason: str) -> None: ...
    def on_suspended(self, co: Coroutine, old: State, new: State, reason: str) -> None: ...
    def on_syscall(self, co: Coroutine, old: State, new: State, reason: str) -> None: ...
    def on_complete(self, co: Coroutine, old: State, new: State, reason: str) -> None: ...
    def on_cancelled(self, co: Coroutine, old: State, new: State, reason: str) -> None: ...
    def on_error(self, co: Coroutine, old: State, new: State, reason: str) -> None: ...


_listeners: tuple[Listener, ...] = ()  # replaced whole, so that a walk over it needs no lock


def add_listener(listener: Listener) -> None:
    """Hear of every coroutine from now on. TypeError for what is not a Listener."""
    global _listeners
    if not isinstance(listener, Listener):
        raise TypeError(f"a Listener is wanted, not {type(listener).__name__}")
    if listener not in _listeners:
        _listeners += (listener,)


def remove_listener(listener: Listener) -> None:
    """Hear no more. Unknown listeners are ignored."""
    global _listeners
    _listeners = tuple(x for x in _listeners if x is not listener)


def emit(co: Coroutine, old: State, new: State, reason: str) -> None:
    """Tell all listeners; costs one comparison when there is none."""
    for listener in _listeners:
        try:
            listener.on_state_changed(co, old, new, reason)
            hook = getattr(listener, "on_" + type(new).__name__.lower(), None)
            if hook is not None:
                hook(co, old, new, reason)
        except Exception:
            _log.exception("listener %r raised and is dropped", listener)
            remove_listener(listener)
