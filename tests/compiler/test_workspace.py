"""Intermediates that live at once never overlap, and the workspace is not much larger than they."""

from itertools import permutations, product

import pytest
from einsumc.compiler.program import Access, Statement
from einsumc.compiler.workspace import ALIGNMENT, depth_first, most_alive, workspace
from hypothesis import given
from hypothesis import strategies as st
from sweeps import examples


def step(target: str, *factors: str) -> Statement:
    return Statement(Access(target, ()), tuple(Access(factor, ()) for factor in factors))


@st.composite
def trees(draw: st.DrawFn, most: int = 12) -> tuple[list[Statement], dict[str, int]]:
    """Steps that contract operands along a random path, and the sizes of what they make."""
    left = [f"a{n}" for n in range(draw(st.integers(2, most)))]
    steps: list[Statement] = []
    while len(left) > 1:
        count = min(draw(st.integers(2, 3)), len(left))
        taken = [left.pop(draw(st.integers(0, len(left) - 1))) for _ in range(count)]
        if draw(st.booleans()):
            steps.append(step(f"t{len(steps)}", taken[0]))
            taken[0] = f"t{len(steps) - 1}"
        left.append(f"t{len(steps)}" if left else "out")
        steps.append(step(left[-1], *taken))
    made = [each.target.tensor for each in steps[:-1]]
    return steps, {name: draw(st.integers(0, 1000)) for name in made}


def run(steps, offsets, sizes, levels=None, rounds=1):
    """Execute with a memory that remembers who wrote each byte; loops run several times."""
    levels = levels or [0] * len(steps)
    owner: dict[int, str] = {}
    before: tuple[int, ...] = ()
    for piece in product(range(rounds), repeat=max(levels)):
        moved = next((n for n, index in enumerate(before) if piece[n] != index), -1)
        before = piece
        for each, level in zip(steps, levels, strict=True):
            if level <= moved:
                continue
            target = each.target.tensor
            if target in sizes:
                for byte in range(offsets[target], offsets[target] + sizes[target]):
                    owner[byte] = target
            for factor in (access.tensor for access in each.factors):
                if factor in sizes:
                    place = range(offsets[factor], offsets[factor] + sizes[factor])
                    assert all(owner[byte] == factor for byte in place)


@examples(100)
@given(trees())
def test_nothing_is_overwritten_before_it_is_read(tree):
    steps, sizes = tree
    found = workspace(steps, sizes)
    assert found.offsets.keys() == sizes.keys()
    assert all(offset % ALIGNMENT == 0 for offset in found.offsets.values())
    assert all(found.offsets[name] + size <= found.size for name, size in sizes.items())
    run(steps, found.offsets, sizes)
    least, _ = most_alive(steps, sizes)
    assert least <= found.size <= 2 * least


@examples(100)
@given(trees(), st.data())
def test_what_outer_loops_leave_outlasts_the_inner_ones(tree, data):
    steps, sizes = tree
    level: dict[str, int] = {}
    for each in steps:
        inside = max((level.get(access.tensor, 0) for access in each.factors), default=0)
        level[each.target.tensor] = max(inside, data.draw(st.integers(0, 2)))
    order = sorted(steps, key=lambda each: level[each.target.tensor])
    levels = [level[each.target.tensor] for each in order]
    found = workspace(order, sizes, levels)
    run(order, found.offsets, sizes, levels, rounds=2)


def test_the_check_above_can_fail():
    steps, sizes = [step("t0", "a"), step("t1", "b"), step("out", "t0", "t1")], {"t0": 8, "t1": 8}
    with pytest.raises(AssertionError):
        run(steps, {"t0": 0, "t1": 4}, sizes)
    steps = [step("t0", "a"), step("t1", "t0"), step("out", "t1")]
    run(steps, {"t0": 0, "t1": 64}, sizes, [0, 1, 1], rounds=2)
    with pytest.raises(AssertionError):  # t2 takes the place of t0, which the next round reads
        steps = [step("t0", "a"), step("t1", "t0"), step("t2", "t1"), step("out", "t2")]
        sizes["t2"] = 8
        run(steps, {"t0": 0, "t1": 64, "t2": 0}, sizes, [0, 1, 1, 1], rounds=2)


def test_a_chain_takes_two_places_however_long_it_is():
    steps = [
        step("t0", "a"),
        *(step(f"t{n + 1}", f"t{n}") for n in range(199)),
        step("out", "t199"),
    ]
    assert workspace(steps, {f"t{n}": 1000 for n in range(200)}).size == 2 * 1024


def test_what_nobody_writes_lives_throughout():
    steps = [step("t0", "a"), step("t1", "t0"), step("out", "t1")]
    found = workspace(steps, {"t0": 64, "t1": 64, "sum": 640})
    assert found.size == 768
    assert len(set(found.offsets.values())) == 3


def peak(steps, sizes):
    return most_alive(steps, sizes)[0]


@examples(60)
@given(trees(most=6))
def test_depth_first_is_the_best_of_its_kind(tree):
    """Compared with all orders of the steps in which each branch is finished once begun."""
    steps, sizes = tree
    sizes = {name: size * ALIGNMENT for name, size in sizes.items()}
    order = depth_first(steps, sizes)
    assert sorted(map(str, order)) == sorted(map(str, steps))
    made_by = {each.target.tensor: each for each in steps}

    def orders(root):
        branches = [made_by[a.tensor] for a in root.factors if a.tensor in made_by]
        for arrangement in permutations(branches):
            parts = [[]]
            for branch in arrangement:
                parts = [[*part, *more] for part in parts for more in orders(branch)]
            yield from ([*part, root] for part in parts)

    assert peak(order, sizes) == min(peak(each, sizes) for each in orders(steps[-1]))
