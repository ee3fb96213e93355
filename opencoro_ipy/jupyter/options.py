"""Options of the magics: to add one, an @argument here and a field in CellOptions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring

from .. import policy

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
POLICIES = ("ordered", "concurrent")


@dataclass(frozen=True)
class CellOptions:
    """Seconds where a time is meant; None: no limit."""

    name: str | None = None
    slice_s: float = policy.SLICE_S
    priority: int = 0
    timeout_s: float | None = None
    cpu_limit_s: float | None = None
    detach: bool = False


@dataclass
class Defaults:
    """What ``%preempt`` sets for cells to come."""

    on: bool = True
    slice_s: float = policy.SLICE_S
    policy: str = "ordered"


defaults = Defaults()


def seconds(text: str, what: str) -> float:
    """"10ms", "2s", "1.5", "3m" as seconds; UsageError for anything else, and for zero."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)\s*", text)
    if not match or match[2] not in _UNITS:
        raise UsageError(f"{what} {text!r} is not a duration: a number and us, ms, s, m or h, as in 10ms")
    value = float(match[1]) * _UNITS[match[2]]
    if not 0 < value < 1e9:
        raise UsageError(f"{what} {text!r} must be more than zero")
    return value


def _slice(text: str) -> float:
    value = seconds(text, "--slice")
    try:
        policy.slice_ns(value)
    except ValueError as e:
        raise UsageError(str(e)) from None
    return value


@magic_arguments()
@argument("--name", help="label of the cell in %%coroutines and the timeline")
@argument("--slice", metavar="T", help="time slice, 0.1ms to 10s (default 10ms)")
@argument("--priority", metavar="P", help="smaller runs first (default 0)")
@argument("--timeout", metavar="T", help="end the cell with CellTimeout after T of wall clock")
@argument("--cpu-limit", metavar="T", help="... after T of its own CPU time")
@argument("--detach", action="store_true", help="reply at once; the cell goes on")
def cell_options(line: str) -> Any:
    """Run this cell concurrently with the others.

    It does not wait for the cell that is running, and cells after it do not wait for it.
    """


cell_options.__name__ = "preempt"


def parse_cell_line(line: str) -> CellOptions:
    """Options of a ``%%preempt`` line; UsageError that says what was wrong and what is allowed."""
    args = parse_argstring(cell_options, line)
    priority = 0
    if args.priority is not None:
        try:
            priority = int(args.priority)
        except ValueError:
            raise UsageError(f"--priority {args.priority!r} is not a whole number") from None
    if args.name is not None and (not args.name.strip() or len(args.name) > 80):
        raise UsageError("--name is 1 to 80 characters")
    return CellOptions(
        name=args.name, slice_s=_slice(args.slice) if args.slice else defaults.slice_s, priority=priority,
        timeout_s=seconds(args.timeout, "--timeout") if args.timeout else None,
        cpu_limit_s=seconds(args.cpu_limit, "--cpu-limit") if args.cpu_limit else None, detach=args.detach)


def split_cell(code: str) -> tuple[str, str] | None:
    """(options line, rest) of a cell that begins with ``%%preempt``, else None."""
    first, newline, rest = code.lstrip("\n").partition("\n")
    match = re.match(r"%%preempt(?![\w?])(.*)", first)
    return (match[1].strip(), rest) if match and not first.rstrip().endswith("?") else None


def set_defaults(line: str) -> None:
    """``%preempt on|off|--slice T|--policy P``."""
    words = line.split()
    fresh = Defaults(**vars(defaults))
    while words:
        word = words.pop(0)
        if word in ("on", "off"):
            fresh.on = word == "on"
        elif word in ("--slice", "--policy") and not words:
            raise UsageError(f"{word} needs a value")
        elif word == "--slice":
            fresh.slice_s = _slice(words.pop(0))
        elif word == "--policy":
            fresh.policy = words.pop(0)
            if fresh.policy not in POLICIES:
                raise UsageError(f"--policy {fresh.policy!r}: one of {', '.join(POLICIES)}")
        else:
            raise UsageError(f"%preempt {word!r}: on, off, --slice T or --policy {'|'.join(POLICIES)}")
    vars(defaults).update(vars(fresh))
