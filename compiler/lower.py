"""Lower one contraction step to the plainest loop nest that computes it.

    for m in 0..M:
        for n in 0..N:
            acc = 0
            for k in 0..K:
                acc += x0[m, k] * x1[k, n]
            out[m, n] = acc
"""

from __future__ import annotations

from .affine import Affine
from .loopnest import Assign, Buffer, Group, Kind, Loop, Nest, Ref, Scope, Term, at, nested
from .schedule import Schedule


def lower(schedule: Schedule) -> Nest:
    """The loops over the schedule's groups, kept ones outside, one element at a time."""
    *names, out = schedule.names
    strides = tuple(
        (tensor, group, f"{tensor}_{group}" if stride is None else stride)
        for tensor, group, stride in schedule.strides
    )

    def ref(tensor: str) -> Ref:
        return Ref(tensor, tuple(Term(at(g), stride) for t, g, stride in strides if t == tensor))

    kept = [_loop(group) for group in schedule.groups if not group.reduced]
    reduced = [_loop(group) for group in schedule.groups if group.reduced]
    factors = tuple(ref(name) for name in names)
    if reduced:
        acc = Ref("acc")
        update = nested(reduced, (Assign(acc, factors, add=True),))
        body = nested(kept, (Assign(acc, ()), *update, Assign(ref(out), (acc,))))
    else:
        body = nested(kept, (Assign(ref(out), factors),))
    buffers = (Buffer("acc", schedule.accumulator, Scope.REGISTERS),) if reduced else ()
    return Nest(
        operands=tuple(
            Buffer(name, element, Scope.MEMORY)
            for name, element in zip(names, schedule.elements, strict=False)
        ),
        output=Buffer(out, schedule.elements[-1], Scope.MEMORY),
        groups=schedule.groups,
        strides=strides,
        buffers=buffers,
        blocks=schedule.blocks,
        body=body,
    )


def _loop(group: Group) -> Loop:
    """A loop over all positions of a group, with its body left open."""
    return Loop(group.name, Affine(()), (at(group.extent),), 1, Kind.SERIAL, ())
