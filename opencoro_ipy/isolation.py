"""What is private to a coroutine while it runs, though CPython keeps one per process.

A registry of (get, set) pairs; values are swapped on resume and on suspension. The old value is held by
the coroutine meanwhile, so code that borrowed it (print) keeps a live object.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

_pairs: dict[str, tuple[Callable[[], Any], Callable[[Any], None]]] = {}


def register(name: str, get: Callable[[], Any], set: Callable[[Any], None]) -> None:  # noqa: A002
    """Make what ``get`` returns private to each coroutine. Replaces an earlier pair of that name."""
    _pairs[name] = (get, set)


def unregister(name: str) -> None:
    """Shared again. Unknown names are ignored."""
    _pairs.pop(name, None)


for _name in ("stdout", "stderr", "stdin", "displayhook", "excepthook"):
    register("sys." + _name, partial(getattr, sys, _name), partial(setattr, sys, _name))


class Private:
    """The values of one coroutine: those that differ from the resumer's."""

    __slots__ = ("_mine", "_outer")

    def __init__(self) -> None:
        self._mine: dict[str, Any] = {}
        self._outer: dict[str, Any] = {}

    def enter(self) -> None:
        """Before its slice."""
        self._outer = {name: get() for name, (get, _) in _pairs.items()}
        for name, value in self._mine.items():
            if name in _pairs:
                _pairs[name][1](value)

    def leave(self) -> None:
        """After its slice."""
        self._mine = {}
        for name, outer in self._outer.items():
            pair = _pairs.get(name)
            if pair is not None and (value := pair[0]()) is not outer:
                self._mine[name] = value
                pair[1](outer)
        self._outer = {}
