"""Choosing once for steps that differ in nothing but the names of their indices.

A network of many tensors has many such steps, and making their canonical form and choosing a
schedule takes longer than most of them take to run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from .choose import Choice, choose
from .geometry import Geometry, canonical
from .machine import Machine
from .records import dataclass, replace
from .split import in_lines

if TYPE_CHECKING:
    from .finish import Finish
    from .frames import Windows

__all__ = ["Form", "form_of"]

_Strides = tuple[tuple[tuple[str, int], ...], ...]
_Key = tuple[
    tuple[str, ...], str, tuple[int, ...], _Strides, bool, "Finish | None", "Windows | None"
]


@dataclass(frozen=True, slots=True)
class Form:
    """A step's canonical form and its schedule.

    ``key`` is equal for steps that are the same but for names: whatever follows from extents,
    strides and schedule may be remembered under it. The numbered ones have ``"0"`` for the first of
    the ``names``, and so on.
    """

    key: _Key
    names: tuple[str, ...]
    numbered_step: Geometry
    numbered_choice: Choice

    @property
    def numbered_plain(self) -> Geometry:
        """The step as it was, with axes of one element, and with nothing merged."""
        return _plain(self.key)

    @property
    def step(self) -> Geometry:
        """The canonical form."""
        step = self.numbered_step
        return replace(
            step,
            extents=self._named(step.extents),
            strides=tuple(map(self._named, step.strides)),
            merged={self._name(i): self._listed(m) for i, m in step.merged.items()},
            finish=step.finish and replace(step.finish, over=self._listed(step.finish.over)),
            windows=step.windows
            and step.windows.renamed({str(n): name for n, name in enumerate(self.names)}),
        )

    @property
    def choice(self) -> Choice:
        """The schedule, and which indices it groups."""
        members = {group: self._listed(m) for group, m in self.numbered_choice.members.items()}
        return replace(self.numbered_choice, members=members)

    def _named(self, values: Mapping[str, int]) -> dict[str, int]:
        return {self._name(index): value for index, value in values.items()}

    def _listed(self, indices: Sequence[str]) -> tuple[str, ...]:
        return tuple(map(self._name, indices))

    def _name(self, index: str) -> str:
        """The name that a number, or a part of an index such as ``0/8``, stands for."""
        number = index.rstrip("0123456789").rstrip("/%") or index
        return self.names[int(number)] + index[len(number) :]


def form_of(step: Geometry, machine: Machine) -> Form:
    """The canonical form of a step and its schedule on a machine.

    >>> from .machine import TARGETS
    >>> def rows(outer, inner):
    ...     strides = {outer: 10, inner: 1}, {outer: 1}
    ...     return Geometry(("f4", "f4"), "f4", {outer: 8, inner: 10}, strides)
    >>> machine = Machine(TARGETS["x86-64-v3"])
    >>> first, second = (form_of(rows(*names), machine) for names in ("ij", "xy"))
    >>> first.key == second.key, dict(first.choice.members), dict(second.choice.members)
    (True, {'v': ('i',), 'r': ('j',)}, {'v': ('x',), 'r': ('y',)})
    """
    names = tuple(step.extents)
    number = {name: str(n) for n, name in enumerate(names)}
    strides = tuple([tuple([(number[i], s) for i, s in t.items()]) for t in step.strides])
    finish = step.finish
    if finish is not None:
        finish = replace(finish, over=tuple([number[i] for i in finish.over if i in number]))
    extents = tuple(step.extents.values())
    windows = step.windows and step.windows.renamed(number)
    key = (step.elements, step.accumulator, extents, strides, step.twins, finish, windows)
    return Form(key, names, *_chosen(key, machine))


@lru_cache(maxsize=4096)
def _chosen(key: _Key, machine: Machine) -> tuple[Geometry, Choice]:
    step = canonical(_plain(key))
    if step.windows is None:
        step = in_lines(step, machine)
    return step, choose(step, machine)


def _plain(key: _Key) -> Geometry:
    elements, accumulator, extents, strides, twins, finish, windows = key
    numbered = {str(n): extent for n, extent in enumerate(extents)}
    steps = tuple(map(dict, strides))
    return Geometry(
        elements, accumulator, numbered, steps, twins=twins, finish=finish, windows=windows
    )
