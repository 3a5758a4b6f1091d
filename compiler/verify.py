"""What must hold of a loop nest after every pass."""

from __future__ import annotations

from .affine import Affine
from .finish import inputs_of
from .loopnest import (
    Assign,
    Fill,
    Kind,
    Loop,
    Nest,
    Ref,
    Scope,
    Statement,
    Tabulate,
    Tiles,
    Write,
    walk,
)


class VerificationError(AssertionError):
    """A pass has broken a loop nest: a fault of the compiler, not of its user."""


def verify(nest: Nest, after: str = "lower") -> None:
    """Raise VerificationError unless the nest is well formed.

    Every name is known where it is used, every buffer is declared once, operands are only read, the
    output is written, registers and scratch are written before they are read, rows and lanes
    enclose a single assignment, and tiles are outermost.
    """
    _Verifier(nest, after).run()


class _Verifier:
    def __init__(self, nest: Nest, after: str) -> None:
        self.nest, self.after = nest, after
        self.parameters = {
            *(group.extent for group in nest.groups),
            *nest.blocks,
            *(stride for _, _, stride in nest.strides if isinstance(stride, str)),
        }
        self.scopes = {buffer.name: buffer.scope for buffer in (*nest.tensors, *nest.buffers)}
        self.written: set[str] = {operand.name for operand in nest.operands}

    def run(self) -> None:
        names = [b.name for b in (*self.nest.tensors, *self.nest.buffers)]
        self.check(len(names) == len(set(names)), "a buffer is declared twice")
        self.check(len(self.nest.body) == 1 or not self.has_tiles(), "tiles are not outermost")
        self.statements(self.nest.body, frozenset(), depth=0)
        out = self.nest.output.name
        self.check(out in self.written, f"{out} is never written")

    def has_tiles(self) -> bool:
        return any(isinstance(s, Tiles) for s in walk(self.nest.body))

    def check(self, holds: bool, message: str) -> None:
        if not holds:
            raise VerificationError(f"after {self.after}: {message}")

    def statements(self, body: tuple[Statement, ...], bound: frozenset[str], depth: int) -> None:
        for statement in body:
            self.statement(statement, bound, depth)

    def statement(self, statement: Statement, bound: frozenset[str], depth: int) -> None:
        match statement:
            case Loop():
                for limit in (statement.start, *statement.stop):
                    self.known(limit, bound, f"a bound of loop {statement.index}")
                self.step(statement.step)
                self.check(
                    statement.lead is None or statement.lead in self.parameters,
                    f"loop {statement.index} begins an unknown number of positions earlier",
                )
                self.check(statement.index not in bound, f"{statement.index} is bound twice")
                self.check(bool(statement.body), f"loop {statement.index} is empty")
                if statement.kind is not Kind.SERIAL:
                    self.register_tile(statement)
                self.statements(statement.body, bound | {statement.index}, depth + 1)
            case Tiles():
                self.check(depth == 0, "tiles are not outermost")
                for index, extent, step in statement.axes:
                    self.check(extent in self.parameters, f"unknown extent {extent} of {index}")
                    self.step(step)
                inner = bound | {index for index, _, _ in statement.axes}
                self.statements(statement.body, inner, depth + 1)
            case Tabulate():
                for limit in (statement.start, *statement.stop):
                    self.known(limit, bound, f"a bound of table {statement.table}")
                self.check(
                    self.scopes.get(statement.table) is Scope.SCRATCH,
                    f"{statement.table} is not in scratch",
                )
                self.check(
                    any(g.name == statement.group and g.composite for g in self.nest.groups),
                    f"{statement.group} is not composite",
                )
                self.written.add(statement.table)
            case Fill():
                self.ref(statement.source, bound, reads=True)
                self.block(statement, bound)
                self.written |= {statement.buffer, "taps"}
            case Write():
                self.block(statement, bound)
                self.ref(Ref(statement.buffer), bound, reads=True)
                self.ref(statement.target, bound, reads=False)
                self.written.add(statement.target.buffer)
            case Assign():
                self.assign(statement, bound)

    def block(self, statement: Fill | Write, bound: frozenset[str]) -> None:
        """Bounds that are known, and a buffer in scratch."""
        buffer = statement.buffer
        self.check(self.scopes.get(buffer) is Scope.SCRATCH, f"{buffer} is not in scratch")
        for limit in (statement.start, *statement.stop, statement.first, *statement.last):
            self.known(limit, bound, f"a bound of {buffer}")

    def step(self, step: int | str) -> None:
        known = step in self.parameters if isinstance(step, str) else step > 0
        self.check(known, f"bad step {step}")

    def known(self, position: Affine, bound: frozenset[str], what: str) -> None:
        unknown = set(position.names) - bound - self.parameters
        self.check(not unknown, f"{what} uses unknown {', '.join(sorted(unknown))}")

    def register_tile(self, loop: Loop) -> None:
        """Rows enclose lanes or an assignment, lanes an assignment, runs runs or an assignment."""
        self.check(len(loop.body) == 1, f"{loop.index} encloses several statements")
        inner = loop.body[0]
        if isinstance(inner, Loop):
            nested = (loop.kind, inner.kind) in (
                (Kind.UNROLLED, Kind.VECTOR),
                (Kind.RUN, Kind.RUN),
            )
            self.check(nested, f"{loop.kind} {loop.index} encloses {inner.kind} {inner.index}")
        else:
            self.check(isinstance(inner, Assign), f"{loop.index} encloses no assignment")

    def assign(self, statement: Assign, bound: frozenset[str]) -> None:
        target = statement.target.buffer
        operands = {operand.name for operand in self.nest.operands}
        self.check(target not in operands, f"operand {target} is written")
        self.ref(statement.target, bound, reads=statement.add is True)
        for place, factor in enumerate(statement.factors):
            # Which lanes are summed is said by the tile itself, not by a loop around.
            total = statement.total and place == 0
            lanes = set(factor.terms[-1].position.names) if total else set()
            self.ref(factor, bound | lanes, reads=True)
        if statement.formula is not None:
            unknown = inputs_of(statement.formula) - {*range(len(statement.factors))}
            self.check(not unknown, f"{target} is made from unknown inputs")
        if statement.half is not None:
            self.known(statement.half, bound, f"the half that {target} is made from")
        if isinstance(statement.add, str):
            unknown_loops = {*statement.add.split(" + ")} - bound
            self.check(not unknown_loops, f"unknown loop {statement.add}")
        self.written.add(target)

    def ref(self, ref: Ref, bound: frozenset[str], *, reads: bool) -> None:
        self.check(ref.buffer in self.scopes, f"unknown buffer {ref.buffer}")
        if reads:
            self.check(ref.buffer in self.written, f"{ref.buffer} is read before it is written")
        for term in ref.terms:
            self.known(term.position, bound, f"an access of {ref.buffer}")
            if term.table is not None:
                filled = term.table in self.written
                self.check(filled, f"table {term.table} is read before it is filled")
            elif isinstance(term.stride, str):
                known = self.parameters.issuperset(term.stride.split("*"))
                self.check(known, f"{ref.buffer} has unknown stride {term.stride}")
