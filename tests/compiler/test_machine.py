"""Machines are values: others than this host's can be planned for, and speeds decide no bits."""

from dataclasses import fields, replace
from math import ceil, prod

import pytest
from einsumc.compiler import show
from einsumc.compiler.choose import block_sizes, choose
from einsumc.compiler.cost import statement_cost, worthwhile_threads
from einsumc.compiler.factorize import factorize
from einsumc.compiler.geometry import canonical
from einsumc.compiler.machine import TARGETS, Levels, Machine, Peak, Speeds, estimate
from einsumc.compiler.program import from_expression
from einsumc.compiler.resolve import resolve
from einsumc.compiler.subscripts import parse
from steps import Step

V4 = TARGETS["x86-64-v4"]
SERVER = Machine(
    V4,
    cores=64,
    l1_bytes=48 << 10,
    l2_bytes=2 << 20,
    l3_bytes=256 << 20,
    speeds=estimate(V4, cores=64, clock=2.5e9),
)
"""Sixty-four cores with AVX-512."""

LAPTOP = Machine(TARGETS["x86-64-v3"])

EQUATIONS = [
    Step("ij,jk->ik", dict.fromkeys("ijk", 1000)),
    Step("ij,jk->ik", dict.fromkeys("ijk", 1000), "f8"),
    Step("ij,jk->ik", dict.fromkeys("ijk", 200), "c16"),
    Step("bij,bjk->bik", {"b": 500, "i": 32, "j": 32, "k": 32}),
    Step("iajb,jkbc->ikac", dict.fromkeys("iajbkc", 24)),
    Step("ij->ji", {"i": 4000, "j": 4000}),
    Step("ij->i", {"i": 300, "j": 20000}),
    Step("ij,j->i", {"i": 3000, "j": 3000}),
]


@pytest.mark.parametrize("step", EQUATIONS, ids=lambda step: f"{step.equation} {step.element}")
def test_a_server_has_schedules_and_blocks_that_fit_it(step):
    form = canonical(step.geometry())
    choice = choose(form, SERVER)
    assert "vectors of 64 bytes" in show.schedule(choice.schedule)
    extents = {group: form.volume(members) for group, members in choice.members.items()}
    blocks = block_sizes(choice.schedule, extents, SERVER, SERVER.cores)
    axes = [s for s in choice.schedule.splits if s.index in choice.schedule.outer]
    parallel = choice.schedule.outer[: choice.schedule.parallel]
    tiles = prod(
        ceil(extents[s.group] / (blocks[s.step] if isinstance(s.step, str) else s.step))
        for s in axes
        if s.index in parallel
    ) * extents.get("b", 1)
    volume = form.volume(tuple(form.extents))
    if volume >= 10**8:
        assert tiles >= SERVER.cores // 2, "work for many cores"
    if choice.schedule.recipe == "packed":
        size = int(choice.schedule.accumulator[1:])
        assert blocks["K_BLOCK"] * choice.schedule.lane_tile * size <= SERVER.l1_bytes
        assert blocks["K_BLOCK"] * blocks["M_BLOCK"] * size <= SERVER.l2_bytes


def test_a_server_uses_its_cores_and_its_vectors():
    program = from_expression(resolve(parse("ij,jk->ik"), [(2000, 2000)] * 2))
    statement, sizes = program.statements[0], program.sizes
    slow = statement_cost(statement, sizes, "f4", LAPTOP)
    one = statement_cost(statement, sizes, "f4", SERVER)
    assert one.seconds < slow.seconds
    count = worthwhile_threads(one.seconds, SERVER, SERVER.cores)
    assert count == SERVER.cores
    assert statement_cost(statement, sizes, "f4", SERVER, count).seconds < one.seconds / 30


def test_a_server_has_plans():
    program = from_expression(
        resolve(parse("ij,jk,kl->il"), [(3000, 3000), (3000, 3000), (3000, 8)])
    )
    chain = factorize(program, True, SERVER, "f8").program
    assert str(chain).splitlines() == [
        "t0[j,l] = sum_k b[j,k] * c[k,l]",
        "out[i,l] = sum_j a[i,j] * t0[j,l]",
    ]


def test_machines_are_values():
    assert replace(SERVER) == SERVER
    assert hash(replace(SERVER)) == hash(SERVER)
    assert replace(SERVER, cores=32) != SERVER


def test_estimates_grow_with_clock_vectors_and_cores():
    slow, fast = (estimate(TARGETS["x86-64-v3"], clock=clock) for clock in (2e9, 4e9))
    for field in fields(Peak):
        assert getattr(fast.flops, field.name) == 2 * getattr(slow.flops, field.name)
    peaks = [estimate(TARGETS[f"x86-64-v{n}"]).flops.f4 for n in (2, 3, 4)]
    assert peaks == sorted(peaks)
    assert peaks[2] == 2 * peaks[1]
    few, many = (estimate(V4, cores=cores) for cores in (1, 64))
    assert (few.read, few.flops) == (many.read, many.flops)
    for level in ("l1", "l2", "l3", "memory"):
        assert getattr(many.read_all, level) > getattr(few.read_all, level)


def speeds(factor: float) -> Speeds:
    """The usual speeds, each many times another."""
    usual = estimate(TARGETS["x86-64-v3"])
    values = {}
    for place, field in enumerate(fields(Speeds)):
        value, scale = getattr(usual, field.name), factor ** (place % 3 - 1)
        if isinstance(value, Peak | Levels):
            inner = {f.name: getattr(value, f.name) * scale for f in fields(type(value))}
            values[field.name] = type(value)(**inner)
        else:
            values[field.name] = value * scale
    return Speeds(**values)


@pytest.mark.parametrize("step", EQUATIONS, ids=lambda step: f"{step.equation} {step.element}")
@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_speeds_decide_no_bits(step, factor):
    """The kernel of a step and its blocks are those of the machine's sizes alone."""
    form = canonical(step.geometry())
    other = replace(LAPTOP, speeds=speeds(factor))
    choice = choose(form, LAPTOP)
    assert choose(form, other) == choice
    extents = {group: form.volume(members) for group, members in choice.members.items()}
    assert block_sizes(choice.schedule, extents, other, 2) == block_sizes(
        choice.schedule, extents, LAPTOP, 2
    )
