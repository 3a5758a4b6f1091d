"""The command line: output, errors without tracebacks, exit statuses."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from einsumc import __version__, show_versions
from einsumc.runtime.cli import command
from einsumc.runtime.manifest import read_requests
from einsumc.runtime.precompile import jobs_for
from einsumc.runtime.store import Store, StoreWarning

FILE = """
[[kernel]]
equation = "i,i->"
signatures = ["f4[64], f4[64]"]
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, few_calls: None) -> Iterator[Path]:
    before = dict(os.environ)
    os.environ["EINSUMC_CACHE_DIR"] = str(tmp_path / "cache")
    os.environ.pop("EINSUMC_TARGET", None)
    yield tmp_path / "cache"
    os.environ.clear()  # options of the command set variables of the process
    os.environ.update(before)


def run(*arguments, status=0):
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output
    return result


def test_show():
    shown = run("show", "ij,jk,kl->il", "--shapes", "640x320,320x480,480x200").stdout
    assert "t0[j,l] = sum_k b[j,k] * c[k,l]" in shown
    assert "def kernel(" in shown
    assert "float32" in shown


def test_show_one_stage():
    arguments = ("show", "ij,->i", "--shapes", "3x4,()", "--dtype", "f8", "--stage")
    program = run(*arguments, "program").stdout
    assert program.startswith("ij,->i    i=3 j=4    float64\n")
    assert "def kernel" not in program
    both = run(*arguments, "source", "--stage", "program").stdout
    assert both.startswith(program)
    assert "def kernel(" in both


def test_show_measures():
    arguments = ("show", "ij,jk->ik", "--shapes", "30x40,40x50", "--stage", "tree")
    assert "measured" not in run(*arguments).stdout
    assert "measured" in run(*arguments, "--measure").stdout


def test_show_all_has_assembly():
    assert "einsumc_kernel" in run("show", "i,i->", "--shapes", "9,9", "--stage", "all").stdout


def kernels_of(file):
    """How many kernels a file asks for, those of a signature and the general ones."""
    (request,) = read_requests(file)
    return len(jobs_for(request.subscripts, request.signatures))


def test_precompile_check_list_and_clear(tmp_path, cache):
    file, output = tmp_path / "kernels.toml", tmp_path / "output"
    file.write_text(FILE)
    missing = run("precompile", file, "--output", output, "--check", status=1)
    count = kernels_of(file)
    assert f"{count} of {count} kernels" in missing.stderr
    assert "is missing" in missing.stderr
    assert not output.exists()

    assert f"{count} compiled, 0 there before" in run("precompile", file, "--output", output).stdout
    assert f"0 compiled, {count} there before" in run("precompile", file, "--output", output).stdout
    assert "all there and sound" in run("precompile", file, "--output", output, "--check").stdout
    assert len(Store(output).keys()) == count
    assert not cache.exists()

    path = next(output.rglob("*.kernel"))
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(StoreWarning, match="is damaged and counts as missing"):
        missing = run("precompile", file, "--output", output, "--check", status=1)
    assert "damaged" in missing.stderr


def test_precompile_for_another_level(tmp_path, cache):
    file = tmp_path / "kernels.toml"
    file.write_text(FILE)
    assert "\nx86-64-v4 " in run("precompile", file, "--target", "x86-64-v4", "--jobs", 1).stdout
    listed = run("cache", "list").stdout
    assert "f4[v:1], f4[v:1] -> f4[]" in listed
    assert "x86-64-v4" in listed
    count = kernels_of(file)
    assert f"\n{count} kernels, " in listed
    assert run("cache", "clear").stdout == f"{count} kernels deleted from {cache}\n"
    assert run("cache", "list").stdout == f"0 kernels, 0 B, in {cache}\n"


def test_cache_path(cache):
    assert run("cache", "path").stdout == f"{cache}\n"


def test_bench():
    lines = run("bench", "row i, i -> row", "--shapes", "5x6,6", "--rounds", 1).stdout.splitlines()
    assert lines[1].startswith("einsumc ")
    assert lines[2].startswith("np.einsum ")
    assert lines[1].split()[3] == "1.00"


def test_versions(capsys):
    show_versions()
    printed = capsys.readouterr().out
    assert run("versions").stdout == printed
    for name in ("einsumc", "Python", "numpy", "numba", "llvmlite", "opt_einsum", "store"):
        assert f"\n{name} " in f"\n{printed}"
    assert run("--version").stdout == f"einsumc {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message", "status"),
    [
        (("show", "ij->z", "--shapes", "2x3"), "output index 'z'", 2),
        (("show", "ij->i", "--shapes", "2x"), "is no shape", 2),
        (("show", "ij->i", "--shapes", "2x3", "--dtype", "f3"), "'f3' is none of b1", 2),
        (("show", "ij->i", "--shapes", "2x3x4"), "operand 0 has 3 axes", 2),
        (("show", "ij->i"), "Missing option '--shapes'", 2),
        (("precompile", "no such file"), "is no file", 2),
        (("bench", "ij,jk->ik", "--shapes", "2x3,4x5"), "index 'j' has size 3", 2),
        (("no-such-command",), "No such command", 2),
    ],
)
def test_errors_are_messages(arguments, message, status):
    result = run(*arguments, status=status)
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_wrong_settings(monkeypatch):
    monkeypatch.setenv("EINSUMC_TARGET", "pdp-11")
    assert "EINSUMC_TARGET='pdp-11'" in run("cache", "path", status=2).stderr


def test_compiling_forbidden(monkeypatch):
    monkeypatch.setenv("EINSUMC_COMPILE", "never")
    arguments = ("bench", "abc,abd,abe->cde", "--shapes", "2x3x4,2x3x5,2x3x6", "--dtype", "c16")
    assert "EINSUMC_COMPILE=never" in run(*arguments, status=1).stderr


def test_it_is_a_program_and_starts_quickly(cache):
    code = (
        "import sys; from einsumc.runtime.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'numpy', 'numba', 'rich', 'llvmlite'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "cache", "path"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{cache}\n[]\n", "")
