"""What `einsumc precompile` takes: manifests, modules, records; several levels; `--check`."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner
from einsumc.compiler.errors import EinsumError
from einsumc.runtime.cli import command
from einsumc.runtime.key import kernel_key
from einsumc.runtime.manifest import read_requests
from einsumc.runtime.store import Store
from einsumc.runtime.wanted import jobs_of, read_module, read_source, wanted_kernels

MODULE = """
from einsumc import compile_einsum
from {other} import outer

@compile_einsum("i,i->", signatures=["f4[64], f4[64]"])
def dot(a, b): ...

again = dot

@compile_einsum("i,i->")
def without_signatures(a, b): ...

class Sums:
    @staticmethod
    @compile_einsum("ij->j", signatures=["f8[8,8]"], optimize=lambda *_: [(0,)], memory_limit=4096)
    def columns(a): ...
"""
OTHER = """
from einsumc import compile_einsum

@compile_einsum("i,j->ij", signatures=["f4[8], f4[8]"])
def outer(a, b): ...
"""
SMALL = '[[kernel]]\nequation = "i,i->"\nsignatures = ["f4[64], f4[64]"]\n'


@pytest.fixture(autouse=True)
def _variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_calls: None) -> None:
    monkeypatch.setenv("EINSUMC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("EINSUMC_TARGET", raising=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with modules; their names are this test's own."""
    here = tmp_path / "work"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    (here / "wanted_other.py").write_text(OTHER)
    (here / "wanted_package").mkdir()
    (here / "wanted_package" / "__init__.py").write_text("")
    (here / "wanted_package" / "kernels.py").write_text(MODULE.format(other="wanted_other"))
    yield here
    for name in set(sys.modules) - before:
        if name.startswith("wanted_"):
            del sys.modules[name]


def invoke(*arguments: object, status: int = 0):
    result = CliRunner().invoke(command, ["precompile", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result


# --- sources --------------------------------------------------------------------------------------


def test_module_gives_every_compiled_einsum_that_has_signatures(folder):
    requests = read_module("wanted_package.kernels")
    assert [request.subscripts.text for request in requests] == ["i,j->ij", "i,i->", "ij->j"]
    assert [len(request.signatures) for request in requests] == [1, 1, 1]
    assert requests[2].memory_limit == 4096
    assert callable(requests[2].optimize)


@pytest.mark.parametrize(
    ("source", "text", "message"),
    [
        ("wanted_none", None, "there is no module 'wanted_none', nor a file"),
        ("wanted_package.none", None, "there is no module 'wanted_package.none'"),
        ("no such file", None, "'no such file' is no file, and no module's name"),
        ("../x", None, "is no file"),
        ("wanted_broken", "import wanted_none_else", "No module named 'wanted_none_else'"),
        ("wanted_broken", "1 / 0", "importing wanted_broken failed: ZeroDivisionError"),
        ("wanted_broken", "x = 1", "has no compiled einsum with signatures"),
    ],
)
def test_sources_that_are_none(folder, source, text, message):
    if text is not None:
        (folder / f"{source}.py").write_text(text)
    with pytest.raises(EinsumError) as caught:
        read_source(source)
    assert message in str(caught.value)
    assert message in invoke(source, status=2).stderr


def test_a_package_is_a_module_though_a_directory_has_its_name(folder):
    (folder / "wanted_folder").mkdir()
    text = "import einsumc\nf = einsumc.compile_einsum('i->', signatures=['f4[i]'])\n"
    (folder / "wanted_folder" / "__init__.py").write_text(text)
    (request,) = read_source("wanted_folder")
    assert request.text == "i->"


def test_a_file_that_is_missing_is_no_module(folder):
    with pytest.raises(OSError, match="No such file"):
        read_source("kernels.toml")
    assert "No such file" in invoke("kernels.toml", status=1).stderr


def test_entries_may_have_a_limit_an_order_and_layouts(tmp_path):
    path = tmp_path / "kernels.toml"
    path.write_text(
        SMALL + 'memory_limit = "1 KiB"\noptimize = "greedy"\nlayouts = ["C*, C", "C, C+"]\n'
    )
    (request,) = read_requests(path)
    assert (request.memory_limit, request.optimize) == (1024, "greedy")
    assert request.layouts == (("C*", "C"), ("C", "C+"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("memory_limit = []", "kernel 1, memory_limit: a size is an int or a text"),
        ('memory_limit = "many"', "kernel 1, memory_limit: a size is a number"),
        ("optimize = 3", "kernel 1, optimize: optimize must be a bool"),
        ('layouts = "C, C"', "kernel 1: expected a list of texts"),
        ('layouts = ["C, C", "C, D"]', "kernel 1, layouts 2: 'D' is no layout"),
        ('layouts = ["C, 012"]', None),
        ('layouts = ["C, 022"]', "'022' is no layout"),
        ('layouts = ["C"]', "the layouts are of 1 operand, not of 2"),
    ],
)
def test_wrong_entries(tmp_path, line, message):
    path = tmp_path / "kernels.toml"
    path.write_text(SMALL + line)
    if message is None:
        assert read_requests(path)
        return
    with pytest.raises(EinsumError) as caught:
        read_requests(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


# --- kernels --------------------------------------------------------------------------------------


def test_layouts_that_are_asked_for_have_kernels_of_their_own(tmp_path):
    path = tmp_path / "kernels.toml"
    text = '[[kernel]]\nequation = "ij,j->i"\nsignatures = ["f4[64,64], f4[64]"]\n'
    path.write_text(text + 'layouts = ["C*, C*", "C+, C"]\n')
    (request,) = read_requests(path)
    path.write_text(text)
    (plain,) = read_requests(path)
    assert {job.key for job in jobs_of(plain)} <= {job.key for job in jobs_of(request)}


def test_several_levels_and_processes(folder):
    requests = read_source("wanted_package.kernels")
    levels = ["x86-64-v2", "x86-64-v4"]
    seen = []
    alone = wanted_kernels(requests, levels, progress=lambda *counts: seen.append(counts))
    assert seen == [(n + 1, 6) for n in range(6)]
    assert {each.job.level for each in alone} == {*levels, "x86-64"}
    programs = [each for each in alone if each.job.level == "x86-64"]
    assert {each.equations for each in programs} == {("i,i->", "i,j->ij", "ij->j")}
    several = wanted_kernels(requests, levels, jobs=2)
    assert [(a.job.key, a.equations) for a in alone] == [
        (each.job.key, each.equations) for each in several
    ]


# --- the command ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_module_record_and_file_into_one_store(folder):
    (folder / "kernels.toml").write_text(SMALL)
    used = folder / "used.toml"
    run = [sys.executable, "-P", "-c", "import numpy as np; from einsumc import einsum;"]
    run[-1] += "einsum('i,i->', np.ones(3, 'f8')[::-1], np.ones(3))"
    subprocess.run(run, env={**os.environ, "EINSUMC_RECORD": str(used)}, check=True)
    arguments = ["wanted_package.kernels", "kernels.toml", used, "--output", folder / "store"]
    arguments += ["--target", "x86-64-v2", "--target", "x86-64-v3", "--jobs", 2]
    missing = invoke(*arguments, "--check", status=1).stderr
    assert "streamed f4,f4->f4 for x86-64-v3: kernel" in missing
    assert "is missing (i,i->)" in missing
    printed = invoke(*arguments).stdout
    assert [line.split()[0] for line in printed.splitlines()[:4]] == [
        "target",
        "x86-64",
        "x86-64-v2",
        "x86-64-v3",
    ]
    assert "0 there before" in printed
    assert "0 compiled" in invoke(*arguments).stdout
    assert "all there and sound" in invoke(*arguments, "--check").stdout


def test_check_finds_what_other_versions_made(folder):
    (folder / "kernels.toml").write_text(SMALL)
    arguments = ["kernels.toml", "--output", folder / "store", "--jobs", 1]
    invoke(*arguments)
    store = Store(folder / "store")
    count = len(store.keys())
    found = store.get(store.keys()[0])
    fields = {**found.header["fields"], "generator": "an older one"}
    key = kernel_key(fields)
    assert store.put(key, {"fields": fields}, found.image)
    printed = invoke(*arguments, "--check", status=1).stderr
    assert f"0 of {count} kernels" in printed
    assert "and 1 are stale" in printed
    assert f"stale: kernel {key[:12]}, made by an older one" in printed
    words = printed.splitlines()[-1].split("einsumc cache ")[1].split()
    CliRunner().invoke(command, ["cache", *words], catch_exceptions=False)
    assert store.get(key) is None
    invoke(*arguments, "--check")


@pytest.mark.slow
def test_equal_stores_whatever_the_order_and_the_processes(folder, tmp_path):
    def contents(name):
        return {p.name: p.read_bytes() for p in (folder / name).rglob("*.kernel")}

    both = ["--target", "x86-64-v3", "--target", "x86-64-v2"]
    invoke("wanted_other", "wanted_package.kernels", *both, "--output", "one", "--jobs", 1)
    swapped = ["--target", "x86-64-v2", "--target", "x86-64-v3"]
    invoke("wanted_package.kernels", "wanted_other", *swapped, "--output", "two", "--jobs", 2)
    assert contents("one") == contents("two") != {}


def test_the_installed_command_takes_modules_of_the_working_directory(folder):
    script = textwrap.dedent(
        """
        import sys
        from einsumc.runtime import covering
        from einsumc.runtime.cli import main
        covering.CALLS = 100
        if __name__ == "__main__":
            main()
        """
    )
    (folder / "command.py").write_text(script)
    words = ["precompile", "wanted_package.kernels", "--output", "store", "--jobs", "2"]
    done = subprocess.run(
        [sys.executable, "-P", str(folder / "command.py"), *words],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "0 there before" in done.stdout
    assert done.stderr == ""  # no progress bar where there is no terminal


@pytest.mark.slow
def test_ctrl_c_twice_ends_it_soon(folder):
    """People press it again when nothing seems to happen."""
    (folder / "kernels.toml").write_text(SMALL.replace("f4", "c16") + SMALL)
    command = [sys.executable, "-m", "einsumc.runtime.cli", "precompile", "kernels.toml"]
    for delay in (0.7, 2.0, 4.0):
        process = subprocess.Popen(
            [*command, "--jobs", "2", "--output", f"store {delay}"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
            start_new_session=True,
            stderr=subprocess.DEVNULL,
        )
        for wait in (delay, 0.3):
            time.sleep(wait)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=20)
