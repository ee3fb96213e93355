"""``python -m opencoro_ipy``: ``install`` writes a kernelspec, ``demo`` shows what the package does.

What a kernelspec is made of (command line, metadata, protocol version, logos) is ipykernel's business and is
taken from the installed ipykernel; ours are the names and the extension that such a kernel loads. IPython
skips an extension that is loaded already, so a configuration that names it too does no harm.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile

NAME, DISPLAY_NAME = "python3-preemptible", "Python 3 (preemptible)"


def install(args: argparse.Namespace) -> int:
    """Write a kernelspec whose kernels load the extension by themselves. Returns the exit status."""
    from ipykernel.kernelspec import write_kernel_spec
    from jupyter_client.kernelspec import KernelSpecManager

    name = args.name.lower()  # where Jupyter looks for it
    overrides = {"display_name": args.display_name or (DISPLAY_NAME if name == NAME else args.name)}
    if args.env:
        overrides["env"] = dict(args.env)
    prefix = sys.prefix if args.sys_prefix else args.prefix
    with tempfile.TemporaryDirectory() as folder:
        # Frozen modules hide the standard library's sources from the debugger.
        source = write_kernel_spec(os.path.join(folder, "spec"), overrides,
                                   extra_arguments=["--ext=opencoro_ipy"], python_arguments=["-Xfrozen_modules=off"])
        try:
            where = KernelSpecManager().install_kernel_spec(source, name, user=args.user, prefix=prefix)
        except ValueError as e:  # the name
            print(e, file=sys.stderr)
            return 2
        except OSError as e:
            print(f"cannot install: {e}; --user, --sys-prefix or --prefix choose another place", file=sys.stderr)
            return 1
    print(f"Installed kernelspec {name} in {where}")
    return 0


def kernel_name(text: str) -> str:
    """An argparse type. Jupyter takes an empty name for "the folder's", and a newline at the end for nothing."""
    if not text or text != text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is no kernel name")
    return text


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed, 2 bad usage."""
    from . import __version__

    parser = argparse.ArgumentParser(prog="python -m opencoro_ipy")
    parser.add_argument("--version", action="version", version=f"opencoro-ipy {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("demo", help="a runaway cell beside other work, measured in a real kernel")
    p = commands.add_parser("install", help=f'install the kernelspec "{DISPLAY_NAME}"')
    where = p.add_mutually_exclusive_group()
    where.add_argument("--user", action="store_true", help="for the current user")
    where.add_argument("--sys-prefix", action="store_true", help="into this Python's prefix: virtual environments, conda")
    where.add_argument("--prefix", help="into PREFIX/share/jupyter/kernels")
    p.add_argument("--name", type=kernel_name, default=NAME, help=f"name of the kernelspec (default: {NAME})")
    p.add_argument("--display-name", help=f'what menus show (default: "{DISPLAY_NAME}", or the name given)')
    p.add_argument("--env", nargs=2, action="append", metavar=("NAME", "VALUE"), help="a variable for the kernel")
    args = parser.parse_args(argv)
    if args.command == "install":
        return install(args)
    from .demo import main as demo

    return demo()
