"""Statements with an epilogue: nests after every pass and kernels, compared with NumPy."""

import zlib
from dataclasses import replace

import numpy as np
import pytest
from einsumc.compiler import describe, described
from einsumc.compiler.access import Access
from einsumc.compiler.affine import Affine
from einsumc.compiler.anonymous import form_of
from einsumc.compiler.evaluate import evaluate
from einsumc.compiler.formula import CONTRACTED, Apply, Constant, Read
from einsumc.compiler.interpret import interpret
from einsumc.compiler.machine import Machine
from einsumc.compiler.pipeline import stages_of
from einsumc.compiler.program import Epilogue, Program, Statement, Tensor
from einsumc.compiler.schedule import wide
from einsumc.runtime.target import LEVELS, can_run
from steps import V3, bind, binding, run_statement, statement_geometry
from sweeps import every, groups, sweep

pytestmark = pytest.mark.skipif(
    not can_run(LEVELS["x86-64-v3"]), reason="the kernels are for x86-64-v3"
)

# Caches so small that a few elements already make several blocks.
STREAMED = Machine(V3, l1_bytes=1 << 10, l2_bytes=1 << 12, partial_sum=3, worth_packing=1 << 60)
PACKED = replace(STREAMED, worth_packing=1)
COLLECTED = replace(PACKED, l1_bytes=64)  # blocks of 8 along k
KINDS = {"streamed": STREAMED, "packed": PACKED, "collected": COLLECTED}
MACHINES = pytest.mark.parametrize("machine", KINDS.values(), ids=KINDS)


def access(text):
    """`a:ij` is the tensor a at i and j."""
    name, _, indices = text.partition(":")
    return Access(name, tuple(map(Affine.index, indices)))


def read(text):
    return Read(access(text))


def apply(function, *arguments):
    values = (Constant(a) if isinstance(a, int | float | complex) else a for a in arguments)
    return Apply(function, tuple(values))


def statement(target, factors, value=CONTRACTED, over="", symmetric=False):
    factors = tuple(map(access, factors.split()))
    return Statement(access(target), factors, Epilogue(value, tuple(over), symmetric))


class Case:
    """A statement on arrays of chosen types and layouts."""

    def __init__(self, statement, extents, elements, out, rng, twist=0, accumulator=None):
        self.statement, self.extents = statement, extents
        names = dict.fromkeys(a.tensor for a in statement.accesses)
        shapes = {a.tensor: a for a in statement.accesses}
        self.arrays = {
            name: array_of(
                [extents[i] for i in shapes[name].names], elements.get(name, "f8"), rng, twist
            )
            for name in names
        }
        self.out = array_of([extents[i] for i in statement.kept], out, rng, twist & 3)
        factor = elements.get(statement.factors[0].tensor, "f8")
        self.accumulator = accumulator or wide(factor)

    def expected(self):
        target = self.statement.target
        tensors = [Tensor(name, array.shape) for name, array in self.arrays.items()]
        program = Program(
            (*tensors, Tensor(target.tensor, self.out.shape)),
            tuple(self.arrays),
            (self.statement,),
            (target.tensor,),
            tuple(self.extents.items()),
        )
        return evaluate(program, self.arrays)

    def tensors(self):
        return [*(self.arrays[a.tensor] for a in self.statement.operands), self.out]

    def geometry(self):
        return statement_geometry(self.statement, self.extents, self.tensors(), self.accumulator)

    def interpreted(self, machine):
        """The name of every pass, and the result after it."""
        form = form_of(self.geometry(), machine)
        choice, step = form.numbered_choice, form.numbered_step
        call = bind(choice, step, machine)
        for name, nest in stages_of(choice, step).nests:
            self.out[...] = 99
            bound = binding(call, self.tensors())
            if any(group.into for group in nest.groups):
                bound = unfused(bound, choice, step)
            interpret(nest, bound)
            yield name, self.out.copy()

    def run(self, machine, threads=2, single=False):
        self.out[...] = 99
        arrays, accumulator = self.tensors(), self.accumulator
        run_statement(
            self.statement, self.extents, arrays, accumulator, machine, threads, single=single
        )
        return self.out


def unfused(bound, choice, step):
    """The same binding with the names of a nest before fusion, which are the step's indices'."""
    groups = {i: (i,) for members in choice.members.values() for i in members}
    groups |= {g: () for g, members in choice.members.items() if not members}
    tensors = dict(
        zip(choice.schedule.names, (*choice.operands, len(step.strides) - 1), strict=True)
    )
    return replace(
        bound,
        members={g: [step.extents[i] for i in m] for g, m in groups.items()},
        strides={
            (name, g): [step.strides[t].get(i, 0) for i in m]
            for name, t in tensors.items()
            for g, m in groups.items()
        },
    )


def array_of(shape, element, rng, twist):
    """Small whole numbers in a layout that ``twist`` picks: permuted, strided, reversed."""
    order = rng.permutation(len(shape)) if twist & 1 else np.arange(len(shape))
    step = 2 if twist & 2 else 1
    low = 0 if element[0] in "ub" else -3
    found = rng.integers(low, 2 if element == "b1" else 4, [shape[i] * step for i in order])
    if element[0] == "c":
        found = found + 1j * rng.integers(low, 4, found.shape)
    view = np.array(found, element)[(..., *(slice(None, None, step) for _ in order))]
    view = view.transpose(np.argsort(order))
    return view[::-1] if twist & 4 and view.ndim else view


SQUARE = apply("multiply", CONTRACTED, CONTRACTED)
CASES = {
    "map": statement(
        "o:ij", "a:ij", apply("maximum", apply("subtract", CONTRACTED, read("b:j")), 0)
    ),
    "map-of-two": statement("o:ij", "a:ij b:i", apply("add", CONTRACTED, read("c:ij"))),
    "map-turned": statement("o:ji", "a:ij", apply("add", CONTRACTED, read("c:ij"))),
    "map-broadcast": statement("o:ij", "a:i", apply("multiply", CONTRACTED, read("b:j"))),
    "masked": statement(
        "o:ij", "a:ij", apply("where", apply("not_equal", read("m:ij"), 0), CONTRACTED, -1)
    ),
    "after-sum": statement("o:i", "a:ij b:j", apply("add", SQUARE, read("c:i"))),
    "after-product": statement("o:ik", "a:ij b:jk", apply("maximum", CONTRACTED, read("c:k"))),
    "after-batch": statement("o:bik", "a:bij b:bjk", apply("multiply", CONTRACTED, read("c:bk"))),
    "sum-of-map": statement("o:i", "a:ij", apply("absolute", CONTRACTED), "j"),
    "sum-of-columns": statement("o:j", "a:ij", SQUARE, "i"),
    "sum-of-all": statement("o", "a:ij", apply("add", SQUARE, read("b:j")), "ij"),
    "norm": statement("o:n", "b:nti a:ntj", SQUARE, "ij"),
    "norm-of-all": statement("o", "b:ti a:tj", SQUARE, "ij"),
    "rows": statement("o:i", "a:ij b:jk", apply("absolute", CONTRACTED), "k"),
    "columns": statement("o:k", "a:ij b:jk", apply("multiply", SQUARE, read("c:ik")), "i"),
    "sum-of-squares": statement("o:ij", "b:nti a:ntj", SQUARE, "n"),
    "sum-of-some": statement("o:bi", "b:bnti a:bntj", apply("add", SQUARE, read("c:n")), "nj"),
    "gram": statement("o:nij", "b:nit b:njt", apply("add", SQUARE, read("c:n")), "", True),
    "gram-squared": statement("o:n", "b:nit b:njt", SQUARE, "ij", True),
    "gram-of-all": statement("o", "b:nti b:ntj", apply("add", SQUARE, 1), "nij", True),
    "gram-of-some": statement("o:ni", "b:nti b:ntj", SQUARE, "j", True),
    "sum-of-sums": statement("o:n", "a:nij b:j", SQUARE, "i"),
    "sum-of-own": statement("o", "a:ij", SQUARE, "i"),
}
EVERY_RUN = [
    pytest.param(
        name, machine, id=f"{name}-{kind}", marks=pytest.mark.slow if (n + k) % len(KINDS) else ()
    )
    for n, name in enumerate(CASES)
    for k, (kind, machine) in enumerate(KINDS.items())
]
"""Every case for one machine; slow runs have it for all."""

EXTENTS = {"b": 3, "n": 4, "i": 9, "j": 17, "k": 10, "t": 5}
GRAMS = {name for name in CASES if name.startswith("gram")}
LONG = {"b": 2, "n": 2, "i": 9, "j": 19, "k": 10, "t": 17}


def case_of(name, element, seed, twist, extents=EXTENTS):
    rng = np.random.default_rng(seed)
    if name in GRAMS:
        extents = extents | {"j": extents["i"]}
    found = {i: extents[i] for i in CASES[name].indices}
    elements = dict.fromkeys("abc", element) | {"m": "b1"}
    return Case(CASES[name], found, elements, element, rng, twist)


@pytest.mark.parametrize(("name", "machine"), EVERY_RUN)
@pytest.mark.parametrize("twist", sweep([0, 7], lambda twist: twist == 7))
def test_right_after_every_pass(name, machine, twist):
    extents = LONG if machine is COLLECTED else EXTENTS
    case = case_of(name, "f8", zlib.crc32(name.encode()), twist, extents)
    expected = case.expected()
    for after, found in case.interpreted(machine):
        np.testing.assert_array_equal(found, expected, err_msg=f"after {after}")


EDGES = (1, 2, 3, 5, 6, 7, 8, 9, 15, 16, 17, 31, 33)


@pytest.mark.parametrize(("name", "machine"), EVERY_RUN)
@pytest.mark.parametrize("element", sweep(["f4", "f8"], lambda element: element == "f4"))
@pytest.mark.parametrize("half", groups(2, 1))
def test_kernels_are_right_at_every_edge(name, machine, element, half):
    rng = np.random.default_rng([zlib.crc32(name.encode()), half])
    for round in range(half, 6, 2):
        extents = {i: int(rng.choice(EDGES)) for i in EXTENTS}
        case = case_of(name, element, round, (0, 0, 1, 3, 7, 6)[round], extents)
        np.testing.assert_array_equal(
            case.run(machine), case.expected(), err_msg=f"{case.extents} {case.out.strides}"
        )


@pytest.mark.parametrize(
    "name",
    ["norm", "rows", "columns", "sum-of-sums", "sum-of-map", "gram-squared", "sum-of-squares"],
)
@MACHINES
def test_bits_depend_neither_on_threads_nor_on_ranges_of_tiles(name, machine):
    case = case_of(name, "f4", 3, 0, EXTENTS | {"i": 33, "k": 40})
    rng = np.random.default_rng(4)
    for array in case.arrays.values():
        array[...] = rng.standard_normal(array.shape)
    found = {
        case.run(machine, threads, single).tobytes()
        for threads in (1, 2, 7)
        for single in (False, True)
    }
    assert len(found) == 1


@pytest.mark.parametrize("extents", [(2, 16, 768, 768), (2, 3, 1000, 30), (1, 64, 17, 3000)])
def test_norms_are_accurate_and_never_negative(extents):
    """Of a sum over m by n tiles the error grows with a tile's rows and their number, not m * n."""
    extents = dict(zip("ntij", extents, strict=True))
    rng = np.random.default_rng(5)
    case = Case(CASES["norm"], extents, {"a": "f4", "b": "f4"}, "f4", rng)
    for array in case.arrays.values():
        array[...] = rng.standard_normal(array.shape) * 1e-3
    b, a = (case.arrays[name].astype("f8") for name in "ba")
    exact = (np.matmul(b.transpose(0, 2, 1), a) ** 2).sum(axis=(1, 2))
    found = case.run(Machine(V3))
    assert (found > 0).all()
    steps = 2 * extents["t"] + extents["i"] // 6 + extents["j"] // 16 + 20
    np.testing.assert_allclose(found, exact, rtol=steps * 2**-24)
    case.arrays["a"][...] = 0
    assert (case.run(Machine(V3)) == 0).all()


TYPES = {
    "mask": (statement("o:ij", "a:ij", apply("where", read("m:ij"), CONTRACTED, 0)), "b1", "f4"),
    "ids": (
        statement("o:ij", "a:ij", apply("where", apply("equal", read("m:i"), 2), CONTRACTED, 0)),
        "i8",
        "f4",
    ),
    "half": (statement("o:ij", "a:ij", apply("add", CONTRACTED, read("m:ij"))), "f2", "f2"),
    "wide": (statement("o:ij", "a:ij", apply("multiply", CONTRACTED, read("m:j"))), "f8", "f8"),
    "comparison": (statement("o:ij", "a:ij", apply("less", CONTRACTED, read("m:ij"))), "f4", "b1"),
    "count": (statement("o:i", "a:ij", apply("less", CONTRACTED, read("m:ij")), "j"), "f4", "i8"),
    "quotient": (statement("o:ij", "a:ij", apply("divide", CONTRACTED, 4)), None, "f8"),
    "complex": (statement("o:i", "a:ij b:j", apply("conjugate", CONTRACTED)), None, "c8"),
    "modulus": (statement("o:i", "a:ij b:j", apply("absolute", CONTRACTED)), None, "f4"),
    "rotated": (statement("o:i", "a:ij b:j", apply("multiply", CONTRACTED, 1j)), None, "c8"),
    "complex-quotient": (
        statement("o:ij", "a:ij", apply("divide", CONTRACTED, read("m:ij"))),
        "c8",
        "c8",
    ),
}
FACTORS = {"half": "f2", "quotient": "i4"} | dict.fromkeys(
    ["complex", "modulus", "rotated", "complex-quotient"], "c8"
)


@pytest.mark.parametrize("name", every(2, TYPES))
def test_types_are_numpys(name):
    found, read, out = TYPES[name]
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    for extent in (1, 5, 16, 37):
        elements = dict.fromkeys("ab", FACTORS.get(name, "f4")) | {"m": read}
        extents = {i: {"i": 7, "j": extent}[i] for i in found.indices}
        case = Case(found, extents, elements, out, rng)
        if name == "complex-quotient":
            case.arrays["m"][...] += 4
        if name == "count":
            a, m = case.arrays["a"], case.arrays["m"]
            np.testing.assert_array_equal(case.run(STREAMED), (a < m).sum(axis=1))
        else:
            np.testing.assert_allclose(case.run(STREAMED), case.expected(), rtol=1e-6, atol=1e-6)


def test_numbers_are_no_part_of_a_kernel():
    schedules = set()
    for number in (0.5, 0.25, 1e300, -0.0):
        made = statement("o:ij", "a:ij", apply("multiply", CONTRACTED, number))
        case = Case(made, {"i": 4, "j": 9}, {"a": "f8"}, "f8", np.random.default_rng(0))
        np.testing.assert_array_equal(case.run(STREAMED), case.expected())
        assert np.array_equal(np.signbit(case.out), np.signbit(case.expected()))
        schedules.add(form_of(case.geometry(), STREAMED).numbered_choice.schedule)
    assert len(schedules) == 1


def test_schedules_with_formulas_are_read_back():
    """What a kernel's file says of it is enough to make it again."""
    cubed = apply("where", read("m:ij"), apply("power", CONTRACTED, np.float64(1.5)), 0)
    made = statement("o:i", "a:ij", cubed, "j")
    case = Case(made, {"i": 4, "j": 9}, {"a": "f8", "m": "b1"}, "f8", np.random.default_rng(0))
    schedule = form_of(case.geometry(), STREAMED).numbered_choice.schedule
    assert described.read(describe.describe(schedule)) == schedule


@pytest.mark.parametrize("element", ["i2", "i4", "i8", "f4"])
@pytest.mark.parametrize("order", ["nij", "nji"])
def test_what_an_epilogue_reads_may_have_its_neighbours_along_the_rows(order, element):
    """A tile has fewer rows than a vector has lanes, so that no square of it can be transposed."""
    extents = {"n": 2, "s": 20, "i": 37, "j": 70}
    value = Apply("multiply", (CONTRACTED, read(f"c:{order}")))
    factors = access("b:nsi"), access("a:nsj")
    statement = Statement(access("out:n"), factors, Epilogue(value, ("i", "j")))
    rng = np.random.default_rng(3)
    shapes = ([extents[i] for i in axes] for axes in ("nsi", "nsj", order))
    b, a, c = (rng.integers(-2, 3, shape).astype(element) for shape in shapes)
    out = np.zeros(extents["n"], element)
    run_statement(statement, extents, [b, a, c, out], element, PACKED)
    expected = np.einsum(f"nsi,nsj,{order}->n", *(each.astype("i8") for each in (b, a, c)))
    np.testing.assert_array_equal(out, expected.astype(element))
