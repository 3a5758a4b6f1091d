"""Costs count work exactly and put plans in the order in which a machine would."""

from dataclasses import replace

import pytest
from einsumc.compiler.affine import Affine
from einsumc.compiler.cost import Cost, program_cost, statement_cost, worthwhile_threads
from einsumc.compiler.formula import CONTRACTED, Apply
from einsumc.compiler.machine import TARGETS, Machine, estimate
from einsumc.compiler.program import Access, Epilogue, Statement, from_expression
from einsumc.compiler.resolve import resolve
from einsumc.compiler.subscripts import parse

MACHINE = Machine(TARGETS["x86-64-v3"])


def statement_of(text: str, same: list[int] | None = None, **extents: int) -> Statement:
    terms = text.partition("->")[0].split(",")
    shapes = [[extents[index] for index in term] for term in terms]
    return from_expression(resolve(parse(text), shapes), same=same).statements[0]


def cost_of(
    text: str,
    element: str = "f4",
    same: list[int] | None = None,
    machine: Machine = MACHINE,
    threads: int = 1,
    **extents: int,
) -> Cost:
    statement = statement_of(text, same, **extents)
    return statement_cost(statement, extents, element, machine, threads)


@pytest.mark.parametrize(
    ("text", "flops", "elements"),
    [
        ("ij,jk->ik", 2 * 2 * 3 * 4, 6 + 12 + 8),
        ("ij,ij->ij", 6, 18),
        ("ij->i", 6, 8),
        ("ij->ji", 0, 12),
        ("ij,j,jk->ik", 3 * 24, 6 + 3 + 12 + 8),
        ("ii->i", 0, 4),
    ],
)
def test_work_is_counted(text, flops, elements):
    cost = cost_of(text, i=2, j=3, k=4)
    assert (cost.flops, cost.bytes) == (flops, 4 * elements)


def test_an_array_multiplied_with_itself_is_read_once():
    assert cost_of("ij,ij->i", same=[0, 0], i=2, j=3).bytes == 4 * (6 + 2)
    assert cost_of("ij,kj->ik", same=[0, 0], i=3, j=3, k=3).bytes == 4 * (9 + 9 + 9)


def test_an_affine_access_touches_no_more_than_there_is():
    window = Access("a", (Affine((("y", 1), ("k", 1))),))
    statement = Statement(Access("out", (Affine.index("y"),)), (window,))
    assert statement_cost(statement, {"y": 100, "k": 3}, "f4", MACHINE).bytes == 4 * (102 + 100)


def test_programs_cost_what_their_statements_do():
    program = from_expression(resolve(parse("ij,jk->ik"), [(30, 40), (40, 50)]))
    alone = cost_of("ij,jk->ik", i=30, j=40, k=50)
    assert program_cost(program, "f4", MACHINE) == Cost() + alone


def rate(text: str, **extents: int) -> float:
    """Operations a second, over the peak."""
    cost = cost_of(text, **extents)
    return cost.flops / cost.seconds / MACHINE.speeds.flops.f4


def test_a_contraction_runs_near_the_peak_and_only_it():
    size = dict.fromkeys("ijk", 512)
    assert 0.7 < rate("ij,jk->ik", **size) < 1
    for text, extents in [
        ("ij,jk->ik", {"i": 2, "j": 512, "k": 512}),
        ("ij,jk->ik", {"i": 512, "j": 2, "k": 512}),
        ("ij,ij->i", {"i": 512, "j": 512}),
        ("ij,j,jk->ik", size),
    ]:
        assert rate(text, **extents) < 0.6


def test_a_tile_at_an_edge_costs_a_whole_one():
    whole, edge, next_whole = (
        cost_of("ij,jk->ik", i=i, j=500, k=512).seconds for i in (60, 61, 66)
    )
    assert edge - whole > 0.9 * (next_whole - whole)


def test_short_sums_cost_more_a_term():
    assert rate("ij,jk->ik", i=512, j=8, k=512) < 0.6 * rate("ij,jk->ik", i=512, j=256, k=512)


def test_panels_that_are_gathered_cost_more():
    size = dict.fromkeys("abij", 40)
    plain = cost_of("iab,abj->ij", **size)
    gathered = cost_of("aib,bja->ij", **size)
    assert plain.flops == gathered.flops
    assert gathered.seconds > 1.1 * plain.seconds


def test_lanes_along_the_last_axes_are_best():
    size = {"i": 100, "j": 100}
    quick = replace(MACHINE, speeds=replace(MACHINE.speeds, call=1e-30))
    turned, straight = (
        cost_of(text, machine=quick, **size).seconds for text in ("ij->ji", "ij->ij")
    )
    assert turned > 1.2 * straight


@pytest.mark.parametrize(
    ("element", "as_in"), [("f2", "f4"), ("u8", "i8"), ("b1", "i2"), ("i1", "i2"), ("u4", "i4")]
)
def test_elements_have_the_peak_of_what_they_are_computed_in(element, as_in):
    flops = MACHINE.speeds.flops
    assert flops.of(element) == getattr(flops, as_in)


@pytest.mark.parametrize("element", ["f8", "c8", "c16", "i8"])
def test_other_elements_take_as_long_as_their_peak_says(element):
    size = dict.fromkeys("ijk", 504)  # a multiple of all tiles
    flops = MACHINE.speeds.flops
    ratio = cost_of("ij,jk->ik", element, **size).seconds / cost_of("ij,jk->ik", **size).seconds
    assert ratio == pytest.approx(flops.f4 / flops.of(element), rel=0.15)


def test_tensors_are_moved_at_the_rate_of_their_level():
    """A copy of so many bytes: half of them read, half written."""
    speeds = MACHINE.speeds
    for size, level in [
        (MACHINE.l2_bytes // 2, "l2"),
        (MACHINE.l3_bytes // 4, "l3"),
        (8 * MACHINE.l3_bytes, "memory"),
    ]:
        cost = cost_of("i->i", i=size // 8)
        bytes_a_second = 2 / (1 / getattr(speeds.read, level) + 1 / getattr(speeds.write, level))
        assert cost.least == pytest.approx(size / bytes_a_second)
        assert cost.seconds >= cost.least + speeds.call


def test_threads_share_work_and_what_memory_gives():
    machine = replace(MACHINE, cores=4, speeds=estimate(MACHINE.target, 4))
    product = dict.fromkeys("ijk", 1000)
    one, four = (
        cost_of("ij,jk->ik", machine=machine, threads=n, **product).seconds for n in (1, 4)
    )
    assert 3.5 < one / four <= 4
    narrow = replace(machine, speeds=replace(machine.speeds, read_all=machine.speeds.read))
    large = {"i": 10**8}
    one, four = (cost_of("i->", machine=narrow, threads=n, **large).seconds for n in (1, 4))
    assert one == pytest.approx(four, rel=0.01), "one thread has all the bandwidth there is"


def test_threads_for_work_that_is_worth_waking_them():
    wake = MACHINE.speeds.wake
    assert worthwhile_threads(0.0, MACHINE, 64) == 1
    assert worthwhile_threads(1.9 * wake, MACHINE, 64) == 1
    assert worthwhile_threads(2.1 * wake, MACHINE, 64) == 2
    assert worthwhile_threads(1e300, MACHINE, 64) == 64
    slow = replace(MACHINE, speeds=replace(MACHINE.speeds, wake=100 * wake))
    assert worthwhile_threads(50 * wake, slow, 64) == 1


def test_faster_machines_take_less():
    fast = replace(MACHINE, speeds=estimate(MACHINE.target, clock=6e9))
    for text in ("ij,jk->ik", "ij,ij->ij", "ij,j,jk->ik"):
        size = dict.fromkeys("ijk", 300)
        assert cost_of(text, machine=fast, **size).seconds < cost_of(text, **size).seconds


def test_more_work_than_a_float_holds():
    extents = {chr(0x4E00 + n): 1000 for n in range(400)}
    assert cost_of(f"{','.join(extents)}->", **extents).flops == 400 * 1000**400


def test_no_elements_cost_a_step():
    seconds = cost_of("ij,jk->ik", i=0, j=3, k=4).seconds
    assert seconds == pytest.approx(MACHINE.speeds.call, rel=0.1)


def test_long_sums_with_an_epilogue_wait_for_their_panels():
    """They are summed in one block, whose panels no second cache holds: merging costs more."""

    def seconds(k, value):
        sizes = {"m": 100, "n": 100, "k": k}
        epilogue = Epilogue(value, ("m", "n")) if value is not None else None
        axes = "" if value is not None else "mn"
        target, *factors = (
            Access(name, tuple(map(Affine.index, indices)))
            for name, indices in (("out", axes), ("a", "mk"), ("b", "kn"))
        )
        statement = Statement(target, tuple(factors), epilogue)
        return statement_cost(statement, sizes, "f8", MACHINE).seconds

    square = Apply("multiply", (CONTRACTED, CONTRACTED))
    assert seconds(500, square) < 1.2 * seconds(500, None)
    assert seconds(10000, square) > 1.5 * seconds(10000, None)
