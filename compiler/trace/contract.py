"""Contractions: an einsum of a trace as a statement, or as a view where nothing is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import prod

from ..access import Access
from ..affine import Affine
from ..formula import Value
from ..program import bounds
from ..records import replace
from ..resolve import resolve
from .axes import At, Atoms, axis, coarser, plus, refined, times
from .graph import Contract, Node
from .lowered import Indices, Lowered, product
from .writer import Writer

__all__ = ["contract"]


def contract(writer: Writer, node: Node, operation: Contract, given: Sequence[Lowered]) -> Lowered:
    """An einsum."""
    shapes = [value.shape for value in given]
    expression = resolve(operation.subscripts, shapes, operation.given)
    terms, output, extents = expression.inputs, expression.output, expression.sizes
    plain = Access("", output).is_plain
    parts: dict[str, Atoms] = {}
    for name, extent in expression.extents:
        uses = (
            value.axes[place]
            for value, term in zip(given, terms, strict=True)
            for place, each in enumerate(term)
            if each is not None and each == Affine.index(name)
        )
        parts[name] = tuple(
            replace(atom, name=name if _is_name(name) and len(atoms) == 1 else atom.name)
            for atoms in [refined(uses) or axis(extent)]
            for atom in atoms
        )
    kept = [name for each in output for name in each.names]
    is_view = len(given) == 1 and plain and parts.keys() <= {*kept}
    if is_view and not _leaving(terms[0], given[0].shape, extents):
        source = _unmerged(writer, given[0], terms[0])

        def at(where: Sequence[At]) -> Value:
            named = dict(zip(kept, where, strict=True))
            return _read_term(terms[0], named, parts, source)

        axes = tuple(parts[name] for name in kept)
        return Lowered(node.dtype, axes, at, source.computes)
    indices = Indices(writer.extents)
    places = {name: indices.new(atoms) for name, atoms in parts.items()}
    factors: list[Access] = []
    for value, term in zip(given, terms, strict=True):
        value = _windowed(writer, value, term, extents)
        factors += writer.factors(value, partial(_read_term, term, places, parts))
    read = {name for factor in factors for name in factor.names}
    times_over = prod(
        atom.extent
        for name in parts.keys() - {*kept}
        for sub, atom in zip(places[name], parts[name], strict=True)
        if read.isdisjoint(sub.names)  # every element along it is the same
    )
    if plain:
        atoms = [parts[name] for name in kept]
        made = writer.written(atoms, [places[name] for name in kept], factors, node.dtype)
    else:
        target = tuple(_position(each, places, parts) for each in output)
        made = writer.scattered(target, expression.output_shape, factors, node.dtype)
    return writer.repeated(made, times_over)


def _unmerged(writer: Writer, value: Lowered, term: Sequence[Affine | None]) -> Lowered:
    """A value that an operand's term reads: a copy if the term has windows of a merged axis."""
    for each, atoms in zip(term, value.axes, strict=True):
        if each is not None and not each.is_index and len(atoms) > 1:
            return writer.framed(value)
    return value


def _windowed(
    writer: Writer, value: Lowered, term: Sequence[Affine | None], extents: Mapping[str, int]
) -> Lowered:
    """A value that is zero wherever an operand's term reads outside of it: a copy if need be.

    A tensor is zero outside, but not what a slice of it leaves out, nor most formulas.
    """
    value = _unmerged(writer, value, term)
    leaving = _leaving(term, value.shape, extents)
    if not leaving or value.is_tensor:
        return value
    markers = [
        tuple(Affine.index(f"{axis}.{n}") for n, _ in enumerate(atoms))
        for axis, atoms in enumerate(value.axes)
    ]
    factors = product(value.at(markers)) or ()
    whole = {
        sub
        for factor in factors
        for sub, extent in zip(factor.subscripts, writer.tensors[factor.tensor].axes, strict=True)
        for axis in leaving
        if markers[axis] == (sub,) and value.shape[axis] == extent
    }
    if all(whole.issuperset(markers[axis]) and markers[axis] for axis in leaving):
        return value
    return writer.framed(value)


def _read_term(
    term: Sequence[Affine | None],
    places: Mapping[str, At],
    parts: Mapping[str, Atoms],
    value: Lowered,
) -> Value:
    """An element of an operand of an einsum."""
    at: list[At] = []
    for each, atoms in zip(term, value.axes, strict=True):
        if each is None or (not atoms and (each.is_index or not value.is_tensor)):
            at.append(())
        elif each.is_index:
            at.append(coarser(places[each.names[0]], parts[each.names[0]], atoms))
        else:
            at.append((_position(each, places, parts),))
    return value.at(at)


def _position(each: Affine, places: Mapping[str, At], parts: Mapping[str, Atoms]) -> Affine:
    """Where a sum of an einsum's indices is, each of which may be several indices or none."""
    position = Affine((), each.constant)
    for name, factor in each.terms:
        atoms = parts[name]
        if atoms:
            (whole,) = coarser(places[name], atoms, axis(prod(atom.extent for atom in atoms)))
            position = plus(position, times(whole, factor))
    return position


def _leaving(
    term: Sequence[Affine | None], shape: Sequence[int], extents: Mapping[str, int]
) -> list[int]:
    """The axes of an operand that its term leaves."""
    found = []
    for number, (each, extent) in enumerate(zip(term, shape, strict=True)):
        if each is not None and not each.is_index and all(extents[name] for name in each.names):
            low, high = bounds(each, extents)
            if low < 0 or high >= extent:
                found.append(number)
    return found


def _is_name(name: str) -> bool:
    return name.isidentifier() or len(name) == 1
