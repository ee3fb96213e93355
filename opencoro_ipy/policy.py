"""The slice policy: how long a coroutine may run, when the loop goes first, who is next.

Pure functions and constants, no clock of their own: time comes in as nanoseconds.
"""

from __future__ import annotations

SLICE_S = 0.010  # the field's usual slice; open-coroutine and Go use the same
FLOOR_NS = 300_000  # an event may not preempt a slice that is younger than this
HUB_MIN_NS = 4_000_000  # the loop may always use this much between two slices
CREDIT_NS = 50_000_000  # what cells have run more than the loop; so much the loop may then go first in one go
DEBT_NS = 10_000_000  # what the loop has run more than the cells; so long no event preempts a cell
SWITCH_INTERVAL_S = 0.0002  # how long I/O threads wait for the GIL during a slice
CROWDED_INTERVAL_S = 0.0005  # ... where other threads compute: at 0.2 ms they and the cell would lose 10 to 20 %
CROWDED = 0.25  # other threads' CPU time in a slice, as a share of it, that means: they compute
HUB_PRIORITY = -1_000_000  # completion, comm callbacks: short, and somebody waits for them
PASSED_NS = 100_000_000  # passed over for this long by who came later, a worse priority gets a slice
INSIST_NS = 250_000_000  # a cancellation that had no effect is thrown again after this
GRACE_S = 2.0  # a cancelled cell that goes on for longer is abandoned


def slice_ns(slice_s: float) -> int:
    """ValueError unless 0.1 ms <= slice <= 10 s."""
    if not 0.0001 <= slice_s <= 10:
        raise ValueError(f"a slice is 0.1ms to 10s, not {slice_s!r} s")
    return int(slice_s * 1e9)


def crowded(slice_ns: int, others_cpu_ns: int, before: bool) -> bool:
    """Do other threads compute? Slices under 1 ms say nothing: as before."""
    return others_cpu_ns > CROWDED * slice_ns if slice_ns >= 1_000_000 else before


def credit_ns(before_ns: int, cells_ns: int, loop_ns: int) -> int:
    """The loop's account after cells and loop have run that long: a flood gets half of the time, no more."""
    return min(max(before_ns + cells_ns - loop_ns, -DEBT_NS), CREDIT_NS)


def hub_bound_ns(credit: int) -> int:
    """How long the loop may go first."""
    return max(credit, HUB_MIN_NS)


def floor_ns(credit: int) -> int:
    """How long a slice runs before an event may preempt it."""
    return max(-credit, FLOOR_NS)


def is_service(priority: int) -> bool:
    """Work for the loop's requests (completion, comm callbacks), on the loop's account."""
    return priority <= HUB_PRIORITY


def pick(waiting: list[tuple[int, bool, int]], credit: int = CREDIT_NS) -> int:
    """Index of who runs next among (priority, never preempted yet, ns passed over), in order of arrival.

    Equal priorities take turns, but a newcomer's first slice goes first: most cells need no second one.
    """
    indices = list(range(len(waiting)))
    if credit <= 0:
        indices = [i for i in indices if not is_service(waiting[i][0])] or indices
    for i in indices:
        if waiting[i][2] >= PASSED_NS:
            return i
    return min(indices, key=lambda i: (waiting[i][0], not waiting[i][1]))
