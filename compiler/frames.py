"""Frames: blocks of an image with zeros around them, in which every window begins at a position.

    out[m, y] = sum_{c, k} w[m, c, k] * image[c, 2*y+k-1]

reads the image at `2*y + k - 1`. Positions of one remainder by the factor 2 make a *phase*, and a
window's tap `k` is a phase and a number of steps in it: with `k - 1 = 2*h + p` it reads position
`y + h` of phase `p`. So if phases are laid out one after the other, zeros in front and behind,

    out[m, y] = sum_{c, k} w[m, c, k] * frame[c, p(k), y + h(k)]

has neighbours along `y` for every tap, whatever stride, dilation and padding are. The axes of an
image follow each other in one *flat* position: `y` and `x` become `y * pitch + x`. Between the end
of one row and the beginning of the next there are as many zeros as either needs, and where these
lie the sums belong to no element of the output. One in fifteen is lost so where rows have 14
elements.

A kernel holds the frame of a block of flat positions and a block of channels at a time, in scratch
that stays in cache. Kernels do not know how many axes an image has, nor its strides, dilations or
paddings: they are told by a description in their arguments (:class:`Layout`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import gcd
from typing import TYPE_CHECKING

from .records import dataclass, replace

if TYPE_CHECKING:
    from .access import Access
    from .geometry import Geometry
    from .program import Statement

__all__ = [
    "AXES",
    "HEAD",
    "PHASE",
    "Layout",
    "Window",
    "Windows",
    "layout",
    "windows_of",
]

AXES = 4
"""Axes of a flat position: so many digits it has in the kernel, those in front being zero."""

HEAD = 21
"""Numbers at the head of a description: see `Layout.description`."""

PHASE = 1 + 2 * AXES
"""Numbers that describe a phase."""


@dataclass(frozen=True, slots=True)
class Window:
    """An axis that is read at `factor * kept + sum of taps + constant`.

    Attributes:
        kept: an index of the output; it is in no other axis.
        factor: positive.
        taps: summed indices with their factors.
        constant: which the address of the operand has in it.
        extent: of the axis; the operand is zero outside.
        stride: from one position of the axis to the next, in elements.
    """

    kept: str
    factor: int
    taps: tuple[tuple[str, int], ...]
    constant: int
    extent: int
    stride: int

    def renamed(self, names: Mapping[str, str]) -> Window:
        """The same of indices with other names."""
        taps = tuple((names[name], factor) for name, factor in self.taps)
        return replace(self, kept=names[self.kept], taps=taps)


@dataclass(frozen=True, slots=True)
class Windows:
    """The axes of one operand that are read in windows, or beyond their ends."""

    operand: int
    axes: tuple[Window, ...]

    @property
    def kept(self) -> tuple[str, ...]:
        """The index of each axis that the output has."""
        return tuple(axis.kept for axis in self.axes)

    @property
    def taps(self) -> tuple[str, ...]:
        """The summed indices of all axes."""
        return tuple(name for axis in self.axes for name, _ in axis.taps)

    def renamed(self, names: Mapping[str, str]) -> Windows:
        """The same of indices with other names."""
        return replace(self, axes=tuple(axis.renamed(names) for axis in self.axes))


def windows_of(
    statement: Statement,
    shapes: Mapping[str, tuple[int, ...]],
    sizes: Mapping[str, int],
    strides: Mapping[str, Sequence[int]],
) -> Windows | None:
    """The windows of a product of two factors, if one of them is read so and the other is not.

    Args:
        statement: whose target has one index an axis.
        shapes: of its tensors.
        sizes: the extents of its indices.
        strides: of its tensors, in elements.
    """
    if len(statement.factors) != 2 or statement.epilogue is not None:
        return None
    kept = statement.kept
    if any(len(axis.names) > 1 for axis in statement.target.subscripts):
        return None
    if len(kept) != sum(bool(axis.names) for axis in statement.target.subscripts):
        return None
    for operand, (image, other) in enumerate((statement.factors, statement.factors[::-1])):
        found = _axes(image, kept, shapes, sizes, strides)
        if not found or _axes(other, kept, shapes, sizes, strides) != ():
            continue
        windows = Windows(operand, found)
        if not {*windows.kept} & {*other.names}:
            return windows
    return None


def _axes(
    access: Access,
    kept: Sequence[str],
    shapes: Mapping[str, tuple[int, ...]],
    sizes: Mapping[str, int],
    strides: Mapping[str, Sequence[int]],
) -> tuple[Window, ...] | None:
    """The axes of a factor that are windows; None if there is one that frames cannot hold."""
    if access.tensor not in shapes:
        return ()
    if access.is_plain:
        return _overlapping(access, kept, sizes, strides[access.tensor])
    found = []
    names = [name for axis in access.subscripts for name in axis.names]
    steps = zip(access.subscripts, shapes[access.tensor], strides[access.tensor], strict=True)
    for axis, extent, stride in steps:
        reach = [c * (sizes[name] - 1) for name, c in axis.terms]
        low = axis.constant + sum(min(0, each) for each in reach)
        high = axis.constant + sum(max(0, each) for each in reach)
        if len(axis.names) < 2 and low >= 0 and high < extent:
            continue
        inner = [(name, c) for name, c in axis.terms if name in kept]
        taps = tuple((name, c) for name, c in axis.terms if name not in kept)
        once = all(names.count(name) == 1 for name in axis.names)
        if len(inner) != 1 or inner[0][1] < 1 or not once:
            return None
        found.append(Window(*inner[0], taps, axis.constant, extent, stride))
    return tuple(found)


def _overlapping(
    access: Access, kept: Sequence[str], sizes: Mapping[str, int], strides: Sequence[int]
) -> tuple[Window, ...]:
    """The windows of a view whose axes overlap, as `sliding_window_view` makes them.

    Two axes do if some steps along either of them make one along the other. Where it is not clear
    which of them belong together, there are none.
    """
    steps = {
        axis.names[0]: stride
        for axis, stride in zip(access.subscripts, strides, strict=True)
        if stride > 0 and sizes[axis.names[0]] > 1
    }
    pairs = [
        (name, tap)
        for name in steps
        for tap in steps
        if name in kept and tap not in kept
        if steps[tap] * (sizes[tap] - 1) >= steps[name]
        if steps[name] * (sizes[name] - 1) >= steps[tap]
    ]
    if any(len({pair[side] for pair in pairs}) < len(pairs) for side in (0, 1)):
        return ()
    found = []
    for name, tap in pairs:
        stride = gcd(steps[name], steps[tap])
        factor, step = steps[name] // stride, steps[tap] // stride
        extent = factor * (sizes[name] - 1) + step * (sizes[tap] - 1) + 1
        found.append(Window(name, factor, ((tap, step),), 0, extent, stride))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Axis:
    """One digit of a flat position.

    `count` are its positions in the output, `pitch` the flat positions from one to the next, `step`
    and `out` the strides of the image and of the output, `window` what is read there if it is one.
    """

    count: int
    step: int
    out: int
    window: Window | None


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the elements of a step's frames and outputs are.

    Attributes:
        positions: flat ones, of which some belong to no element of the output.
        valid: how many do.
        taps: for each tap its phase and how many flat positions further on it reads.
        halo: the most of these.
        phases: for each the offset of its first position in the image, and for each axis the first
            digit that lies in the image and the one behind the last.
    """

    axes: tuple[_Axis, ...]
    counts: tuple[int, ...]  # the digits of each axis, the first one's being open
    positions: int
    valid: int
    taps: tuple[tuple[int, int], ...]
    halo: int
    phases: tuple[tuple[int, ...], ...]
    channel: int  # the image's stride along the summed index that is not a tap

    def table(self, plane: int, channels: int) -> list[int]:
        """For each position of a block of the sum, by how much further on it reads in the frame.

        Args:
            plane: elements from one phase of a channel to the next.
            channels: in a block.
        """
        each = [phase * plane + shift for phase, shift in self.taps]
        size = len(self.phases) * plane
        return [channel * size + offset for channel in range(channels) for offset in each]

    def description(self, plane: int, ahead: int) -> list[int]:
        """What a kernel is told.

        Taps and phases, elements of a phase, the halo, the stride of channels, the digits of all
        axes but the first, for each axis the image's and the output's stride and the output's
        extent, by how many elements what is copied next lies further on, and then the `phases`.
        """
        head = [len(self.taps), len(self.phases), plane, self.halo, self.channel]
        head += self.counts[1:]
        head += [axis.step for axis in self.axes]
        head += [axis.out for axis in self.axes]
        head += [axis.count for axis in self.axes]
        head.append(ahead)
        assert len(head) == HEAD
        return [*head, *(number for phase in self.phases for number in phase)]


def layout(step: Geometry, flat: Sequence[str], summed: Sequence[str]) -> Layout:
    """The layout of a step's frames.

    Args:
        step: with windows.
        flat: the indices of a flat position, outermost first.
        summed: the indices of the sum: one that is no tap if there is one, then the taps.
    """
    windows = step.windows
    assert windows is not None
    by_name = {axis.kept: axis for axis in windows.axes}
    image, out = step.strides[windows.operand], step.strides[-1]
    axes = [_Axis(step.extents[i], image[i], out[i], by_name.get(i)) for i in flat]
    axes = [*[_Axis(1, 0, 0, None)] * (AXES - len(axes)), *axes]
    taps = [name for name in summed if name in windows.taps]
    places = [_place(axes, dict(zip(taps, values, strict=True))) for values in _values(step, taps)]
    leads = [min(shift[n] for shift, _ in places) for n in range(AXES)]
    spans = [max(shift[n] for shift, _ in places) - leads[n] for n in range(AXES)]
    phases = sorted({phase for _, phase in places})
    ranges = {
        phase: [_range(*each) for each in zip(axes, phase, leads, spans, strict=True)]
        for phase in phases
    }
    counts = []
    for n, (axis, span) in enumerate(zip(axes, spans, strict=True)):
        low = min(each[n][0] for each in ranges.values())
        high = max(each[n][1] for each in ranges.values())
        reach = axis.count + span
        counts.append(max(axis.count, min(reach, max(high, reach - low))))
    pitches = [1] * AXES
    for n in range(AXES - 2, -1, -1):
        pitches[n] = pitches[n + 1] * counts[n + 1]
    shifts = [
        sum((h - lead) * pitch for h, lead, pitch in zip(shift, leads, pitches, strict=True))
        for shift, _ in places
    ]
    described = []
    for phase in phases:
        base = 0
        for axis, p, lead in zip(axes, phase, leads, strict=True):
            if (window := axis.window) is not None:
                base += (window.factor * lead + p - window.constant) * window.stride
        described.append((base, *(bound for each in ranges[phase] for bound in each)))
    valid = 1
    for axis in axes:
        valid *= axis.count
    others = [name for name in summed if name not in windows.taps]
    return Layout(
        axes=tuple(axes),
        counts=tuple(counts),
        positions=1 + sum((a.count - 1) * pitch for a, pitch in zip(axes, pitches, strict=True)),
        valid=valid,
        taps=tuple((phases.index(p), s) for (_, p), s in zip(places, shifts, strict=True)),
        halo=max(shifts),
        phases=tuple(described),
        channel=sum(image.get(name, 0) for name in others),
    )


def _values(step: Geometry, names: Sequence[str]) -> product[tuple[int, ...]]:
    return product(*(range(step.extents[name]) for name in names))


def _place(
    axes: Sequence[_Axis], values: Mapping[str, int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """For each axis how many digits further on a tap reads, and in which phase."""
    shift, phase = [], []
    for axis in axes:
        window = axis.window
        if window is None:
            shift.append(0)
            phase.append(0)
            continue
        at = window.constant + sum(c * values.get(name, 0) for name, c in window.taps)
        shift.append(at // window.factor)
        phase.append(at % window.factor)
    return tuple(shift), tuple(phase)


def _range(axis: _Axis, phase: int, lead: int, span: int) -> tuple[int, int]:
    """The first digit that lies in the image and the one behind the last, of those that are read.

    The position of digit g is factor * (g + lead) + phase.
    """
    window, end = axis.window, axis.count + span
    if window is None:
        return 0, end
    first = max(0, -(phase // window.factor) - lead)
    after = -(-(window.extent - phase) // window.factor) - lead
    first = min(first, end)
    return (first, min(after, end)) if after > first else (0, 0)
