"""Who answers while a cell runs: ours and the peers, how each is started, kept busy and asked.

To add one: a line in PEERS. Packages are looked up in this environment; nothing is installed.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .kernels import Kernel
from .table import version

_IPYKERNEL = ("-m", "ipykernel_launcher")
_SMALL = "class Small: alpha = 1\nsmall = Small()"
BUSY = {
    "pure Python": "while True: pass",
    "numpy": "import numpy\na = numpy.random.rand(1000, 1000)\nwhile True: a @ a",
    "time.sleep(60)": "import time\nwhile True: time.sleep(60)",
    "many prints": "i = 0\nwhile True:\n    i += 1\n    print(i)",
}
REQUESTS: dict[str, Callable[[Contender, Kernel, float], Any]] = {
    "kernel_info": lambda c, k, t: k.request("kernel_info", {}, t, k.subshell),
    "complete": lambda c, k, t: k.request("complete", {"code": "small.al", "cursor_pos": 8}, t, k.subshell),
    "inspect": lambda c, k, t: k.request("inspect", {"code": "small", "cursor_pos": 5, "detail_level": 0},
                                          t, k.subshell),
    "comm": lambda c, k, t: k.echo(t),
    "execute": lambda c, k, t: k.execute(c.execute, t, k.subshell),
}


@dataclass(frozen=True)
class Contender:
    """needs: the package that must be there. setup: a cell that runs first. subshell: requests go to one."""

    name: str
    needs: str = "ipykernel"
    argv: tuple[str, ...] = _IPYKERNEL
    option: str = "-f"
    setup: str = ""
    subshell: bool = False
    execute: str = "1 + 1"
    busy: Callable[[str], str] = str  # the runaway as this contender's user writes it

    @property
    def installed(self) -> bool:
        """Can it be measured here?"""
        return version(self.needs) is not None

    @property
    def key(self) -> tuple[object, ...]:
        """Contenders with the same key have the same idle kernel."""
        return self.argv, self.setup, self.subshell

    def start(self) -> Kernel:
        """A kernel process that is not ready yet: several may start at once."""
        return Kernel(list(self.argv), self.option)

    def prepare(self, kernel: Kernel) -> Kernel:
        """Wait until it is ready; imports and caches of the first requests are not measured."""
        kernel.ready()
        if self.setup:
            kernel.execute(self.setup)
        kernel.execute(_SMALL)
        kernel.open(self.subshell)
        for request in REQUESTS.values():
            for _ in range(4):
                request(self, kernel, 30)
        return kernel


def _job(code: str) -> str:
    return (f"def _busy():\n{textwrap.indent(code, '    ')}\n"
            "from IPython.lib.backgroundjobs import BackgroundJobManager\nBackgroundJobManager().new(_busy)")


OURS = Contender("opencoro-ipy", setup="%load_ext opencoro_ipy", execute="%%preempt\n1 + 1")
STRONGEST = Contender("ipykernel, subshell, setswitchinterval(0.001)", setup="import sys\nsys.setswitchinterval(0.001)",
                      subshell=True)
PEERS = (
    Contender("ipykernel"),
    Contender("ipykernel, subshell", subshell=True),
    STRONGEST,
    Contender("async-kernel, # thread", needs="async-kernel", argv=("-m", "async_kernel", "start"),
              option="--connection_file", busy=lambda code: f"# thread\n{code}"),
    Contender("IPython.lib.backgroundjobs", busy=_job),
)
