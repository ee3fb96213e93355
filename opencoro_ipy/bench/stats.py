"""Medians, percentiles, spreads and Jain's index. Pure functions; no value is dropped as an outlier."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Measure(NamedTuple):
    """A median and its spread: p10 and p90, which for few values lie near their minimum and maximum."""

    value: float
    low: float
    high: float


def percentile(values: Iterable[float], q: float) -> float:
    """Quantile ``q`` (0 to 1), linear between neighbours. ValueError for no values or another q."""
    ordered = sorted(values)
    if not ordered or not 0 <= q <= 1:
        raise ValueError(f"quantile {q!r} of {len(ordered)} values")
    at = q * (len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (at - below)


def measure(values: Sequence[float]) -> Measure:
    """Median, p10, p90. ValueError for no values."""
    return Measure(percentile(values, 0.5), percentile(values, 0.1), percentile(values, 0.9))


def median_of_ratios(pairs: Iterable[tuple[float, float]]) -> Measure:
    """Of ``a / b`` over pairs that were measured side by side. ZeroDivisionError for a b of 0."""
    return measure([a / b for a, b in pairs])


def ratio_of_blocks(blocks: Iterable[tuple[Sequence[float], Sequence[float]]]) -> Measure:
    """Of median(a) / median(b) over blocks of (a values, b values)."""
    return median_of_ratios((statistics.median(a), statistics.median(b)) for a, b in blocks)


def jain(shares: Sequence[float]) -> float:
    """Jain's fairness index, (sum x)^2 / (n sum x^2): 1 all equal, 1/n one has all.

    R. Jain, D. Chiu, W. Hawe, DEC-TR-301, 1984. ValueError if there is nothing to share.
    """
    squares = sum(x * x for x in shares)
    if not squares:
        raise ValueError("nobody got anything")
    return sum(shares) ** 2 / (len(shares) * squares)
