"""Mirror: compute a symmetric output's tiles on and above the diagonal, and copy the others.

Before, where ``x0`` and ``x1`` are one tensor and ``out[m, n] == out[n, m]``::

    for n_tile: for m_tile in m_block..min(m_block+M_BLOCK, M):
        ...
        for m: for n: out[m*out_m + n*out_n] = acc[m, n]

after, with tiles of 16 columns::

    for n_tile: for m_tile in m_block..min(n_tile+16, m_block+M_BLOCK, M):
        ...
        for m: for n: out[m*out_m + n*out_n] = acc[m, n]
        for m: for n: out[n*out_m + m*out_n] = acc[m, n]

Tiles that the diagonal crosses are computed whole, so elements next to it are written twice. Both
times they have the same bits, since products and sums are taken in one order. Blocks of a sum that
were added up in the output would count twice; they are collected in scratch (:mod:`.reorder`). BLAS
calls a product of this kind syrk.

Where an epilogue's values are summed, what would be copied is added instead: what is above the
diagonal counts twice, what is below it is left out::

    for m: for n: total[n] += half(n - m) * (square(acc[m, n]))

Where the loops over tiles of rows are outside of those over tiles of columns, the tiles on and
below the diagonal are computed instead, ``n_tile in 0..m_tile+6``, and copied to above it.
"""

from __future__ import annotations

from ..affine import Affine
from ..loopnest import Assign, Loop, Nest, Ref, Statement, at, walk, with_body
from ..records import replace
from ..schedule import Schedule


def mirror(nest: Nest, schedule: Schedule) -> Nest:
    """Leave out the tiles below the diagonal, and write each of the others to both places."""
    if not schedule.mirrored:
        return nest
    return replace(nest, body=tuple(_mirror(s, schedule, inside=False) for s in nest.body))


def _mirror(statement: Statement, schedule: Schedule, *, inside: bool) -> Statement:
    """A statement's mirrored form; it is ``inside`` the loop over tiles of columns."""
    if not isinstance(statement, Loop):
        return statement
    assert schedule.rows is not None
    first, second, size = schedule.lanes, schedule.rows, schedule.lane_tile
    if schedule.below:
        first, second, size = schedule.rows, schedule.lanes, schedule.row_tile
    inside = inside or statement.index == f"{first}_tile"
    body = [_mirror(s, schedule, inside=inside) for s in statement.body]
    if statement.index == f"{schedule.rows}_block" and not schedule.below:
        last = Affine(((f"{schedule.lanes}_task", 1), (f"{schedule.lanes.upper()}_TASK", 1)))
        statement = replace(statement, stop=(*statement.stop, last))
    if inside and statement.index in (f"{second}_panel", f"{second}_tile"):
        diagonal = Affine(((f"{first}_tile", 1),), size)
        statement = replace(statement, stop=(diagonal, *statement.stop))
    if inside and statement.index == f"{second}_tile":
        body += [_turned(store, schedule) for store in body if _is_store(store)]
        if any(group.over and group.name == schedule.rows for group in schedule.groups):
            body = [_halved(each, schedule) for each in body]
    return with_body(statement, tuple(body))


def _halved(statement: Statement, schedule: Schedule) -> Statement:
    """What is added to a tile's total weighed by where it is."""
    if isinstance(statement, Loop):
        return with_body(statement, tuple(_halved(s, schedule) for s in statement.body))
    if isinstance(statement, Assign) and statement.target.buffer == "total" and statement.factors:
        assert schedule.rows is not None
        sides = (schedule.lanes, schedule.rows)
        far, near = reversed(sides) if schedule.below else sides
        return replace(statement, half=at(far, f"-{near}"))
    return statement


def _is_store(statement: Statement) -> bool:
    return any(isinstance(s, Assign) and s.target.buffer == "out" for s in walk((statement,)))


def _turned(statement: Statement, schedule: Schedule) -> Statement:
    """A store of a tile with the strides of rows and lanes exchanged."""
    if isinstance(statement, Loop):
        return with_body(statement, tuple(_turned(s, schedule) for s in statement.body))
    assert isinstance(statement, Assign)
    assert schedule.rows is not None
    rows, lanes = at(schedule.rows), at(schedule.lanes)
    terms = statement.target.terms
    stride = {term.position: term.stride for term in terms}
    exchanged = {rows: stride[lanes], lanes: stride[rows]}
    turned = (replace(t, stride=exchanged.get(t.position, t.stride)) for t in terms)
    return replace(statement, target=Ref(statement.target.buffer, tuple(turned)), add=False)
