"""Split a product of many factors into steps, along a contraction path.

    out[i,l] = sum_{j,k} a[i,j] * b[j,k] * c[k,l]

along the path `[(0, 1), (0, 1)]` becomes

    t0[i,k] = sum_j a[i,j] * b[j,k]
    out[i,l] = sum_k t0[i,k] * c[k,l]

A path is a list of contractions, each the positions of the factors that it takes from the list of
those that are left; its result goes to the end of that list.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .affine import Affine
from .errors import EinsumError
from .paths import Path
from .program import Access, Program, Statement

__all__ = ["follow"]


def follow(program: Program, path: Path) -> Program:
    """Split the last statement of a program along a path; raises EinsumError if it does not fit.

    A contraction keeps the indices that are needed later. They are ordered for the steps that write
    and read it: first those that are a batch's for the step that reads it (each of its factors has
    them, and it sums others), then those that several factors of the step that writes it have, then
    those of one factor after the other, and last the index along which the elements of the whole
    program's result are neighbours, unless it is one of the first.

    >>> from .program import from_expression
    >>> from .resolve import resolve
    >>> from .subscripts import parse
    >>> program = from_expression(resolve(parse("bij,bjk,bk->bi"), [(2, 3, 4), (2, 4, 5), (2, 5)]))
    >>> print(follow(program, ((1, 2), (0, 1))))
    t0[b,j] = sum_k b[b,j,k] * c[b,k]
    out[b,i] = sum_j a[b,i,j] * t0[b,j]
    """
    *before, statement = program.statements
    _check(path, len(statement.factors))
    if not path:
        return program
    contractions = _contractions(statement, path)
    plain = {index: Affine.index(index) for index in statement.indices}
    made: list[Access] = []
    steps = []
    for name, contraction in zip(program.fresh_names(), contractions, strict=False):
        factors = (made[f] if isinstance(f, int) else f for _, f in contraction.taken)
        product = tuple(factors)
        if contraction is contractions[-1]:
            steps.append(replace(statement, factors=product))
        else:
            reader = next(c for c in contractions if len(made) in (f for _, f in c.taken))
            kept = _ordered(contraction, reader, statement.kept[-1:])
            made.append(Access(name, tuple(plain[index] for index in kept)))
            steps.append(Statement(made[-1], product))
    return program.with_statements([*before, *steps])


@dataclass(frozen=True, slots=True)
class _Contraction:
    """A step before its result has axes.

    Attributes:
        taken: the factors, those that earlier steps make by their numbers; each with the first of
            the operands in it, by which they are sorted: steps read from left to right as the
            equation does.
        kept: the indices of its result.
        shared: how many of the factors have each index.
    """

    taken: tuple[tuple[int, Access | int], ...]
    kept: tuple[str, ...]
    shared: Counter[str]


def _contractions(statement: Statement, path: Path) -> list[_Contraction]:
    """The steps of a path, the last one keeping what the statement's epilogue needs."""
    needed = [index for index in statement.indices if index not in statement.contracted]
    left: list[tuple[int, Access | int, tuple[str, ...]]] = [
        (place, factor, factor.names) for place, factor in enumerate(statement.factors)
    ]
    uses = Counter(index for factor in statement.factors for index in factor.names)
    uses.update(needed)
    found: list[_Contraction] = []
    for positions in path:
        taken = sorted((left[position] for position in positions), key=lambda item: item[0])
        for position in sorted(positions, reverse=True):
            del left[position]
        shared = Counter(index for _, _, names in taken for index in names)
        uses.subtract(shared)
        kept = tuple(index for index in shared if uses[index])
        uses.update(kept)
        left.append((taken[0][0], len(found), kept))
        found.append(_Contraction(tuple((n, factor) for n, factor, _ in taken), kept, shared))
    return found


def _ordered(step: _Contraction, reader: _Contraction, unit: Sequence[str]) -> list[str]:
    """The indices that a step keeps, in the order of its result's axes."""
    sums = reader.shared.keys() - {*reader.kept}
    batch = {i for i in reader.kept if sums and reader.shared[i] == len(reader.taken)}
    own = any(step.shared[index] == 1 for index in step.kept)

    def key(index: str) -> tuple[bool, bool, bool]:
        is_last = index in unit and index not in batch and (step.shared[index] == 1 or not own)
        return index not in batch, is_last, step.shared[index] == 1

    return sorted(step.kept, key=key)


def _check(path: Path, factors: int) -> None:
    """Raise EinsumError if a path does not contract so many factors to one."""
    left = factors
    for step in path:
        if not step or len({*step}) < len(step) or not 0 <= min(step) <= max(step) < left:
            operands = "1 operand is" if left == 1 else f"{left} operands are"
            raise EinsumError(f"invalid path {list(path)}: at step {step}, {operands} left")
        left += 1 - len(step)
    if left > 1:
        raise EinsumError(f"invalid path {list(path)}: it leaves {left} operands uncontracted")
