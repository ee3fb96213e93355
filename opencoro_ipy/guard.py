"""Where a coroutine may not be preempted: the tables behind native/guard.c, and ``no_preempt``.

To protect a module: PROTECTED. To allow a reviewed C library on the stack: REVIEWED_IMAGES.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import sysconfig
import threading
from types import ModuleType
from typing import Any

from . import _native

#: Packages or modules that rely on being one thread: deferred while one of their frames is on the stack.
PROTECTED = (
    "zmq", "asyncio", "nest_asyncio", "nest_asyncio2", "tornado", "logging", "jupyter_client", "ipykernel.iostream",
    "ipykernel.displayhook", "ipykernel.kernelbase", "ipykernel.shellchannel",
    "ipykernel.subshell_manager", "ipykernel.socket_pair", "ipykernel.jsonutil",
    "IPython.core.history", "opencoro_ipy",
)
#: Frames of ours that have user code, or something that blocks, above them and are themselves safe.
TRANSPARENT_FILES = ("opencoro_ipy/coroutine.py", "opencoro_ipy/scheduler.py", "opencoro_ipy/runqueue.py",
                     "opencoro_ipy/guard.py",
                     "opencoro_ipy/jupyter/kernel.py", "opencoro_ipy/jupyter/magics.py",
                     "opencoro_ipy/jupyter/shell.py", "opencoro_ipy/jupyter/terminal.py",
                     "opencoro_ipy/jupyter/extension.py", "opencoro_ipy/jupyter/threads.py")
#: (file, function) of the import system that change tables shared by all importers. None that blocks:
#: a protected frame that waits for a suspended coroutine would wait for ever.
PROTECTED_FUNCTIONS = {
    ("<frozen importlib._bootstrap>", name) for name in ("_get_module_lock", "cb")
}
#: Extension modules read and tested under preemption: no pointers into the C stack, no thread-local chains.
REVIEWED_IMAGES = ("numpy", "pandas")


def _roots(package: str) -> tuple[str, ...]:
    """The folders of a top-level package, or the file of a module; without importing it."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return ()
    if spec is None:
        return ()
    return tuple(spec.submodule_search_locations or ([spec.origin] if spec.origin else ()))


@functools.cache
def _files(name: str) -> frozenset[str]:
    """Source files of a module, or of all of a package, as they appear in ``co_filename``."""
    package, *rest = name.split(".")
    found = set()
    for root in _roots(package):
        path = os.path.join(root, *rest)
        if os.path.isdir(path):
            for folder, _, names in os.walk(path):
                found |= {os.path.join(folder, n) for n in names if n.endswith(".py")}
        else:
            found.add(path if path.endswith(".py") else path + ".py")
    return frozenset(f for f in found if not f.replace(os.sep, "/").endswith(TRANSPARENT_FILES))


def _site(name: str) -> list[str]:
    return [root + os.sep for root in _roots(name) if os.path.isdir(root)]


def _interpreter_images() -> list[str]:
    """libpython, the interpreter's own extension modules, and ourselves."""
    dirs = {sysconfig.get_config_var("DESTSHARED"), os.path.dirname(sysconfig.get_path("stdlib"))}
    images = [d + os.sep for d in dirs if d]
    images += [os.path.join(os.path.dirname(d), "libpython3") for d in list(images)]
    libdir = sysconfig.get_config_var("LIBDIR")
    if libdir:
        images += [os.path.join(d, "libpython3") for d in {libdir, os.path.realpath(libdir)}]
    images += [os.path.realpath(sys.executable), os.path.dirname(_native.__file__ or "") + os.sep]
    return images


@functools.cache
def _own_images() -> list[str]:
    """The folder that holds site-packages would allow every extension module: its parts are named instead."""
    out = []
    for image in _interpreter_images():
        if os.path.isdir(image) and os.path.isdir(os.path.join(image, "site-packages")):
            out.append(os.path.join(image, "lib-dynload") + os.sep)
        elif not (os.path.isdir(image) and any(n.startswith("python3") for n in os.listdir(image))):
            out.append(image)
    return out


@functools.cache
def _libc_images() -> list[str]:
    """libc and its parts, wherever the loader found them."""
    names = ("libc.so", "libc-", "libm.so", "libm-", "libpthread", "ld-linux", "libdl")
    found = []
    try:
        with open("/proc/self/maps") as maps:
            for line in maps:
                path = line.split(maxsplit=5)[-1].strip()
                if os.path.basename(path).startswith(names) and path not in found:
                    found.append(path)
    except OSError:
        pass
    return found


def configure() -> None:
    """Hand the tables to the native guard. Called when the monitor starts."""
    own = _own_images()
    allow = own + _libc_images() + [p for name in REVIEWED_IMAGES for p in _site(name)]
    eintr = own + [p for p in _site("zmq")]
    files = set().union(*map(_files, PROTECTED))
    _native.configure(allow, eintr, files, PROTECTED_FUNCTIONS)


class no_preempt:  # noqa: N801 - used like a function
    """``with no_preempt():`` the running coroutine is not preempted. Nests; outside of one, does nothing.

    A request that arrives meanwhile is kept and honoured right after the block.
    """

    def __enter__(self) -> None:
        self._counted = _native.inhibit(1)

    def __exit__(self, *exc: object) -> None:
        if self._counted:
            _native.inhibit(-1)


# -- locks whose owner is a coroutine, not the thread ------------------------------------------------
_replaced: list[tuple[ModuleType, str, Any]] = []


def install_locks() -> None:
    """Make RLocks and import locks know coroutines. Idempotent; undone by restore_locks()."""
    if _replaced:
        return
    import _thread
    import importlib._bootstrap as bootstrap  # type: ignore[import-not-found]

    shim = ModuleType("_thread")
    shim.__dict__.update(_thread.__dict__)
    shim.get_ident = _native.ident  # type: ignore[attr-defined]
    shim.RLock = _native.RLock  # type: ignore[attr-defined]
    for module, name, new in ((bootstrap, "_thread", shim), (threading, "_CRLock", _native.RLock),
                              (functools, "RLock", _native.RLock)):
        if hasattr(module, name):
            _replaced.append((module, name, getattr(module, name)))
            setattr(module, name, new)


def restore_locks() -> None:
    """What install_locks replaced is as before; locks made meanwhile go on working."""
    while _replaced:
        module, name, old = _replaced.pop()
        setattr(module, name, old)
