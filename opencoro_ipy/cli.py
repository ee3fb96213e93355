"""``python -m opencoro_ipy install`` and ``demo``."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile

NAME, DISPLAY_NAME = "python3-preemptible", "Python 3 (preemptible)"


def install(args: argparse.Namespace) -> int:
    """Write a kernelspec whose kernels load the extension by themselves."""
    import ipykernel
    from jupyter_client.kernelspec import KernelSpecManager, _is_valid_kernel_name

    if not _is_valid_kernel_name(args.name):
        print(f"{args.name!r} is not a kernel name: letters, digits, - . and _ only", file=sys.stderr)
        return 2
    spec = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--ext=opencoro_ipy"],
        "display_name": args.display_name, "language": "python", "metadata": {"debugger": True},
    }
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "spec")
        logos = os.path.join(os.path.dirname(ipykernel.__file__), "resources")
        shutil.copytree(logos, source) if os.path.isdir(logos) else os.mkdir(source)
        with open(os.path.join(source, "kernel.json"), "w") as f:
            json.dump(spec, f, indent=1)
        prefix = sys.prefix if args.sys_prefix else args.prefix
        try:
            where = KernelSpecManager().install_kernel_spec(source, args.name, user=args.user, prefix=prefix)
        except OSError as e:
            print(f"cannot install: {e}; --user or --prefix choose another place", file=sys.stderr)
            return 1
    print(f"Installed kernelspec {args.name} in {where}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed, 2 bad usage."""
    parser = argparse.ArgumentParser(prog="python -m opencoro_ipy")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("demo", help="a runaway cell beside other work, measured in a real kernel")
    p = commands.add_parser("install", help=f'install the kernelspec "{DISPLAY_NAME}"')
    where = p.add_mutually_exclusive_group()
    where.add_argument("--user", action="store_true", help="for the current user")
    where.add_argument("--sys-prefix", action="store_true", help=f"into {sys.prefix}")
    where.add_argument("--prefix", help="into PREFIX/share/jupyter/kernels")
    p.add_argument("--name", default=NAME, help=f"name of the kernelspec (default {NAME})")
    p.add_argument("--display-name", default=DISPLAY_NAME, help="what menus show")
    args = parser.parse_args(argv)
    if args.command == "install":
        return install(args)
    from .demo import main as demo

    return demo()
