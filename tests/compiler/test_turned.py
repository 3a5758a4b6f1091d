"""The turned recipe: outputs collected in scratch and written in whole cache lines."""

import zlib
from dataclasses import replace

import numpy as np
import pytest
from einsumc.compiler.choose import block_sizes, choose
from einsumc.compiler.geometry import canonical
from einsumc.compiler.interpret import interpret
from einsumc.compiler.loopnest import Kind, Loop, walk
from einsumc.compiler.machine import Machine
from einsumc.compiler.pipeline import stages
from einsumc.runtime.target import LEVELS, can_run
from steps import V3, Step, bind, binding, run, scratch_memory
from sweeps import every

# Nothing fits into the last cache, and little into the second one.
LARGE = Machine(V3, l2_bytes=16 << 10, l3_bytes=0)

# An equation, extents in the order of its indices' names, and the element.
CASES = [
    ("ab->ba", (300, 200), "f4"),
    ("ab->ba", (601, 75), "f4"),  # the block's rows follow each other in the output
    ("ab->ba", (19, 17), "u1"),
    ("ab->ba", (130, 1100), "u1"),
    ("ab->ba", (300, 201), "f2"),
    ("ab->ba", (130, 77), "c8"),
    ("ab->ba", (130, 77), "c16"),
    ("ab->ba", (330, 77), "b1"),
    ("abc->cba", (21, 17, 33), "f8"),
    ("abcd->dcba", (5, 7, 11, 13), "f4"),  # short axes make long runs
    ("abcdef->fedcba", (3, 5, 4, 5, 3, 24), "f4"),
    ("abcd->cadb", (9, 10, 11, 12), "f8"),  # a run that goes on along the operand's neighbours
    ("abcdef->cafdbe", (3, 5, 4, 5, 11, 14), "f4"),
    ("abcd->dacb", (6, 40, 3, 9), "f4"),
    ("abc->bac", (20, 30, 60), "f4"),  # neighbours in both
    ("abc->bac", (50, 60, 3), "f4"),
    ("abc->bac", (50, 60, 2), "u1"),
    ("abcd->cbad", (9, 8, 40, 13), "c8"),
    ("abc->bac", (7, 5, 1500), "f4"),
    ("ab,ba->ab", (130, 70), "f4"),  # several operands
    ("ab,ba->ab", (70, 170), "f2"),
    ("ab,ab,ab->ab", (130, 70), "f8"),
    ("ab,a->ab", (130, 700), "c8"),
    ("ab,b,a->ba", (130, 700), "i4"),
    ("a,b->ab", (130, 700), "b1"),
]
NAMES = [f"{equation}-{element}-{i}" for i, (equation, _, element) in enumerate(CASES)]

needs_v3 = pytest.mark.skipif(
    not can_run(LEVELS["x86-64-v3"]), reason="the kernels are for x86-64-v3"
)


def made(case, machine=LARGE):
    """A case's step in canonical form and its schedule."""
    equation, sizes, element = case
    indices = sorted(set(equation) - set(",->"))
    step = Step(equation, dict(zip(indices, sizes, strict=True)), element, machine=machine)
    form = canonical(step.geometry())
    return step, form, choose(form, machine)


def arrays_for(step, rng, shift=0):
    """Operands of small whole numbers, and an output ``shift`` elements into its memory."""
    kind = step.element[0]
    operands = []
    for term in step.terms[:-1]:
        found = rng.integers(0, 2 if kind == "b" else 5, step.shape(term))
        operands.append((found + 1j * found.T.reshape(found.shape)[::-1]) if kind == "c" else found)
    operands = [np.array(found, step.element) for found in operands]
    shape = step.shape(step.terms[-1])
    size = int(np.prod(shape))
    memory = np.zeros(size + 128, step.element)
    return operands, memory[shift : shift + size].reshape(shape), memory


@needs_v3
@pytest.mark.parametrize("case", every(2, [(case,) for case in CASES]), ids=NAMES)
def test_outputs_are_right_wherever_they_begin(case):
    """Cache lines that blocks share, and what lies around the output."""
    rng = np.random.default_rng(zlib.crc32(repr(case).encode()))
    step, form, choice = made(case)
    assert choice.schedule.recipe == "turned"
    for shift in (0, 1, 5, 16, 63):
        operands, out, memory = arrays_for(step, rng, shift)
        memory[...] = 1
        expected = np.einsum(step.equation, *operands)
        call = bind(choice, form, LARGE)
        kept, scratch = scratch_memory(call.scratch_bytes)
        end = scratch - kept.ctypes.data + call.scratch_bytes
        order = [range(tile, tile + 1) for tile in reversed(range(call.tiles))]
        for tiles in ((), order):
            out[...] = 1
            run(call, [a.ctypes.data for a in (*operands, out)], scratch, tiles)
            np.testing.assert_array_equal(out, expected)
            assert (memory[:shift] == 1).all()
            assert (memory[shift + out.size :] == 1).all()
            assert (kept[end:] == 0xFF).all(), "written behind the scratch memory"


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_nests_mean_the_same(case):
    """The interpreter on the nest, for extents that make several blocks."""
    rng = np.random.default_rng(3)
    equation, sizes, element = case
    few = tuple(min(n, 12) for n in sizes)
    step, form, choice = made((equation, few, element))
    if choice.schedule.recipe != "turned":
        pytest.skip("too small")
    operands, out, _ = arrays_for(step, rng)
    call = bind(choice, form, LARGE)
    interpret(stages(choice.schedule).final, binding(call, [*operands, out]))
    np.testing.assert_array_equal(out, np.einsum(equation, *operands))


def test_only_large_outputs_without_sums_are_turned():
    assert made(("ab->ba", (3000, 2000), "f4"))[2].schedule.recipe == "turned"
    assert made(("ab->a", (3000, 2000), "f4"))[2].schedule.recipe != "turned"
    roomy = replace(LARGE, l3_bytes=1 << 30)
    assert made(("ab->ba", (3000, 2000), "f4"), roomy)[2].schedule.recipe == "streamed"


def test_elements_of_one_size_share_a_kernel():
    schedules = {made(("ab->ba", (300, 200), e))[2].schedule for e in ("f4", "i4", "u4")}
    assert len(schedules) == 1
    assert {e for s in schedules for e in s.elements} == {"u4"}


def test_short_axes_are_joined_to_long_runs():
    """Rows and columns of a block are as long as they can be, without tables on their own side."""
    _, _, choice = made(("abcdef->fedcba", (4, 5, 4, 5, 3, 24), "f4"))
    schedule = choice.schedule
    assert min(len(choice.members[group]) for group in "vw") > 1
    assert {("x0", "v", 1), ("out", "w", 1)} == set(schedule.linear)
    tables = {b.name for b in stages(schedule).final.buffers}
    assert tables >= {"x0_w_at", "out_v_at"}
    assert not tables & {"x0_v_at", "out_w_at"}


def test_a_shared_line_is_in_the_block_that_writes_it():
    """The lead is a cache line at least, and nothing where there is one block."""
    for case in CASES:
        _, form, choice = made(case)
        schedule = choice.schedule
        extents = {g: form.volume(members) for g, members in choice.members.items()}
        sizes = block_sizes(schedule, extents, LARGE, 2)
        first, *inner = schedule.stage.run
        unit = int(np.prod([extents[g] for g in inner]))
        line = 64 // int(schedule.elements[-1][1:])
        block = sizes[f"{first.upper()}_BLOCK"]
        if block < extents[first]:
            assert sizes["LEAD"] * unit >= line
            assert block * unit >= line
        else:
            assert sizes["LEAD"] == 0
        loops = [s for s in walk(stages(schedule).final.body) if isinstance(s, Loop)]
        assert any(loop.lead == "LEAD" for loop in loops)
        assert any(loop.kind is Kind.RUN for loop in loops)
