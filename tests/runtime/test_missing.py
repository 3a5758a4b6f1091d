"""Where kernels are missing and may not be compiled; levels that a machine has, and has not."""

import os
import subprocess
import sys
import tomllib
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from einsumc import compile_einsum
from einsumc.compiler.machine import TARGETS
from einsumc.compiler.subscripts import parse
from einsumc.runtime import covering, kernels, machine, missing, programs, target
from einsumc.runtime.kernels import KernelMissing
from einsumc.runtime.levels import levels, planning_for
from einsumc.runtime.load import LoadError
from einsumc.runtime.manifest import Request
from einsumc.runtime.plan import planned
from einsumc.runtime.precompile import build
from einsumc.runtime.signatures import parse_signature
from einsumc.runtime.store import Store
from einsumc.runtime.target import LEVELS, can_run, host_level
from einsumc.runtime.wanted import jobs_of

pytestmark = pytest.mark.skipif(host_level() not in TARGETS, reason="levels are x86-64's")


@pytest.fixture(autouse=True)
def cache(empty_store: Path, few_calls: None) -> Path:
    """Every test has a store of its own."""
    return empty_store


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch):
    """Make this machine one of a level."""

    def pretend(level: str) -> None:
        monkeypatch.setattr(target, "host_features", lambda: LEVELS[level])

    return pretend


def fill(store: Path, level: str, equation: str = "ij,j->i", signature: str = "f8[8,8], f8[8]"):
    subscripts = parse(equation)
    with planning_for(level):
        wanted = jobs_of(Request(subscripts, (parse_signature(signature, subscripts),)))
    build(wanted, store=Store(store), jobs=1)


def run() -> None:
    product = compile_einsum("ij,j->i")
    a, b = np.arange(64.0).reshape(8, 8), np.arange(8.0)
    for _ in range(4):
        assert np.array_equal(product(a, b), a @ b)


def targets(store: Path) -> set[str]:
    """Those of the kernels in a store."""
    found = (entry.header for entry in Store(store).entries())
    return {str(h["fields"]["target"]) for h in found if h["kind"] == "kernel"} - {"x86-64"}


# --- the error ------------------------------------------------------------------------------------


@compile_einsum
def scaled_norms(a, b, scale=1.0):
    return np.sqrt(((a @ b) ** 2).sum(axis=1)) * scale


def test_of_a_compiled_function_it_says_the_same(cache, monkeypatch):
    monkeypatch.setenv("EINSUMC_COMPILE", "never")
    operands = np.ones((5, 6), "f4"), np.ones((6, 7), "f4")
    with pytest.raises(KernelMissing, match=f"function   {__name__}:scaled_norms") as caught:
        scaled_norms(*operands, scale=0.5)
    text = str(caught.value)
    entry = tomllib.loads(text[text.index("    [[kernel]]") : text.index("and run")])["kernel"][0]
    assert entry["function"] == f"{__name__}:scaled_norms"
    assert entry["signatures"] == ["f4[i,j], f4[j,k]"]
    assert entry["arguments"] == {"scale": 0.5}
    assert "einsumc precompile kernels.toml" in text

    with pytest.raises(KernelMissing, match=r"<locals>.<lambda> is not found by that name"):
        compile_einsum(lambda a: (a * a).sum(axis=1))(operands[0])


@compile_einsum
def several_statements(a, b, c):
    return np.sqrt(((a @ b) ** 2 * c.T).sum(axis=1)) + np.einsum("ni,ij,jn->n", a, b, c)


def test_a_functions_kernels_serve_calls_of_any_sizes(monkeypatch):
    """Where those of the best plan are missing, those of statements one by one are there."""
    monkeypatch.setattr(covering, "SHAPES", 6)
    known = covering.schedules_for_function(
        several_statements, parse_signature("f4[i,j], f4[j,k], f4[k,i]"), {}, [("C", "C", "F")]
    )
    apart = []
    real = programs.prepare_apart
    monkeypatch.setattr(programs, "prepare_apart", lambda *call: apart.append(call) or real(*call))

    def obtain(schedule, target):
        if schedule not in known:
            raise KernelMissing("it is not among those of the signature")
        return planned(schedule, target)

    for i, j, k in product((1, 400), repeat=3):
        for orders in ("CCC", "FFF", "CCF"):
            shapes = (i, j), (j, k), (k, i)
            arrays = [np.zeros(s, "f4", order) for s, order in zip(shapes, orders, strict=True)]
            program, layouts = several_statements._planned(tuple(arrays), {})
            programs.prepare_program(program, layouts, obtain=obtain)
    assert apart


def test_it_says_what_is_missing_and_how_to_make_it(cache, monkeypatch):
    monkeypatch.setenv("EINSUMC_COMPILE", "never")
    seen = []
    monkeypatch.setattr(missing, "hooks", [seen.append])
    with pytest.raises(KernelMissing) as caught:
        compile_einsum("ij,jk->ik", optimize="greedy", memory_limit=1000)(
            np.ones((5, 6), "f4")[:, ::2], np.ones((4, 3)).T
        )
    text = str(caught.value)
    assert "equation   ij,jk->ik" in text
    assert "operands   float32 5x3 C*, float64 3x4 F" in text
    assert f"target     {host_level()}" in text
    assert f"searched   {cache}" in text
    entry = text[text.index("    [[kernel]]") : text.index("and run")]
    assert tomllib.loads(entry)["kernel"] == [
        {
            "equation": "ij,jk->ik",
            "signatures": ["f4[i,j], f8[j,k]"],
            "optimize": "greedy",
            "memory_limit": 1000,
            "layouts": ["C*, F"],
        }
    ]
    assert seen == [caught.value]


def test_what_it_says_helps(cache, tmp_path):
    code = (
        "import numpy as np; from einsumc import einsum;"
        "print(einsum('a,a->', np.ones(10, 'f4')[::2], np.ones(5, 'f4')))"
    )

    def run(*words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, **variables}
        return subprocess.run(
            words, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300
        )

    failed = run(sys.executable, "-P", "-c", code, EINSUMC_COMPILE="never")
    assert failed.returncode
    text = failed.stderr[failed.stderr.index("KernelMissing") :]
    entry, _, rest = text.partition("    [[kernel]]")[2].partition("and run")
    (tmp_path / "kernels.toml").write_text("[[kernel]]" + entry)
    (command,) = [line.split() for line in rest.splitlines() if "einsumc precompile" in line]
    made = run(sys.executable, "-P", "-m", "einsumc.runtime.cli", *command[1:], "--jobs", "1")
    assert made.returncode == 0, made.stderr
    done = run(sys.executable, "-P", "-c", code, EINSUMC_COMPILE="never")
    assert (done.returncode, done.stdout) == (0, "5.0\n"), done.stderr


# --- levels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "wish", "compile", "expected"),
    [
        ("x86-64-v3", "native", "auto", ["x86-64-v3"]),
        ("x86-64-v3", "x86-64-v2", "auto", ["x86-64-v2"]),
        ("x86-64-v4", "native", "never", ["x86-64-v4", "x86-64-v3", "x86-64-v2"]),
        ("x86-64-v4", "x86-64-v3", "never", ["x86-64-v3", "x86-64-v2"]),
        ("x86-64-v2", "native", "never", ["x86-64-v2"]),
    ],
)
def test_levels_to_compute_at(host, wish, compile, expected, pretend, monkeypatch):
    pretend(host)
    monkeypatch.setenv("EINSUMC_TARGET", wish)
    monkeypatch.setenv("EINSUMC_COMPILE", compile)
    assert list(levels()) == expected


@pytest.mark.parametrize(("host", "wish"), [("x86-64-v3", "x86-64-v4"), ("x86-64-v2", "x86-64-v3")])
def test_a_level_above_the_machines_is_one_warning(host, wish, pretend, monkeypatch):
    pretend(host)
    monkeypatch.setenv("EINSUMC_TARGET", wish)
    with pytest.warns(RuntimeWarning, match=f"EINSUMC_TARGET={wish}, but this machine is {host}"):
        assert list(levels()) == [host]
    assert list(levels()) == [host]  # and no more


@pytest.mark.skipif(not can_run(LEVELS["x86-64-v3"]), reason="its kernels run here")
def test_store_for_v4_and_v3_on_a_machine_that_has_v3(cache, pretend, monkeypatch):
    """The one is refused and the other taken: nothing is compiled, nothing is illegal."""
    for level in ("x86-64-v4", "x86-64-v3"):
        fill(cache, level)
    assert targets(cache) == {"x86-64-v4", "x86-64-v3"}
    pretend("x86-64-v3")
    monkeypatch.setenv("EINSUMC_COMPILE", "never")
    run()
    monkeypatch.setenv("EINSUMC_TARGET", "x86-64-v4")
    with pytest.warns(RuntimeWarning, match="but this machine is x86-64-v3"):
        run()


def test_kernels_of_a_level_above_are_never_compiled_to_run_here(cache, pretend, monkeypatch):
    pretend("x86-64-v2")
    monkeypatch.setenv("EINSUMC_TARGET", "x86-64-v4")
    with pytest.warns(RuntimeWarning, match="but this machine is x86-64-v2"):
        run()
    assert targets(cache) == {"x86-64-v2"}
    assert all(map(Store(cache).verify, Store(cache).keys()))


@pytest.mark.skipif(not can_run(LEVELS["x86-64-v3"]), reason="this machine has a level to spare")
def test_a_store_for_a_lower_level_will_do_where_nothing_may_be_compiled(cache, monkeypatch):
    fill(cache, "x86-64-v2")
    monkeypatch.setenv("EINSUMC_COMPILE", "never")
    run()
    monkeypatch.setenv("EINSUMC_COMPILE", "auto")
    run()
    assert targets(cache) == {"x86-64-v2", host_level()}


def test_a_kernel_for_another_machine_is_refused_before_it_is_compiled(pretend, monkeypatch):
    pretend("x86-64-v2")
    with planning_for("x86-64-v4"):
        plan = compile_einsum("ij,j->i").explain(np.ones((9, 9)), np.ones(9))
        assert machine.machine().target.name == "x86-64-v4"
        schedule = plan.steps[0]._step.choice.schedule
    monkeypatch.setattr(kernels, "compiled", None)
    with pytest.raises(LoadError, match="kernels for x86-64-v4 cannot run on this machine"):
        kernels.kernel(schedule, TARGETS["x86-64-v4"])


def test_plans_for_another_level_are_those_of_one_thread():
    before = machine.machine().target
    with planning_for("x86-64-v2"), planning_for("x86-64-v4"):
        assert machine.machine().target.name == "x86-64-v4"
    assert machine.machine().target == before
