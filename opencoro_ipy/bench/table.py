"""Rows, their bars, the table, and the machine it was measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

PACKAGES = ("opencoro-ipy", "greenlet", "ipykernel", "ipython", "jupyter_client", "pyzmq", "numpy", "async-kernel")


@dataclass(frozen=True)
class Bar:
    """What a value should be: at most, or at least."""

    limit: float
    least: bool = False

    def met(self, value: float) -> bool:
        """The limit itself is met."""
        return value >= self.limit if self.least else value <= self.limit

    def __str__(self) -> str:
        return f"{'>=' if self.least else '<='} {self.limit:g}"


@dataclass(frozen=True)
class Row:
    """One line. value None: there is none, and note says why ("blocked", "not installed")."""

    case: str
    what: str
    value: float | None
    unit: str = "x"  # x: a ratio
    spread: tuple[float, float] | None = None
    bar: Bar | None = None
    note: str = ""
    detail: dict[str, Any] = field(default_factory=dict)  # for --json

    @property
    def verdict(self) -> str:
        """"met", "not met" (no value counts as that), or "no bar"."""
        if self.bar is None:
            return "no bar"
        return "met" if self.value is not None and self.bar.met(self.value) else "not met"

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {"case": self.case, "what": self.what, "value": self.value, "unit": self.unit, "spread": self.spread,
                "bar": str(self.bar) if self.bar else None, "verdict": self.verdict, "note": self.note, **self.detail}


def _number(value: float, unit: str) -> str:
    # Four significant digits; ratios near one, where the last digits are the news, three or five decimals.
    if unit == "x":
        return f"{value:.3f}" if value < 100 else f"{value:.0f}"
    if unit == "Jain":
        return f"{value:.5f}"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def cells(row: Row) -> list[str]:
    """The texts of a row: case, what, value, spread, bar, verdict."""
    value = row.note if row.value is None else f"{_number(row.value, row.unit)} {row.unit}"
    spread = " - ".join(_number(v, row.unit) for v in row.spread) if row.spread and row.value is not None else ""
    return [row.case, row.what, value, spread, str(row.bar or ""), row.verdict]


def table(rows: Sequence[Row]) -> str:
    """A Markdown table."""
    lines = [["case", "what", "value", "spread", "bar", "verdict"], *map(cells, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(6)]
    right = (2, 3, 4)
    out = ["| " + " | ".join(t.rjust(w) if i in right else t.ljust(w)
                             for i, (t, w) in enumerate(zip(line, widths, strict=True))) + " |" for line in lines]
    rule = "|" + "|".join("-" * (w + 1) + (":" if i in right else "-") for i, w in enumerate(widths)) + "|"
    return "\n".join([out[0], rule, *out[1:]])


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as f:
            return next(line.split(":", 1)[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def version(package: str) -> str | None:
    """Of an installed distribution, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine() -> dict[str, Any]:
    """What a reader needs to judge the figures."""
    return {"cpu": _cpu(), "cores": os.cpu_count(), "system": f"{platform.system()} {platform.release()}",
            "architecture": platform.machine(), "python": platform.python_version(),
            "load_1_min": round(os.getloadavg()[0], 2), "versions": {p: version(p) for p in PACKAGES}}


def machine_line(info: dict[str, Any]) -> str:
    """The same in one line."""
    versions = ", ".join(f"{p} {v}" for p, v in info["versions"].items() if v)
    return (f"{info['cpu']}, {info['cores']} cores, load {info['load_1_min']}, {info['system']} "
            f"{info['architecture']}, CPython {info['python']}; {versions}")
