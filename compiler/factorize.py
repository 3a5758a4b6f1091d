"""Cut a program into steps: what is computed with what, in which order, and what is kept between.

    out[i,l] = sum_{j,k} a[i,j] * b[j,k] * c[k,l]

becomes the cheapest of what several contraction paths (:mod:`.paths`) make of it, such as

    t0[i,k] = sum_j a[i,j] * b[j,k]
    out[i,l] = sum_k t0[i,k] * c[k,l]

Cheapest is what takes the least predicted time once equal intermediates are computed once. Programs
of several statements are the business of :mod:`.factorize_program`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain, count
from typing import Any

from .cost import Cost, program_cost
from .follow import follow
from .machine import Machine
from .paths import MOST_FACTORS, SEARCHED, SMALL, Path, exact_path, propose, propose_small
from .program import Program
from .records import dataclass, field
from .rewrite import finish, simplify

__all__ = ["MOST_FACTORS", "Factorization", "Path", "cheapest", "factorize", "follow"]


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
    inlining: bool = True,
) -> Factorization:
    """Split the statements of a program into steps.

    Args:
        program: an equation, or any program; then `optimize` holds for each statement.
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
        inlining: whether statements may be put together before they are split.

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
    (['unsplit', 'searched', 'searched 2', 'searched 3', 'left to right'], 'searched')
    """
    if len(program.statements) > 1:
        from .factorize_program import factorize_program

        return factorize_program(program, optimize, machine, element, largest, inlining)
    exact = exact_path(optimize, len(program.statements[-1].factors))
    proposals: Iterable[tuple[str, Path]]
    if exact is not None:
        proposals = [exact]
    else:
        program = simplify(program, machine, element)
        proposals = propose(program, optimize, element, machine)
        if largest is not None:
            limited = propose_small(program.statements[-1], program.sizes, optimize, largest)
            proposals = chain(proposals, limited)
    tensors = [factor.tensor for factor in program.statements[-1].factors]
    repeats = len({*tensors}) < len(tensors)
    made: dict[Path, tuple[Program, Cost]] = {}
    candidates: dict[str, tuple[Program, Cost]] = {}
    for name, path in proposals:
        if name.endswith(SMALL) and path in made:
            continue
        if path not in made:
            split = follow(program, path)
            split = split if exact else finish(split, machine, element)
            made[path] = split, program_cost(split, element, machine)
        if exact is None and repeats and len(path) > 1:
            from .rewrite.describe import describe

            kind = describe(made[path][0])
            name = kind if name == SEARCHED else f"{name} ({kind})"
        candidates[_unused(name, candidates)] = made[path]
    return cheapest(candidates)


def cheapest(candidates: Mapping[str, tuple[Program, Cost]]) -> Factorization:
    """The candidate of the least predicted time, the first if there are several."""
    chosen = min(candidates, key=lambda name: candidates[name][1].seconds)
    costs = tuple((name, cost) for name, (_, cost) in candidates.items())
    programs = {name: split for name, (split, _) in candidates.items()}
    return Factorization(programs[chosen], costs, chosen, programs)


def _unused(name: str, taken: Mapping[str, Any]) -> str:
    """A name that no candidate has, with a number if need be."""
    numbered = chain([name], (f"{name} {number}" for number in count(2)))
    return next(each for each in numbered if each not in taken)
