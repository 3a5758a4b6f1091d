"""Plans on disk: a second process neither plans nor compiles, and computes the same bits."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import einsumc
import numpy as np
import pytest
from einsumc.runtime import kernels, stored_plan, threads
from einsumc.runtime.store import Store
from kernel_stores import overwrite, path_of, quiet

pytestmark = pytest.mark.usefixtures("fresh_stores")

CASES: "Cases" = {
    "ij,jk->ik": [(40, 50), (50, 60)],
    "ij,jk,kl->il": [(30, 40), (40, 50), (50, 20)],
    "ab,bc,cd,de,ea->": [(9, 8), (8, 7), (7, 6), (6, 5), (5, 9)],
    "abc->cab": [(20, 30, 40)],
    "ij->": [(40, 50)],
    "bij,bjk->bik": [(3, 40, 50), (3, 50, 60)],
}

Cases = dict[str, list[tuple[int, ...]]]

SCRIPT = """
import sys, numpy as np, einsumc
from einsumc.runtime.kernels import counts
cases = CASES
random = np.random.default_rng(0)
for equation, shapes in cases.items():
    operands = [random.random(shape) for shape in shapes]
    for x in (operands, [a.T.copy().T for a in operands]):
        result = einsumc.einsum(equation, *x)
        np.testing.assert_allclose(result, np.einsum(equation, *x, optimize=True))
        print(result.tobytes().hex()[:64])
heavy = ("numba", "llvmlite", "opt_einsum", "einsumc.compiler.factorize", "einsumc.runtime.execute")
print("LOADED", [name for name in heavy if name in sys.modules], counts.compiled)
"""


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("EINSUMC_CACHE_DIR", str(tmp_path / "store"))
    monkeypatch.setattr(stored_plan, "_kept", 0)
    return Store(tmp_path / "store")


def run(script: str = SCRIPT, cases: Cases = CASES, **environment: str) -> list[str]:
    roots = os.pathsep.join(filter(None, map(os.path.abspath, sys.path)))
    done = subprocess.run(
        [sys.executable, "-c", script.replace("CASES", repr(cases))],
        env=os.environ | {"PYTHONPATH": roots} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def plans(store: Store) -> list[str]:
    return [entry.key for entry in store.entries() if entry.header["kind"] == "plan"]


def test_a_second_process_does_not_plan(store: Store) -> None:
    first = run()
    assert "einsumc.runtime.execute" in first[-1]
    assert len(plans(store)) == 2 * (len(CASES) - 1)  # a transposition is a view
    second = run(EINSUMC_COMPILE="never")
    assert second[-1] == "LOADED [] 0"
    assert second[:-1] == first[:-1]


def test_other_circumstances_have_plans_of_their_own(store: Store, tmp_path: Path) -> None:
    few = {equation: CASES[equation] for equation in ("ij,jk->ik", "ij->")}
    run(cases=few, EINSUMC_NUM_THREADS="1")
    count = len(plans(store))
    assert count
    assert "execute" in run(cases=few, EINSUMC_NUM_THREADS="2")[-1]
    assert len(plans(store)) == 2 * count
    assert "execute" in run(cases=few, EINSUMC_NUM_THREADS="2", EINSUMC_TARGET="x86-64-v2")[-1]
    assert len(plans(store)) == 3 * count


def test_a_calibrated_machine_has_plans_of_its_own(store: Store) -> None:
    before = stored_plan._machine()
    Path(store.path).mkdir()
    Path(store.path, "machine.toml").write_text("one")
    one = stored_plan._machine()
    Path(store.path, "machine.toml").write_text("other")
    assert len({before, one, stored_plan._machine()}) == 3


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process."""
    monkeypatch.setattr(kernels, "_addresses", {})
    monkeypatch.setattr(kernels, "_kernels", {})


def compute(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """A result, and what is right."""
    forget(monkeypatch)
    a, b = np.random.default_rng(0).random((2, 40, 40))
    return einsumc.compile_einsum("ij,jk->ik")(a, b), a @ b


def test_damage_is_a_plan_made_anew(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    np.testing.assert_allclose(*compute(monkeypatch))
    (key,) = plans(store)
    path = path_of(store, key)
    blob = path.read_bytes()
    for place in range(0, len(blob), 31):
        overwrite(path, blob[:place] + bytes([blob[place] ^ 4]) + blob[place + 1 :])
        np.testing.assert_allclose(*quiet(lambda: compute(monkeypatch)))
        assert path.read_bytes() == blob or place == 0  # put anew
        monkeypatch.setattr(stored_plan, "_kept", 0)


def test_kernels_that_are_gone_are_compiled(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    np.testing.assert_allclose(*compute(monkeypatch))
    (key,) = plans(store)
    assert all(map(store.remove, {*store.keys()} - {key}))
    np.testing.assert_allclose(*compute(monkeypatch))


def test_a_process_keeps_a_few(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_plan, "MOST", 3)
    product = einsumc.compile_einsum("ij,j->i")
    for n in range(10, 20):
        np.testing.assert_allclose(product(np.ones((n, n)), np.ones(n)), n)
    assert len(plans(store)) == 3


def test_nothing_is_written_where_nothing_is_compiled(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute(monkeypatch)
    store.remove(plans(store)[0])
    monkeypatch.setenv("EINSUMC_COMPILE", "never")
    np.testing.assert_allclose(*compute(monkeypatch))
    assert plans(store) == []


@pytest.mark.parametrize("optimize", [True, False, "greedy", [(0, 1), (0, 1)]])
def test_options_are_part_of_the_key(store: Store, optimize: Any) -> None:
    operands = [np.ones((4, 4)) for _ in range(3)]
    for _ in range(2):
        contract = einsumc.compile_einsum("ij,jk,kl->il", optimize=optimize)
        np.testing.assert_allclose(contract(*operands), 16)
    assert len(plans(store)) == 1


def test_the_same_array_is_another_plan(store: Store) -> None:
    a = np.arange(12.0).reshape(3, 4)
    for other in (a, a.copy()):
        np.testing.assert_allclose(einsumc.compile_einsum("ij,kj->ik")(a, other), a @ a.T)
    assert len(plans(store)) == 2


def test_intermediates_of_several_threads(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    a = np.random.default_rng(0).random((60, 60))
    expected = a @ a.T.copy() @ a
    for _ in range(2):
        forget(monkeypatch)
        chain = einsumc.compile_einsum("ij,jk,kl->il")
        for count in (1, 2):
            threads.set_num_threads(count)
            try:
                np.testing.assert_allclose(chain(a, a.T.copy(), a.copy()), expected)
            finally:
                threads.set_num_threads(None)


# --- functions ------------------------------------------------------------------------------------

BODIES = """
import sys, numpy as np, einsumc
from einsumc.runtime.kernels import counts
random = np.random.default_rng(0)
a, b, hidden = random.random((40, 30)), random.random((30, 50)), random.random((50, 7))

@einsumc.compile_einsum
def norms(a, b, scale):
    return np.sqrt(((a @ b @ hidden) ** 2).sum(axis=1)) * scale

@einsumc.compile_einsum
def both(a, b):
    return {"product": a @ b, "sum": (a * POWER).sum(axis=0)}

for n in range(4):  # the last ones natively
    scaled, found = norms(a, b, n + 0.5), both(a, b)
    expected = np.sqrt(((a @ b @ hidden) ** 2).sum(axis=1)) * (n + 0.5)
    np.testing.assert_allclose(scaled, expected)
    np.testing.assert_allclose(found["product"], a @ b)
    np.testing.assert_allclose(found["sum"], (a * POWER).sum(axis=0))
    print(scaled.tobytes().hex(), found["sum"].tobytes().hex())
print("LOADED", [n for n in ("numba", "einsumc.runtime.programs") if n in sys.modules])
print("COMPILED", counts.compiled)
"""


def test_a_second_process_does_not_plan_functions(store: Store) -> None:
    script = BODIES.replace("POWER", "2.5")
    *first, loaded, _ = run(script)
    assert "einsumc.runtime.programs" in loaded
    assert len(plans(store)) == 2
    *second, loaded, compiled = run(script)
    assert (loaded, compiled) == ("LOADED []", "COMPILED 0")
    assert second == first
    *_, loaded, _ = run(BODIES.replace("POWER", "3.5"))  # another program has a plan of its own
    assert "einsumc.runtime.programs" in loaded
    assert len(plans(store)) == 3


CHAINS = """
import sys, numpy as np, einsumc
from einsumc.runtime.kernels import counts
random = np.random.default_rng(0)

@einsumc.compile_einsum
def attention(queries, keys, values):
    weights = np.exp(queries @ keys.swapaxes(-1, -2) * 0.125)
    return weights / weights.sum(-1, keepdims=True) @ values

@einsumc.compile_einsum
def spread(image, taps):
    return einsumc.einsum("y, k -> 3*y+k", image, taps), image + 1

operands = [random.random((16, 512, 64), dtype="f4") for _ in range(3)]
image, taps = random.random(7), random.random(2)
expected = np.zeros(20)
for k in range(2):
    expected[k::3] = image * taps[k]
for _ in range(4):  # the last ones natively
    found = attention(*operands)
    np.testing.assert_allclose(found, attention.__wrapped__(*operands), rtol=1e-4)
    np.testing.assert_allclose(spread(image, taps)[0], expected)
    np.testing.assert_allclose(einsumc.einsum("y, k -> 3*y+k", image, taps), expected)
print(found[::5].tobytes().hex()[:4000])
names = [n for n in ("numba", "einsumc.runtime.execute") if n in sys.modules]
print("LOADED", names, counts.compiled)
if names:
    assert attention.planned(*operands)[1].chains
"""


def test_plans_of_chains_and_of_what_sets_to_zero(store: Store) -> None:
    first, loaded = run(CHAINS)
    assert "execute" in loaded
    assert run(CHAINS, EINSUMC_COMPILE="never") == [first, "LOADED [] 0"]
