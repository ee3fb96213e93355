"""Imports point down; the runtime knows no Jupyter; files stay short; exported names are documented."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import opencoro_ipy

# What each module, or folder, may import of this package. Lowest first: a row names rows above it only.
# A new module needs a row. Imports inside functions count; those under TYPE_CHECKING do not.
ALLOWED = {
    "_native": "",
    "errors": "",
    "states": "",
    "events": "states",
    "policy": "",
    "isolation": "",
    "guard": "_native",
    "monitor": "_native errors guard",
    "coroutine": "_native errors states events policy isolation monitor",
    "runqueue": "_native policy",
    "scheduler": "errors states events policy monitor coroutine runqueue",
    "jupyter": "errors states events policy isolation guard monitor coroutine scheduler",
    "__init__": "errors states events guard monitor coroutine scheduler jupyter",
    "demo": "__init__",
    "bench": "__init__",
    "cli": "__init__ demo",
    "__main__": "cli",
}
JUPYTER = {"IPython", "ipykernel", "ipywidgets", "anywidget", "traitlets", "zmq", "jupyter_client", "comm"}
MAY_IMPORT_JUPYTER = {"jupyter", "demo", "bench", "cli"}

ROOT = Path(opencoro_ipy.__file__).parent
REPO = Path(__file__).parent.parent
MODULES = sorted(ROOT.rglob("*.py"))


def is_type_checking(test):
    return (getattr(test, "id", None) or getattr(test, "attr", None)) == "TYPE_CHECKING"


def executed(node):
    """The nodes below, but not the bodies of ``if TYPE_CHECKING``."""
    yield node
    skipped = node.body if isinstance(node, ast.If) and is_type_checking(node.test) else []
    for child in ast.iter_child_nodes(node):
        if child not in skipped:
            yield from executed(child)


def imports(parts, source):
    """(rows of ALLOWED, names of other packages) that the module at these path parts imports."""
    package = ["opencoro_ipy", *parts[:-1]]
    ours, theirs = set(), set()
    for node in executed(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [a.name.split(".") for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            names = [base + [a.name] for a in node.names]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant) \
                and getattr(node.func, "attr", getattr(node.func, "id", "")) in ("import_module", "__import__"):
            names = [str(node.args[0].value).split(".")]
        else:
            continue
        for first, *rest in names:
            if first != "opencoro_ipy":
                theirs.add(first)
            else:
                ours.add(rest[0] if rest and (rest[0] in ALLOWED or (ROOT / f"{rest[0]}.py").exists()
                                              or (ROOT / rest[0]).is_dir()) else "__init__")
    return ours, theirs


@pytest.mark.parametrize("parts, source, expected", [
    (["a.py"], "from . import monitor, __version__", ({"monitor", "__init__"}, set())),
    (["a.py"], "from .jupyter.cells import x", ({"jupyter"}, set())),
    (["a.py"], "def f():\n  import opencoro_ipy.scheduler, zmq.asyncio", ({"scheduler"}, {"zmq"})),
    (["a.py"], "from opencoro_ipy import demo", ({"demo"}, set())),
    (["a.py"], "importlib.import_module('IPython.core')", (set(), {"IPython"})),
    (["jupyter", "a.py"], "from ..cli import x\nfrom .cells import y", ({"cli", "jupyter"}, set())),
    (["a.py"], "if TYPE_CHECKING:\n  from . import cli\nelse:\n  from . import demo", ({"demo"}, set())),
])
def test_imports_are_found_however_they_are_written(parts, source, expected):
    assert imports(parts, source) == expected


def test_the_table_points_down():
    above = {"__init__"}  # its own attributes, the version, are there before anything that asks for them
    for name, allowed in ALLOWED.items():
        assert set(allowed.split()) <= above, name
        above.add(name)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    parts = path.relative_to(ROOT).parts
    me = parts[0].removesuffix(".py")
    assert me in ALLOWED, f"{me} has no row in ALLOWED"
    ours, theirs = imports(parts, path.read_text())
    assert ours <= {me, *ALLOWED[me].split()}
    if me not in MAY_IMPORT_JUPYTER:
        assert not theirs & JUPYTER


def test_importing_the_package_loads_no_jupyter():
    """What the AST cannot see: names that a dependency of the runtime pulls in."""
    code = "import sys, opencoro_ipy; print(*{m.split('.')[0] for m in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    assert "opencoro_ipy" in loaded.split() and not JUPYTER & set(loaded.split())


def test_the_tests_run_against_the_installed_package():
    """The folder beside the tests has no _native: kernels that find it first would run without the extension."""
    assert REPO / "opencoro_ipy" != ROOT


@pytest.mark.parametrize("folder", ["opencoro_ipy", "native", "tests"])
def test_files_are_short(folder):
    paths = [p for p in (REPO / folder).rglob("*") if p.suffix in (".py", ".pyi", ".c", ".h")]
    assert paths
    assert [p.name for p in paths if len(p.read_text().splitlines()) > 400] == []


@pytest.mark.parametrize("name", opencoro_ipy.__all__)
def test_exported_names_exist_and_are_documented(name):
    assert (getattr(opencoro_ipy, name).__doc__ or "").strip()
