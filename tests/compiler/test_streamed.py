"""The streamed recipe: operands whose lanes are no neighbours, and short axes."""

import numpy as np
import pytest
from einsumc.compiler.choose import block_sizes, choose
from einsumc.compiler.geometry import canonical
from einsumc.compiler.pipeline import stages
from einsumc.runtime.target import LEVELS, can_run
from steps import Step, bind, run, scratch_memory
from sweeps import sweep

needs_v3 = pytest.mark.skipif(
    not can_run(LEVELS["x86-64-v3"]), reason="the kernels are for x86-64-v3"
)

SHORT = [
    ("nc,nc->n", {"n": 2001, "c": 2}),
    ("nc,nc->n", {"n": 2001, "c": 3}),
    ("nc,nc->n", {"n": 2001, "c": 5}),
    ("nc,nc,n->n", {"n": 1003, "c": 7}),
    ("ni,ij->nj", {"n": 2001, "i": 3, "j": 3}),
    ("ni,ij->nj", {"n": 999, "i": 2, "j": 2}),
    ("ni,ij->nj", {"n": 999, "i": 5, "j": 3}),
    ("nij,nkj->nik", {"n": 555, "i": 3, "j": 3, "k": 3}),
]
"""Sums over few neighbours, and results of few neighbours, many times."""

NAMES = [f"{equation}-{'x'.join(map(str, sizes.values()))}" for equation, sizes in SHORT]


def made(equation, sizes, element):
    """A step, its canonical form and its schedule."""
    step = Step(equation, sizes, element)
    form = canonical(step.geometry())
    return step, form, choose(form, step.machine)


def checked(equation, sizes, element="f4"):
    """The schedule of a step, once its kernel was seen to compute the right numbers."""
    step, form, choice = made(equation, sizes, element)
    random = np.random.default_rng(0)
    shapes = map(step.shape, step.terms)
    *arrays, out = (random.integers(-9, 10, shape).astype(element) for shape in shapes)
    call = bind(choice, form, step.machine)
    scratch, address = scratch_memory(call.scratch_bytes)
    run(call, [each.ctypes.data for each in (*arrays, out)], address)
    np.testing.assert_array_equal(out, np.einsum(equation, *arrays))
    assert scratch.size
    return choice.schedule


@pytest.mark.parametrize("element", ["f4", "f8"])
@pytest.mark.parametrize(("equation", "sizes"), SHORT, ids=NAMES)
def test_short_runs_are_turned_in_registers(equation, sizes, element):
    """Lanes run along the long index; no element is gathered by itself."""
    _, form, choice = made(equation, sizes, element)
    (lanes,) = choice.members["v"]
    assert form.extents[lanes] == sizes["n"]
    source = stages(choice.schedule).source
    assert "load_any" not in source
    assert "load_woven" in source or "load_columns" in source


@needs_v3
@pytest.mark.parametrize(
    ("equation", "sizes", "element"),
    sweep(
        ((*case, element) for case in SHORT for element in ("f4", "f8", "c8", "i4")),
        lambda *case: case[2] == ("f4", "c8")[SHORT.index(case[:2]) % 2],
    ),
)
def test_short_runs_are_computed_right(equation, sizes, element):
    checked(equation, sizes, element)


@pytest.mark.parametrize("extent", [2, 3, 8, 100])
def test_blocks_of_operands_with_short_runs_are_short(extent):
    """Both operands are read side by side, not a block of one after a block of the other."""
    step, form, choice = made("nc,nc->n", {"n": 10**6, "c": extent}, "f8")
    if not choice.schedule.panels:
        return
    extents = {group: form.volume(m) for group, m in choice.members.items()}
    blocks = block_sizes(choice.schedule, extents, step.machine, 1)
    tile = choice.schedule.lane_tile
    assert blocks["V_BLOCK"] * extent * 8 <= max(1024, 8 * extent * tile) + 8 * extent * tile


@needs_v3
def test_rows_are_read_whole():
    """Of a large operand: in one tile as wide as they are, or a few rows at a time."""
    schedule = checked("jk,ijkl->il", {"i": 5, "j": 9, "k": 70, "l": 72})
    assert schedule.lane_tile == 72
    assert "r_block" not in schedule.outer
    schedule = checked("k,ikl->il", {"i": 30, "k": 100, "l": 200})
    assert schedule.outer.index("r_block") < schedule.outer.index("v_tile")
    schedule = checked("k,ikl->il", {"i": 600, "k": 5, "l": 200})  # near each other
    assert "r_block" in schedule.inner


@needs_v3
def test_many_places_of_memory_are_not_read_side_by_side():
    """Rows far from each other are added up one after the other, in the order of memory."""
    schedule = checked("fhc,cfe->he", {"f": 31, "h": 8, "c": 8, "e": 935}, "f8")
    assert "q_block" in schedule.outer
    assert "r" not in [group.name for group in schedule.groups]


@needs_v3
def test_rows_and_late_sums_together():
    """Two loops outside the tile add to the same part of the output."""
    schedule = checked("cba,b->a", {"c": 60, "b": 60, "a": 200})
    assert {"q_block", "r_block"} <= {*schedule.outer}
