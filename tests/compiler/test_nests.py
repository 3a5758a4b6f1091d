"""Loop nests: valid and right after every pass, for random steps, and so are their kernels."""

import zlib
from dataclasses import replace

import numpy as np
import pytest
from einsumc.compiler.choose import Choice, block_sizes, choose
from einsumc.compiler.geometry import Geometry, canonical
from einsumc.compiler.interpret import Binding, interpret
from einsumc.compiler.loopnest import Nest, Tiles
from einsumc.compiler.machine import TARGETS, Machine
from einsumc.compiler.pipeline import stages, stages_of
from einsumc.runtime.bind import argument_values
from hypothesis import given
from hypothesis import strategies as st
from sweeps import checkered, examples, sweep

# Caches so small that a few elements already make several blocks.
SMALL = Machine(TARGETS["x86-64-v3"], cores=2, l1_bytes=1 << 10, l2_bytes=1 << 12, partial_sum=3)
PACKING = replace(SMALL, worth_packing=1)


def arrays_for(terms, extents, dtype, rng, twist):
    """Integer-valued operands with layouts that ``twist`` picks: permuted, strided, reversed."""
    operands = []
    for term in terms:
        order = rng.permutation(len(term)) if twist & 1 else np.arange(len(term))
        step = 2 if twist & 2 else 1
        base = np.array(rng.integers(-3, 4, [extents[term[i]] * step for i in order]), dtype)
        view = base[(..., *(slice(None, None, step) for _ in order))]
        view = view.transpose(np.argsort(order))
        operands.append(view[::-1] if twist & 4 and view.ndim else view)
    return operands


def geometry_of(terms, output, arrays, out, element):
    def strides(term, array):
        total = {}
        for index, stride in zip(term, array.strides, strict=True):
            total[index] = total.get(index, 0) + stride // array.itemsize
        return total

    extents = {}
    for term, array in zip([*terms, output], [*arrays, out], strict=True):
        extents.update(zip(term, array.shape, strict=True))
    return canonical(
        Geometry(
            (element,) * (len(arrays) + 1),
            element,
            extents,
            tuple(strides(t, a) for t, a in zip([*terms, output], [*arrays, out], strict=True)),
        )
    )


def base_of(array):
    """The flat memory under a view, and the position of its first element."""
    whole = array
    while isinstance(whole.base, np.ndarray):
        whole = whole.base
    flat = whole.reshape(-1)
    start = array.__array_interface__["data"][0] - flat.__array_interface__["data"][0]
    return flat, start // array.itemsize


def binding_of(nest: Nest, choice: Choice, step, arrays, out, machine):
    """What the names in a nest mean: those of the step's indices before fusion, else of groups."""
    tensors = [*choice.operands, len(arrays)]
    every = [*arrays, out]
    values = argument_values(choice, step, machine, 2)
    groups = choice.members
    if any(group.into for group in nest.groups):
        groups = {g.name: (g.name,) if g.name in step.extents else () for g in nest.groups}
    return Binding(
        members={g: [step.extents[i] for i in m] for g, m in groups.items()},
        strides={
            (name, g): [step.strides[t].get(i, 0) for i in m]
            for name, t in zip(choice.schedule.names, tensors, strict=True)
            for g, m in groups.items()
        },
        blocks={name: values[name] for name in choice.schedule.blocks},
        memory={
            name: base_of(every[t]) for name, t in zip(choice.schedule.names, tensors, strict=True)
        },
    )


EQUATIONS = [
    "ij,jk->ik",
    "bij,bjk->bik",
    "ji,kj->ki",
    "iajb,jbkc->iakc",
    "abc->cba",
    "ab->ba",
    "abc,abc->abc",
    "ij->i",
    "ij->j",
    "ij->",
    "ii->i",
    "ii->",
    "ij,j->i",
    "ij,i->j",
    "i,j->ij",
    "ijk,ik,jk->i",
    "ki,k,kj,k->ij",
    "bk,bgk,bkd->bgd",
    "nc,nc->n",
    ",->",
    "i,->i",
]


def run_stages(equation, extents, twist, seed, packed):
    left, output = equation.split("->")
    terms = left.split(",")
    rng = np.random.default_rng(seed)
    arrays = arrays_for(terms, extents, np.float64, rng, twist)
    expected = np.einsum(equation, *arrays)
    out = np.full(expected.shape, 99.0)
    step = geometry_of(terms, output, arrays, out, "f8")
    choice = choose(step, PACKING if packed else SMALL)
    made = stages_of(choice, step)
    assert made.source == stages(choice.schedule).source
    for name, nest in made.nests:
        out[...] = 99.0
        interpret(nest, binding_of(nest, choice, step, arrays, out, SMALL))
        np.testing.assert_array_equal(out, expected, err_msg=f"after {name}")
    return choice


@pytest.mark.parametrize("equation", EQUATIONS)
@pytest.mark.parametrize("twist", [0, 7])
def test_right_after_every_pass(equation, twist):
    extents = dict.fromkeys("abcdgijkn", 3) | {"i": 9, "k": 6, "j": 5, "c": 2}
    run_stages(equation, extents, twist, zlib.crc32(equation.encode()), packed=False)


@pytest.mark.parametrize(
    ("equation", "twist"),
    checkered(["ij,jk->ik", "bij,bjk->bik", "iajb,jbkc->iakc", "ji,kj->ki"], [0, 3]),
)
def test_packed_recipe_is_right_after_every_pass(equation, twist):
    extents = dict.fromkeys("abcijk", 3) | {"i": 13, "k": 9, "j": 10}
    choice = run_stages(equation, extents, twist, 7, packed=True)
    assert choice.schedule.recipe == "packed"


@pytest.mark.parametrize(
    ("extent", "summed"), sweep([(9, 11), (16, 30), (23, 11), (40, 30)], lambda n, _: n & 1)
)
@pytest.mark.parametrize("equation", ["ij,kj->ik", "ji,jk->ik", "ij,kj->ki", "bij,bkj->bik"])
def test_mirrored_products_are_right_after_every_pass(extent, summed, equation):
    left, output = equation.split("->")
    terms = left.split(",")
    machine = PACKING
    shape = [{"b": 2, "j": summed}.get(index, extent) for index in terms[0]]
    array = np.random.default_rng(0).integers(-3, 4, shape).astype(np.float64)
    expected = np.einsum(equation, array, array)
    out = np.full(expected.shape, 99.0)
    step = replace(geometry_of(terms, output, [array, array], out, "f8"), twins=True)
    choice = choose(step, machine)
    assert choice.schedule.mirrored
    assert choice.schedule.collected == (summed > 24)
    for name, nest in stages_of(choice, step).nests:
        out[...] = 99.0
        interpret(nest, binding_of(nest, choice, step, [array, array], out, machine))
        np.testing.assert_array_equal(out, expected, err_msg=f"after {name}")


@examples(20)
@given(st.data())
def test_random_steps_are_right_after_every_pass(data):
    indices = "abcde"
    count = data.draw(st.integers(1, 3))
    terms = [
        "".join(data.draw(st.lists(st.sampled_from(indices), max_size=3))) for _ in range(count)
    ]
    used = sorted(set("".join(terms)))
    output = "".join(data.draw(st.lists(st.sampled_from(used), unique=True)) if used else [])
    extents = {i: data.draw(st.integers(1, 6)) for i in used}
    twist, seed = data.draw(st.integers(0, 7)), data.draw(st.integers(0, 99))
    packed = data.draw(st.booleans())
    run_stages(f"{','.join(terms)}->{output}", extents, twist, seed, packed=packed)


def test_every_tile_range_gives_the_same_bits():
    rng = np.random.default_rng(3)
    arrays = [rng.random((30, 7)), rng.random((7, 40))]
    out = np.zeros((30, 40))
    step = geometry_of(["ij", "jk"], "ik", arrays, out, "f8")
    choice = choose(step, PACKING)
    nest = stages(choice.schedule).final
    binding = binding_of(nest, choice, step, arrays, out, SMALL)
    interpret(nest, binding)
    whole, out[...] = out.copy(), 0
    assert isinstance(nest.body[0], Tiles)
    for number in reversed(range(64)):
        interpret(nest, binding, range(number, number + 1))
    assert out.tobytes() == whole.tobytes()


def test_sums_are_cut_alike_for_any_number_of_threads():
    step = canonical(
        Geometry(
            ("f4",) * 3,
            "f4",
            {"i": 999, "j": 5000, "k": 777},
            ({"i": 5000, "j": 1}, {"j": 777, "k": 1}, {"i": 777, "k": 1}),
        )
    )
    schedule = choose(step, SMALL).schedule
    extents = {"m": 999, "n": 777, "k": 5000}
    depths = {block_sizes(schedule, extents, SMALL, t)["K_BLOCK"] for t in (1, 2, 3, 64)}
    assert len(depths) == 1
