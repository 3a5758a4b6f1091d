"""Where intermediates lie: one workspace for all, in which memory is used again.

An intermediate lives from the statement that writes it to the last one that reads it. Two that
never live at once may lie in the same place, so the workspace is as large as the most that lives at
once, or a little larger where gaps remain. The order of the statements matters as well:
`depth_first` finishes one branch of a tree of contractions before it begins with the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .program import Statement
from .records import dataclass

__all__ = ["ALIGNMENT", "Workspace", "depth_first", "most_alive", "ordered", "workspace"]

ALIGNMENT = 64
"""Bytes: intermediates begin on a cache line, and with it on a whole vector."""

_Life = tuple[int, int]  # the first and the last statement during which an intermediate is needed


@dataclass(frozen=True, slots=True)
class Workspace:
    """The offset of each intermediate, in bytes, and the size of the whole."""

    offsets: Mapping[str, int]
    size: int


def ordered(
    statements: Sequence[Statement], sizes: Mapping[str, int]
) -> tuple[Sequence[Statement], Workspace]:
    """The statements in their order, or depth first if that needs less memory, and the places.

    Args:
        statements: each after those that it reads from.
        sizes: as for `workspace`.
    """
    if len(sizes) > 1:
        other = depth_first(statements, sizes)
        if most_alive(other, sizes)[0] < most_alive(statements, sizes)[0]:
            statements = other
    return statements, workspace(statements, sizes)


def workspace(
    statements: Sequence[Statement], sizes: Mapping[str, int], levels: Sequence[int] = ()
) -> Workspace:
    """Place the intermediates of a program so that they take little memory.

    Args:
        statements: in the order of execution.
        sizes: the bytes of each intermediate; other tensors are not placed. One that no statement
            writes lives throughout.
        levels: for each statement how many loops are around it, if any are; they may not fall. What
            is written outside of a loop and read inside of it lives until the end.

    >>> from .program import Access
    >>> a, t0, t1, t2, out = (Access(name, ()) for name in ("a", "t0", "t1", "t2", "out"))
    >>> pairs = ((t0, a), (t1, t0), (t2, t1), (out, t2))
    >>> chain = [Statement(target, (factor,)) for target, factor in pairs]
    >>> workspace(chain, {"t0": 100, "t1": 64, "t2": 128})
    Workspace(offsets={'t0': 0, 't1': 128, 't2': 0}, size=192)
    """
    lives = _lives(statements, sizes, levels)
    padded = {name: -(-sizes[name] // ALIGNMENT) * ALIGNMENT for name in lives}
    found = _first_fit(sorted(lives, key=lives.__getitem__), lives, padded)
    if found.size > max(_alive(lives, padded, len(statements)), default=0):
        large = sorted(lives, key=lambda name: -padded[name])
        found = min(found, _first_fit(large, lives, padded), key=lambda tried: tried.size)
    return found


def most_alive(
    statements: Sequence[Statement], sizes: Mapping[str, int], levels: Sequence[int] = ()
) -> tuple[int, list[str]]:
    """The most bytes of intermediates that live at once, and which those are.

    This is what `workspace` takes at least.
    """
    lives = _lives(statements, sizes, levels)
    padded = {name: -(-sizes[name] // ALIGNMENT) * ALIGNMENT for name in lives}
    alive = _alive(lives, padded, len(statements))
    most = max(alive, default=0)
    when = alive.index(most) if alive else 0
    return most, [name for name, (first, last) in lives.items() if first <= when <= last]


def _lives(
    statements: Sequence[Statement], sizes: Mapping[str, int], levels: Sequence[int]
) -> dict[str, _Life]:
    """When each intermediate lives, in the order in which they are written."""
    lives: dict[str, _Life] = {}
    written: dict[str, int] = {}
    for number, statement in enumerate(statements):
        level = levels[number] if levels else 0
        for factor in statement.accesses:
            name = factor.tensor
            if name in lives:
                last = number if level == written[name] else len(statements) - 1
                lives[name] = lives[name][0], max(lives[name][1], last)
        name = statement.target.tensor
        if name in sizes:
            lives[name], written[name] = (number, number), level
    throughout = 0, len(statements) - 1
    return lives | {name: throughout for name in sizes if name not in lives}


def _alive(lives: Mapping[str, _Life], sizes: Mapping[str, int], count: int) -> list[int]:
    """The bytes of intermediates that live during each statement."""
    changes = [0] * (count + 1)
    for name, (first, last) in lives.items():
        changes[first] += sizes[name]
        changes[last + 1] -= sizes[name]
    total, alive = 0, []
    for change in changes[:-1]:
        total += change
        alive.append(total)
    return alive


def _first_fit(
    order: Sequence[str], lives: Mapping[str, _Life], sizes: Mapping[str, int]
) -> Workspace:
    """Place one after the other at the lowest offset where it meets none that lives with it."""
    offsets: dict[str, int] = {}
    placed: list[tuple[int, int, int, int]] = []  # first, last, begin, end
    size = 0
    for name in order:
        first, last = lives[name]
        offset = 0
        for begin, end in sorted((b, e) for f, s, b, e in placed if f <= last and first <= s):
            if offset + sizes[name] <= begin:
                break
            offset = max(offset, end)
        offsets[name] = offset
        placed.append((first, last, offset, offset + sizes[name]))
        size = max(size, offset + sizes[name])
    return Workspace(offsets, size)


def depth_first(statements: Sequence[Statement], sizes: Mapping[str, int]) -> list[Statement]:
    """The statements in another order, in which fewer intermediates wait to be read.

    Whatever a statement reads is made just before it, and of several branches first the one that
    needs most memory beyond what it leaves: the best of all such orders of a tree.

    R. Sethi, J. D. Ullman: The generation of optimal code for arithmetic expressions. J. ACM 17,
    1970.

    >>> from .program import Access
    >>> def step(target, *factors):
    ...     return Statement(Access(target, ()), tuple(Access(factor, ()) for factor in factors))
    >>> wide = [step("t0", "a"), step("t1", "b"), step("t2", "t0"), step("out", "t1", "t2")]
    >>> [str(s.target) for s in depth_first(wide, {"t0": 100, "t1": 10, "t2": 10})]
    ['t0', 't2', 't1', 'out']
    """
    made_by = {statement.target.tensor: n for n, statement in enumerate(statements)}
    needs: dict[int, list[int]] = {}  # of each statement, those that make its factors, in order
    peaks: list[int] = []
    for number, statement in enumerate(statements):
        names = dict.fromkeys(factor.tensor for factor in statement.accesses)
        makers = [made_by[name] for name in names if name in made_by]
        makers.sort(key=lambda n: sizes.get(statements[n].target.tensor, 0) - peaks[n])
        needs[number] = makers
        waiting, peak = 0, 0
        for maker in makers:
            peak = max(peak, waiting + peaks[maker])
            waiting += sizes.get(statements[maker].target.tensor, 0)
        peaks.append(max(peak, waiting + sizes.get(statement.target.tensor, 0)))
    order: dict[int, None] = {}
    read = {maker for makers in needs.values() for maker in makers}
    stack = [n for n in reversed(range(len(statements))) if n not in read]
    while stack:
        number = stack[-1]
        missing = [maker for maker in needs[number] if maker not in order]
        if missing:
            stack += reversed(missing)
        else:
            order[stack.pop()] = None
    return [statements[number] for number in order]
