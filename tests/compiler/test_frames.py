"""Frames: the framed recipe's kernels and nests, for random windows, layouts and block sizes."""

from dataclasses import replace

import numpy as np
import pytest
from einsumc.compiler.anonymous import form_of
from einsumc.compiler.choose.framed import TILES
from einsumc.compiler.evaluate import evaluate
from einsumc.compiler.frames import windows_of
from einsumc.compiler.interpret import interpret
from einsumc.compiler.machine import TARGETS, Machine
from einsumc.compiler.pipeline import stages
from einsumc.compiler.program import from_expression
from einsumc.compiler.resolve import resolve
from einsumc.compiler.subscripts import parse
from hypothesis import given, settings
from hypothesis import strategies as st
from steps import bind, binding, run, scratch_memory, statement_geometry
from sweeps import checkered

V3 = TARGETS["x86-64-v3"]
SMALL = Machine(V3, cores=2, l1_bytes=1 << 10, l2_bytes=1 << 12)
USUAL = Machine(V3)


class Convolution:
    """A step with windows on arrays of integers."""

    def __init__(self, text, shapes, dtype="f4", layouts=(), machine=USUAL):
        rng = np.random.default_rng(len(text))
        program = from_expression(resolve(parse(text), shapes))
        (self.statement,) = program.statements
        self.sizes, self.machine = program.sizes, machine
        operands = [laid_out(rng.integers(-3, 4, s).astype(dtype), layouts) for s in shapes]
        self.expected = evaluate(program, dict(zip(program.inputs, operands, strict=True)))
        self.out = laid_out(np.full_like(self.expected, 77), layouts)
        self.arrays = [*operands, self.out]
        names = [factor.tensor for factor in self.statement.factors]
        names.append(self.statement.target.tensor)
        strides = {
            name: [step // array.itemsize for step in array.strides]
            for name, array in zip(names, self.arrays, strict=True)
        }
        self.windows = windows_of(self.statement, program.shapes, self.sizes, strides)

    @property
    def choice(self):
        step = statement_geometry(self.statement, self.sizes, self.arrays, self.out.dtype.str[1:])
        return form_of(replace(step, windows=self.windows), self.machine)

    def call(self, threads=2):
        form = self.choice
        return bind(form.numbered_choice, form.numbered_step, self.machine, threads)

    def run(self, call, tiles=()):
        """Run on tensors that begin where all indices are zero, which may be outside of them."""
        accesses = (*self.statement.factors, self.statement.target)
        addresses = []
        for array, access in zip(self.arrays, accesses, strict=True):
            axes = zip(access.subscripts, array.strides, strict=True)
            addresses.append(array.ctypes.data + sum(axis.constant * step for axis, step in axes))
        _, scratch = memory = scratch_memory(call.scratch_bytes)
        end = scratch - memory[0].ctypes.data + call.scratch_bytes
        run(call, addresses, scratch, tiles)
        assert (memory[0][end:] == 0xFF).all(), "written behind the scratch memory"
        return self.out.copy()


def laid_out(array, layouts):
    """The same array with other strides: with gaps, from behind, in another order."""
    for layout in layouts:
        if layout == "gaps":
            larger = np.full([2 * n for n in array.shape], 55, array.dtype)
            larger[tuple(slice(None, None, 2) for _ in array.shape)] = array
            array = larger[tuple(slice(None, None, 2) for _ in array.shape)]
        elif layout == "reversed":
            array = np.flip(np.flip(array).copy())
        elif layout == "turned":
            array = array.T.copy().T
    return array


CASES = {
    "3x3": ("n c y+k-1 x+l-1, o c k l -> n o y x", [(2, 3, 7, 9), (5, 3, 3, 3)]),
    "stride": ("n c 2*y+k-1 2*x+l-1, o c k l -> n o y x", [(2, 3, 11, 8), (4, 3, 3, 3)]),
    "stride 3, of 2 taps": (
        "n c 3*y+k-1 3*x+l, o c k l -> n o y x",
        [(1, 2, 20, 14), (4, 2, 2, 2)],
    ),
    "dilation": ("n c y+2*k-2 x+3*l-3, o c k l -> n o y x", [(1, 3, 9, 12), (4, 3, 3, 3)]),
    "stride and dilation": ("n c 2*y+3*k-3, o c k -> n o y", [(2, 3, 40), (9, 3, 3)]),
    "groups": ("n g c y+k-1 x+l-1, g o c k l -> n g o y x", [(2, 3, 2, 6, 7), (3, 4, 2, 3, 3)]),
    "depthwise": ("n c y+k-1 x+l-1, c k l -> n c y x", [(2, 3, 6, 7), (3, 3, 3)]),
    "depthwise, stride": ("n c 2*y+k-2 2*x+l-2, c k l -> n c y x", [(2, 3, 9, 12), (3, 5, 5)]),
    "channels last": ("n y+k-1 x+l-1 c, k l c o -> n y x o", [(2, 6, 7, 3), (3, 3, 3, 5)]),
    "1-D": ("n c x+k-2, o c k -> n o x", [(2, 3, 200), (4, 3, 5)]),
    "3-D": ("n c z+j-1 y+k-1 x+l-1, o c j k l -> n o z y x", [(2, 2, 6, 7, 8), (3, 2, 3, 3, 3)]),
    "backwards": ("n c y-k+1, o c k -> n o y", [(2, 3, 30), (4, 3, 3)]),
    "two taps in an axis": ("n y+k+j-2, k j -> n y", [(3, 30), (3, 2)]),
    "sums of windows": ("n c y+k-1, c -> n c y", [(2, 3, 30), (3,)]),
}
SIZES = {"sums of windows": {"k": 3, "y": 30}}


def convolution(name, **options):
    text, shapes = CASES[name]
    return Convolution(text, shapes, **options)


@pytest.mark.parametrize(
    ("name", "machine"),
    checkered([name for name in CASES if name not in SIZES], ["small", "usual"]),
)
def test_kernels_and_nests(name, machine):
    step = convolution(name, machine={"small": SMALL, "usual": USUAL}[machine])
    call = step.call()
    assert call.choice.schedule.recipe == "framed"
    np.testing.assert_array_equal(step.run(call), step.expected)
    step.out[...] = 77
    bound = binding(call, step.arrays)
    shifted = {}
    for place, tensor in enumerate((*call.choice.operands, 2)):
        accesses = (*step.statement.factors, step.statement.target)
        axes = zip(accesses[tensor].subscripts, step.arrays[tensor].strides, strict=True)
        flat, base = bound.memory[call.choice.schedule.names[place]]
        offset = sum(axis.constant * stride for axis, stride in axes) // flat.itemsize
        shifted[call.choice.schedule.names[place]] = flat, base + offset
    interpret(stages(call.choice.schedule).final, replace(bound, memory=shifted))
    np.testing.assert_array_equal(step.out, step.expected)


@pytest.mark.parametrize("name", ["3x3", "stride", "groups", "depthwise", "channels last", "3-D"])
def test_bits_depend_neither_on_threads_nor_on_ranges_of_tiles(name):
    step = convolution(name, machine=SMALL)
    rng = np.random.default_rng(1)
    for array in step.arrays[:2]:
        array[...] = rng.random(array.shape) - 0.5
    results = set()
    for threads in (1, 2, 7):
        call = step.call(threads)
        single = [range(tile, tile + 1) for tile in reversed(range(call.tiles))]
        for tiles in ((), single):
            step.out[...] = np.nan
            results.add(step.run(call, tiles).tobytes())
    assert call.tiles > 1
    assert len(results) == 1


@pytest.mark.parametrize(
    ("name", "dtype"),
    checkered(["3x3", "stride", "depthwise"], ["f4", "f8", "i4", "i8", "u4", "u8"]),
)
def test_dtypes(name, dtype):
    step = convolution(name, dtype=dtype)
    np.testing.assert_array_equal(step.run(step.call()), step.expected)


@pytest.mark.parametrize("layouts", [("gaps",), ("reversed",), ("turned",), ("gaps", "reversed")])
@pytest.mark.parametrize("name", ["3x3", "stride", "depthwise", "channels last"])
def test_layouts(name, layouts):
    step = convolution(name, layouts=layouts)
    np.testing.assert_array_equal(step.run(step.call()), step.expected)


def test_nan_beside_the_image_does_not_come_in():
    step = convolution("3x3", layouts=("gaps",))
    image = step.arrays[0]
    inside = image.copy()
    image.base[...] = np.nan
    image[...] = inside
    np.testing.assert_array_equal(step.run(step.call()), step.expected)


@st.composite
def any_windows(draw):
    axes = draw(st.integers(1, 3))
    order = draw(st.permutations(["n", "c", *range(axes)]))
    image, weight, shape = {}, {}, {}
    for axis in range(axes):
        extent = draw(st.integers(1, 40 if axes == 1 else 12 if axes == 2 else 7))
        taps = draw(st.integers(1, 5))
        factor, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        padding = draw(st.integers(0, 3))
        if extent + 2 * padding < dilation * (taps - 1) + 1:
            extent = dilation * (taps - 1) + 1
        image[axis] = f"{factor}*y{axis}+{dilation}*k{axis}-{padding}"
        weight[axis], shape[axis] = f"k{axis}", (extent, taps)
    kind = draw(st.sampled_from(["plain", "depthwise", "groups"]))
    n, c, o, g = (draw(st.integers(1, 5)) for _ in "ncog")
    group, groups = (["g"], [g]) if kind == "groups" else ([], [])
    extents = {"n": n, "c": c} | {axis: shape[axis][0] for axis in range(axes)}
    terms = [*group, *(image.get(each, each) for each in order)]
    rest = [] if kind == "depthwise" else ["o"]
    weights = [*group, *rest, "c", *(weight[axis] for axis in range(axes))]
    out = [f"y{each}" if each in image else each for each in order if each != "c"]
    out.insert(draw(st.integers(0, len(out))), "c" if kind == "depthwise" else "o")
    text = f"{' '.join(terms)}, {' '.join(weights)} -> {' '.join([*group, *out])}"
    taps = [shape[axis][1] for axis in range(axes)]
    shapes = [
        (*groups, *(extents[each] for each in order)),
        (*groups, *([o] if rest else []), c, *taps),
    ]
    return text.replace("-0", ""), shapes


@given(any_windows(), st.sampled_from([SMALL, USUAL]), st.sampled_from(["f4", "f8"]))
@settings(max_examples=60, deadline=None)
def test_any_windows(equation, machine, dtype):
    step = Convolution(*equation, dtype=dtype, machine=machine)
    if step.windows is None:
        return  # no axis leaves the image, and none has taps
    call = step.call()
    if call.choice.schedule.recipe == "framed":
        np.testing.assert_array_equal(step.run(call), step.expected)


@pytest.mark.parametrize("tile", TILES)
def test_register_tiles_fit_into_registers(tile):
    """What a row of its own multiplies need not stay there."""
    rows, vectors = tile
    assert rows * vectors + (vectors if rows > 1 else 1) + 1 <= 16
