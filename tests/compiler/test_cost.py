"""Costs count work exactly and put plans in the order in which a machine would."""

import pytest
from einsumc.compiler.affine import Affine
from einsumc.compiler.cost import Cost, program_cost, statement_cost
from einsumc.compiler.machine import TARGETS, Machine
from einsumc.compiler.program import Access, Statement, from_expression
from einsumc.compiler.resolve import resolve
from einsumc.compiler.subscripts import parse

MACHINE = Machine(TARGETS["x86-64-v3"])


def cost_of(text: str, itemsize: int = 4, same: list[int] | None = None, **extents: int) -> Cost:
    terms = text.partition("->")[0].split(",")
    shapes = [[extents[index] for index in term] for term in terms]
    program = from_expression(resolve(parse(text), shapes), same=same)
    return program_cost(program, itemsize, MACHINE)


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
    assert statement_cost(statement, {"y": 100, "k": 3}, 4, MACHINE).bytes == 4 * (102 + 100)


def test_a_contraction_runs_near_the_peak_and_only_it():
    size = dict.fromkeys("ijk", 512)
    packed = cost_of("ij,jk->ik", **size)
    assert 0.5 < packed.flops / packed.seconds / MACHINE.flops < 1
    for text, extents in [
        ("ij,jk->ik", {"i": 2, "j": 512, "k": 512}),
        ("ij,jk->ik", {"i": 512, "j": 2, "k": 512}),
        ("ij,ij->i", {"i": 512, "j": 512}),
        ("ij,j,jk->ik", size),
    ]:
        cost = cost_of(text, **extents)
        assert cost.flops / cost.seconds < 0.3 * MACHINE.flops


def test_wider_elements_take_longer():
    seconds = [cost_of("ij,jk->ik", n, i=512, j=512, k=512).seconds for n in (4, 8, 16)]
    assert seconds[1] / seconds[0] == pytest.approx(2, rel=0.01)
    assert seconds[2] / seconds[0] == pytest.approx(8, rel=0.01)


def test_a_large_intermediate_costs_its_traffic():
    memory = cost_of("i,j->ij", i=8192, j=8192)
    assert memory.seconds == pytest.approx(memory.bytes / MACHINE.bandwidth, rel=0.01)
    cached = cost_of("i,j->ij", i=256, j=256)
    assert cached.seconds / cached.bytes < memory.seconds / memory.bytes


def test_more_work_than_a_float_holds():
    extents = {chr(0x4E00 + n): 1000 for n in range(400)}
    assert cost_of(f"{','.join(extents)}->", **extents).flops == 400 * 1000**400


def test_no_elements_cost_a_step():
    assert 0 < cost_of("ij,jk->ik", i=0, j=3, k=4).seconds < 1e-5
