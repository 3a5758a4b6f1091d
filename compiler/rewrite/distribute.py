"""Distribute: of products that are added, take out the factors that they have in common.

Before:

    t0[i,k] = sum_j a[i,j] * b[j,k]
    t1[i,k] = sum_j a[i,j] * c[j,k]
    out[i,k] = t0[i,k] + t1[i,k]

after:

    t2[j,k] = b[j,k] + c[j,k]
    out[i,k] = sum_j a[i,j] * t2[j,k]

Whether it is cheaper is for the factorizer to say: to add the others first may take longer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from itertools import count

from ..access import Access
from ..affine import Affine
from ..formula import CONTRACTED, Apply, Read, Value, accesses_of, replaced
from ..program import Epilogue, Program, Statement
from ..records import dataclass, replace
from .common import without_unused
from .inline import inlinable

__all__ = ["distributed"]

_SIGNS = {"add": 1, "subtract": -1}


def distributed(program: Program) -> Program | None:
    """The program with common factors taken out of sums; None if there are none.

    >>> i, j, k = map(Affine.index, "ijk")
    >>> a, b, c = Access("a", (i, j)), Access("b", (j, k)), Access("c", (j, k))
    >>> t0, t1, out = (Access(name, (i, k)) for name in ("t0", "t1", "out"))
    >>> total = Epilogue(Apply("add", (CONTRACTED, Read(t1))))
    >>> given = Program((), ("a", "b", "c"), (), ("out",), (("i", 2), ("j", 3), ("k", 4)))
    >>> steps = [Statement(t0, (a, b)), Statement(t1, (a, c)), Statement(out, (t0,), total)]
    >>> print(distributed(given.with_statements(steps)))
    t2[j0,k] = b[j0,k] + c[j0,k]
    out[i,k] = sum_j0 a[i,j0] * t2[j0,k]
    """
    reads = Counter(access.tensor for each in program.statements for access in each.accesses)
    products = {*inlinable_in_sums(program)}
    bodies = {
        each.target.tensor: each
        for each in program.statements
        if each.target.tensor in products and reads[each.target.tensor] == 1
    }
    if len(bodies) < 2:
        return None
    work = _Distribution(program, bodies)
    statements = [made for each in program.statements for made in work.statement(each)]
    if not work.done:
        return None
    program = replace(program, extents=tuple(work.extents.items()))
    return without_unused(program.with_statements(statements))


def inlinable_in_sums(program: Program) -> list[str]:
    """The intermediates that are plain products, wherever they are read."""
    factors = [replace(each, epilogue=None) for each in program.statements]
    bare = replace(program, statements=tuple(factors))
    made = {each.target.tensor for each in program.statements if each.epilogue is None}
    return [name for name in inlinable(bare) if name in made]


@dataclass(frozen=True, slots=True)
class _Term:
    """A product that is added: its factors in the indices of the sum, and its summed indices."""

    sign: int
    read: Access
    factors: tuple[Access, ...]
    summed: tuple[str, ...]


class _Distribution:
    """The state of one rewrite."""

    def __init__(self, program: Program, bodies: Mapping[str, Statement]) -> None:
        self.bodies, self.extents = bodies, program.sizes
        self.fresh = program.fresh_names()
        self.new: list[Statement] = []
        self.done = False

    def statement(self, given: Statement) -> Iterator[Statement]:
        """A statement, and before it those that it reads from now on."""
        epilogue = given.epilogue
        if epilogue is None or len(given.factors) != 1 or given.contracted:
            yield given
            return
        (main,) = given.factors
        value = replaced(epilogue.value, lambda leaf: Read(main) if leaf == CONTRACTED else leaf)
        self.new = []
        made = self.value(value)
        if not self.new:
            yield given
            return
        self.done = True
        *before, last = self.new
        if isinstance(made, Read) and made.access == last.target and not epilogue.over:
            yield from before
            yield replace(last, target=given.target)
            return
        yield from self.new
        if isinstance(made, Read):
            yield Statement(given.target, (made.access,))
            return
        first = max(accesses_of(made), key=lambda access: len(access.names))
        rest = replaced(made, lambda leaf: CONTRACTED if leaf == Read(first) else leaf)
        yield Statement(given.target, (first,), Epilogue(rest, epilogue.over))

    def value(self, value: Value) -> Value:
        """A formula with its sums rewritten."""
        if not isinstance(value, Apply):
            return value
        if value.function not in _SIGNS:
            return Apply(value.function, tuple(map(self.value, value.arguments)))
        terms = [(sign, self.value(term)) for sign, term in _terms(value, 1)]
        while (found := self.common(terms)) is not None:
            terms = found
        return reduce(
            lambda total, term: Apply("add" if term[0] > 0 else "subtract", (total, term[1])),
            terms[1:],
            terms[0][1],
        )

    def common(self, terms: Sequence[tuple[int, Value]]) -> list[tuple[int, Value]] | None:
        """The terms with some of them made one product; None if they have nothing in common."""
        products = {
            n: made for n, (sign, each) in enumerate(terms) if (made := self.term(sign, each))
        }
        for first, leader in products.items():
            parts: list[tuple[int, tuple[Access, ...]]] = []
            shared: tuple[Access, ...] = ()
            used = {first}
            for other, term in products.items():
                found = _match(leader, term, self.extents) if other != first else None
                if found is None or (shared and found[0] != shared):
                    continue
                shared, mine, theirs = found
                parts = parts or [(1, mine)]
                parts.append((leader.sign * term.sign, theirs))
                used.add(other)
            if not parts:
                continue
            kept = [each for n, each in enumerate(terms) if n not in used]
            if leader.sign < 0 and not any(sign > 0 for sign, _ in kept):
                continue
            product: tuple[int, Value] = leader.sign, Read(self.product(leader, shared, parts))
            return sorted([product, *kept], key=lambda term: -term[0])  # no negative one first
        return None

    def term(self, sign: int, value: Value) -> _Term | None:
        """A read of a product in terms of the product's factors."""
        if not isinstance(value, Read) or value.access.tensor not in self.bodies:
            return None
        read, body = value.access, self.bodies[value.access.tensor]
        if not read.is_plain:
            return None
        axes = dict(zip(body.kept, read.subscripts, strict=True))
        summed = []
        for index in body.reduced:
            names = (f"{index}{n}" for n in count())
            name = next(each for each in names if each not in self.extents)
            self.extents[name] = self.extents[index]
            axes[index] = Affine.index(name)
            summed.append(name)
        factors = tuple(factor.replaced(axes) for factor in body.factors)
        return _Term(sign, read, factors, tuple(summed))

    def product(
        self,
        leader: _Term,
        shared: tuple[Access, ...],
        parts: Sequence[tuple[int, tuple[Access, ...]]],
    ) -> Access:
        """Write the sum of what is not shared, and the product with what is."""
        (_, first), *others = parts
        names = dict.fromkeys(name for access in first for name in access.names)
        total = Access(next(self.fresh), tuple(map(Affine.index, names)))
        value: Value = CONTRACTED
        for sign, rest in others:
            reads: list[Value] = [Read(access) for access in rest]
            term = reduce(lambda a, b: Apply("multiply", (a, b)), reads)
            value = Apply("add" if sign > 0 else "subtract", (value, term))
        target = Access(next(self.fresh), leader.read.subscripts)
        self.new.append(Statement(total, first, Epilogue(value)))
        self.new.append(Statement(target, (*shared, total)))
        return target


def _terms(value: Value, sign: int) -> Iterator[tuple[int, Value]]:
    """The terms of nested sums and differences, with their signs; the first is never negative."""
    if isinstance(value, Apply) and value.function in _SIGNS:
        first, second = value.arguments
        yield from _terms(first, sign)
        yield from _terms(second, sign * _SIGNS[value.function])
    else:
        yield sign, value


_Found = tuple[tuple[Access, ...], tuple[Access, ...], tuple[Access, ...]]


def _match(leader: _Term, term: _Term, extents: Mapping[str, int]) -> _Found | None:
    """What two products share, and what each of them has besides, in the indices of the first."""
    names: dict[str, str] = {}
    left = [*term.factors]
    shared, mine = [], []
    for factor in leader.factors:
        for other in left:
            found = _unified(factor, other, names, leader, term, extents)
            if found is not None:
                names = found
                left.remove(other)
                shared.append(factor)
                break
        else:
            mine.append(factor)
    renamed = {old: Affine.index(new) for old, new in names.items()}
    theirs = [factor.replaced(renamed) for factor in left]
    if not shared or not mine or not theirs or names.keys() != {*term.summed}:
        return None
    if {*names.values()} != {*leader.summed} or _names(mine) != _names(theirs):
        return None
    return tuple(shared), tuple(mine), tuple(theirs)


def _names(factors: Sequence[Access]) -> set[str]:
    return {name for factor in factors for name in factor.names}


def _unified(
    factor: Access,
    other: Access,
    names: Mapping[str, str],
    leader: _Term,
    term: _Term,
    extents: Mapping[str, int],
) -> dict[str, str] | None:
    """The names of summed indices of one product in the other, with which two factors are equal."""
    if factor.tensor != other.tensor:
        return None
    found = dict(names)
    for one, two in zip(factor.subscripts, other.subscripts, strict=True):
        if one.is_index and two.is_index and two.names[0] in term.summed:
            mine, theirs = one.names[0], two.names[0]
            free = theirs not in found and mine not in found.values()
            if mine not in leader.summed or extents[mine] != extents[theirs]:
                return None
            if free:
                found[theirs] = mine
            elif found.get(theirs) != mine:
                return None
        elif one != two:
            return None
    return found
