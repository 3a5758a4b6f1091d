"""`einsumc cache`: what it lists, shows, checks and deletes."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from einsumc.compiler.describe import describe
from einsumc.compiler.described import read
from einsumc.compiler.resolve import resolve
from einsumc.compiler.subscripts import parse
from einsumc.runtime import kernels, verify_store
from einsumc.runtime.cli import command
from einsumc.runtime.decorator import compile_einsum
from einsumc.runtime.kernel_file import PREFIX, encode
from einsumc.runtime.plan import plan
from einsumc.runtime.precompile import build, jobs_for
from einsumc.runtime.provenance import provenance
from einsumc.runtime.signatures import parse_signature
from einsumc.runtime.store import Store
from einsumc.runtime.virtual import virtual
from kernel_stores import overwrite, path_of, quiet, sample

pytestmark = pytest.mark.usefixtures("fresh_stores", "few_calls")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EINSUMC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("EINSUMC_TARGET", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def store(cache: Path) -> Store:
    """A kernel, and the two programs that go into every store."""
    fill("i,i->", [(64,), (64,)], "f4[64], f4[64]")
    return Store(cache)


def fill(equation, shapes, signature):
    """Compile the one kernel that a call with arrays in C order takes."""
    plan = compile_einsum(equation).explain(*(np.ones(shape, "f4") for shape in shapes))
    subscripts = parse(equation)
    jobs = jobs_for(subscripts, [parse_signature(signature, subscripts)])
    build([job for job in jobs if job.key == plan.steps[0].key or not job.dtypes])


def run(*arguments, status=0):
    result = CliRunner().invoke(command, ["cache", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result


def the_kernel(store: Store) -> str:
    return next(e.key for e in store.entries() if provenance(e.header).kind == "streamed")


def test_list(store, monkeypatch):
    lines = run("list").stdout.splitlines()
    (line,) = (line for line in lines if "streamed" in line)
    for text in ("v,v->", "f4[v:1], f4[v:1] -> f4[]", "x86-64-v", "today", "this", "llvmlite "):
        assert text in line
    assert lines[-2] == "none of them needs Numba, llvmlite or a linker to be loaded"
    assert lines[-1].startswith("3 kernels, ")
    days_ago = time.time() - 3.5 * 86400
    os.utime(path_of(store, the_kernel(store)), (days_ago, days_ago))
    monkeypatch.setattr("einsumc.compiler.describe.generator", lambda: "newer")
    (line,) = (line for line in run("list").stdout.splitlines() if "streamed" in line)
    assert "3 days ago" in line
    assert " other " in line


def test_another_directory(store, tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("list", "verify", "prune", "clear"):
        assert str(tmp_path / "empty") in run(name, "--store", tmp_path / "empty").stdout
        missing = run(name, "--store", tmp_path / "none", status=2).stderr
        assert f"there is no directory {tmp_path / 'none'}" in missing
    assert len(store.keys()) == 3
    assert run("path").stdout == f"{store.path}\n"


def test_a_target_that_is_not_here(cache, monkeypatch):
    monkeypatch.setenv("EINSUMC_TARGET", "x86-64-v4")
    fill("i,i->", [(64,), (64,)], "f4[64], f4[64]")
    monkeypatch.setattr("einsumc.runtime.provenance.can_run", lambda features: False)
    assert "(x86-64-v4)" in run("list").stdout


def test_files_that_say_little_are_listed(cache):
    Store(cache).put(*sample())
    assert "1 kernels, " in run("list").stdout
    run("show", sample()[0][:8])
    assert "not compiled again: built by another version" in run("verify").stdout


def test_show(store):
    key = the_kernel(store)
    shown = run("show", key[:10]).stdout
    for text in (key, "v,v->", "f4[v:1], f4[v:1] -> f4[]", "llvmlite", "Schedule(recipe="):
        assert text in shown
    source = run("show", key, "--source").stdout
    assert "def kernel(" in source
    compile(source, "kernel", "exec")
    assert "einsumc_kernel:" in run("show", key, "--asm").stdout
    (pool,) = (e.key for e in store.entries() if provenance(e.header).kind == "thread pool")
    assert "define" in run("show", pool, "--source").stdout
    assert "see its source" in run("show", pool, "--asm", status=1).stderr


def test_show_what_is_not_there(store):
    assert "no kernel in" in run("show", "123456789", status=2).stderr
    assert "3 kernels in" in run("show", "", status=2).stderr
    key = the_kernel(store)
    overwrite(path_of(store, key), b"EINSUMC")
    assert "damaged" in quiet(lambda: run("show", key, status=1)).stderr


def test_the_source_of_another_version_is_not_made_up(store, monkeypatch):
    monkeypatch.setattr("einsumc.compiler.describe.generator", lambda: "newer")
    for option in ("--source", "--asm"):
        problem = run("show", the_kernel(store), option, status=1).stderr
        assert "another version of einsumc's code generator" in problem


def test_verify_compiles_again_and_compares(store, monkeypatch):
    compiled = []
    monkeypatch.setattr(
        kernels, "compiled", lambda *a, f=kernels.compiled: compiled.append(a) or f(*a)
    )
    said = run("verify", "--jobs", 1).stdout
    assert "3 kernels in" in said
    assert "3 compiled again: the same bytes" in said
    assert len(compiled) == 1
    assert "compiled again" not in run("verify", "--quick").stdout
    assert len(compiled) == 1


def test_verify_in_several_processes(store):
    fill("ij,j->i", [(64, 64), (64,)], "f4[64,64], f4[64]")
    assert "all sound" in run("verify", "--jobs", 2).stdout


def rewritten(store, key, change):
    """The same file with other code, or another header, and a right digest."""
    path = path_of(store, key)
    blob = path.read_bytes()
    length = PREFIX.unpack(blob[: PREFIX.size])[2]
    text, image = blob[PREFIX.size : PREFIX.size + length], blob[PREFIX.size + length :]
    overwrite(path, encode(*change(text, image)))


def test_verify_finds_other_code_under_a_right_digest(store):
    key = the_kernel(store)
    rewritten(store, key, lambda text, image: (text, image[:-1] + bytes([image[-1] ^ 1])))
    assert store.verify(key)
    said = run("verify", status=1).stderr
    assert f"kernel {key[:12]}: compiled again, it is other code" in said
    assert "1 of 3 kernels are wrong" in said


def test_verify_finds_another_header_under_a_right_digest(store):
    key = the_kernel(store)
    tiles = b'"tiles":[["V",8]]'
    rewritten(store, key, lambda text, image: (_tiles(text, tiles), image))
    assert store.verify(key)
    assert "has another tiles in its header" in run("verify", status=1).stderr


def _tiles(text: bytes, new: bytes) -> bytes:
    begin = text.index(b'"tiles":')
    return text[:begin] + new + b"}"  # the last name in the order of the alphabet


def test_verify_finds_damage(store):
    key = the_kernel(store)
    path = path_of(store, key)
    overwrite(path, path.read_bytes()[:-1])
    for options in ((), ("--quick",)):
        assert "damaged" in quiet(lambda o=options: run("verify", *o, status=1)).stderr


def test_verify_leaves_alone_what_others_built(cache, monkeypatch):
    monkeypatch.setattr(kernels, "toolchain", lambda: "llvmlite 0.1, numba 0.2, Python 3.11")
    fill("i,i->", [(64,), (64,)], "f4[64], f4[64]")
    monkeypatch.undo()
    monkeypatch.setenv("EINSUMC_CACHE_DIR", str(cache))
    said = run("verify").stdout
    assert "0 compiled again" in said
    assert "3 not compiled again: built by llvmlite 0.1, numba 0.2, Python 3.11; " in said


def test_prune(store, monkeypatch):
    assert "0 kernels deleted" in run("prune").stdout
    key = the_kernel(store)
    overwrite(path_of(store, key), b"EINSUMC")
    assert "1 kernels deleted" in quiet(lambda: run("prune", "--size", "1GB")).stdout
    assert key not in {*store.keys()}
    assert "0 kernels deleted" in run("prune", "--others").stdout
    store.put(*sample())
    assert "1 kernels deleted" in run("prune", "--others").stdout
    monkeypatch.setenv("EINSUMC_CACHE_SIZE", "1 KiB")
    assert "2 kernels deleted" in run("prune").stdout
    assert "is a number and one of" in run("prune", "--size", "much", status=2).stderr


def test_a_schedule_is_read_as_it_was_written(store):
    for equation, shapes in [
        ("ij,jk->ik", [(640, 320), (320, 480)]),
        ("abc->cba", [(90, 200, 300)]),
        ("abi,ibj->aj", [(3, 4, 5), (5, 4, 30)]),
        ("i,j,k->ijk", [(30,), (40,), (50,)]),
    ]:
        expression = resolve(parse(equation), shapes)
        for step in plan(expression, [virtual(shape, "f4") for shape in shapes]).steps:
            text = describe(step.choice.schedule)
            assert describe(read(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "1", "Schedule()", "Schedule(recipe='x')", "open('x')", "Split(1, 2, 3)", "(" * 9999),
        *("Schedule(**{})", "Split(group='a', suffix='b', step=__import__('os'))", "[].x", "\0"),
    ],
)
def test_what_is_no_schedule_is_refused(text):
    with pytest.raises(ValueError, match="no schedule of this version"):
        read(text)


def test_an_empty_verdict():
    assert verify_store.verify_store(Store("/nowhere"), []) == verify_store.Verdict()
