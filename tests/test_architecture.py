"""Imports point down; the runtime knows no Jupyter; files stay short; exported names are documented."""

import ast
from pathlib import Path

import opencoro_ipy

ROOT = Path(opencoro_ipy.__file__).parent
ORDER = ["_native", "errors", "states", "events", "policy", "isolation", "guard", "monitor", "coroutine",
         "scheduler", "jupyter", "__init__", "demo", "cli", "__main__"]
NATIVE_USERS = {"guard", "monitor", "coroutine", "scheduler"}
JUPYTER = {"IPython", "ipykernel", "ipywidgets", "traitlets", "zmq", "jupyter_client"}
ALLOWED_JUPYTER = {"jupyter", "demo", "cli"}


def layer(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0]


def imports(path):
    """(absolute first name or '.layer') of each import; those under TYPE_CHECKING are left out."""
    tree = ast.parse(path.read_text())
    skip = {n for i in ast.walk(tree) if isinstance(i, ast.If) and "TYPE_CHECKING" in ast.dump(i.test)
            for n in ast.walk(i)}
    depth = len(path.relative_to(ROOT).parts) - 1
    for node in ast.walk(tree):
        if node in skip:
            continue
        if isinstance(node, ast.Import):
            yield from (a.name.split(".")[0] for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.level == depth + 1:
            names = [node.module.split(".")[0]] if node.module else [a.name for a in node.names]
            yield from ("." + n for n in names)


def test_imports_point_down():
    for path in ROOT.rglob("*.py"):
        me = layer(path)
        for name in imports(path):
            if name.startswith(".") and name[1:] in ORDER and me != "__init__":
                assert ORDER.index(name[1:]) <= ORDER.index(me), f"{path.name} imports {name}"
                if name == "._native":
                    assert me in NATIVE_USERS, f"{path.name} imports _native"
            elif name in JUPYTER:
                assert me in ALLOWED_JUPYTER, f"{path.name} imports {name}"


def test_files_are_short():
    repo = Path(__file__).parent.parent
    for path in [*ROOT.rglob("*.py"), *repo.glob("native/*.[ch]")]:
        assert len(path.read_text().splitlines()) <= 400, path


def test_exported_names_exist_and_are_documented():
    for name in opencoro_ipy.__all__:
        assert getattr(opencoro_ipy, name).__doc__, name
