"""Which statements are the same but for the names of their indices.

    t0[n,i] = sum_t b[n,t,i] * a[n,t]
    t1[j,n] = sum_s b[n,s,j] * a[n,s]

are: renaming `j` to `i` and `s` to `t` makes them one, up to the order of the axes. Operands are
names, so one tensor that is read twice is found to be one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import permutations

from ..affine import Affine
from ..formula import Apply, Read, Value
from ..program import Access, Epilogue, Statement

__all__ = ["Sizes", "fingerprint", "is_symmetric", "renamings"]

Sizes = Mapping[str, int]
"""The extent of each index."""

_Names = dict[str, str]


def renamings(first: Statement, second: Statement, sizes: Sizes) -> Iterator[_Names]:
    """Every renaming of the second statement's indices that makes it compute what the first does.

    The two are then equal but for the order of the factors, and that of the target's axes; kept
    indices become kept ones. What the targets are called does not matter.

    >>> from ..resolve import resolve
    >>> from ..subscripts import parse
    >>> from ..program import from_expression
    >>> def statement(text):
    ...     expression = resolve(parse(text), [(5, 5), (5, 5)])
    ...     return from_expression(expression, same=[0, 0]).statements[0]
    >>> list(renamings(statement("ij,jk->ik"), statement("xz,zy->yx"), dict.fromkeys("ijkxyz", 5)))
    [{'x': 'i', 'z': 'j', 'y': 'k'}]
    >>> list(renamings(statement("ij,kj->ik"), statement("ij,kj->ik"), dict.fromkeys("ijk", 5)))
    [{'i': 'i', 'j': 'j', 'k': 'k'}, {'i': 'k', 'j': 'j', 'k': 'i'}]
    """
    if fingerprint(first) == fingerprint(second):
        yield from _Matching(first, second, sizes).factors(0, first.factors, {})


def fingerprint(statement: Statement) -> tuple[object, ...]:
    """What is equal for statements that are the same but for names; others rarely have it equal."""
    epilogue = statement.epilogue
    return (
        tuple(sorted([factor.tensor for factor in statement.factors])),
        len(statement.kept),
        len(statement.reduced),
        epilogue and len(epilogue.over),
    )


def is_symmetric(statement: Statement, sizes: Sizes, swapped: Mapping[str, str]) -> bool:
    """Whether a statement computes the same once some kept indices are exchanged.

    >>> b = [Access("b", tuple(map(Affine.index, names))) for names in ("nti", "nsi")]
    >>> gram = Statement(Access("g", tuple(map(Affine.index, "nts"))), tuple(b))
    >>> sizes = {"n": 2, "t": 3, "s": 3, "i": 4}
    >>> is_symmetric(gram, sizes, {"t": "s"}), is_symmetric(gram, sizes, {"n": "s"})
    (True, False)
    """
    both = {**swapped, **{new: old for old, new in swapped.items()}}
    wanted = {name: both.get(name, name) for name in statement.kept}
    return any(wanted.items() <= names.items() for names in renamings(statement, statement, sizes))


# --- matching -------------------------------------------------------------------------------------


class _Matching:
    """The search for renamings of a second statement's indices that make it the first.

    Its methods are given a renaming of some indices, and yield every way to go on with it.
    """

    def __init__(self, first: Statement, second: Statement, sizes: Sizes) -> None:
        self.first, self.second, self.sizes = first, second, sizes
        self.roles = _roles(first), _roles(second)

    def factors(self, place: int, left: tuple[Access, ...], known: _Names) -> Iterator[_Names]:
        """Match the second statement's factors from a place on with those left of the first's."""
        if place == len(self.second.factors):
            yield from self.epilogues(self.first.epilogue, self.second.epilogue, known)
            return
        wanted = self.second.factors[place]
        tried: list[Access] = []
        for number, factor in enumerate(left):
            if factor.tensor == wanted.tensor and factor not in tried:
                tried.append(factor)
                for names in self.accesses(factor, wanted, known):
                    yield from self.factors(place + 1, left[:number] + left[number + 1 :], names)

    def accesses(self, first: Access, second: Access, known: _Names) -> Iterator[_Names]:
        """Match two reads of one tensor, axis by axis."""
        ways = [known]
        for one, other in zip(first.subscripts, second.subscripts, strict=True):
            ways = [more for names in ways for more in self.axes(one, other, names)]
        yield from ways

    def axes(self, first: Affine, second: Affine, known: _Names) -> Iterator[_Names]:
        """Match two expressions, whatever the order of their terms."""
        if first.constant != second.constant or len(first.terms) != len(second.terms):
            return
        for terms in permutations(first.terms):
            names: _Names | None = known
            for (new, one), (old, other) in zip(terms, second.terms, strict=True):
                names = self.index(new, old, names) if names is not None and one == other else None
            if names is not None:
                yield names

    def index(self, new: str, old: str, known: _Names) -> _Names | None:
        """Rename one index, if that goes together with what is known."""
        if old in known:
            return known if known[old] == new else None
        roles, other = self.roles
        alike = roles[new] == other[old] and self.sizes[new] == self.sizes[old]
        return {**known, old: new} if alike and new not in known.values() else None

    def epilogues(
        self, first: Epilogue | None, second: Epilogue | None, known: _Names
    ) -> Iterator[_Names]:
        """Match what becomes of the sums."""
        if first is None or second is None:
            if first is second:
                yield known
        else:
            yield from self.values(first.value, second.value, known)

    def values(self, first: Value, second: Value, known: _Names) -> Iterator[_Names]:
        """Match two formulas, argument by argument."""
        match first, second:
            case Read(one), Read(other):
                if one.tensor == other.tensor:
                    yield from self.accesses(one, other, known)
            case Apply(), Apply():
                if (first.function, len(first.arguments)) == (
                    second.function,
                    len(second.arguments),
                ):
                    ways = [known]
                    for pair in zip(first.arguments, second.arguments, strict=True):
                        ways = [more for names in ways for more in self.values(*pair, names)]
                    yield from ways
            case _:
                if first == second:
                    yield known


def _roles(statement: Statement) -> dict[str, int]:
    """For each index whether it is kept, summed by the epilogue or summed before that."""
    over = statement.epilogue.over if statement.epilogue else ()
    kept = statement.kept
    return {name: 0 if name in kept else 1 if name in over else 2 for name in statement.indices}
