"""The block sizes of the packed recipe."""

from math import ceil

import pytest
from einsumc.compiler.choose import block_sizes, choose
from einsumc.compiler.choose.packed import LONGEST_TASK, SHORTEST_SIDE
from einsumc.compiler.geometry import Geometry
from einsumc.compiler.machine import TARGETS, Machine
from einsumc.compiler.pipeline import stages

MACHINE = Machine(TARGETS["x86-64-v3"])


def blocks(m, n, k, threads=1, element="f4", batch=None):
    """The schedule and block sizes of a matrix product."""
    step = Geometry(
        elements=(element,) * 3,
        accumulator=element,
        extents={"m": m, "n": n, "k": k},
        strides=({"m": k, "k": 1}, {"k": n, "n": 1}, {"m": n, "n": 1}),
    )
    schedule = choose(step, MACHINE).schedule
    assert schedule.recipe == "packed"
    extents = {"m": m, "n": n, "k": k, **({"b": batch} if batch else {})}
    return schedule, block_sizes(schedule, extents, MACHINE, threads)


@pytest.mark.parametrize("element", ["f4", "f8", "c16"])
@pytest.mark.parametrize("size", [100, 700, 768, 1000, 1536, 4000])
def test_no_block_is_a_small_rest(element, size):
    schedule, found = blocks(size, size, size, element=element)
    m = min(size, found["M_TASK"])
    count = ceil(m / found["M_BLOCK"])
    assert m - (count - 1) * found["M_BLOCK"] >= found["M_BLOCK"] - count * schedule.row_tile
    depth = ceil(size / found["K_BLOCK"])
    assert size - (depth - 1) * found["K_BLOCK"] >= found["K_BLOCK"] - 8 * depth


@pytest.mark.parametrize("size", [(20000, 20000, 64), (5000, 5000, 5000), (300, 400, 10**6)])
def test_tasks_are_short_but_not_too_short_to_pack_for(size):
    m, n, k = size
    _, found = blocks(*size)
    m_task, n_task = min(m, found["M_TASK"]), min(n, found["N_TASK"])
    least = SHORTEST_SIDE if k < 10**5 else SHORTEST_SIDE // 2
    assert min(m_task, n_task) >= least
    assert 4 * m_task * n_task * k <= LONGEST_TASK or max(m_task, n_task) < 2 * least


@pytest.mark.parametrize("element", ["i8", "c8"])
def test_tasks_of_slow_elements_are_shorter(element):
    _, fast = blocks(3000, 3000, 3000, element="f8")
    _, slow = blocks(3000, 3000, 3000, element=element)
    assert slow["M_TASK"] * slow["N_TASK"] < fast["M_TASK"] * fast["N_TASK"]


@pytest.mark.parametrize("threads", [2, 4, 16])
@pytest.mark.parametrize("size", [(1000, 1000, 1000), (3000, 40, 500), (40, 3000, 500)])
def test_threads_get_two_tasks_each_and_sums_stay_the_same(threads, size):
    _, one = blocks(*size)
    schedule, found = blocks(*size, threads=threads)
    m, n, _ = size
    assert ceil(m / found["M_TASK"]) * ceil(n / found["N_TASK"]) >= 2 * threads
    assert found["K_BLOCK"] == one["K_BLOCK"]
    assert found["M_TASK"] % schedule.row_tile == 0
    assert found["N_TASK"] % schedule.lane_tile == 0


def test_a_square_is_cut_along_both_sides():
    _, found = blocks(1000, 1000, 300, threads=2)
    assert ceil(1000 / found["M_TASK"]) == ceil(1000 / found["N_TASK"]) == 2


@pytest.mark.parametrize("n", [100, 1000])
def test_sums_are_walked_along_the_neighbours_of_operands(n):
    """Of ``a[d,m,c], b[c,d,n]``: those of a, unless b is much larger and has its own next to n."""
    m, c, d = 40, 60, 70
    step = Geometry(
        elements=("f4",) * 3,
        accumulator="f4",
        extents={"m": m, "n": n, "c": c, "d": d},
        strides=({"m": c, "d": c * m, "c": 1}, {"d": n, "c": d * n, "n": 1}, {"m": n, "n": 1}),
    )
    choice = choose(step, MACHINE)
    assert choice.members["k"] == (("d", "c") if n == 100 else ("c", "d"))
    x1, x0 = choice.schedule.packs
    assert not x0.strips  # lines of one panel, not of all panels
    assert x1.strips


@pytest.mark.parametrize(
    ("n", "tile"), [(20, (12, 8)), (24, (12, 8)), (32, (6, 16)), (200, (6, 16))]
)
def test_few_columns_get_a_narrow_tile(n, tile):
    schedule, found = blocks(1000, n, 300)
    assert (schedule.row_tile, schedule.lane_tile) == tile
    assert found["M_BLOCK"] % schedule.row_tile == 0


def test_overlapping_panels_are_filled_one_after_the_other():
    """Windows of one array: neighbours along m and along k at once."""
    step = Geometry(
        elements=("f4",) * 3,
        accumulator="f4",
        extents={"a": 40, "m": 30, "n": 50, "k": 60},
        strides=(
            {"a": 1, "m": 200, "k": 1},
            {"k": 50, "n": 1},
            {"a": 1500, "m": 50, "n": 1},
        ),
    )
    schedule = choose(step, MACHINE).schedule
    for pack in schedule.packs:  # what is transposed reaches into the next panel
        turned = (pack.operand, pack.group, 1) not in schedule.strides
        assert not (pack.strips and pack.depth > 1 and turned)


def turned(a, b, k):
    """The schedule of a product whose operands both have their neighbours along the sum."""
    step = Geometry(
        elements=("f8",) * 3,
        accumulator="f8",
        extents={"a": a, "b": b, "k": k},
        strides=({"a": k, "k": 1}, {"b": k, "k": 1}, {"b": a, "a": 1}),
    )
    return choose(step, MACHINE)


def test_few_columns_go_to_rows_where_sums_are_long():
    """The lanes run along the longer side then, though the output has its neighbours elsewhere."""
    choice = turned(6, 130, 2205)
    assert (choice.schedule.recipe, choice.members["m"], choice.members["n"]) == (
        "packed",
        ("a",),
        ("b",),
    )
    assert turned(6, 130, 200).schedule.recipe == "streamed"


def test_edges_of_turned_panels_are_whole_tiles():
    """Only the end of a sum is copied element by element."""
    source = stages(turned(13, 130, 900).schedule).source
    assert source.count("load_panel(x1") == 1
    assert "if rows == 4:" in source
    assert "columns == " not in source.partition("zeros(")[0]
