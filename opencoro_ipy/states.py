"""The states of a coroutine, their labels and colours, and the one transition table.

To add a state: a frozen dataclass, a row in TRANSITIONS, a row in LOOKS. No other module spells a label.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Ready:
    """Created, never run."""


@dataclass(frozen=True, slots=True)
class Running:
    """Its slice runs now."""


@dataclass(frozen=True, slots=True)
class Suspended:
    """Yielded ``value``; may go on at monotonic time ``until`` (ns; 0: at once).

    Being preempted is ``Suspended(None, 0)``.
    """

    value: Any = None
    until: int = 0


@dataclass(frozen=True, slots=True)
class Syscall:
    """Blocked in the system call ``name``."""

    name: str = ""


@dataclass(frozen=True, slots=True)
class Complete:
    """Returned ``value``."""

    value: Any = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Ended by a cancellation, or abandoned after it swallowed one."""


@dataclass(frozen=True, slots=True)
class Error:
    """Raised ``exception``."""

    exception: BaseException


State = Ready | Running | Suspended | Syscall | Complete | Cancelled | Error

#: from -> what may follow
TRANSITIONS: dict[type, frozenset[type]] = {
    Ready: frozenset({Running, Cancelled}),
    Running: frozenset({Suspended, Syscall, Complete, Cancelled, Error}),
    Suspended: frozenset({Running, Cancelled}),
    Syscall: frozenset({Running, Cancelled}),
    Complete: frozenset(),
    Cancelled: frozenset(),
    Error: frozenset(),
}
TERMINAL = (Complete, Cancelled, Error)


@dataclass(frozen=True, slots=True)
class Look:
    """How a state is shown: a word, a colour, a height in [0, 1]."""

    label: str
    colour: str
    height: float


LOOKS: dict[type, Look] = {
    Ready: Look("ready", "#8da0b6", 0.26),
    Running: Look("running", "#2f9e63", 1.0),
    Suspended: Look("suspended", "#c9b458", 0.1),
    Syscall: Look("waiting", "#4a7fc1", 0.5),
    Complete: Look("complete", "#5b6b7a", 1.0),
    Cancelled: Look("cancelled", "#b0703c", 1.0),
    Error: Look("error", "#c0392b", 1.0),
}


def label(state: State) -> str:
    """The word for ``state``."""
    return LOOKS[type(state)].label
