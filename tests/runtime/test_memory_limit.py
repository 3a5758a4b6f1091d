"""`memory_limit=`: right results for every dtype and layout, and memory that is really not used."""

import subprocess
import sys
from math import prod

import numpy as np
import pytest
from einsumc.compiler.errors import EinsumError, EinsumTypeError
from einsumc.runtime import buffers, pieces, workspaces
from einsumc.runtime.decorator import compile_einsum, einsum
from einsumc.runtime.memory import parse_bytes
from einsumc.runtime.operands import prepare
from hypothesis import given
from hypothesis import strategies as st
from product_bodies import bodies
from strategies import Seeded, check, draw_call
from sweeps import examples, sweep


def limited(limit, seen):
    """An `einsum` that follows some path, and slices where it can."""

    def compute(*operands, **options):
        options.pop("optimize", None)
        if isinstance(operands[0], str) and "," in operands[0]:
            count = operands[0].partition("->")[0].count(",") + 1
            path = [(0, left) for left in range(count - 1, 0, -1)]
            try:
                result = einsum(*operands, **options, optimize=path, memory_limit=limit)
                seen.append(1)
                return result
            except EinsumError as error:
                if "memory_limit" not in str(error):
                    raise
        return einsum(*operands, **options)

    return compute


SEEDS = [range(25), range(25, 100), *(range(n, n + 100) for n in range(100, 400, 100))]


@pytest.mark.parametrize("limit", sweep([64, 192, 512], lambda limit: limit == 64))
@pytest.mark.parametrize("seeds", sweep(SEEDS, lambda seeds: seeds.start == 0), ids=str)
def test_random_calls(limit, seeds, monkeypatch):
    """All dtypes, layouts, `out`s over operands, options."""
    sliced, sizes, seen = [], [], []
    run, take = pieces.Pieces.run, workspaces.take

    def counted(self, *arguments):
        sliced.append(self.sliced.slices)
        return run(self, *arguments)

    def measured(size):
        sizes.append(size)
        return take(size)

    monkeypatch.setattr(pieces.Pieces, "run", counted)
    monkeypatch.setattr(workspaces, "take", measured)
    for seed in seeds:
        sizes.clear()
        before = len(seen)
        check(limited(limit, seen), draw_call(Seeded(seed)))
        if len(seen) > before:
            assert all(size <= limit for size in sizes)
    assert len(seen) > 7 * len(seeds) // 25
    if limit < 512:
        assert sliced


CASES = [
    ("ij,jk,kl->il", [(37, 50), (50, 41), (41, 70)]),  # a kept index
    ("ij,jk,ik->", [(37, 50), (50, 41), (37, 41)]),  # summed ones
    ("ijk,k,ij->", [(30, 70, 9), (9,), (30, 70)]),  # summed ones alone
    ("aij,ajk,kl->ail", [(3, 30, 70), (3, 70, 20), (20, 90)]),
    ("ab,bc,cd,di->i", [(8, 8), (8, 8), (8, 400), (400, 40)]),  # hoisted
    ("ij,kj,lj->ikl", [(9, 100), (10, 100), (11, 100)]),
]
DTYPES = ["f2", "f4", "f8", "c8", "c16", "i1", "u4", "i8", "?"]


@pytest.mark.parametrize(
    ("text", "shapes", "dtype"),
    sweep(
        ((*case, dtype) for case in CASES for dtype in DTYPES),
        lambda text, _, dtype: (
            dtype in "f2 c16 i1"
            if text == CASES[0][0]
            else dtype == "f4" and text in [CASES[n][0] for n in (1, 2, 4)]
        ),
    ),
)
def test_slices_of_every_kind(text, shapes, dtype):
    rng = np.random.default_rng(0)
    high = 2 if dtype == "?" else 3
    operands = [rng.integers(0, high, shape).astype(dtype) for shape in shapes]
    # One is transposed in memory, one runs backwards, so that strides count.
    operands[0] = np.asfortranarray(operands[0])
    operands[1] = operands[1][::-1].copy()[::-1]
    path = [(0, 1), *((0, left) for left in range(len(shapes) - 2, 0, -1))]
    wanted = einsum(text, *operands, optimize=path)
    whole = compile_einsum(text, optimize=path).explain(*operands)
    names = [each.target.tensor for each in whole.factorization.program.statements[:-1]]
    made = [whole.temporaries[name] for name in names]  # not the copies of operands
    limit = max(prod(shape) * dtype.itemsize for shape, dtype in made) // 3
    compiled = compile_einsum(text, optimize=path, memory_limit=limit)
    plan = compiled.explain(*operands)
    assert plan.slices
    assert plan.peak_memory <= limit
    result = compiled(*operands)
    assert result.dtype == wanted.dtype
    if dtype in ("f2", "f4", "f8", "c8", "c16"):
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(result, wanted, rtol=20 * eps)
    else:
        np.testing.assert_array_equal(result, wanted)
    if np.ndim(wanted):
        out = np.zeros((*wanted.shape, 2), dtype)[..., 1]
        assert compiled(*operands, out=out) is out
        np.testing.assert_array_equal(out, result)
        assert not out.base[..., 0].any()


def test_half_precision_is_summed_in_single():
    """Adding up 4096 slices in half precision would stop at 2048."""
    ones = np.ones((64, 64, 2), "f2")
    half = np.full(2, 0.5, "f2")
    compiled = compile_einsum("ijk,k,ij->", optimize=[(0, 1), (0, 1)], memory_limit=192)
    plan = compiled.explain(ones, half, ones[..., 0])
    assert all(each.reduced for each in plan.slices)
    assert plan.slices
    assert compiled(ones, half, ones[..., 0]) == 4096


def test_the_same_array_twice():
    """A slice begins elsewhere in one access than in the other."""
    a = np.random.default_rng(0).random((60, 60))
    compiled = compile_einsum("ij,jk,kl->il", optimize=[(0, 1), (0, 1)], memory_limit=4096)
    assert compiled.explain(a, a, a).slices
    np.testing.assert_allclose(compiled(a, a, a), a @ a @ a)
    b = a.copy()
    np.testing.assert_allclose(compiled(b, b, b, out=b), a @ a @ a)


ALIKE = [
    "ti,si,ts->t",  # blocks of t and of s are blocks of one tensor, not one block
    "ti,si,ts->",
    "it,is,ts->t",
    "ti,ij,sk,kj,ts->t",  # what t and s have in common is computed once
    "ti,ij,tj,sk,kj,sj->j",  # the square of a sum is no sum of squares
    "ti,si,tj,sj->",
]


@pytest.mark.parametrize("equation", sweep(ALIKE, lambda equation: equation in ALIKE[:3:2]))
def test_products_of_a_tensor_with_itself(equation):
    sizes = {"t": 64, "s": 64, "i": 100, "k": 100, "j": 40}
    numbers, arrays, operands = np.random.default_rng(2), {}, []
    for term in equation.partition("->")[0].split(","):
        name = term if term == "ts" else term.replace("s", "t").replace("k", "i")
        values = numbers.integers(-3, 4, [sizes[i] for i in term]).astype("f8")
        operands.append(arrays.setdefault(name, values))
    expected = np.einsum(equation, *operands, optimize="greedy")
    sliced = set()
    for limit in (1 << power for power in range(9, 15)):
        compiled = compile_einsum(equation, memory_limit=limit)
        try:
            plan = compiled.explain(*operands)
        except EinsumError:
            continue
        sliced |= {each.index for each in plan.slices}
        np.testing.assert_array_equal(compiled(*operands), expected)
    assert sliced


def test_the_same_bits_for_any_number_of_threads(monkeypatch):
    rng = np.random.default_rng(0)
    operands = [rng.random((n, m)) for n, m in ((300, 200), (200, 300), (300, 100))]
    results = []
    for count in ("1", "2", "3"):
        monkeypatch.setenv("EINSUMC_NUM_THREADS", count)
        compiled = compile_einsum("ij,jk,kl->il", memory_limit="30 KiB")
        assert compiled.explain(*operands).slices
        results.append(compiled(*operands).tobytes())
    assert len(set(results)) == 1


def test_nan_and_infinity_do_not_warn():
    a = np.ones((30, 30))
    a[3, 4], a[5, 6], a[6, 6] = np.inf, -np.inf, np.nan
    text, path = "ij,jk,ik->", [(0, 1), (0, 1)]
    with np.errstate(all="raise"):
        compiled = compile_einsum(text, optimize=path, memory_limit=1000)
        assert compiled.explain(a, a, a).slices
        assert np.isnan(compiled(a, a, a))


def test_limits_read():
    for text, count in (("64 MiB", 64 << 20), ("1kB", 1000), ("2.5 GiB", 5 << 29), ("7", 7)):
        assert parse_bytes(text) == count
    assert parse_bytes(np.int64(5)) == 5
    for wrong in ("64 MiX", "", "MiB", "-1", "1e3", "1 2", "٣"):
        with pytest.raises(EinsumError, match="a size is"):
            parse_bytes(wrong)
    with pytest.raises(EinsumError, match="-1"):
        parse_bytes(-1)
    for wrong in (1.5, [1], b"1"):
        with pytest.raises(EinsumTypeError, match="a size is"):
            parse_bytes(wrong)
    with pytest.raises(EinsumError, match="True"):
        parse_bytes(True)


def test_it_is_part_of_what_is_compiled():
    a = np.ones((40, 40))
    text, path = "ij,jk,kl->il", [(0, 1), (0, 1)]
    np.testing.assert_allclose(einsum(text, a, a, a, optimize=path, memory_limit="2 KiB"), 1600)
    np.testing.assert_allclose(einsum(text, a, a, a, optimize=path), 1600)

    @compile_einsum(text, optimize=path, memory_limit="2 KiB")
    def stub(a, b, c): ...

    assert stub.memory_limit == 2048
    plan = stub.explain(a, c=a, b=a)
    assert plan.peak_memory <= 2048
    assert "in slices: i in " in plan.stage("tree")
    assert plan.steps[0].runs == plan.slices[0].count
    assert compile_einsum(text, optimize=path).explain(a, a, a).flops == plan.flops


def test_a_limit_that_cannot_be_kept_is_one_clear_error():
    a = np.ones((40, 40))
    compiled = compile_einsum("ij,jk,kl->il", optimize=[(0, 1), (0, 1)], memory_limit=10)
    for ask in (compiled, compiled.explain):
        with pytest.raises(EinsumError, match=r"memory_limit=10: .* at least 128 bytes"):
            ask(a, a, a)


def test_no_limit_and_much_memory_are_the_same():
    a = np.random.default_rng(0).random((40, 40))
    free, bounded = (compile_einsum("ij,jk,kl->il", memory_limit=m) for m in (None, "1 GiB"))
    assert free(a, a, a).tobytes() == bounded(a, a, a).tobytes()
    plans = [each.explain(a, a, a) for each in (free, bounded)]
    assert plans[0].peak_memory == plans[1].peak_memory
    assert not plans[1].slices


def test_operands_are_converted_before(monkeypatch):
    """What the limit does not bound: copies of operands in another dtype or byte order."""
    a = np.ones((40, 40), ">f4")
    compiled = compile_einsum("ij,jk,kl->il", optimize=[(0, 1), (0, 1)], memory_limit=2048)
    np.testing.assert_allclose(compiled(a, a, a), 1600)
    assert prepare(a, np.dtype("f4")).nbytes > 2048


MEASURE = """
import sys
import numpy as np
from einsumc import compile_einsum
def peak():
    (line,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10
n, limit = 5000, sys.argv[1]
compiled = compile_einsum(
    "ij,jk,kl->il", optimize=[(0, 1), (0, 1)], memory_limit=None if limit == "none" else limit
)
operands = [np.ones((n, 8)), np.ones((8, n)), np.ones((n, 8))]
compiled(*(x[:1000, :1000] for x in operands))  # imports, compiler
before = peak()
result = compiled(*operands)
assert (result == n * 8).all()
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_the_memory_of_the_process():
    """An intermediate of 200 MB, whole and in 16 MiB."""
    used = {}
    for limit in ("none", "16 MiB"):
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, limit], capture_output=True, text=True, check=True
        )
        used[limit] = int(done.stdout)
    assert used["none"] > 180e6
    assert used["16 MiB"] < 50e6


def test_workspaces_are_as_large_as_told(monkeypatch):
    sizes = []
    allocate = buffers.allocate

    def counted(size, purpose):
        if purpose == "intermediates":
            sizes.append(size)
        return allocate(size, purpose)

    monkeypatch.setattr(buffers, "allocate", counted)
    monkeypatch.setattr(workspaces, "kept", buffers.Kept("intermediates"))
    a = np.ones((100, 100))
    for limit in (None, 50_000, 10_000):
        compiled = compile_einsum("ij,jk,kl->il", optimize=[(0, 1), (0, 1)], memory_limit=limit)
        workspaces.kept.buffer = buffers.Buffer(None, 0, 0)
        compiled(a, a, a)
        assert sizes.pop() == compiled.explain(a, a, a).peak_memory


body_slices = []


@examples(10)
@given(bodies(), st.sampled_from([2, 4, 9]))
def test_bodies_in_pieces(body, part):
    numbers = np.random.default_rng(1)
    operands = numbers.integers(-2, 3, (12, 6, 20)) * 1.0, numbers.integers(-1, 2, (6, 20)) * 1.0
    limit = compile_einsum(body).explain(*operands).peak_memory // part
    compiled = compile_einsum(body, memory_limit=limit)
    try:
        plan = compiled.explain(*operands)
    except EinsumError as error:
        assert "memory_limit" in str(error)
        return
    body_slices.extend(plan.slices)
    assert plan.peak_memory <= limit
    for found, expected in zip(compiled(*operands), body(*operands), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_body_that_was_written_for_memory():
    """Norms, and the sum that depends on all of them: one index is kept here and summed there."""

    @compile_einsum(memory_limit="16 KiB")
    def clipped(b, a, most):
        gradient = np.einsum("nti,ntj->nij", b, a)
        squared = np.einsum("nij,nij->n", gradient, gradient)
        weights = np.minimum(1, most / np.sqrt(squared))
        return {"squared": squared, "sum": np.einsum("n,nij->ij", weights, gradient)}

    numbers = np.random.default_rng(0)
    b, a = numbers.normal(size=(33, 40, 30)), numbers.normal(size=(33, 40, 20))
    plan = clipped.explain(b, a, 100.0)
    assert plan.slices
    assert plan.peak_memory <= 16 << 10
    assert "in slices: n in " in plan.stage("tree")
    found, expected = clipped(b, a, 100.0), clipped.__wrapped__(b, a, 100.0)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12)
    with pytest.raises(EinsumError, match=r"memory_limit=100: .* at least \d+ bytes"):
        compile_einsum(clipped.__wrapped__, memory_limit=100)(b, a, 100.0)
