"""Lower one contraction step to the plainest loop nest that computes it: one loop an index.

for i in 0..n_i:
    for k in 0..n_k:
        acc = 0
        for j in 0..n_j:
            acc += x0[i, j] * x1[j, k]
        out[i, k] = acc

An epilogue's formula takes the sum's place where it is written; where it is summed itself, that is
one more level of loops, as in ``out[i] = sum_k square(sum_j x0[i, j] * x1[j, k])``::

for i in 0..n_i:
    total = 0
    for k in 0..n_k:
        acc = 0
        for j in 0..n_j:
            acc += x0[i, j] * x1[j, k]
        total += square(acc)
    out[i] = total
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .affine import Affine
from .finish import of_product
from .loopnest import (
    Assign,
    Buffer,
    Kind,
    Loop,
    Nest,
    Ref,
    Scope,
    Statement,
    Term,
    at,
    nested,
)
from .records import replace
from .schedule import Group, Schedule


def lower(
    schedule: Schedule,
    members: Mapping[str, Sequence[str]] | None = None,
    uses: Sequence[Sequence[str]] | None = None,
) -> Nest:
    """The loops over a step's indices, kept ones outside, one element at a time.

    ``members`` are the indices of each of the schedule's groups and ``uses`` the indices that each
    tensor depends on, the output last. Without them the nest is that of any step with this
    schedule: what a kernel is made from, which does not know how many indices its groups have.
    """
    if members is None:
        members = {g.name: _members(g) for g in schedule.groups}
    members = {group: indices or [group] for group, indices in members.items()}
    groups = tuple(
        Group(index, False, group.reduced, into=group.name, over=group.over)
        for group in schedule.groups
        for index in members[group.name]
    )
    strides = tuple(
        (tensor, index, 1 if stride == 1 and index == members[group][-1] else f"{tensor}_{index}")
        for tensor, group, stride in schedule.strides
        for index in members[group]
        if uses is None or index in uses[schedule.names.index(tensor)]
    )

    def ref(tensor: str) -> Ref:
        return Ref(tensor, tuple(Term(at(g), stride) for t, g, stride in strides if t == tensor))

    *names, out = schedule.names

    def loops(*, reduced: bool, over: bool = False) -> list[Loop]:
        return [_loop(g) for g in groups if (g.reduced, g.over) == (reduced, over)]

    factors = tuple(map(ref, names[: schedule.factors]))
    reads = tuple(map(ref, names[schedule.factors :]))
    value = Assign(ref(out), (*factors, *reads))
    if schedule.formula is not None:
        value = replace(value, formula=of_product(schedule.formula, schedule.factors))
    body: tuple[Statement, ...] = (value,)
    buffers: tuple[Buffer, ...] = ()
    if contracted := loops(reduced=True):
        acc = Ref("acc")
        buffers = (Buffer(acc.buffer, schedule.accumulator, Scope.REGISTERS),)
        update = nested(contracted, (Assign(acc, factors, add=True),))
        value = Assign(ref(out), (acc, *reads), formula=schedule.formula)
        body = (Assign(acc, ()), *update, value)
    if over := loops(reduced=True, over=True):
        total = Ref("total" if contracted else "acc")
        buffers = (*buffers, Buffer(total.buffer, schedule.total, Scope.REGISTERS))
        update = nested(over, (*body[:-1], replace(value, target=total, add=True)))
        body = (Assign(total, ()), *update, Assign(ref(out), (total,)))
    return Nest(
        operands=tuple(
            Buffer(name, element, Scope.MEMORY)
            for name, element in zip(names, schedule.elements, strict=False)
        ),
        output=Buffer(out, schedule.elements[-1], Scope.MEMORY),
        groups=groups,
        strides=strides,
        buffers=buffers,
        blocks=(),
        body=nested(loops(reduced=False), body),
        numbers=schedule.numbers,
    )


def _members(group: Group) -> list[str]:
    """Stand-ins for a group's indices: its own name, or two where there may be any number."""
    return [f"{group.name}0", f"{group.name}1"] if group.composite else [group.name]


def _loop(group: Group) -> Loop:
    """A loop over all positions of a group, with its body left open."""
    return Loop(group.name, Affine(()), (at(group.extent),), 1, Kind.SERIAL, ())
