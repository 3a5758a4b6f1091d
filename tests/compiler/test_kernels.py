"""Compiled kernels against np.einsum and the interpreter: edges of tiles, strides, memory."""

import ctypes
import zlib
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from einsumc.compiler.choose import ahead, choose
from einsumc.compiler.geometry import canonical
from einsumc.compiler.interpret import interpret
from einsumc.compiler.machine import Machine
from einsumc.compiler.pipeline import stages
from einsumc.runtime.target import LEVELS, can_run
from guards import Guarded, guarded, in_a_child
from steps import V3, Step, bind, binding, geometry, run, scratch_memory, view_strides

pytestmark = pytest.mark.skipif(
    not can_run(LEVELS["x86-64-v3"]), reason="the kernels are for x86-64-v3"
)

# Caches so small that a few elements already make several blocks.
STREAMED = Machine(V3, l1_bytes=1 << 10, l2_bytes=1 << 12, partial_sum=3, worth_packing=1 << 60)
PACKED = replace(STREAMED, worth_packing=1)
BASE = 64  # an extent that fills register tiles


def _cases():
    product = "ij,jk->ik"
    for element in ("f2", "f4", "f8", "c8", "c16", "i2", "i4", "i8", "u1", "b1"):
        yield product, element, PACKED, None
    for element, equation, memory in (
        ("f4", product, "ji,kj->ik"),
        ("f4", product, "ij,jk->ki"),
        ("f8", "bij,bjk->bik", None),
        ("f4", "iajb,jbkc->iakc", None),
        ("f8", "iajb,jbkc->iakc", "jbia,kcjb->kcia"),
    ):
        yield equation, element, PACKED, memory
    for equation in (
        "ij->i", "ij->j", "ij->", "ii->i", "ii->", "ab->ba", "abc->cba", "ij,ij,ij->ij", "ij,j->i",
        "ij,i->j", "i,j->ij", "nc,nc->n", "ki,k,kj,k->ij", "bk,bgk,bkd->bgd", "ijk,ik,jk->i",
        "ij,jk->ik",
    ):  # fmt: skip
        yield equation, "f4", STREAMED, None
    for element in ("f2", "c16", "i1", "b1"):
        yield "ij,j->i", element, STREAMED, None
    for element in ("f8", "c8", "u1"):
        yield "ab->ba", element, STREAMED, None


CASES = {
    f"{equation}-{element}-{'packed' if machine is PACKED else 'streamed'}"
    + (f"-as-{memory}" if memory else ""): Step(
        equation,
        dict.fromkeys(sorted(set(equation) - set(",->")), BASE),
        element,
        memory,
        gaps=True,
        machine=machine,
    )
    for equation, element, machine, memory in _cases()
}

NARROW = 20  # columns that one and a quarter of two vectors, but two and a half of one would have
CASES |= {
    f"ij,jk->ik-{element}-narrow" + (f"-as-{memory}" if memory else ""): Step(
        "ij,jk->ik", {"i": BASE, "j": BASE, "k": NARROW}, element, memory, True, PACKED
    )
    for element, memory in (("f4", None), ("f4", "ji,kj->ki"), ("f4", "ij,jk->ki"), ("f2", None))
}

LONG = 20000  # rows or lanes of an operand that comes from memory
CASES |= {
    f"{equation}-{element}-ahead-{along}": Step(
        equation, dict(zip("ijk", sizes, strict=True)), element, memory, True, PACKED
    )
    for along, equation, element, memory, sizes in (
        ("rows", "ij,jk->ik", "f8", None, (LONG, BASE, 60)),
        ("rows", "ij,jk->ik", "f4", "ji,jk->ik", (LONG, BASE, 60)),
        ("rows in place", "ij,jk->ik", "f4", None, (LONG, BASE, NARROW)),
        ("lanes", "ij,jk->ik", "f8", None, (BASE, BASE, LONG)),
        ("lanes", "ij,jk->ik", "f4", "ij,kj->ik", (BASE, BASE, LONG)),
    )
}
CASES |= {
    f"iajb,jbkc->iakc-f4-ahead-{along}": Step(
        "iajb,jbkc->iakc", dict(zip("iajbkc", sizes, strict=True)), "f4", memory, True, PACKED
    )
    for along, memory, sizes in (
        ("rows", "jbia,jbkc->iakc", (LONG, 20, 8, 8, 10, 6)),
        ("lanes", None, (10, 6, 8, 8, LONG, 20)),
    )
}

EDGES = (1, 2, 3, 5, 6, 7, 8, 9, 12, 15, 16, 17, 31, 32, 33)
MOST = 4000  # points of a call, and of one that is interpreted


@pytest.fixture(autouse=True)
def blocks_of_a_panel(monkeypatch):
    """Blocks that are asked for ahead are so small that there are several."""
    for name in ("HELD", "SOON", "ABREAST"):
        monkeypatch.setattr(ahead, name, 1)


@cache
def chosen(name):
    """A case's schedule, for extents that fill the tiles; it is then run with others."""
    step = CASES[name]
    form = canonical(step.geometry())
    assert set(form.extents) == set(step.extents)
    return form, choose(form, step.machine)


def fixed(name):
    """The (tensor, index) whose stride of 1 is part of the kernel."""
    _, choice = chosen(name)
    tensors = dict(
        zip(choice.schedule.names, (*choice.operands, len(choice.operands)), strict=True)
    )
    return {
        (tensors[tensor], choice.members[group][-1])
        for tensor, group, stride in choice.schedule.strides
        if stride == 1
    }


def layouts(name, rng, most=MOST):
    """Extents around tile sizes, and for every axis of every tensor the step in its memory."""
    step = CASES[name]
    indices = list(step.extents)
    extents = {index: int(rng.choice(EDGES)) for index in indices}
    while np.prod(list(extents.values())) > most:
        extents[indices[rng.integers(len(indices))]] = int(rng.choice(EDGES[:8]))
    every = len(step.terms)
    hops = [
        {
            i: 1
            if (t, i) in fixed(name)
            else int(rng.choice([1, 1, 2, -1, -2] + [0] * (t < every - 1)))
            for i in order
        }
        for t, order in enumerate(step.orders)
    ]
    return extents, hops


def values(rng, shape, element):
    """Small whole numbers, so that every order of summation gives the same."""
    if element == "b1":
        return rng.random(shape) < 0.2
    low = 0 if element[0] == "u" else -3
    found = rng.integers(low, 4, shape)
    if element[0] == "c":
        found = found + 1j * rng.integers(low, 4, shape)
    return np.array(found, element)


def tensor(order, term, extents, hops, rng, element):
    """A view with these hops along its axes, cut out of a larger array."""
    shape = [extents[i] * max(1, abs(hops[i])) + 1 for i in order]
    view = values(rng, shape, element)
    for axis, i in enumerate(order):
        hop = hops[i]
        cut = [slice(None)] * view.ndim
        span = extents[i] * max(1, abs(hop))
        cut[axis] = slice(0, span, hop) if hop > 0 else slice(span - 1, None, hop or None)
        view = view[tuple(cut)]
        if hop == 0:
            first = view[tuple(slice(0, 1) if a == axis else slice(None) for a in range(view.ndim))]
            shape = [extents[i] if a == axis else n for a, n in enumerate(view.shape)]
            view = np.broadcast_to(first, shape)
        elif hop < 0:
            keep = slice(0, extents[i])
            view = view[tuple(keep if a == axis else slice(None) for a in range(view.ndim))]
    return view.transpose([order.index(i) for i in term]) if term != order else view


def arrays_for(name, rng, most=MOST):
    step = CASES[name]
    extents, hops = layouts(name, rng, most)
    arrays = [
        tensor(order, term, extents, hop, rng, step.element)
        for order, term, hop in zip(step.orders, step.terms, hops, strict=True)
    ]
    return extents, arrays


def bound(name, extents, arrays, threads=2):
    """The case's kernel on these arrays."""
    step = CASES[name]
    form, choice = chosen(name)
    strides = [view_strides(t, a) for t, a in zip(step.terms, arrays, strict=True)]
    found = geometry(step.element, {i: extents[i] for i in form.extents}, strides)
    return bind(choice, found, step.machine, threads)


def whole(view):
    while isinstance(view.base, np.ndarray):
        view = view.base
    return view


def call(bound_kernel, arrays, tiles=()):
    _, scratch = memory = scratch_memory(bound_kernel.scratch_bytes)
    end = scratch - memory[0].ctypes.data + bound_kernel.scratch_bytes
    run(bound_kernel, [a.ctypes.data for a in arrays], scratch, tiles)
    assert (memory[0][end:] == 0xFF).all(), "written behind the scratch memory"


@pytest.mark.parametrize("name", list(CASES))
def test_kernels_are_right_at_every_edge(name):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    recipe = "packed" if CASES[name].machine is PACKED else "streamed"
    schedule = chosen(name)[1].schedule
    assert schedule.recipe == recipe
    assert schedule.ahead is not None or "ahead" not in name
    assert schedule.in_place is not None or "in place" not in name
    for _ in range(25):
        extents, arrays = arrays_for(name, rng)
        *operands, out = arrays
        expected = np.einsum(CASES[name].equation, *operands)
        around = whole(out).copy()
        call(bound(name, extents, arrays), arrays)
        told = f"{extents} {[a.strides for a in arrays]}"
        np.testing.assert_array_equal(out, expected, err_msg=told)
        out[...] = 0
        after, whole(out)[...] = whole(out).copy(), around
        out[...] = 0
        np.testing.assert_array_equal(whole(out), after, err_msg=f"written outside of it: {told}")


@pytest.mark.parametrize("name", list(CASES))
def test_kernels_do_what_the_interpreter_does(name):
    rng = np.random.default_rng(5)
    extents, arrays = arrays_for(name, rng, most=300)
    kernel = bound(name, extents, arrays)
    call(kernel, arrays)
    found = arrays[-1].copy()
    arrays[-1][...] = 1
    interpret(stages(kernel.choice.schedule).final, binding(kernel, arrays))
    np.testing.assert_array_equal(found, arrays[-1])


@pytest.mark.parametrize(
    "name", [n for n in CASES if CASES[n].element in ("f4", "f8", "c8", "c16")]
)
def test_bits_depend_neither_on_threads_nor_on_ranges_of_tiles(name):
    rng = np.random.default_rng(6)
    extents, arrays = arrays_for(name, rng)
    for array in arrays[:-1]:
        if array.flags.writeable:
            array[...] = rng.random(array.shape) - 0.5
    results = set()
    for threads in (1, 2, 7):
        kernel = bound(name, extents, arrays, threads)
        single = [range(tile, tile + 1) for tile in reversed(range(kernel.tiles))]
        for tiles in ((), single):
            arrays[-1][...] = np.nan
            call(kernel, arrays, tiles)
            results.add(arrays[-1].tobytes())
    assert len(results) == 1


@pytest.mark.parametrize("name", ["ij,jk->ik-f4-packed", "ij->i-f4-streamed", "ij->j-f4-streamed"])
def test_nan_outside_of_the_operands_does_not_come_in(name):
    """What lies beside a partial tile is neither added nor multiplied by zero."""
    rng = np.random.default_rng(7)
    for _ in range(10):
        extents, arrays = arrays_for(name, rng)
        *operands, out = arrays
        for array in operands:
            if array.flags.writeable:  # not where one element stands for many
                inside = array.copy()
                whole(array)[...] = np.nan
                array[...] = inside
        call(bound(name, extents, arrays), arrays)
        np.testing.assert_array_equal(out, np.einsum(CASES[name].equation, *operands))


# --- memory that may not be touched ---------------------------------------------------------------


def run_between_guards(name, rng):
    for at_end in (True, False) * 4:
        extents, arrays = arrays_for(name, rng)
        expected = np.einsum(CASES[name].equation, *arrays[:-1])
        kept = [guarded(array, at_end) for array in arrays]
        copies = [copy for _, copy in kept]
        kernel = bound(name, extents, copies)
        scratch = Guarded(kernel.scratch_bytes)
        place = (scratch.end - kernel.scratch_bytes) // 64 * 64 if at_end else scratch.start
        run(kernel, [copy.ctypes.data for copy in copies], place)
        np.testing.assert_array_equal(copies[-1], expected, err_msg=f"{extents}")


@pytest.mark.parametrize("name", list(CASES))
def test_nothing_outside_of_the_tensors_is_touched(name):
    rng = np.random.default_rng(zlib.crc32(name.encode()) + 1)
    extents, arrays = arrays_for(name, rng)
    bound(name, extents, arrays)  # compiled before the fork
    status, said = in_a_child(lambda: run_between_guards(name, rng))
    assert status == 0, f"exit status {status}\n{said}"


def test_the_guards_are_real():
    def work():
        _, copy = guarded(np.zeros(10), at_end=True)
        ctypes.memset(copy.ctypes.data, 1, copy.nbytes + 1)

    assert in_a_child(work)[0] < 0
