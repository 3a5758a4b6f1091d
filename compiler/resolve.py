"""From subscripts and the shapes of operands to a checked expression."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from .affine import Affine
from .errors import EinsumError, operand_count, rank_mismatch, size_mismatch
from .subscripts import Axis, Expression, Subscripts, Term, compose
from .windows import Given, Placed, length, solved, unused

__all__ = ["resolve"]


def resolve(
    subscripts: Subscripts, shapes: Sequence[Sequence[int]], given: Given = ()
) -> Expression:
    """Check an equation against the shapes of its operands.

    An axis of extent 1 broadcasts against any other extent of its index, as in NumPy, unless the
    index is repeated within the operand: those axes must be equal. An affine axis may have any
    extent, and fixes that of an index which no other does (`compiler/windows.py`). `given` are
    extents that were asked for. Raises EinsumError.

    >>> from einsumc.compiler.subscripts import parse
    >>> resolve(parse("ij,jk->ik"), [(2, 3), (4, 5)])  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    EinsumError: index 'j' has size 3 in operand 0 (axis 1) but 4 in operand 1 (axis 0)
        ij,jk->ik
           ^
    """
    shapes = [tuple(int(extent) for extent in shape) for shape in shapes]
    _check_count(subscripts, len(shapes))
    if subscripts.numpy is not None and _misfit(subscripts.numpy, shapes) is None:
        subscripts = subscripts.numpy
    misfit = _misfit(subscripts, shapes)
    if misfit is not None:
        term, shape = subscripts.inputs[misfit], shapes[misfit]
        names = [str(axis.index) for axis in term.axes]
        ellipsis = term.ellipsis is not None
        raise rank_mismatch(subscripts.text, term.span, misfit, shape, names, ellipsis)

    broadcast = max(  # how many axes `...` stands for, in the operand that has most
        (
            len(shape) - len(term.axes)
            for term, shape in zip(subscripts.inputs, shapes, strict=True)
            if term.ellipsis is not None
        ),
        default=0,
    )
    operands = [
        _expand(term, len(shape) - len(term.axes), broadcast)
        for term, shape in zip(subscripts.inputs, shapes, strict=True)
    ]
    sizes = _extents(subscripts.text, operands, shapes, given)
    inputs = tuple(
        tuple(
            axis.index if not axis.index.is_index or extent == sizes[axis.index.names[0]] else None
            for axis, extent in zip(axes, shape, strict=True)
        )
        for axes, shape in zip(operands, shapes, strict=True)
    )
    output = subscripts.output or _implicit_output(subscripts.inputs)
    expanded = _expand(output, broadcast, broadcast)
    return Expression(
        inputs,
        tuple(axis.index for axis in expanded),
        tuple(sizes.items()),
        compose([_items(term) for term in subscripts.inputs], _items(output)).text,
        tuple(map(tuple, shapes)),
        _output_shape(subscripts.text, expanded, sizes, given),
    )


def _check_count(subscripts: Subscripts, operands: int) -> None:
    """As many operands as terms; the caret is under the first term left over, or the last term."""
    terms = subscripts.inputs
    if len(terms) != operands:
        span = terms[min(operands, len(terms) - 1)].span
        raise operand_count(subscripts.text, span, len(terms), operands)


def _misfit(subscripts: Subscripts, shapes: Sequence[Sequence[int]]) -> int | None:
    """The first operand whose rank does not fit its term."""
    for n, (term, shape) in enumerate(zip(subscripts.inputs, shapes, strict=True)):
        spare = len(shape) - len(term.axes)
        if spare < 0 or (spare > 0 and term.ellipsis is None):
            return n
    return None


def _expand(term: Term, count: int, broadcast: int) -> list[Axis]:
    """The axes of a term whose ellipsis stands for the last `count` of `broadcast` axes."""
    if term.ellipsis is None:
        return list(term.axes)
    axes = (
        Axis(Affine.index(f"...{n}"), term.ellipsis_span)
        for n in range(broadcast - count, broadcast)
    )
    return [*term.axes[: term.ellipsis], *axes, *term.axes[term.ellipsis :]]


def _extents(
    text: str,
    operands: Sequence[Sequence[Axis]],
    shapes: Sequence[Sequence[int]],
    given: Given,
) -> dict[str, int]:
    """The extent of each index, in the order in which the indices first appear.

    It is that of its axes which is not 1, if there is one; what no plain axis fixes, an affine one
    may.
    """
    sizes: dict[str, tuple[int, int, int]] = {}  # extent, and the operand and axis that has it
    affine: list[Placed] = []
    for n, (axes, shape) in enumerate(zip(operands, shapes, strict=True)):
        within: dict[str, tuple[int, int, int]] = {}
        for number, (axis, extent) in enumerate(zip(axes, shape, strict=True)):
            if not axis.index.is_index:
                affine.append((axis.index, axis.span, extent, n, number))
                continue
            name = axis.index.names[0]
            here = (extent, n, number)
            there = within.setdefault(name, here)
            if there[0] == extent:
                there = sizes.setdefault(name, here)
                if there[0] == 1:
                    sizes[name] = here
                if extent == 1 or there[0] in (1, extent):
                    continue
            index = f"axis {name[3:]} of '...'" if name.startswith("...") else f"index {name!r}"
            raise size_mismatch(text, axis.span, index, there, here)
    known = {name: extent for name, (extent, _, _) in sizes.items()}
    for asked, extent in given:
        if asked.is_index:
            name = asked.names[0]
            if known.setdefault(name, extent) not in (1, extent):
                _, n, number = sizes[name]
                raise EinsumError(
                    f"index {name!r} has size {known[name]} in operand {n} (axis {number}) "
                    f"but sizes= says {extent}",
                    text,
                    operands[n][number].span,
                )
            known[name] = extent
    if affine:
        known = solved(text, affine, known)
    names = dict.fromkeys(name for axes in operands for axis in axes for name in axis.index.names)
    return {name: known[name] for name in names}


def _output_shape(
    text: str, output: Sequence[Axis], sizes: dict[str, int], given: Given
) -> tuple[int, ...]:
    """The extent of each axis of the result."""
    asked = dict(given)
    shape = []
    for axis in output:
        extent = asked.get(axis.index) if not axis.index.is_index else sizes[axis.index.names[0]]
        if extent is None:
            extent = length(axis.index, sizes)
            if extent < 1:
                raise EinsumError(
                    f"padding leaves nothing of the output's axis {axis.index}; give its extent, "
                    f"as in sizes={{'{axis.index}': 8}}",
                    text,
                    axis.span,
                )
        shape.append(extent)
    for index in unused(given, sizes, (axis.index for axis in output)):
        raise EinsumError(
            f"sizes= has an extent for {str(index)!r}, which is neither an index of the equation "
            "nor an affine axis of its output",
            text,
            (0, len(text)),
        )
    return tuple(shape)


def _implicit_output(inputs: Iterable[Term]) -> Term:
    """NumPy's output where none is written: `...`, then each index that occurs once, sorted."""
    inputs = tuple(inputs)
    count = Counter(name for term in inputs for name in term.names)
    once = sorted(name for name, times in count.items() if times == 1)
    ellipsis = 0 if any(term.ellipsis is not None for term in inputs) else None
    return Term(tuple(Axis(Affine.index(name), (0, 0)) for name in once), ellipsis, (0, 0))


def _items(term: Term) -> list[Affine | None]:
    """The axes of a term, and None for its ellipsis."""
    items: list[Affine | None] = [axis.index for axis in term.axes]
    if term.ellipsis is not None:
        items.insert(term.ellipsis, None)
    return items
