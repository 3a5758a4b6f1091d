"""Extents that only an affine axis fixes: how many windows fit, and how far a result reaches.

An axis such as ``2*y+k-1`` is a window of ``k`` positions that moves by two with ``y``. Its first
position is where all of its indices are 0. Where the first window begins ``p`` positions in front
of the operand, those are padding, and the last window may end as many behind it:

    y+k         no padding                      Y = H - K + 1                       "valid"
    2*y+k-1     padding of 1                    Y = (H + 2 - K) // 2 + 1            torch's formula
    y-k         padding of K - 1                Y = H + K - 1                       "full"
    y-k+1       with K = 3 a padding of 1       Y = H                               "same"

An output's axis is the other way round: as long as an operand would be that it were read from, so
a transposed convolution gives back what the convolution took. Whatever else is wanted is said:
``sizes={"y": 32}`` for an index, ``sizes={"2*y+k-1": 64}`` for the axis of an output.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from .affine import Affine
from .errors import EinsumError, Span

__all__ = ["Given", "given_sizes", "length", "solve"]

Given = tuple[tuple[Affine, int], ...]
"""Extents that were asked for, of indices and of an output's axes."""


def solve(axis: Affine, extent: int, sizes: Mapping[str, int]) -> tuple[str, int] | None:
    """The one index of an axis whose extent is not known, and the extent that it must have.

    None if there is no such index, or more than one. The extent is below 1 if no window fits.

    >>> solve(Affine((("y", 2), ("k", 1)), -1), 32, {"k": 3})
    ('y', 16)
    """
    unknown = [name for name in axis.names if name not in sizes]
    if len(unknown) != 1:
        return None
    (name,) = unknown
    step = dict(axis.terms)[name]
    low, high = _reach(axis, {**sizes, name: 1})
    if step > 0:
        room = extent - 1 + max(0, -low) - high
    else:
        room = low + max(0, high - (extent - 1))
    return name, room // abs(step) + 1


def length(axis: Affine, sizes: Mapping[str, int]) -> int:
    """How long the axis of an output is; below 1 if padding leaves nothing of it.

    >>> length(Affine((("y", 2), ("k", 1)), -1), {"y": 16, "k": 4})
    32
    """
    low, high = _reach(axis, sizes)
    return high + 1 - max(0, -low)


def _reach(axis: Affine, sizes: Mapping[str, int]) -> tuple[int, int]:
    low = sum(min(c * (sizes[name] - 1), 0) for name, c in axis.terms)
    high = sum(max(c * (sizes[name] - 1), 0) for name, c in axis.terms)
    return axis.constant + low, axis.constant + high


# --- what users give ------------------------------------------------------------------------------


def given_sizes(sizes: Mapping[str, int] | Given | None) -> Given:
    """What `sizes=` says, checked: extents by the texts of indices or affine axes.

    >>> given_sizes({"y": 32})
    ((Affine(terms=(('y', 1),), constant=0), 32),)
    """
    from .subscripts import parse_axis

    if sizes is None or isinstance(sizes, tuple):
        return sizes or ()
    if not isinstance(sizes, Mapping):
        raise EinsumError(f"sizes must map indices to extents, not be a {type(sizes).__name__}")
    found = []
    for text, extent in sizes.items():
        if not isinstance(text, str):
            raise EinsumError(f"sizes must have indices as keys, not {text!r}")
        axis = parse_axis("".join(text.split()), (0, len("".join(text.split()))))
        if isinstance(extent, bool) or not hasattr(extent, "__index__") or int(extent) < 0:
            raise EinsumError(f"sizes[{text!r}] must be an extent, not {extent!r}")
        found.append((axis, int(extent)))
    return tuple(sorted(found, key=lambda item: str(item[0])))


# --- all extents of an equation -------------------------------------------------------------------


Placed = tuple[Affine, Span, int, int, int]
"""An affine axis of an operand: what and where it is, its extent, the operand and the axis."""


def solved(text: str, axes: Iterable[Placed], sizes: Mapping[str, int]) -> dict[str, int]:
    """The extents of all indices, where some axes are affine; raises EinsumError.

    >>> axis = Affine((("y", 1), ("k", 1)))
    >>> solved("y+k, k -> y", [(axis, (0, 3), 9, 0, 0)], {"k": 3})
    {'k': 3, 'y': 7}
    """
    known = dict(sizes)

    def unknown(placed: Placed) -> list[str]:
        return [name for name in placed[0].names if name not in known]

    waiting = list(filter(unknown, axes))
    while waiting:
        made: dict[str, tuple[int, Placed]] = {}
        for placed in waiting:
            found = solve(placed[0], placed[2], known)
            if found is None:
                continue
            name, extent = found
            if extent < 1:
                raise _no_room(text, placed, name, known)
            other = made.setdefault(name, (extent, placed))
            if other[0] != extent:
                raise _two_extents(text, name, other, (extent, placed))
        if not made:
            break
        known |= {name: extent for name, (extent, _) in made.items()}
        waiting = list(filter(unknown, waiting))
    for placed in waiting:
        _, span, _, operand, number = placed
        names = unknown(placed)
        raise EinsumError(
            f"the extents of {' and '.join(map(repr, names))} are unknown: {text[slice(*span)]}, "
            f"axis {number} of operand {operand}, cannot fix more than one of them; give one, as "
            f"in sizes={{{names[0]!r}: 8}}",
            text,
            span,
        )
    return known


def _no_room(text: str, placed: Placed, name: str, known: Mapping[str, int]) -> EinsumError:
    axis, span, extent, operand, number = placed
    window = ", ".join(f"{n} of {known[n]}" for n in axis.names if n != name)
    return EinsumError(
        f"no position of {name!r} fits in axis {number} of operand {operand}, which has {extent}"
        f"{f' (with {window})' if window else ''}; give its extent, as in sizes={{{name!r}: 8}}",
        text,
        span,
    )


def _two_extents(
    text: str, name: str, first: tuple[int, Placed], second: tuple[int, Placed]
) -> EinsumError:
    (one, there), (other, here) = first, second
    return EinsumError(
        f"{name!r} has extent {one} by axis {there[4]} of operand {there[3]} but {other} by "
        f"axis {here[4]} of operand {here[3]}; give it, as in sizes={{{name!r}: {other}}}",
        text,
        here[1],
    )


def unused(given: Given, known: Iterable[str], output: Iterable[Affine]) -> Iterator[Affine]:
    """What was given an extent but is neither an index nor an axis of the output."""
    names, axes = {*known}, {*output}
    for axis, _ in given:
        if axis not in axes and not (axis.is_index and axis.names[0] in names):
            yield axis
