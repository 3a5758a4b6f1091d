"""What `explain` and EINSUMC_SHOW say, and that saying it computes and compiles nothing."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from einsumc.compiler.errors import EinsumError
from einsumc.runtime import kernels
from einsumc.runtime.decorator import compile_einsum
from einsumc.runtime.virtual import virtual


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EINSUMC_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@compile_einsum("row col, col mid, mid last -> row last")
def chain(x, y, z):
    """Three matrices, the last one narrow."""


OPERANDS = [virtual(shape, "f4") for shape in ((640, 320), (320, 480), (480, 200))]


def test_parts_of_an_explanation():
    plan = chain.explain(*OPERANDS)
    assert plan.sizes == {"row": 640, "col": 320, "mid": 480, "last": 200}
    assert plan.dtype == np.float32
    assert plan.program == ("out[row,last] = sum_{col,mid} x[row,col] * y[col,mid] * z[mid,last]")
    assert [step.statement for step in plan.steps] == [
        "t0[col,last] = sum_mid y[col,mid] * z[mid,last]",
        "out[row,last] = sum_col x[row,col] * t0[col,last]",
    ]
    assert [step.computes for step in plan.steps] == ["t0 = y * z", "out = x * t0"]
    assert plan.steps[0].subscripts == "col mid, mid last -> col last"
    assert plan.flops == 2 * (320 * 480 * 200 + 640 * 320 * 200) == plan.factorization.cost.flops
    assert plan.bytes == sum(step.cost.bytes for step in plan.steps)
    assert plan.peak_memory == 320 * 200 * 4
    assert dict(plan.factorization.candidates)[plan.factorization.chosen] == plan.cost


def heading(plan):
    """The names of the columns of the tree's steps."""
    lines = plan.stage("tree").splitlines()
    return next(line for line in lines if line.startswith("  step")).split()


def test_times_and_the_roofline():
    plan = chain.explain(*OPERANDS)
    for step in plan.steps:
        assert 0 < step.least < step.predicted
        assert step.share == step.least / step.predicted
        assert step.measured is None
    assert plan.predicted == sum(step.predicted for step in plan.steps)
    assert plan.measured is None
    head = heading(plan)
    assert head[-4:] == ["predicted", "roofline", "threads", "kernel"]


def test_measuring_runs_every_step_on_memory_of_its_own():
    plan = chain.explain(*OPERANDS).measure(rounds=1)
    for step in plan.steps:
        assert step.measured > 0
        assert step.share == step.least / step.measured
    assert plan.measured == sum(step.measured for step in plan.steps)
    head = heading(plan)
    assert head[-5:] == ["predicted", "measured", "roofline", "threads", "kernel"]


@pytest.mark.parametrize(
    ("equation", "operands"),
    [
        ("ij,jk->ik", [np.ones((30, 20))[::-1, ::-2], np.ones((40, 10)).T[:, ::3]]),
        ("ij,kj->ik", [np.broadcast_to(np.ones(50), (60, 50)), np.ones((70, 100))[:, ::2]]),
        ("ii,i->i", [np.ones((9, 9)), np.ones(9)[::-1]]),
        ("i,i->", [np.ones(9, bool)] * 2),
    ],
)
def test_any_layout_is_measured(equation, operands):
    plan = compile_einsum(equation).explain(*operands).measure(rounds=1)
    assert plan.measured > 0


def test_one_array_in_two_layouts_is_measured():
    a = np.ones((20, 20))
    plan = compile_einsum("ij,ji->ij").explain(a, a).measure(rounds=1)
    assert plan.measured > 0


def test_what_needs_no_kernel_is_measured_as_nothing():
    assert compile_einsum("ij->ji").explain(np.ones((2, 3))).measure().measured == 0


def test_groups_have_the_indices_of_the_equation():
    plan = compile_einsum("abij,bjk->abik").explain(
        virtual((3, 4, 64, 64), "f8"), virtual((4, 64, 64), "f8")
    )
    (step,) = plan.steps
    assert sorted(index for group in step.groups for index in group.indices) == [*"abijk"]
    for group in step.groups:
        assert group.extent == np.prod([plan.sizes[index] for index in group.indices])


def test_merged_axes_keep_their_names():
    plan = compile_einsum("abc,abc->").explain(*[virtual((2, 3, 4), "f8")] * 2)
    (group,) = plan.steps[0].groups
    assert (group.indices, group.extent) == (("a", "b", "c"), 24)


def test_nests_and_source():
    step = chain.explain(*OPERANDS).steps[0]
    names = [name for name, _ in step.nests]
    assert names[0] == "lower"
    assert "parallelize" in names
    assert "tiles " in step.nests[-1][1]
    header, kernel = step.source.split("def kernel(")
    assert "t0[col,last] = sum_mid y[col,mid] * z[mid,last]" in header
    assert "tree: x * (y * z)" in header
    assert step.recipe in header
    assert all(line.startswith("# ") for line in header.splitlines())
    compile("def kernel(" + kernel, "kernel", "exec")


def test_text_names_everything_once(cache):
    compiled = kernels.counts.compiled
    text = str(chain.explain(*OPERANDS))
    assert text.count("step 1: t0[col,last]") == 1
    for word in ("candidate", "searched", "flops", "µs", "not stored", "def kernel("):
        assert word in text
    assert text.count("def kernel(") == len({step.key for step in chain.explain(*OPERANDS).steps})
    assert all(len(line.strip()) < 160 for line in text.splitlines())
    assert kernels.counts.compiled == compiled
    assert not cache.exists()


def test_it_says_which_kernels_are_stored():
    a, b = np.ones((3, 5)), np.ones(5)
    product = compile_einsum("ij,j->i")
    assert product.explain(a, b).steps[0].origin == "not stored"
    kernels._kernels.clear()  # another test's would stay in memory, and the new store empty
    product(a, b)
    assert product.explain(a, b).steps[0].origin == "stored"


def test_assembly_is_made_when_asked_for():
    (step,) = compile_einsum("i,i->").explain(*[virtual((100,), "f4")] * 2).steps
    assembly = step.assembly()
    assert "einsumc_kernel" in assembly
    assert "# i,i->, i=100, float32" in assembly


@pytest.mark.parametrize(
    ("equation", "operand", "note"),
    [
        ("ij->ji", np.ones((2, 3)), "a view"),
        ("ij->i", np.ones((2, 0)), "no positions"),
        ("i,i->", np.ones(3, object), "no kernels compute in object"),
    ],
)
def test_what_needs_no_kernel_says_so(equation, operand, note):
    plan = compile_einsum(equation).explain(*[operand] * (equation.count(",") + 1))
    assert note in plan.note
    assert plan.steps == ()
    assert note in str(plan)
    assert plan.flops == 0


def test_repeated_output_index():
    (step,) = compile_einsum("i->ii").explain(np.ones(8)).steps
    assert step.statement == "out[i] = a[i]"


def test_wrong_operands_raise_as_in_a_call():
    with pytest.raises(EinsumError, match="index 'col'"):
        chain.explain(np.ones((2, 3)), np.ones((4, 5)), np.ones((5, 6)))


def test_show_prints_before_it_computes(cache):
    code = (
        "import numpy as np, einsumc;"
        "print(einsumc.einsum('ij,jk->ik', np.ones((2, 3)), np.ones((3, 4))).sum())"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "EINSUMC_SHOW": "program,loops", "EINSUMC_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "24.0\n"
    assert "out[i,k] = sum_j a[i,j] * b[j,k]" in done.stderr
    assert "loops after" in done.stderr
    assert "def kernel" not in done.stderr
