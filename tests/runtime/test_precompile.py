"""Kernels compiled beforehand are those that ordinary calls ask for; files that ask for them."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from benchmark_scripts import benchmark
from einsumc.compiler.choose.general import general_packed_schedule
from einsumc.compiler.errors import EinsumError
from einsumc.compiler.subscripts import parse
from einsumc.runtime import kernels
from einsumc.runtime.decorator import compile_einsum, einsum
from einsumc.runtime.kernels import KernelMissing
from einsumc.runtime.machine import machine
from einsumc.runtime.manifest import read_requests
from einsumc.runtime.precompile import build, jobs_for, precompile
from einsumc.runtime.signatures import parse_signature
from einsumc.runtime.store import Store
from einsumc.runtime.virtual import virtual
from sweeps import sweep

PROJECT = Path(__file__).parents[2]

served = benchmark("served")
drawn_operands, signature_of = served.drawn_operands, served.signature_of


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


@pytest.mark.usefixtures("few_calls")
def test_calls_of_any_size_find_their_kernels_and_never_compile(cache):
    product = compile_einsum("ij,j->i", signatures=["f8[i,j], f8[j]"])
    made = product.precompile()
    assert made
    assert all(kernel.compiled for kernel in made)
    assert [kernel.key for kernel in made] == Store(cache).keys()
    environment = {**os.environ, "EINSUMC_COMPILE": "never"}
    subprocess.run([sys.executable, "-P", "-c", USE], env=environment, check=True)
    assert not any(kernel.compiled for kernel in product.precompile())


@pytest.mark.usefixtures("few_calls")
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


# --- any sizes and layouts ------------------------------------------------------------------------


SERVED = [  # the least number of 100 calls that get the very kernel that they would compile
    ("ij,jk->ik", "f4", 82),
    pytest.param("ij,jk->ik", "c8", 90, marks=pytest.mark.slow),
    pytest.param("ij,j->i", "f8", 90, marks=pytest.mark.slow),
    pytest.param("ij->i", "f4", 90, marks=pytest.mark.slow),
    pytest.param("ij->j", "i4", 90, marks=pytest.mark.slow),
    pytest.param("ij,ij->ij", "f4", 90, marks=pytest.mark.slow),
    pytest.param("i,j->ij", "f8", 90, marks=pytest.mark.slow),
    pytest.param("i,i->", "f4", 90, marks=pytest.mark.slow),
    # three strides of each operand: many classes, each of them rare
    pytest.param("bij,bjk->bik", "f4", 65, marks=pytest.mark.slow),
    # two kernels at once
    pytest.param("ij,jk,kl->il", "f8", 65, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("equation", "dtype", "least"), SERVED)
def test_most_calls_get_their_own_kernels(equation, dtype, least):
    jobs = wanted(equation, signature_of(equation, dtype))
    have = {job.key for job in jobs}
    rng, compiled = np.random.default_rng(1), compile_einsum(equation)
    powers = 10 if equation.count(",") < 2 and "b" not in equation else 8
    found = 0
    for _ in range(100):
        plan = compiled.explain(*drawn_operands(equation, dtype, rng, powers))
        found += {step.key for step in plan.steps} <= have
    print(f"{equation} {dtype}: {len(jobs)} kernels, {found} of 100 calls")
    assert len(jobs) < 85
    assert found >= least


@pytest.mark.parametrize(
    "level", sweep(["x86-64-v2", "x86-64-v3", "x86-64-v4"], lambda level: level == "x86-64-v3")
)
def test_nearly_all_ordinary_matrix_products_are_covered(level, monkeypatch):
    monkeypatch.setenv("EINSUMC_TARGET", level)
    have = {job.key for job in wanted("ij,jk->ik", "f4[i,j], f4[j,k]")}
    rng, multiply = np.random.default_rng(0), compile_einsum("ij,jk->ik")
    found = 0
    for _ in range(100):
        i, j, k = (int(2 ** rng.uniform(0, 11)) for _ in range(3))
        plan = multiply.explain(virtual((i, j), "f4"), virtual((j, k), "f4"))
        found += {step.key for step in plan.steps} <= have
    assert found >= 90


def forget_kernels(monkeypatch):
    monkeypatch.setattr(kernels, "_kernels", {})
    monkeypatch.setenv("EINSUMC_COMPILE", "never")


def check(equation, dtype, count, powers):
    """Compute with whatever kernels there are, and compare."""
    rng = np.random.default_rng(2)
    for _ in range(count):
        operands = drawn_operands(equation, dtype, rng, powers)
        result = einsum(equation, *operands)
        np.testing.assert_array_equal(result, np.einsum(equation, *operands, optimize=True))


@pytest.mark.usefixtures("few_calls")
def test_a_signature_serves_every_call_without_a_compiler(monkeypatch):
    """Sums of small whole numbers are exact, in whatever order."""
    made = compile_einsum("ij,j->i", signatures=["f8[i,j], f8[j]"]).precompile()
    assert sum(kernel.recipe == "general" for kernel in made) == 7
    forget_kernels(monkeypatch)
    check("ij,j->i", "f8", 100, 9)


@pytest.mark.parametrize(
    ("equation", "dtype"),
    [
        ("ij,jk->ik", "f4"),
        pytest.param("ij,jk,kl->il", "f8", marks=pytest.mark.slow),
        pytest.param("bij,bjk->bik", "c16", marks=pytest.mark.slow),
        pytest.param("ab,cbe,ae->ac", "i2", marks=pytest.mark.slow),
        pytest.param("ijk->kj", "f4", marks=pytest.mark.slow),
        pytest.param("iij,j->ij", "u4", marks=pytest.mark.slow),
        pytest.param("ij,ij,kj->k", "f2", marks=pytest.mark.slow),
        pytest.param("ij,jk->", "b1", marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("few_calls")
def test_general_kernels_compute_everything(equation, dtype, monkeypatch, cache):
    powers = 4 if dtype in ("f2", "i2") else 6
    jobs = [
        job
        for job in wanted(equation, signature_of(equation, dtype))
        if job.recipe not in ("packed", "streamed", "turned")
    ]
    build(jobs, store=Store(cache))
    forget_kernels(monkeypatch)
    check(equation, dtype, 100, powers)


@pytest.mark.parametrize("dtype", sweep(["f4", "c16", "i2", "b1"], lambda dtype: dtype == "f4"))
@pytest.mark.usefixtures("few_calls")
def test_large_products_of_any_layout_have_panels(dtype, monkeypatch, cache):
    any_layout = general_packed_schedule(dtype, machine())
    jobs = wanted("bij,bjk->bik", signature_of("bij,bjk->bik", dtype))
    build([job for job in jobs if job.schedule == any_layout], store=Store(cache))
    forget_kernels(monkeypatch)
    rng = np.random.default_rng(0)
    for equation, shapes in (
        ("bij,bjk->bik", ((5, 60, 70), (5, 70, 130))),
        ("ij,jk->ik", ((77, 61), (61, 129))),
        ("iajb,jkbc->ikac", ((9, 8, 7, 9), (7, 11, 9, 10))),
    ):
        for step in (1, -1, 2):
            a, b = (rng.integers(0, 2, [2 * n for n in s]).astype(dtype) for s in shapes)
            a, b = (x[(slice(None, None, step),) * x.ndim] for x in (a, b))
            a, b = (x[tuple(map(slice, s))] for x, s in zip((a, b), shapes, strict=True))
            if step == 1:
                a, b = a.swapaxes(0, 1).copy().swapaxes(0, 1), np.asfortranarray(b)
            result = einsum(equation, a, b)
            np.testing.assert_array_equal(result, np.einsum(equation, a, b))
            (planned,) = compile_einsum(equation).explain(a, b).steps
            assert planned.recipe == "packed, general"


@pytest.mark.usefixtures("few_calls")
def test_plans_say_that_kernels_are_general(monkeypatch, cache):
    a, b = np.ones((30, 40)), np.ones((40, 50))
    product = compile_einsum("ij,jk->ik", signatures=["f8[i,j], f8[j,k]"])
    jobs = wanted("ij,jk->ik", "f8[i,j], f8[j,k]")
    build([job for job in jobs if job.recipe == "general"], store=Store(cache))
    assert product.explain(a, b).steps[0].recipe != "general"
    forget_kernels(monkeypatch)
    plan = product.explain(a, b)
    assert [step.recipe for step in plan.steps] == ["general"]
    assert "general" in plan.stage("tree")
    assert plan.steps[0].origin == "stored"


def test_a_kernel_for_other_sizes_is_better_than_none(monkeypatch):
    a, b = np.ones((4, 64), "f4"), np.ones((64, 1024), "f4")
    product = compile_einsum("ij,jk->ik")
    product(a, b)
    (made,) = product.explain(a, b).steps
    assert product.explain(a[:3, :40], b[:40, :1000]).steps[0].key != made.key
    forget_kernels(monkeypatch)
    (step,) = product.explain(a[:3, :40], b[:40, :1000]).steps
    assert step.key == made.key
    assert (product(a[:3, :40], b[:40, :1000]) == 40).all()


@pytest.mark.parametrize("part", [np.s_[:1], np.s_[:, :1], np.s_[:, :, :1], np.s_[:1, :1]], ids=str)
def test_axes_of_one_element_are_served_by_kernels_for_more(part, monkeypatch):
    """One product of a batch, one row, sums of one product: none of these has the batch's form."""
    monkeypatch.setattr(kernels, "_kernels", {})  # of other tests, which this store lacks
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 9, s).astype("f4") for s in ((8, 40, 50), (8, 50, 60)))
    product = compile_einsum("bij,bjk->bik")
    product(a, b)
    (made,) = product.explain(a, b).steps
    a, b = a[part], b[: a[part].shape[0], : a[part].shape[2]]
    for one in (a, np.asfortranarray(a)[::-1], a.copy()):
        assert product.explain(one, b).steps[0].key != made.key
    forget_kernels(monkeypatch)
    for one in (a, a.copy()):
        (step,) = product.explain(one, b).steps
        assert step.key == made.key
        np.testing.assert_array_equal(product(one, b), np.einsum("bij,bjk->bik", one, b))


@pytest.mark.usefixtures("few_calls")
def test_two_steps_are_better_than_a_general_kernel(monkeypatch, cache):
    monkeypatch.setattr(kernels, "_kernels", {})  # of other tests, which this store lacks
    equation, operands = "ij,jk,kl->il", [np.ones(s) for s in ((10, 2), (2, 5), (5, 24))]
    chain = compile_einsum(equation)
    assert len(chain.explain(*operands).steps) == 1
    compile_einsum(equation, optimize=[(0, 1), (0, 1)])(*operands)
    jobs = [job for job in wanted(equation, "f8[i,j], f8[j,k], f8[k,l]") if "gen" in job.recipe]
    build(jobs, store=Store(cache))
    forget_kernels(monkeypatch)
    steps = chain.explain(*operands).steps
    assert [step.recipe for step in steps] == ["streamed", "streamed"]
    np.testing.assert_array_equal(chain(*operands), np.full((10, 24), 10.0))


def test_without_any_kernel_there_is_an_error(monkeypatch):
    forget_kernels(monkeypatch)
    with pytest.raises(KernelMissing):
        einsum("ij,jk->ik", np.ones((3, 4)), np.ones((4, 5)))
    plan = compile_einsum("ij,jk->ik").explain(np.ones((3, 4)), np.ones((4, 5)))
    assert plan.steps[0].origin == "not stored"


@pytest.mark.usefixtures("few_calls")
def test_fixed_extents_need_fewer_kernels():
    assert len(wanted("ij,jk->ik", "f8[4,4], f8[4,4]")) < len(
        wanted("ij,jk->ik", "f8[i,j],f8[j,k]")
    )


@pytest.mark.slow
@pytest.mark.usefixtures("few_calls")
def test_many_indices_are_planned_in_reasonable_time():
    names = "abcdefghijklmnopqrst"
    equation = ",".join(names[n : n + 2] for n in range(19)) + "->at"
    signature = ", ".join(f"f4[{a},{b}]" for a, b in pairwise(names))
    assert 1 < len(wanted(equation, signature)) < 200


def test_virtual_arrays_have_no_memory():
    array = virtual((1 << 15, 1 << 15, 1 << 8), "c16", (2, 1, 0))
    assert array.flags.f_contiguous
    assert array.nbytes == 1 << 42


@pytest.mark.usefixtures("few_calls")
def test_precompile_takes_what_einsum_takes(tmp_path):
    store = Store(tmp_path / "store")
    made = precompile("...i,...i->...", ["f4[64,8], f4[64,8]"], optimize="greedy", store=store)
    assert {kernel.recipe for kernel in made} == {
        "streamed",
        "general",
        "thread pool",
        "entry",
    }
    assert sum(kernel.size for kernel in made) > 0


def test_without_signatures_there_is_nothing_to_compile_for():
    with pytest.raises(EinsumError, match="has no signatures"):
        compile_einsum("ij->i").precompile()


@pytest.mark.usefixtures("few_calls")
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
