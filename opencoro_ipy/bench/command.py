"""The command line: which cases, progress on stderr, one table on stdout, everything as JSON on request."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback

from . import CASES, case
from .table import Row, machine, machine_line, table


def _names(text: str) -> list[str]:
    """An argparse type."""
    names = [n.strip() for n in text.split(",") if n.strip()]
    unknown = [n for n in names if n not in CASES]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"no case {', '.join(unknown) or text!r}; there are {', '.join(CASES)}")
    return [n for n in CASES if n in names]


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 measured, whether bars were met or not; 1 a case could not run; 2 bad usage."""
    parser = argparse.ArgumentParser(prog="python -m opencoro_ipy.bench", description=(
        "What preemption costs and what it gives: pairs taken in turn, medians, spread p10 - p90, against the bars."))
    parser.add_argument("--list", action="store_true", help="the cases, one a line, and exit")
    parser.add_argument("--only", type=_names, default=list(CASES), metavar="NAME[,NAME]", help="only these cases")
    parser.add_argument("--quick", action="store_true", help="smaller counts: about a minute, and more noise")
    parser.add_argument("--json", metavar="FILE", help="write everything, with the machine, to FILE (-: stdout)")
    args = parser.parse_args(argv)
    if args.json and args.json != "-":
        try:
            open(args.json, "a").close()  # now, not after all the measuring
        except OSError as e:
            parser.error(f"--json: {e}")
    if args.list:
        for name in CASES:
            print(f"{name:15} {case(name).SUMMARY}")
        return 0

    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {text}", file=sys.stderr, flush=True)

    rows: list[Row] = []
    failed: dict[str, str] = {}
    loads: dict[str, float] = {}
    info = machine()
    for name in args.only:
        say(name)
        try:
            rows += case(name).run(args.quick, lambda text, name=name: say(f"{name}: {text}"))
        except Exception as e:
            failed[name] = f"{type(e).__name__}: {e}"
            traceback.print_exc()
        loads[name] = round(os.getloadavg()[0], 1)  # others' load too: figures of a busy machine say little
    say("done")
    if args.json:
        everything = json.dumps({"machine": info, "quick": args.quick, "seconds": time.monotonic() - started,
                                 "load_1_min_after": loads,
                                 "rows": [r.as_dict() for r in rows], "failed": failed}, indent=1)
        if args.json == "-":
            print(everything)
        else:
            with open(args.json, "w") as f:
                f.write(everything + "\n")
    if args.json != "-":
        print(table(rows))
        print(f"\n{machine_line(info)}{'; --quick' if args.quick else ''}")
        print("load after " + ", ".join(f"{name} {load}" for name, load in loads.items()))
    for name, why in failed.items():
        print(f"{name} could not run: {why}", file=sys.stderr)
    return 1 if failed else 0
