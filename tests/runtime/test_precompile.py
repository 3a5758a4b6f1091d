"""Kernels compiled beforehand are those that ordinary calls ask for; files that ask for them."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from einsumc.compiler.errors import EinsumError
from einsumc.compiler.subscripts import parse
from einsumc.runtime import precompile as module
from einsumc.runtime.decorator import compile_einsum
from einsumc.runtime.manifest import read_requests
from einsumc.runtime.plan import virtual
from einsumc.runtime.precompile import build, jobs_for, precompile
from einsumc.runtime.signatures import parse_signature
from einsumc.runtime.store import Store

PROJECT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EINSUMC_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def wanted(equation, *signatures):
    subscripts = parse(equation)
    return jobs_for(subscripts, [parse_signature(s, subscripts) for s in signatures])


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*.kernel")}


USE = """
import sys, warnings
warnings.simplefilter("error")
import numpy as np, einsumc
from einsumc.runtime.kernels import counts
einsumc.set_num_threads(2)
for i, j in [(1, 1), (1, 7), (5, 1), (3, 4), (8, 9), (20, 33), (301, 200), (700, 900)]:
    a, b = np.random.default_rng(0).standard_normal((i, j)), np.arange(float(j))
    for x in (a, np.asfortranarray(a)):
        np.testing.assert_allclose(einsumc.einsum("ij,j->i", x, b), x @ b, rtol=1e-9, atol=1e-9)
assert counts.compiled == 0 and counts.stored > 2, counts
assert not {"numba", "llvmlite"} & set(sys.modules)
"""


def test_calls_of_any_size_find_their_kernels_and_never_compile(cache):
    product = compile_einsum("ij,j->i", signatures=["f8[i,j], f8[j]"])
    made = product.precompile()
    assert made
    assert all(kernel.compiled for kernel in made)
    assert [kernel.key for kernel in made] == Store(cache).keys()
    environment = {**os.environ, "EINSUMC_COMPILE": "never"}
    subprocess.run([sys.executable, "-P", "-c", USE], env=environment, check=True)
    assert not any(kernel.compiled for kernel in product.precompile())


def test_same_bytes_from_one_process_and_from_several(tmp_path):
    jobs = wanted("i,j->ij", "f4[i], f4[j]")[:5]
    seen = []
    build(jobs, store=Store(tmp_path / "one"), jobs=1)
    build(
        jobs[::-1],
        store=Store(tmp_path / "two"),
        jobs=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert seen == [(n, len(jobs)) for n in range(len(jobs) + 1)]


@pytest.mark.parametrize("level", ["x86-64-v2", "x86-64-v3", "x86-64-v4"])
def test_most_matrix_products_are_covered(level, monkeypatch):
    monkeypatch.setenv("EINSUMC_TARGET", level)
    have = {job.key for job in wanted("ij,jk->ik", "f4[i,j], f4[j,k]")}
    rng, multiply = np.random.default_rng(0), compile_einsum("ij,jk->ik")
    found = 0
    for _ in range(100):
        i, j, k = (int(2 ** rng.uniform(0, 11)) for _ in range(3))
        plan = multiply.explain(virtual((i, j), "f4"), virtual((j, k), "f4"))
        found += {step.key for step in plan.steps} <= have
    assert found >= 85  # two or three extents of 1 or 2 at once are not


def test_fixed_extents_need_fewer_kernels():
    assert len(wanted("ij,jk->ik", "f8[4,4], f8[4,4]")) < len(
        wanted("ij,jk->ik", "f8[i,j],f8[j,k]")
    )


def test_many_indices_are_planned_in_reasonable_time():
    names = "abcdefghijklmnopqrst"
    equation = ",".join(names[n : n + 2] for n in range(19)) + "->at"
    signature = ", ".join(f"f4[{a},{b}]" for a, b in pairwise(names))
    assert 1 < len(wanted(equation, signature)) < 200


def test_virtual_arrays_have_no_memory():
    array = virtual((1 << 15, 1 << 15, 1 << 8), "c16", (2, 1, 0))
    assert array.flags.f_contiguous
    assert array.nbytes == 1 << 42


def test_precompile_takes_what_einsum_takes(tmp_path):
    store = Store(tmp_path / "store")
    made = precompile("...i,...i->...", ["f4[64,8], f4[64,8]"], optimize="greedy", store=store)
    assert {kernel.recipe for kernel in made} == {"streamed", "thread pool", "entry"}
    assert sum(kernel.size for kernel in made) > 0


def test_without_signatures_there_is_nothing_to_compile_for():
    with pytest.raises(EinsumError, match="has no signatures"):
        compile_einsum("ij->i").precompile()


def test_store_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.warns(RuntimeWarning, match="cannot be"),
        pytest.raises(OSError, match="could not be written"),
    ):
        build(wanted("i->", "f4[8]")[:1], store=Store(tmp_path / "file" / "store"))


# --- files ----------------------------------------------------------------------------------------


def test_the_file_of_this_repository():
    requests = read_requests(PROJECT / "kernels_cache" / "kernels.toml")
    assert requests
    assert all(request.signatures for request in requests)


@pytest.mark.parametrize(
    ("text", "message", "shown", "caret"),
    [
        (
            '[[kernel]]\nequation = "ij->i"\nsignatures = ["f4[i,j]"]\n'
            '[[kernel]]\nequation = "ij->z"\nsignatures = ["f4[i,j]"]',
            "kernel 2, equation: output index 'z' is in no operand's term",
            "ij->z",
            "    ^",
        ),
        (
            '[[kernel]]\nequation = "ij->i"\nsignatures = ["f4[i,j]", "f4[i,k]"]',
            "kernel 1, signature 2: axis 1 of operand 0 is 'j' in the equation ij->i, not 'k'",
            "f4[i,k]",
            "     ^",
        ),
        (
            '[[kernel]]\nequations = "ij->i"',
            "kernel 1: expected equation, signatures, optimize, memory_limit, layouts or sizes",
            "equations",
            "^^^^^^^^^",
        ),
        (
            '[[kernel]]\nequation = "ij->i"\nsignatures = "f4[i,j]"',
            "kernel 1: expected a list of texts",
            "signatures",
            "^^^^^^^^^^",
        ),
        ('[[kernel]]\nequation = "ij->i"', "kernel 1: it has no signatures", None, None),
        ("", "it has no [[kernel]] entries", None, None),
        ("[kernels]", "the file may have [[kernel]] entries only", "kernels", "^^^^^^^"),
        ("[[kernel]]\nequation = ij", "line 2: Invalid value", "equation = ij", "           ^"),
        ('a = "', "line 1: Unterminated string", 'a = "', "     ^"),
    ],
)
def test_wrong_files(tmp_path, text, message, shown, caret):
    path = tmp_path / "kernels.toml"
    path.write_text(text)
    with pytest.raises(EinsumError) as caught:
        read_requests(path)
    first, *rest = str(caught.value).splitlines()
    assert first.startswith(f"{path}")
    assert message in first
    assert rest == ([] if shown is None else [f"    {shown}", f"    {caret}"])


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "kernels.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(EinsumError, match="not UTF-8"):
        read_requests(path)


def test_extents_are_never_repeated():
    for count in (0, 1, 2, 6):
        extents = module._extents(count)
        assert len(extents) == len({*extents})
        assert all(len(each) == count for each in extents)
