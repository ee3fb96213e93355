"""``python -m opencoro_ipy install`` as a user runs it."""

import json
import subprocess
import sys


def cli(*args):
    return subprocess.run([sys.executable, "-m", "opencoro_ipy", *args], capture_output=True, text=True, timeout=60)


def test_install_writes_a_kernelspec_that_loads_the_extension(tmp_path):
    ran = cli("install", "--prefix", str(tmp_path), "--name", "mine")
    assert ran.returncode == 0, ran.stderr
    spec = json.loads((tmp_path / "share/jupyter/kernels/mine/kernel.json").read_text())
    assert spec["display_name"] == "Python 3 (preemptible)"
    assert spec["argv"][0] == sys.executable and spec["argv"][-1] == "--ext=opencoro_ipy"


def test_bad_names_and_options_say_what_is_allowed(tmp_path):
    ran = cli("install", "--prefix", str(tmp_path), "--name", "a b/c")
    assert ran.returncode == 2 and "letters, digits" in ran.stderr
    assert cli("install", "--user", "--sys-prefix").returncode == 2
    assert cli("nonsense").returncode == 2
