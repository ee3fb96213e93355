"""``python -m opencoro_ipy`` as a user runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import ipykernel.kernelspec
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

import opencoro_ipy


def cli(*args, **env):
    return subprocess.run([sys.executable, "-m", "opencoro_ipy", *args], capture_output=True, text=True, timeout=60,
                          env={**os.environ, **env})


def kernels(prefix):
    """{name: kernel.json} of what is installed below the prefix."""
    return {p.parent.name: json.loads(p.read_text()) for p in Path(prefix).glob("share/jupyter/kernels/*/kernel.json")}


def test_the_kernelspec_is_ipykernels_plus_the_extension(tmp_path):
    ran = cli("install", "--prefix", str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    folder = tmp_path / "share/jupyter/kernels/python3-preemptible"
    assert f"python3-preemptible in {folder}" in ran.stdout
    expected = ipykernel.kernelspec.get_kernel_dict(["--ext=opencoro_ipy"], ["-Xfrozen_modules=off"])
    spec = kernels(tmp_path)["python3-preemptible"]
    assert spec == {**expected, "display_name": "Python 3 (preemptible)"}
    assert spec["argv"][0] == sys.executable and spec["metadata"]["debugger"] is True
    logos = {p.name for p in Path(ipykernel.kernelspec.RESOURCES).glob("logo*")}
    assert logos and logos <= {p.name for p in folder.iterdir()}


def test_names_and_environment_are_the_users(tmp_path):
    cli("install", "--prefix", str(tmp_path), "--name", "Mine")
    cli("install", "--prefix", str(tmp_path), "--name", "b", "--display-name", "B!", "--env", "X", "1", "--env", "Y", "=")
    specs = kernels(tmp_path)
    assert set(specs) == {"mine", "b"}  # Jupyter looks names up in lower case
    assert specs["mine"]["display_name"] == "Mine" and "env" not in specs["mine"]
    assert specs["b"]["display_name"] == "B!" and specs["b"]["env"] == {"X": "1", "Y": "="}


def test_installing_again_replaces_what_is_there(tmp_path):
    cli("install", "--prefix", str(tmp_path), "--env", "OLD", "1")
    assert cli("install", "--prefix", str(tmp_path)).returncode == 0
    assert "env" not in kernels(tmp_path)["python3-preemptible"]


def test_sys_prefix_is_the_prefix_of_the_python_that_runs(tmp_path):
    ran = subprocess.run([sys.executable, "-c", f"import sys; sys.prefix = {str(tmp_path)!r}; import opencoro_ipy.cli;"
                          "sys.exit(opencoro_ipy.cli.main(['install', '--sys-prefix']))"], timeout=60)
    assert ran.returncode == 0 and set(kernels(tmp_path)) == {"python3-preemptible"}


def test_user_is_jupyters_data_folder(tmp_path):
    assert cli("install", "--user", JUPYTER_DATA_DIR=str(tmp_path)).returncode == 0
    assert (tmp_path / "kernels/python3-preemptible/kernel.json").is_file()


@pytest.mark.parametrize("args", [
    ["install", "--name", "a b/c"], ["install", "--name", ""], ["install", "--name", "../up"], ["install", "--name", "nl\n"],
    ["install", "--user", "--sys-prefix"], ["install", "--env", "X"], ["nonsense"], [],
], ids=repr)
def test_bad_usage_installs_nothing_and_says_why(tmp_path, args):
    if args[:1] == ["install"] and "--user" not in args:
        args = [*args, "--prefix", str(tmp_path)]
    ran = cli(*args, JUPYTER_DATA_DIR=str(tmp_path))
    assert ran.returncode == 2 and ran.stderr and "Traceback" not in ran.stderr
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_user_and_prefix_exclude_each_other(tmp_path):
    ran = cli("install", "--user", "--prefix", str(tmp_path))
    assert ran.returncode == 2 and "not allowed with" in ran.stderr and not kernels(tmp_path)


def test_a_place_that_cannot_be_written_is_an_error_not_a_traceback(tmp_path):
    (tmp_path / "share").write_text("a file where a folder should be")
    ran = cli("install", "--prefix", str(tmp_path))
    assert ran.returncode == 1 and "cannot install" in ran.stderr and "Traceback" not in ran.stderr


def test_version_is_the_packages():
    assert cli("--version").stdout == f"opencoro-ipy {opencoro_ipy.__version__}\n"


@pytest.mark.kernel
@pytest.mark.parametrize("configuration", ["", "c.InteractiveShellApp.extensions = ['opencoro_ipy']\n"])
def test_an_installed_kernel_loads_the_extension_once_whatever_the_configuration_says(tmp_path, configuration):
    """--ext and a configured extension together: IPython loads the second only if it is not loaded yet."""
    assert cli("install", "--prefix", str(tmp_path / "p")).returncode == 0
    profile = tmp_path / "ipython/profile_default"
    profile.mkdir(parents=True)
    (profile / "ipython_config.py").write_text(configuration)
    specs = KernelSpecManager(kernel_dirs=[str(tmp_path / "p/share/jupyter/kernels")])
    km = KernelManager(kernel_name="python3-preemptible", kernel_spec_manager=specs)
    log = (tmp_path / "log").open("w+")
    km.start_kernel(env={**os.environ, "IPYTHONDIR": str(tmp_path / "ipython")}, stderr=log)
    kc = km.client()
    try:
        kc.start_channels()
        kc.wait_for_ready(timeout=60)
        question = "sorted(m for m in get_ipython().extension_manager.loaded if 'opencoro' in m)"
        reply = kc.execute_interactive("", user_expressions={"loaded": question}, timeout=30)
        loaded = reply["content"]["user_expressions"]["loaded"]["data"]["text/plain"]
        reply = kc.execute_interactive("", user_expressions={"magic": "callable(get_ipython().find_cell_magic('preempt'))"},
                                       timeout=30)
    finally:
        kc.stop_channels()
        km.shutdown_kernel(now=True)
    log.seek(0)
    assert loaded == "['opencoro_ipy']" and "Error in loading extension" not in log.read()
    assert reply["content"]["user_expressions"]["magic"]["data"]["text/plain"] == "True"
