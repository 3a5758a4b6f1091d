"""Fuse: walk the indices of a group as one loop (TVM: fuse; OpenMP: collapse).

Before, with ``i`` and ``j`` in one group ``m``, and ``k`` alone in ``n``::

    for i in 0..n_i:
        for j in 0..n_j:
            for k in 0..n_k:
                out[i*out_i + j*out_j + k] = ...

after::

    for m in 0..M:
        for n in 0..N:
            out[m*out_m + n] = ...

A group of several indices has in general no single stride: ``m*out_m`` then stands for the offset
of position ``m``, the last index running fastest, until a later pass puts a table of offsets in its
place. From here on the nest does not know how many indices there were, so one kernel serves any
number.
"""

from __future__ import annotations

from ..loopnest import Assign, Loop, Nest, Ref, Statement, Term, at, nested
from ..records import replace
from ..schedule import Group, Schedule


def fuse(nest: Nest, schedule: Schedule) -> Nest:
    """Replace the loops over each group's indices by one over its positions."""
    into = {group.name: str(group.into) for group in nest.groups}
    groups = {group.name: group for group in schedule.groups}
    linear = {(tensor, name): stride for tensor, name, stride in schedule.linear}

    def fused(tensor: str, name: str, stride: int | None) -> int | str:
        if (tensor, name) in linear:
            return linear[tensor, name]
        return f"{tensor}_{name}" if stride is None or groups[name].composite else stride

    strides = tuple((tensor, name, fused(tensor, name, s)) for tensor, name, s in schedule.strides)
    terms = {
        (tensor, name): Term(
            at(name),
            stride,
            runs=groups[name].composite and known == 1 and (tensor, name) not in linear,
        )
        for (tensor, name, stride), (_, _, known) in zip(strides, schedule.strides, strict=True)
    }

    def ref(access: Ref) -> Ref:
        found = dict.fromkeys(into[t.position.names[0]] for t in access.terms)
        return Ref(access.buffer, tuple(terms[access.buffer, group] for group in found))

    def rewrite(statement: Statement, around: str | None) -> tuple[Statement, ...]:
        match statement:
            case Assign():
                factors = tuple(ref(factor) for factor in statement.factors)
                return (replace(statement, target=ref(statement.target), factors=factors),)
            case Loop():
                group = into[statement.index]
                body = tuple(s for inner in statement.body for s in rewrite(inner, group))
                return body if group == around else nested([_loop(statement, groups[group])], body)
            case _:
                return (statement,)

    body = tuple(s for statement in nest.body for s in rewrite(statement, None))
    return replace(nest, body=body, groups=schedule.groups, strides=strides, blocks=schedule.blocks)


def _loop(loop: Loop, group: Group) -> Loop:
    """The loop over a group's positions in place of the one over its first index."""
    return replace(loop, index=group.name, stop=(at(group.extent),))
