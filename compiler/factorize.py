"""Split a product of many factors into steps, along a contraction path.

    out[i,l] = sum_{j,k} a[i,j] * b[j,k] * c[k,l]

along the path `[(0, 1), (0, 1)]` becomes

    t0[i,k] = sum_j a[i,j] * b[j,k]
    out[i,l] = sum_k t0[i,k] * c[k,l]

A path is a list of contractions, each the positions of the factors that it takes from the list of
those that are left; its result goes to the end of that list. opt_einsum and, for large networks,
cotengra propose paths by counting operations; the one with the least predicted time is taken.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from itertools import chain
from typing import Any

from .affine import Affine
from .cost import Cost, program_cost
from .errors import EinsumError
from .machine import Machine
from .program import Access, Program, Statement
from .simplify import simplify
from .windows_path import EXHAUSTIVE, windows_path

__all__ = ["Factorization", "Path", "factorize", "follow"]

Path = tuple[tuple[int, ...], ...]
"""The positions of the factors that each contraction takes."""

_Search = Callable[..., Iterable[Iterable[int]]]
"""opt_einsum's protocol: (sets of indices, set of the output, extents, memory limit) -> path."""

MOST_FACTORS = 8
"""Of one statement, unless asked for: a loop nest keeps a pointer and strides for each."""

AUTO = 14
"""Factors up to which opt_einsum's "auto" looks at more than "greedy" does."""

RANDOM = 12
"""Factors beyond which a random search finds what the others miss."""

SMALL = ", small"
"""What the names of candidates end in that were searched for their small intermediates."""

TRIALS, EFFORT = 32, 100_000
"""At most so many trials, and at most so many factors squared in all: below a tenth of a second."""


@dataclass(frozen=True, slots=True)
class Factorization:
    """The program chosen, and what there was to choose from.

    `candidates` are names and costs in the order in which they were tried, `chosen` is one of the
    names; `programs` has the program of each.
    """

    program: Program
    candidates: tuple[tuple[str, Cost], ...]
    chosen: str
    programs: Mapping[str, Program] = field(default_factory=dict, repr=False, compare=False)

    @property
    def cost(self) -> Cost:
        """The predicted cost of the program."""
        return dict(self.candidates)[self.chosen]


def factorize(
    program: Program,
    optimize: Any,
    machine: Machine,
    element: str,
    largest: int | None = None,
) -> Factorization:
    """Split a program of one statement into steps.

    Args:
        program: an equation.
        optimize: how to choose the path.

            - True: the cheapest of several candidates, of which the unsplit statement is one.
            - False or None: do not split.
            - a name of opt_einsum's, such as "greedy" or "optimal", or a pair of one and the most
              elements that an intermediate may have (negative for any number).
            - a path, `[(0, 1), (0, 1)]` or NumPy's `["einsum_path", (0, 1), (0, 1)]`: followed
              exactly.
            - a callable such as opt_einsum's `PathOptimizer`: called with a list of sets of
              characters, the set of the output, the extents as a dict, and None.
        machine: what the costs are for.
        element: type of all elements, such as ``f4``.
        largest: elements of the largest intermediate that is wanted, if that matters: there are
            more candidates then.

    Raises:
        EinsumError: (a ValueError) there is no such name, or the path does not fit the operands.

    >>> from .machine import TARGETS
    >>> from .program import from_expression
    >>> from .resolve import resolve
    >>> from .subscripts import parse
    >>> program = from_expression(resolve(parse("ij,jk,kl->il"), [(90, 90), (90, 90), (90, 2)]))
    >>> chain = factorize(program, True, Machine(TARGETS["x86-64-v3"]), element="f8")
    >>> print(chain.program)
    t0[j,l] = sum_k b[j,k] * c[k,l]
    out[i,l] = sum_j a[i,j] * t0[j,l]
    >>> [name for name, _ in chain.candidates], chain.chosen
    (['unsplit', 'left to right', 'opt_einsum greedy', 'opt_einsum auto'], 'opt_einsum auto')
    """
    exact = _exact_path(optimize, len(program.statements[-1].factors))
    if exact is not None:
        proposals: Iterable[tuple[str, Path]] = [exact]
    else:
        program = simplify(program, machine, element)
        proposals = _propose(program.statements[-1], program.sizes, program.shapes, optimize)
        if largest is not None:
            limited = _propose_small(program.statements[-1], program.sizes, optimize, largest)
            proposals = chain(proposals, limited)
    made: dict[Path, tuple[Program, Cost]] = {}
    candidates: dict[str, tuple[Program, Cost]] = {}
    for name, path in proposals:
        if name.endswith(SMALL) and path in made:
            continue
        if path not in made:
            split = follow(program, path)
            made[path] = split, program_cost(split, element, machine)
        candidates[name] = made[path]
    chosen = min(candidates, key=lambda name: candidates[name][1].seconds)  # the first, if equal
    costs = tuple((name, cost) for name, (_, cost) in candidates.items())
    programs = {name: split for name, (split, _) in candidates.items()}
    return Factorization(programs[chosen], costs, chosen, programs)


# --- proposals ------------------------------------------------------------------------------------


def _exact_path(optimize: Any, factors: int) -> tuple[str, Path] | None:
    """What `optimize` leaves no choice about, and its name; None if a path is to be searched."""
    if optimize is None or optimize is False:
        return "unsplit", _all_at_once(factors)
    if optimize is True or isinstance(optimize, str) or callable(optimize):
        return None
    first, *rest = optimize or [()]
    if not isinstance(first, str):
        return "path", _path(optimize)
    return ("path", _path(rest)) if first == "einsum_path" else None


def _propose(
    statement: Statement,
    extents: Mapping[str, int],
    shapes: Mapping[str, tuple[int, ...]],
    optimize: Any,
) -> Iterator[tuple[str, Path]]:
    """The paths that `optimize` asks to choose from, each with a name."""
    factors = len(statement.factors)
    if optimize is not True:
        yield _search(statement, extents, *_named_search(optimize))
        return
    if factors <= MOST_FACTORS:
        yield "unsplit", _all_at_once(factors)
    if factors > 2:
        yield "left to right", ((0, 1), *((0, left) for left in range(factors - 2, 0, -1)))
        yield _search(statement, extents, *_named_search("greedy"))
    if 2 < factors <= AUTO:
        yield _search(statement, extents, *_named_search("auto"))
    if 2 < factors <= EXHAUSTIVE and not all(f.is_plain for f in statement.factors):
        yield "windows", windows_path(statement, extents, shapes)
    if factors > RANDOM and find_spec("cotengra"):
        yield _search(statement, extents, "cotengra", _cotengra)


def _propose_small(
    statement: Statement, extents: Mapping[str, int], optimize: Any, largest: int
) -> Iterator[tuple[str, Path]]:
    """The paths that opt_einsum finds when told how large intermediates may be.

    Where it finds none it contracts many factors at once; that is no proposal.
    """
    factors = len(statement.factors)
    names = ["greedy", *(["auto"] if factors <= AUTO else [])]
    if optimize is not True:
        names = [optimize] if isinstance(optimize, str) else []
    for name in names if factors > 2 else []:
        found, path = _search(statement, extents, *_named_search((name, largest)))
        if all(len(step) <= MOST_FACTORS for step in path):
            yield found + SMALL, path


def _all_at_once(factors: int) -> Path:
    return (tuple(range(factors)),)


def _named_search(optimize: Any) -> tuple[str, _Search, int | None]:
    """The name, the function and the memory limit that `optimize` stands for."""
    if callable(optimize):
        return getattr(optimize, "__name__", type(optimize).__name__), optimize, None
    from opt_einsum import paths  # here, since only planning needs it

    name, limit = (optimize, -1) if isinstance(optimize, str) else optimize
    try:
        search = paths.get_path_fn(name)
    except KeyError:
        raise EinsumError(f"opt_einsum has no path search called {name!r}") from None
    return f"opt_einsum {name}", search, int(limit) if 0 <= limit < math.inf else None


def _search(
    statement: Statement,
    extents: Mapping[str, int],
    name: str,
    search: _Search,
    memory_limit: int | None = None,
) -> tuple[str, Path]:
    """The path that a search finds, under the name of the search."""
    from opt_einsum import get_symbol

    symbols = {index: get_symbol(n) for n, index in enumerate(statement.indices)}
    inputs = [frozenset(symbols[index] for index in f.names) for f in statement.factors]
    output = frozenset(symbols[index] for index in statement.kept)
    sizes = {symbol: extents[index] for index, symbol in symbols.items()}
    return name, _path(search(inputs, output, sizes, memory_limit))


def _cotengra(
    inputs: Iterable[frozenset[str]], output: frozenset[str], sizes: dict[str, int], _: int | None
) -> Iterable[Iterable[int]]:
    """The random greedy search of cotengra, bounded by trials instead of time and without
    accelerators, so that it finds the same path everywhere.
    """
    from cotengra import RandomGreedyOptimizer

    terms = [sorted(term) for term in inputs]
    trials = max(min(TRIALS, EFFORT // len(terms) ** 2), 1)
    search = RandomGreedyOptimizer(max_repeats=trials, seed=0, accel=False, parallel=False)
    path: Iterable[Iterable[int]] = search(terms, sorted(output), sizes)
    return path


def _path(steps: Iterable[Iterable[int]]) -> Path:
    """A path in its one form."""
    return tuple(tuple(sorted(map(int, step))) for step in steps)


# --- a path followed ------------------------------------------------------------------------------


def follow(program: Program, path: Path) -> Program:
    """Split the last statement of a program along a path; raises EinsumError if it does not fit.

    A contraction keeps the indices that are needed later. They are ordered for the step that reads
    them: first those that several of its factors have, then those of one factor after the other,
    and last the index along which the elements of the result are neighbours.

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
    names, unit = program.fresh_names(), statement.kept[-1:]
    shapes, sizes = program.shapes, program.sizes
    fresh: dict[str, int] = {}  # extents of indices that stand for an affine axis
    # The factors that are left, each with the first of the operands in it: steps read from left to
    # right as the equation does.
    left = list(enumerate(statement.factors))
    uses = Counter(index for factor in statement.factors for index in factor.names)
    uses.update(statement.kept)
    steps = []
    for number, positions in enumerate(path, start=1):
        taken = sorted((left[position] for position in positions), key=lambda item: item[0])
        for position in sorted(positions, reverse=True):
            del left[position]
        factors = [factor for _, factor in taken]
        uses.subtract(index for factor in factors for index in factor.names)
        target = made = statement.target
        if number < len(path):
            name = next(names)
            factors, whole = _whole_axes(factors, uses, name)
            for index, (_, place, at) in whole.items():
                fresh[index] = shapes[factors[place].tensor][at]
            shared = Counter(index for factor in factors for index in factor.names)
            kept = [index for index in shared if uses[index] or index in whole]
            kept.sort(key=lambda index: (_is_unit(index, whole, unit), shared[index] == 1))
            target = Access(name, tuple(map(Affine.index, kept)))
            axes = (whole[index][0] if index in whole else Affine.index(index) for index in kept)
            made = Access(name, tuple(axes))
            shapes[name] = tuple(fresh[index] if index in fresh else sizes[index] for index in kept)
            uses.update(made.names)
        left.append((taken[0][0], made))
        steps.append(Statement(target, tuple(factors)))
    program = replace(program, extents=(*program.extents, *fresh.items()))
    return program.with_statements([*before, *steps])


_Whole = Mapping[str, tuple[Affine, int, int]]
"""Indices that stand for an affine axis: the axis, the factor that has it, and its number there."""


def _whole_axes(
    factors: Sequence[Access], uses: Mapping[str, int], name: str
) -> tuple[list[Access], _Whole]:
    """Factors in which an index of its own stands for each affine axis that a step leaves alone.

    That is one whose indices nothing else in the step has, and some later one needs. The axis goes
    into the step's result as it is, and is read there as it would have been here: with `c` summed
    first, `sum_c a[c,y+k] * w[c,r]` is `t0[r,Y]`, which is read as `t0[r,y+k]`, instead of a
    `t0[r,y,k]` with all windows unfolded.
    """
    found: dict[str, tuple[Affine, int, int]] = {}
    changed = list(factors)
    for place, factor in enumerate(factors):
        others = [
            axis for n, other in enumerate(factors) if n != place for axis in other.subscripts
        ]
        for at, axis in enumerate(factor.subscripts):
            rest = [each for n, each in enumerate(factor.subscripts) if n != at]
            taken = {index for each in (*others, *rest) for index in each.names}
            if axis.is_index or not taken.isdisjoint(axis.names):
                continue
            if any(uses[index] for index in axis.names):
                index = f"{name}.{len(found)}"
                found[index] = axis, place, at
                subscripts = list(changed[place].subscripts)
                subscripts[at] = Affine.index(index)
                changed[place] = Access(factor.tensor, tuple(subscripts))
    return changed, found


def _is_unit(index: str, whole: _Whole, unit: Sequence[str]) -> bool:
    """Whether the result's elements are neighbours along an index."""
    return index in unit or (index in whole and not set(unit).isdisjoint(whole[index][0].names))


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
