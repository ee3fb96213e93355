"""The notebooks run under nbclient, and a notebook gives the same with and without the extension."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_run(path):
    NotebookClient(nbformat.read(path, as_version=4), timeout=60, kernel_name="python3").execute()


def test_a_notebook_gives_the_same_with_the_extension():
    sources = ["import sys\nx = 21", "print('a'); print('b', file=sys.stderr)\nx * 2", "_ + 1", "x;",
               "from IPython.display import display\ndisplay(1); display({'a': 2})", "import asyncio\nawait asyncio.sleep(0, 7)",
               "%%capture c\nprint(3)", "c.stdout", "%time 5", "try:\n    1/0\nexcept ZeroDivisionError as e: print(e)", "Out[3]"]
    got = {}
    for first in ("pass", "%load_ext opencoro_ipy"):
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in (first, *sources)])
        NotebookClient(nb, timeout=60, kernel_name="python3").execute()
        got[first] = [(c.execution_count, [o for o in c.outputs if "Wall time" not in str(o)]) for c in nb.cells[1:]]
    assert got["pass"] == got["%load_ext opencoro_ipy"]
