"""The slice policy: how long a coroutine may run, when the loop goes first, who is next.

Pure functions and constants, no clock of their own: time comes in as nanoseconds.
"""

from __future__ import annotations

SLICE_S = 0.010  # the field's usual slice; open-coroutine and Go use the same
FLOOR_NS = 1_000_000  # an event may not preempt earlier than this: a flood cannot starve the cells
HUB_MIN_NS = 4_000_000  # the loop may always use this much between two slices
SWITCH_INTERVAL_S = 0.0005  # how long I/O threads wait for the GIL while a coroutine runs
HUB_PRIORITY = -1_000_000  # completion, comm callbacks: short, and somebody waits for them
PASSED_NS = 100_000_000  # passed over for this long by who came later, a worse priority gets a slice
INSIST_NS = 250_000_000  # a cancellation that had no effect is thrown again after this
GRACE_S = 2.0  # a cancelled cell that goes on for longer is abandoned


def slice_ns(slice_s: float) -> int:
    """ValueError unless 0.1 ms <= slice <= 10 s."""
    if not 0.0001 <= slice_s <= 10:
        raise ValueError(f"a slice is 0.1ms to 10s, not {slice_s!r} s")
    return int(slice_s * 1e9)


def hub_bound_ns(last_slice_ns: int) -> int:
    """How long the loop may go first: as long as the last slice, so cells keep half of the time."""
    return max(last_slice_ns, HUB_MIN_NS)


def pick(waiting: list[tuple[int, bool, int]]) -> int:
    """Index of who runs next among (priority, never preempted yet, ns passed over), in order of arrival.

    Equal priorities take turns, but a newcomer's first slice goes first: most cells need no second one.
    """
    overdue = [i for i, (_, _, passed) in enumerate(waiting) if passed >= PASSED_NS]
    if overdue:
        return overdue[0]
    return min(range(len(waiting)), key=lambda i: (waiting[i][0], not waiting[i][1]))
