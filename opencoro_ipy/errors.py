"""Exceptions of the package. No imports, any thread."""

import asyncio


class OpenCoroError(Exception):
    """Base of the errors that the package itself raises."""


class StateError(OpenCoroError, RuntimeError):
    """An illegal transition: a finished coroutine was resumed, a running one resumed again, …"""


class MonitorError(OpenCoroError, RuntimeError):
    """Preemption cannot be given here; the text says why."""


class CellTimeout(TimeoutError):  # noqa: N818 - the field's name for it
    """A cell used up its ``--timeout`` (wall clock) or ``--cpu-limit`` (its own CPU time)."""


class CellCancelled(asyncio.CancelledError):
    """A cell was cancelled by the user. Not an ``Exception``: ``except Exception`` lets it through."""
