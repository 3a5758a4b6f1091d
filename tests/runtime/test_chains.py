"""Chains: what runs block by block is what would be computed at once."""

import numpy as np
import pytest
from einsumc.compiler import chains as search
from einsumc.compiler.records import replace
from einsumc.runtime import chain, execute, programs, stored_plan, stored_program
from einsumc.runtime.decorator import compile_einsum
from einsumc.runtime.kernels import KernelMissing
from hypothesis import given
from hypothesis import strategies as st
from product_bodies import bodies
from sweeps import checkered, examples


def small_caches(patch, l2_bytes):
    """Let chains be sought for a machine with a small cache, whether they are faster or not."""
    found, sought = [], search.chains

    def chains(program, element, machine, *runs):
        made = sought(program, element, replace(machine, l2_bytes=l2_bytes), *runs)
        found.extend(made)
        return made

    for module in (stored_plan, stored_program):
        patch.setattr(module, "find", lambda fields: None)
        patch.setattr(module, "keep", lambda *plan: None)
    patch.setattr(programs, "chains", chains)
    patch.setattr(search, "chains", chains)
    patch.setattr(execute, "_leaves_cache", lambda *program: True)
    patch.setattr(search._Search, "_seconds", lambda self, chain: 0.0)
    patch.setattr(search, "LEAST_BLOCKS", 2)
    return found


seen = []


@examples(12)
@given(bodies(), st.sampled_from([128, 512, 2048]))
def test_random_bodies(body, l2_bytes):
    numbers = np.random.default_rng(1)
    operands = numbers.integers(-2, 3, (12, 6, 20)) * 1.0, numbers.integers(-1, 2, (6, 20)) * 1.0
    with pytest.MonkeyPatch.context() as patch:
        seen.append(small_caches(patch, l2_bytes))
        compiled = compile_einsum(body)
        for _ in range(3):  # in Python, then natively where there is one result
            made = compiled(*operands)
    for found, expected in zip(made, body(*operands), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_block_reads_all_of_what_was_made_before(monkeypatch):
    """`once` is read at the block's own position, and summed over all positions."""

    def body(x, y):
        once = np.einsum("ti,nsi->is", y, x)
        rows = np.einsum("nti,is->ti", x, once)
        return np.einsum("ti,js->i", rows, once), rows

    numbers = np.random.default_rng(1)
    operands = numbers.integers(-2, 3, (12, 6, 20)) * 1.0, numbers.integers(-1, 2, (6, 20)) * 1.0
    found = small_caches(monkeypatch, 128)
    for made, expected in zip(compile_einsum(body)(*operands), body(*operands), strict=True):
        np.testing.assert_array_equal(made, expected)
    assert found


@pytest.mark.parametrize("dtype", ["f2", "f4", "c16"])
def test_equations(dtype, monkeypatch):
    """Blocks of one, whole ones and a rest, with operands that run backwards."""
    found = small_caches(monkeypatch, 512)
    numbers = np.random.default_rng(1)
    for equation, shape in (("bij,bjk,bkl->bil", (13, 6, 6)), ("bij,bkj,bkl,bil->ib", (5, 9, 9))):
        operands = [numbers.integers(-2, 3, shape).astype(dtype) for _ in equation.split(",")]
        operands[0] = operands[0][::-1]
        compiled = compile_einsum(equation)
        for _ in range(3):  # in Python, then natively
            np.testing.assert_array_equal(compiled(*operands), np.einsum(equation, *operands))
    assert len(found) >= 2


def test_steps_run_one_by_one_where_chains_have_no_kernels(monkeypatch):
    found = small_caches(monkeypatch, 512)

    def bind_chain(*_):
        raise KernelMissing("ask for it")

    planned, prepared = [], execute._prepared

    def counted(*given, **options):
        planned.append(options["in_chains"])
        return prepared(*given, **options)

    monkeypatch.setattr(chain, "bind_chain", bind_chain)
    monkeypatch.setattr(execute, "_prepared", counted)
    numbers = np.random.default_rng(1)
    operands = [numbers.integers(-2, 3, (13, 6, 6)) * 1.0 for _ in range(3)]
    compiled = compile_einsum("bij,bjk,bkl->bil")
    expected = np.einsum("bij,bjk,bkl->bil", *operands)
    np.testing.assert_array_equal(compiled(*operands), expected)
    assert found
    assert planned == [True]
    assert compiled.explain(*operands).chains == ()


def test_an_equation_and_a_body_of_it_have_one_plan():
    equation, (x, y) = "nti,nsi,ntj,nsj->nts", np.ones((2, 64, 128, 16), "f4")
    plan = compile_einsum(equation).explain(x, x, y, y)
    body = compile_einsum(lambda x, y: np.einsum(equation, x, x, y, y)).explain(x, y)
    assert plan.chains == body.chains != ()
    assert plan.intermediates == body.intermediates
    assert [step.key for step in plan.steps] == [step.key for step in body.steps]
    assert any(place.startswith("tile ") for place in plan.intermediates.values())
    assert "together: statements 1 to " in plan.stage("tree")


def normalized(x, weight):
    """Layer normalization, with every row's mean as a second result."""
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True)
    return weight * centred / np.sqrt(variance + 1e-5), x.mean(-1)


def attention(queries, keys, values):
    weights = np.exp(queries @ keys.swapaxes(-1, -2) * 0.125)
    return weights / weights.sum(-1, keepdims=True) @ values


CASES = {
    # 300 rows are no whole number of blocks; one operand runs backwards.
    "rows": (normalized, [(300, 96), (96,)]),
    "batches": (attention, [(3, 5, 40, 16)] * 3),
}


@pytest.mark.parametrize(("name", "dtype"), checkered(CASES, ["f4", "f8"]))
def test_the_same_for_any_number_of_threads(name, dtype, monkeypatch):
    body, shapes = CASES[name]
    numbers = np.random.default_rng(0)
    operands = [numbers.standard_normal(shape).astype(dtype) for shape in shapes]
    operands[0] = operands[0][::-1]
    found = small_caches(monkeypatch, 8 << 10)
    results = []
    for count in ("1", "2", "3"):
        monkeypatch.setenv("EINSUMC_NUM_THREADS", count)
        results.append(compile_einsum(body)(*operands))
    assert found
    for one, other, expected in zip(*map(flat, (*results[:2], body(*operands))), strict=True):
        np.testing.assert_allclose(one, expected, rtol=50 * np.finfo(dtype).eps, atol=1e-6)
        assert one.tobytes() == other.tobytes()
    assert all(
        one.tobytes() == other.tobytes()
        for one, other in zip(flat(results[0]), flat(results[2]), strict=True)
    )


def flat(result):
    return result if isinstance(result, tuple) else (result,)


def test_what_a_plan_says_of_them():
    plan = compile_einsum(normalized).explain(np.ones((4096, 1024)), np.ones(1024))
    assert plan.chains
    assert plan.peak_memory < 1 << 20
    assert any(place.startswith("tile ") for place in plan.intermediates.values())
    assert "together: statements 1 to " in plan.stage("tree")
    small = compile_einsum(normalized).explain(np.ones((64, 64)), np.ones(64))
    assert not small.chains
