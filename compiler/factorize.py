"""Cut a program into steps: what is computed with what, in which order, and what is kept between.

    out[i,l] = sum_{j,k} a[i,j] * b[j,k] * c[k,l]

becomes the cheapest of what several contraction paths (:mod:`.paths`) make of it, such as

    t0[i,k] = sum_j a[i,j] * b[j,k]
    out[i,l] = sum_k t0[i,k] * c[k,l]

Cheapest is what takes the least predicted time once equal intermediates are computed once. Of a
program of several statements, intermediates that are products may be inlined
(:mod:`.rewrite.inline`), so that what several statements multiply is contracted in another order;
keeping them competes with that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, count
from typing import Any

from .affine import Affine
from .cost import Cost, program_cost
from .follow import follow
from .machine import Machine
from .paths import MOST_FACTORS, SEARCHED, SMALL, Path, exact_path, propose, propose_small
from .program import Program, Statement
from .records import dataclass, field, replace
from .rewrite import compute_once, finish, simplify
from .rewrite.describe import describe
from .rewrite.distribute import distributed
from .rewrite.inline import inlinable, inlined
from .rewrite.pixels import pixels_first

__all__ = ["MOST_FACTORS", "Factorization", "Path", "factorize", "follow"]

MOST_INLINED = 12
"""Factors that a statement may have once intermediates are inlined."""

MOST_TRIED = 8
"""Of more intermediates than this, all or none are inlined."""


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
        return _whole(program, optimize, machine, element, largest)
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
            split = split if exact else pixels_first(finish(split), machine, element)
            made[path] = split, program_cost(split, element, machine)
        if exact is None and repeats and len(path) > 1:
            kind = describe(made[path][0])
            name = kind if name == SEARCHED else f"{name} ({kind})"
        candidates[_unused(name, candidates)] = made[path]
    return _chosen(candidates)


def _chosen(candidates: Mapping[str, tuple[Program, Cost]]) -> Factorization:
    """The candidate of the least predicted time, the first if there are several."""
    chosen = min(candidates, key=lambda name: candidates[name][1].seconds)
    costs = tuple((name, cost) for name, (_, cost) in candidates.items())
    programs = {name: split for name, (split, _) in candidates.items()}
    return Factorization(programs[chosen], costs, chosen, programs)


def _unused(name: str, taken: Mapping[str, Any]) -> str:
    """A name that no candidate has, with a number if need be."""
    numbered = chain([name], (f"{name} {number}" for number in count(2)))
    return next(each for each in numbered if each not in taken)


# --- several statements ---------------------------------------------------------------------------


def _whole(
    program: Program, optimize: Any, machine: Machine, element: str, largest: int | None
) -> Factorization:
    """Cut every statement of a program into steps, and choose which intermediates it keeps.

    Intermediates are inlined one after the other for as long as that is cheaper, beginning with
    none, and with all.
    """
    program = compute_once(program)
    splits: dict[Statement, Program] = {}
    tried: dict[tuple[Statement, ...], tuple[Program, Cost]] = {}

    def cut(whole: Program) -> tuple[Program, Cost]:
        if whole.statements not in tried:
            names, extents = whole.fresh_names(), whole.sizes
            steps: list[Statement] = []
            for statement in whole.statements:
                if statement not in splits:
                    alone = _alone(whole, statement)
                    found = factorize(alone, optimize, machine, element, largest)
                    splits[statement] = found.program
                steps += _renamed(splits[statement], whole.sizes, names, extents)
            whole_program = replace(whole, extents=tuple(extents.items()))
            split = finish(whole_program.with_statements(steps))
            tried[whole.statements] = split, program_cost(split, element, machine)
        return tried[whole.statements]

    def fits(whole: Program) -> bool:
        return all(len(statement.factors) <= MOST_INLINED for statement in whole.statements)

    candidates, real = {}, element.startswith("f")
    for form, written in _forms(program):
        candidates[form] = cut(written)
        every = inlinable(written)
        alone = [name for name in every if fits(inlined(written, [name]))]
        for chosen in ([], every) if alone else ():
            whole = inlined(written, chosen, real)
            if not fits(whole):
                continue
            best, improved = cut(whole), True
            while improved:
                improved = False
                for name in alone if len(alone) <= MOST_TRIED else ():
                    others = [n for n in every if (n in chosen) != (n == name)]
                    changed = inlined(written, others, real)
                    if fits(changed) and cut(changed)[1].seconds < best[1].seconds:
                        best, chosen, improved = cut(changed), others, True
            if chosen:
                name = f"{', '.join(chosen)} inlined: {describe(best[0])}"
                candidates[name if form == _WRITTEN else f"{form}, {name}"] = best
    return _chosen(candidates)


_WRITTEN = "as written"


def _forms(program: Program) -> Iterator[tuple[str, Program]]:
    """The program, and what it is with common factors taken out of its sums."""
    yield _WRITTEN, program
    other = distributed(program)
    if other is not None:
        yield "common factors", other


def _alone(program: Program, statement: Statement) -> Program:
    """One of a program's statements as a program of its own."""
    read = tuple(dict.fromkeys(access.tensor for access in statement.accesses))
    names = {*read, statement.target.tensor}
    return Program(
        tensors=tuple(tensor for tensor in program.tensors if tensor.name in names),
        inputs=read,
        statements=(statement,),
        results=(statement.target.tensor,),
        extents=tuple((i, n) for i, n in program.extents if i in statement.indices),
    )


def _renamed(
    split: Program, sizes: Mapping[str, int], names: Iterator[str], extents: dict[str, int]
) -> Iterator[Statement]:
    """The steps of a statement, of which the last makes a tensor of the whole program.

    The others make new tensors, with indices that are not among `sizes`, the program's, where one
    stands for an affine axis; those are named after the new tensor, and added to `extents`.
    """
    own = {step.target.tensor: next(names) for step in split.statements[:-1]}
    for step in split.statements:
        target = own.get(step.target.tensor, step.target.tensor)
        indices: dict[str, Affine] = {}
        for index in step.indices:
            if index not in sizes:
                name = f"{target}.{len(indices)}"
                indices[index], extents[name] = Affine.index(name), split.sizes[index]
        yield replace(
            step,
            target=replace(step.target, tensor=target).replaced(indices),
            factors=tuple(
                replace(each, tensor=own.get(each.tensor, each.tensor)).replaced(indices)
                for each in step.factors
            ),
        )
