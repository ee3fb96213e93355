"""``python -m opencoro_ipy.bench``: what preemption costs and what it gives, as ratios from one run.

A case is a module with SUMMARY and ``run(quick, say)``, which returns its rows. What is compared is measured in
turn, in the same minute on the same machine; a row is the median of such pairs. Case files know their bars.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

CASES = ("responsiveness", "overhead", "precision", "fairness", "scale")


def case(name: str) -> Any:
    """The module of a case. Imported late: kernels are not wanted for a list."""
    return importlib.import_module(f"{__name__}.{name}")


Say = Callable[[str], None]  #: tells the user, on stderr, what is measured now
