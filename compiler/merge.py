"""Merge: a statement and the only one that reads its result become one, with an epilogue.

Before::

    t0[n,i,j] = sum_t b[n,t,i] * a[n,t,j]
    out[n] = sum_ij t0[n,i,j] * t0[n,i,j]

after::

    out[n] = sum_ij square(sum_t b[n,t,i] * a[n,t,j])

What was an intermediate is never in memory: what follows happens where it is made, in registers.
Chains of maps become one formula in the same way. It is done where it is predicted to take less
time: what is recomputed, or no longer multiplied by the microkernel, may cost more than memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import reduce
from math import prod

from .access import Access
from .affine import Affine
from .cost import statement_cost
from .formula import CONTRACTED, TRUTH, Apply, Contracted, Leaf, Read, Value, replaced
from .inside import stays_inside
from .machine import Machine
from .program import Epilogue, Program, Statement, Tensor
from .records import dataclass, replace
from .spread import PIECES
from .symmetry import gram_swap

__all__ = ["merged"]


def merged(program: Program, element: str, machine: Machine) -> Program:
    """The program with statements merged where that is predicted to take less time.

    >>> from .machine import TARGETS
    >>> from .program import Tensor
    >>> b, a, t, again = (
    ...     Access(name, tuple(map(Affine.index, axes)))
    ...     for name, axes in (("b", "nti"), ("a", "ntj"), ("t0", "nij"), ("t0", "nij"))
    ... )
    >>> out = Access("out", (Affine.index("n"),))
    >>> sizes = {"n": 32, "t": 16, "i": 768, "j": 768}
    >>> shapes = {"b": "nti", "a": "ntj", "t0": "nij", "out": "n"}
    >>> tensors = (Tensor(k, tuple(sizes[i] for i in v)) for k, v in shapes.items())
    >>> steps = Statement(t, (b, a)), Statement(out, (t, again))
    >>> norms = Program(tuple(tensors), ("b", "a"), steps, ("out",), tuple(sizes.items()))
    >>> print(merged(norms, "f4", Machine(TARGETS["x86-64-v3"])))
    out[n] = sum_{i,j} square(sum_t b[n,t,i] * a[n,t,j])
    """
    while (better := _better(program, element, machine)) is not None:
        program = better
    return program


def _better(program: Program, element: str, machine: Machine) -> Program | None:
    """The program with one more pair of statements merged; None if none is worth it."""
    sizes = program.sizes

    def seconds(*statements: Statement) -> float:
        return sum(statement_cost(s, sizes, element, machine).seconds for s in statements)

    uses = _Uses.of(program)
    for consumer in program.statements:
        for name in dict.fromkeys(access.tensor for access in consumer.accesses):
            producer = uses.makers.get(name)
            if producer is None or not _is_private(uses, producer, consumer):
                continue
            for changed, made in _put_into(program, uses, producer, consumer):
                sizes = changed.sizes
                if seconds(*made) < seconds(producer, consumer):
                    return _without(changed, producer)
    for producer in program.statements:
        if (everywhere := _made_again(program, uses, producer)) is not None:
            changed, readers, made = everywhere
            sizes = changed.sizes
            if seconds(*made) < GAIN * seconds(producer, *readers):
                return changed
    return None


def _put_into(
    program: Program, uses: _Uses, producer: Statement, consumer: Statement
) -> Iterator[tuple[Program, list[Statement]]]:
    """The program with what becomes of a consumer that makes a producer's tensor by itself, and
    those statements.
    """
    if consumer.epilogue is None and _sums_again(producer, consumer):
        return
    for again, extents in _renamed(program, producer, consumer):
        sizes = program.sizes | extents
        one = _merged(again, consumer)
        after: list[Statement] = []
        if one is None:
            reader, after = _apart(program, consumer)
            one = _merged(again, reader)
        if one is None:
            continue
        if one.epilogue is not None:
            alike = _treats_alike(one, uses.makers)
            if alike and one.epilogue.over and _outputs(one, sizes) < PIECES // 2:
                continue  # half a matrix is not cut into partial sums: two steps then
            one = replace(one, epilogue=replace(one.epilogue, symmetric=alike))
        made = [one, *after]
        statements = [m for s in program.statements for m in (made if s is consumer else [s])]
        changed = replace(program, extents=tuple(sizes.items()))
        yield changed.with_statements(statements), made


def _without(program: Program, producer: Statement) -> Program:
    """The program without a statement whose tensor nothing reads."""
    name = producer.target.tensor
    kept = tuple(tensor for tensor in program.tensors if tensor.name != name)
    rest = [statement for statement in program.statements if statement is not producer]
    return replace(program, tensors=kept).with_statements(rest)


def _made_again(
    program: Program, uses: _Uses, producer: Statement
) -> tuple[Program, list[Statement], list[Statement]] | None:
    """The program with a map made again by each statement that reads it, and nowhere kept.

    With the statements that there were for that, and those that there are instead: to read what a
    map is made of may take less time than to write it and read it, twice.
    """
    name = producer.target.tensor
    if producer.contracted or not 1 < uses.readers[name] <= MOST_READERS:
        return None
    readers = [s for s in program.statements if name in {a.tensor for a in s.accesses}]
    every: list[Statement] = []
    for consumer in readers:
        if not _is_free(uses, producer, consumer):
            return None
        put = next(_put_into(program, uses, producer, consumer), None)
        if put is None:
            return None
        program, made = put
        every += made
    return _without(program, producer), readers, every


MOST_READERS = 4
"""Statements that make a map again, each for itself."""

GAIN = 0.95
"""At most this part of the time without it makes that worthwhile."""


def _sums_again(producer: Statement, consumer: Statement) -> bool:
    """Whether one statement would make a sum again along an index that it does not depend on."""
    if not producer.contracted:
        return False
    name = producer.target.tensor
    (read, *_) = [access for access in consumer.accesses if access.tensor == name]
    return not {*consumer.kept, *consumer.reduced} <= {*read.names}


def _apart(program: Program, statement: Statement) -> tuple[Statement, list[Statement]]:
    """A statement whose sum may take a producer in, and what then has to be done to the sum.

    A formula of a sum, `maximum(sum, 0)`, is a statement of its own then: a merged one has room for
    what happens before the sum alone.
    """
    epilogue = statement.epilogue
    if epilogue is None or epilogue.over or not statement.contracted:
        return statement, []
    total = replace(statement.target, tensor=next(program.fresh_names()))
    return Statement(total, statement.factors), [Statement(statement.target, (total,), epilogue)]


@dataclass(frozen=True, slots=True)
class _Uses:
    """What is asked of a program's tensors again and again."""

    makers: Mapping[str, Statement]
    readers: Mapping[str, int]  # how many statements read each of them
    tensors: Mapping[str, Tensor]
    shapes: Mapping[str, tuple[int, ...]]
    sizes: Mapping[str, int]
    results: tuple[str, ...]

    @classmethod
    def of(cls, program: Program) -> _Uses:
        """Look at a program once."""
        statements = program.statements
        return cls(
            {statement.target.tensor: statement for statement in statements},
            Counter(name for s in statements for name in {a.tensor for a in s.accesses}),
            {tensor.name: tensor for tensor in program.tensors},
            program.shapes,
            program.sizes,
            program.results,
        )


def _is_private(uses: _Uses, producer: Statement, consumer: Statement) -> bool:
    """Whether nothing but the consumer needs what the producer makes, and it may make that."""
    return uses.readers[producer.target.tensor] == 1 and _is_free(uses, producer, consumer)


def _is_free(uses: _Uses, producer: Statement, consumer: Statement) -> bool:
    """Whether what a producer makes for a consumer is no result, and has no type of its own.

    And whether both stay inside of their tensors: what a formula reads outside is not zero, and
    sums that meet in an element of an affine target do so before any formula.
    """
    name = producer.target.tensor
    if name in uses.results:
        return False
    if not all(stays_inside(each, uses.shapes, uses.sizes) for each in (producer, consumer)):
        return False
    tensor = uses.tensors[name]
    value = producer.epilogue.value if producer.epilogue else CONTRACTED
    is_mask = isinstance(value, Apply) and value.function in TRUTH and tensor.element == "b1"
    summed = producer.epilogue is not None and bool(producer.epilogue.over)
    return (tensor.element is None or is_mask) and not summed


def _renamed(
    program: Program, producer: Statement, consumer: Statement
) -> Iterator[tuple[Statement, dict[str, int]]]:
    """The producer in the consumer's indices, and the extents of those that get a new name.

    Nothing if the consumer reads it in several ways, or not whole.
    """
    reads = {a for a in consumer.accesses if a.tensor == producer.target.tensor}
    if len(reads) != 1:
        return
    (read,) = reads
    if not all(axis.is_index for axis in read.subscripts) or len(read.names) < len(read.subscripts):
        return
    names = dict(zip(producer.target.names, read.names, strict=True))
    sizes, taken = program.sizes, {*program.sizes}
    if any(sizes[name] != sizes[names[name]] for name in names):
        return
    extents: dict[str, int] = {}
    for index in producer.contracted:
        name = index
        if name in consumer.indices:
            name = next(n for n in (f"{index}{k}" for k in range(len(taken) + 1)) if n not in taken)
            extents[name] = sizes[index]
            taken.add(name)
        names[index] = name

    def access(old: Access) -> Access:
        axes = (
            Affine(tuple((names[name], c) for name, c in axis.terms), axis.constant)
            for axis in old.subscripts
        )
        return Access(old.tensor, tuple(axes))

    def leaf(old: Leaf) -> Value:
        return Read(access(old.access)) if isinstance(old, Read) else old

    epilogue = producer.epilogue
    yield (
        Statement(
            access(producer.target),
            tuple(map(access, producer.factors)),
            epilogue and Epilogue(replaced(epilogue.value, leaf)),
        ),
        extents,
    )


def _merged(producer: Statement, consumer: Statement) -> Statement | None:
    """One statement for both; None where there is no such statement."""
    name = producer.target.tensor
    value = consumer.epilogue.value if consumer.epilogue is not None else None
    made = producer.epilogue.value if producer.epilogue else CONTRACTED
    only_read = value is not None and all(factor.tensor != name for factor in consumer.factors)
    if only_read and value is not None and not producer.contracted:
        # The producer is a map that the consumer's epilogue reads.
        inner = _of_product(made, producer)
        assert consumer.epilogue is not None
        return replace(
            consumer, epilogue=replace(consumer.epilogue, value=_put(value, name, inner))
        )
    if consumer.epilogue is not None and consumer.contracted:
        return None
    whole = _of_product(value or CONTRACTED, consumer)
    over = consumer.reduced
    around = {*consumer.kept, *over}
    if producer.contracted and not around <= {*producer.target.names}:
        return None  # the sum would be made again along an index that it does not depend on
    return Statement(consumer.target, producer.factors, Epilogue(_put(whole, name, made), over))


def _outputs(statement: Statement, sizes: Mapping[str, int]) -> int:
    """How many elements a statement makes."""
    return prod(sizes[index] for index in statement.kept)


def _treats_alike(statement: Statement, makers: Mapping[str, Statement]) -> bool:
    """Whether a formula does not change when the indices that two equal factors exchange do.

    It may read Gram matrices, which are symmetric themselves.
    """
    swap = gram_swap(statement)
    if swap is None or statement.epilogue is None:
        return False
    exchanged = swap | {other: one for one, other in swap.items()}

    def ordered(value: Value, names: Mapping[str, str]) -> Value:
        """The formula with other indices, and with what may change places in one order."""
        match value:
            case Read(read):
                again = read.replaced({i: Affine.index(name) for i, name in names.items()})
                if not exchanged.keys().isdisjoint(read.names) and _is_gram(read, swap, makers):
                    turned = replace(
                        again,
                        subscripts=tuple(
                            Affine.index(exchanged.get(axis.names[0], axis.names[0]))
                            for axis in again.subscripts
                        ),
                    )
                    again = min(again, turned, key=str)
                return Read(again)
            case Apply(function, arguments):
                parts = [ordered(each, names) for each in arguments]
                if function in _COMMUTATIVE:
                    parts.sort(key=lambda part: part.text(""))
                return Apply(function, tuple(parts))
        return value

    value = statement.epilogue.value
    return ordered(value, {}) == ordered(value, exchanged)


_COMMUTATIVE = (
    *("add", "multiply", "minimum", "maximum", "equal", "not_equal"),
    *("logical_and", "logical_or"),
)


def _is_gram(read: Access, swap: Mapping[str, str], makers: Mapping[str, Statement]) -> bool:
    """Whether what is read is a Gram matrix along the indices that are exchanged."""
    maker = makers.get(read.tensor)
    own = gram_swap(maker) if maker is not None and maker.epilogue is None else None
    if maker is None or own is None:
        return False
    if not (maker.target.is_plain and all(axis.is_index for axis in read.subscripts)):
        return False
    names = dict(zip(maker.target.names, read.names, strict=True))
    found = {names[one]: names[other] for one, other in own.items()}
    return found in (swap, {other: one for one, other in swap.items()})


def _put(value: Value, tensor: str, made: Value) -> Value:
    """A formula with another one in place of a tensor."""

    def leaf(old: Leaf) -> Value:
        return made if isinstance(old, Read) and old.access.tensor == tensor else old

    return replaced(value, leaf)


def _of_product(value: Value, statement: Statement) -> Value:
    """A formula of a statement's product, as one of its factors."""
    factors: list[Value] = [Read(factor) for factor in statement.factors]
    product = reduce(lambda x, y: Apply("multiply", (x, y)), factors)
    return replaced(value, lambda old: product if isinstance(old, Contracted) else old)
