"""Promises about whole calls, from a file on disk to a number: docs/reliability.md has the list."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import einsumc
import numpy as np
import pytest
from einsumc.runtime import kernels, target
from einsumc.runtime.load import LoadError
from einsumc.runtime.store import Store
from kernel_stores import fork, overwrite, quiet
from sweeps import checkered

A, B = np.random.default_rng(0).random((2, 30, 30))


@pytest.fixture(autouse=True)
def store(empty_store: Path, few_calls: None) -> Path:
    """Every test has a store of its own."""
    return empty_store


def in_child(action: Callable[[], object]) -> None:
    status = os.waitpid(fork(action), 0)[1]
    assert not os.WIFSIGNALED(status), f"signal {os.WTERMSIG(status)}"
    assert os.WEXITSTATUS(status) == 0


def right_or_refused() -> None:
    """Compute from the store; there is no compiler to repair anything."""
    os.environ["EINSUMC_COMPILE"] = "never"
    try:
        found = quiet(lambda: einsumc.compile_einsum("ij,jk->ik")(A, B))
    except kernels.KernelMissing as error:
        assert "EINSUMC_COMPILE" in str(error)
        return
    np.testing.assert_allclose(found, A @ B)


def damages(store: Path, step: int) -> None:
    in_child(lambda: einsumc.compile_einsum("ij,jk->ik")(A, B))
    files = sorted(store.rglob("*.kernel"))
    assert len(files) >= 2  # a kernel and its plan at least
    for path in files:
        blob = path.read_bytes()
        for place in range(0, len(blob), step):
            bad = [
                blob[:place] + bytes([blob[place] ^ mask]) + blob[place + 1 :] for mask in (1, 255)
            ]
            for damaged in (*bad, blob[:place]):
                overwrite(path, damaged)
                in_child(right_or_refused)
        overwrite(path, blob)
    in_child(right_or_refused)


def test_damaged_kernels_and_plans_are_never_a_signal_or_a_wrong_number(store: Path) -> None:
    damages(store, 499)


@pytest.mark.slow
def test_damage_anywhere_is_never_a_signal_or_a_wrong_number(store: Path) -> None:
    damages(store, 3)


def threads_and_kernels(threads: int, calls: list[tuple[str, str]]) -> None:
    before = kernels.counts.compiled
    start, wrong = threading.Barrier(threads), []

    def work(number: int) -> None:
        start.wait()
        for turn in range(len(calls)):
            equation, dtype = calls[(number + turn) % len(calls)]
            operands = [A[:5, :6].astype(dtype) for _ in equation.split("->")[0].split(",")]
            found = einsumc.compile_einsum(equation, optimize=False)(*operands)
            if not np.allclose(found, np.einsum(equation, *operands), rtol=1e-4):
                wrong.append(equation)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    made = [key for key in kernels._kernels.values() if key.origin == "compiled"]
    assert len({kernel.key for kernel in made}) == len(made)
    kept = [
        e for e in Store(os.environ["EINSUMC_CACHE_DIR"]).entries() if e.header["kind"] != "plan"
    ]
    assert kernels.counts.compiled - before == len(kept)  # each once, and the programs
    assert len(kept) >= len(calls)


def all_different(count: int) -> list[tuple[str, str]]:
    """Calls whose kernels all differ: in the number of factors, the output, and the dtype."""
    return [
        (f"{','.join(['ij'] * factors)}->{output}", dtype)
        for factors in range(2, 10)
        for output in ("", "i")
        for dtype in ("f4", "f8", "c8", "c16")
    ][:count]


def test_one_compilation_for_each_kernel_however_many_threads_ask() -> None:
    threads_and_kernels(16, all_different(4))


@pytest.mark.slow
def test_64_threads_and_64_kernels() -> None:
    threads_and_kernels(64, all_different(64))


@pytest.mark.skipif(target.host_level() == "x86-64-v4", reason="this machine runs every level")
def test_kernels_for_a_higher_level_are_refused_and_the_lower_one_is_taken(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = einsumc.compile_einsum("ij,jk->ik", signatures="f8[30,30], f8[30,30]")
    monkeypatch.setenv("EINSUMC_TARGET", "x86-64-v4")
    product.precompile()
    for entry in Store(store).entries():  # never loaded, whoever asks
        if entry.header["fields"].get("target") == "x86-64-v4":
            with pytest.raises(LoadError, match="is for x86-64-v4, which this machine is not"):
                kernels.address(entry.key)
    monkeypatch.setenv("EINSUMC_TARGET", "native")
    product.precompile()
    monkeypatch.setenv("EINSUMC_COMPILE", "never")
    np.testing.assert_allclose(einsumc.compile_einsum("ij,jk->ik")(A, B), A @ B)


@pytest.mark.parametrize(
    ("equation", "dtype", "bad"),
    checkered(
        ["ij,jk->ik", "ij->j", "ij->", "ij,ij->ij", "ij,j->i"],
        ["f2", "f4", "f8", "c8", "c16"],
        [np.nan, np.inf, -np.inf],
    ),
)
def test_nan_and_infinity_propagate_as_in_numpy(equation: str, dtype: str, bad: float) -> None:
    random = np.random.default_rng(1)
    terms = equation.split("->")[0].split(",")
    operands = [random.random((33, 33)[: len(term)]).astype(dtype) for term in terms]
    operands[0].flat[[0, 40, 40 * 33 % 1000]] = bad
    operands[0].flat[[70]] = -bad
    with np.errstate(all="ignore"):
        expected = np.einsum(equation, *operands)
        found = einsumc.einsum(equation, *operands)
    for part in ("real", "imag"):
        ours, numpys = (np.asarray(getattr(each, part)) for each in (found, expected))
        if dtype[0] == "f":
            np.testing.assert_array_equal(np.isnan(ours), np.isnan(numpys))
            np.testing.assert_array_equal(np.isinf(ours), np.isinf(numpys))
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
    whole = np.isfinite(expected)
    tolerance = 2e-2 if dtype == "f2" else 1e-4
    np.testing.assert_allclose(
        np.asarray(found)[whole], np.asarray(expected)[whole], rtol=tolerance
    )
