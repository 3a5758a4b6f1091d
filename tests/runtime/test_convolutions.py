"""Convolutions and other equations with affine indices, from the call to the result."""

import pickle
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from einsumc import EinsumError, compile_einsum, einsum
from einsumc.compiler.evaluate import evaluate
from einsumc.compiler.program import from_expression
from einsumc.compiler.resolve import resolve
from einsumc.compiler.subscripts import parse
from einsumc.compiler.windows import given_sizes
from einsumc.runtime.step import Step
from sweeps import sweep


def reference(text, *operands, sizes=None):
    expression = resolve(parse(text), [np.shape(each) for each in operands], given_sizes(sizes))
    program = from_expression(expression)
    return evaluate(program, dict(zip(program.inputs, operands, strict=True)))


def integers(*shape, dtype="f4", seed=0):
    return np.random.default_rng(seed + len(shape)).integers(-3, 4, shape).astype(dtype)


def check(text, *shapes, dtype="f4", sizes=None, **options):
    operands = [integers(*shape, dtype=dtype, seed=n) for n, shape in enumerate(shapes)]
    expected = reference(text, *operands, sizes=sizes)
    compiled = compile_einsum(text, sizes=sizes, **options)
    for _ in range(3):  # from the third on without Python
        np.testing.assert_array_equal(compiled(*operands), expected, strict=True)
    out = np.full(expected.shape, 7, dtype)
    for _ in range(3):
        assert compiled(*operands, out=out) is out
        np.testing.assert_array_equal(out, expected)


CONVOLUTION = "n c y+k-1 x+l-1, o c k l -> n o y x"


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        (CONVOLUTION, [(2, 3, 7, 9), (4, 3, 3, 3)]),
        ("n c 2*y+k-1 2*x+l-1, o c k l -> n o y x", [(2, 3, 7, 8), (4, 3, 3, 3)]),
        ("n c y+2*k-2 x+2*l-2, o c k l -> n o y x", [(1, 3, 7, 9), (4, 3, 3, 3)]),
        ("n c y+k-1 x+l-1, c k l -> n c y x", [(2, 3, 7, 9), (3, 3, 3)]),  # depthwise
        ("n g c y+k x+l, g o c k l -> n g o y x", [(2, 2, 3, 7, 9), (2, 4, 3, 3, 3)]),
        ("n y+k-1 x+l-1 c, k l c o -> n y x o", [(2, 7, 9, 3), (3, 3, 3, 4)]),  # channels last
        ("n c x+k-2, o c k -> n o x", [(2, 3, 20), (4, 3, 5)]),
        ("n c z+m-1 y+k-1 x+l-1, o c m k l -> n o z y x", [(1, 2, 4, 5, 6), (3, 2, 3, 3, 3)]),
        ("y-k, k -> y", [(20,), (5,)]),
        ("y+k+m-1, k m -> y", [(20,), (3, 2)]),
        ("n c y+k-1 x+l-1, n o y x -> o c k l", [(2, 3, 7, 9), (2, 4, 7, 9)]),  # weight gradient
        ("n o y x, o c k l -> n c y+k-1 x+l-1", [(2, 4, 7, 9), (4, 3, 3, 3)]),  # input gradient
        ("n o y x, o c k l -> n c 2*y+k-1 2*x+l-1", [(2, 4, 4, 5), (4, 3, 3, 3)]),
        ("n c k l y x -> n c y+k x+l", [(1, 2, 3, 3, 4, 5)]),  # fold
        ("n c y+k x+l -> n c k l y x", [(1, 2, 6, 7)]),
    ],
)
def test_a_convolution(text, shapes):
    sizes = {"k": 3, "l": 3} if text.endswith("n c k l y x") else None
    check(text, *shapes, sizes=sizes)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "c8", "c16", "i4", "u1", "i8"])
def test_dtypes(dtype):
    check("c y+k-1, o c k -> o y", (3, 20), (4, 3, 3), dtype=dtype)


def test_booleans():
    image, kernel = integers(3, 9) > 1, integers(4, 3, 3) > 1
    got = einsum("c y+k-1, o c k -> o y", image, kernel)
    expected = einsum("c y+k-1, o c k -> o y", image.astype(int), kernel.astype(int)) > 0
    np.testing.assert_array_equal(got, expected, strict=True)


@pytest.mark.parametrize("text", ["y+k-1, k -> y", "y, k -> 2*y+k-1"])
def test_objects_and_long_double(text):
    image = np.array([Fraction(n, 7) for n in range(5)], object)
    kernel = np.array([Fraction(1, n) for n in range(1, 4)], object)
    expected = einsum(text, image.astype(float), kernel.astype(float))
    np.testing.assert_allclose(einsum(text, image, kernel).astype(float), expected)
    wide = einsum(text, *(each.astype(np.longdouble) for each in (image, kernel)))
    assert wide.dtype == np.longdouble
    np.testing.assert_allclose(wide, expected)


def test_sizes():
    check("y+k-1, k -> y", (5,), (3,), sizes={"y": 9})
    check("y+k -> y", (9,), sizes={"k": 3})
    check("y, k -> 2*y+k-1", (5,), (3,), sizes={"2*y+k-1": 10})
    image, kernel = integers(9), integers(3)
    short = einsum("y+k, k -> y", image, kernel, sizes={"y": 2})
    np.testing.assert_array_equal(short, einsum("y+k, k -> y", image, kernel)[:2])
    again = pickle.loads(pickle.dumps(compile_einsum("y+k, k -> y", sizes={"y": 2})))
    np.testing.assert_array_equal(again(image, kernel), short)


def test_layouts():
    image, kernel = integers(9, 8, 5, 4)[::-1, ::2].T, integers(3, 3, 5, 6).T[::-1]
    expected = reference(CONVOLUTION, image, kernel)
    np.testing.assert_array_equal(einsum(CONVOLUTION, image, kernel), expected)
    everywhere = np.broadcast_to(image[:, :1], image.shape)  # strides of 0
    expected = reference(CONVOLUTION, everywhere, kernel)
    np.testing.assert_array_equal(einsum(CONVOLUTION, everywhere, kernel), expected)


def test_out_may_be_the_operand():
    image, kernel = integers(2, 3, 9), integers(3, 3, 3)
    expected = reference("n c x+k-1, o c k -> n o x", image, kernel)
    assert einsum("n c x+k-1, o c k -> n o x", image, kernel, out=image) is image
    np.testing.assert_array_equal(image, expected)


def test_nan_stays_where_its_windows_are():
    image = np.zeros(20, "f4")
    image[7] = np.nan
    got = einsum("x+k-1, k -> x", image, np.ones(3, "f4"))
    assert np.isnan(got).nonzero()[0].tolist() == [6, 7, 8]


def test_empty():
    assert einsum("n y+k-1, k -> n y", np.ones((0, 5)), np.ones(3)).shape == (0, 5)
    zero = einsum("c y+k-1, c k -> y", np.ones((0, 5)), np.ones((0, 3)))
    np.testing.assert_array_equal(zero, np.zeros(5))


def test_several_factors():
    check("n c y+k-1 x+l-1, c k l, o c -> n o y x", (2, 3, 7, 9), (3, 3, 3), (4, 3))
    check("n c y+k x+l, c r, r s k l, s o -> n o y x", (2, 8, 6, 7), (8, 2), (2, 3, 3, 3), (3, 5))


def test_a_memory_limit_does_not_cut_windows():
    text = "n c y+k-1 x+l-1, c k l, o c -> n o y x"
    check(text, (4, 16, 12, 12), (16, 3, 3), (8, 16), memory_limit="20 KiB")


@pytest.mark.parametrize("limit", [None, "2 KiB"])
@pytest.mark.parametrize(
    "text",
    [
        "n y x, c k m -> n c 2*y+k+m 2*x+k-m",
        "n y x, c k m -> n c y+k+m 3*x",  # with elements that nothing meets
    ],
)
def test_sums_that_meet_in_several_ways(text, limit):
    check(text, (5, 6, 7), (3, 3, 2), memory_limit=limit)


def test_an_output_that_repeats_an_index_of_windows():
    check("y y-1, y -> y y", (3, 2), (3,))


def test_a_padded_copy_under_a_memory_limit():
    check("n c y+k+m-1, k m, o c -> n o y", (4, 6, 30), (3, 2), (8, 6), memory_limit="6 KiB")


def test_explained():
    plan = compile_einsum(CONVOLUTION).explain(np.ones((2, 3, 7, 9)), np.ones((4, 3, 3, 3)))
    (step,) = plan.steps
    assert step.recipe == "framed"
    assert plan.peak_memory == 0


def test_explained_in_boxes():
    operands = np.ones((2, 3, 7, 9), "c16"), np.ones((4, 3, 3, 3), "c16")
    plan = compile_einsum(CONVOLUTION).explain(*operands)
    assert len(plan.steps) == 9
    assert plan.steps[0].statement == ("out[n,o,y+1,x+1] = sum_{c,k,l} a[n,c,k+y,l+x] * b[o,c,k,l]")
    assert plan.flops == 2 * 2 * 4 * 3 * (3 * 7 - 2) * (3 * 9 - 2)  # nothing is done for padding
    assert plan.peak_memory == 0
    assert "a[n,c,k+y-1,l+x-1]" in str(plan)


def test_unknown_extents_are_named():
    with pytest.raises(EinsumError, match=r"extents of 'k' and 'y' are unknown: y\+k, axis 0"):
        einsum("y+k -> y", np.ones(5))


# --- views ----------------------------------------------------------------------------------------


def windows(array, *taps):
    return np.lib.stride_tricks.sliding_window_view(array, taps)


def test_a_view_of_windows_is_a_convolution():
    image, kernel = integers(20, 30), integers(3, 5)
    expected = reference("y+k x+l, k l -> y x", image, kernel)
    got = einsum("xyij,ij->xy", windows(image, 3, 5), kernel)
    np.testing.assert_array_equal(got, expected)


def test_the_gradient_of_weights_by_a_view():
    images, errors = integers(2, 10, 12, 3), integers(2, 8, 10, 4)
    view = np.lib.stride_tricks.sliding_window_view(images, (3, 3), (1, 2))
    expected = np.einsum("nijekd,nijo->okde", view, errors)
    got = einsum("nijekd,nijo->okde", view, errors)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("equation", ["yxijc,vwijc->yxvw", "yxj,vwj->yxvw"])
def test_products_of_windows_with_each_other(equation):
    """Positions and taps are both neighbours in memory."""
    images = integers(4, 6, 50)
    taps = (2, 3) if "c" in equation else (20,)
    view = np.lib.stride_tricks.sliding_window_view(images[0], taps[-1], 1)
    if "c" in equation:
        view = np.lib.stride_tricks.sliding_window_view(images, taps, (1, 2))
        view = view.transpose(1, 2, 3, 4, 0)
    expected = np.einsum(equation, view, view, optimize=True)
    np.testing.assert_array_equal(einsum(equation, view, view), expected)


def test_overlapping_windows_are_never_written():
    image = np.zeros(10)
    view = np.lib.stride_tricks.sliding_window_view(image, 3, writeable=True)
    with pytest.raises(ValueError, match="share memory"):
        einsum("i,j->ij", np.ones(8), np.ones(3), out=view)
    with pytest.raises(ValueError):
        einsum("i,j->ij", np.ones(8), np.ones(3), out=windows(image, 3))
    assert not image.any()


def test_out_under_a_view_of_windows():
    image, kernel = integers(20), integers(3)
    expected = np.einsum("xi,i->x", windows(image, 3), kernel)
    einsum("xi,i->x", windows(image, 3), kernel, out=image[:18])
    np.testing.assert_array_equal(image[:18], expected)


def test_a_product_of_a_tensor_with_itself_moved_is_not_symmetric():
    a = integers(200, 64)
    sizes = {"i": 200, "j": 200}
    expected = np.zeros((200, 200), "f4")
    expected[:-1, 1:] = a[1:] @ a[:-1].T
    np.testing.assert_array_equal(einsum("i+1 k, j-1 k -> i j", a, a, sizes=sizes), expected)


def test_an_axis_that_is_read_with_gaps_is_cut_to_what_is_read():
    check("n c 4*y+k, c r, r k s -> n s y", (2, 3, 37), (3, 4), (4, 1, 5))


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("i j, j m, m+i-1 -> i", [(64, 128), (128, 64), (128,)]),  # read with a product's result
        ("i j, j m, m q -> i+q", [(64, 128), (128, 64), (64, 8)]),
        ("i+k-1 j, j m, m k -> i", [(64, 128), (128, 64), (64, 3)]),
        ("n c y+k-1 x+l-1, c r, r k l, r o -> n o y x", [(2, 8, 9, 9), (8, 4), (4, 3, 3), (4, 8)]),
        ("i j, j m, m+i -> i", [(64, 128), (128, 64), (127,)]),  # all inside: may be merged
    ],
)
def test_products_around_windows(text, shapes):
    check(text, *shapes)


def test_parts_are_measured_where_their_memory_begins(monkeypatch):
    """A part of a tensor begins somewhere in it; what is measured has no more than that part."""
    offsets = []
    run = Step.run

    def watched(step, arrays):
        offsets.append(step.offsets)
        run(step, arrays)

    plan = compile_einsum(CONVOLUTION).explain(np.ones((2, 3, 7, 9)), np.ones((4, 3, 3, 3)))
    monkeypatch.setattr(Step, "run", watched)
    plan.measure(rounds=1)
    assert offsets
    assert not any(map(any, offsets))


# --- windows that are read in place ---------------------------------------------------------------


IN_PLACE = (  # 105 rows are no whole number of tiles, and sums are longer than a block of them
    "n c y+k-2 x+l-1, n o y x -> n o c k l",
    [(2, 7, 21, 31), (2, 20, 21, 31)],
    None,
)


@pytest.mark.parametrize(
    ("text", "shapes", "sizes", "dtype"),
    [
        *((*IN_PLACE, dtype) for dtype in ("f4", "c8", "i8", "f2")),
        ("n c 2*y+k 2*x+l, n o y x -> o c k l", [(2, 3, 41, 37), (2, 17, 19, 18)], {"k": 5}, "f4"),
        ("n c 2*x+3*k, n o x -> n o c k", [(2, 3, 599), (2, 33, 294)], {"k": 5}, "f4"),
        ("n y+k x c, k c o -> y n x o", [(2, 12, 9, 40), (3, 40, 24)], None, "f2"),
    ],
)
def test_windows_in_place(text, shapes, sizes, dtype):
    operands = [integers(*shape, dtype=dtype, seed=n) for n, shape in enumerate(shapes)]
    wide = [each.astype("c16" if dtype == "c8" else "f8") for each in operands]
    expected = reference(text, *wide, sizes=sizes)
    compiled = compile_einsum(text, sizes=sizes)
    found = compiled(*operands)
    if dtype == "f2":  # integers of more bits than it has
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1)
    else:
        np.testing.assert_array_equal(found, expected)
    if dtype != "f2":
        assert "find_rows" in compiled.explain(*operands).stage("source")


@pytest.mark.parametrize("channels", [1, 3, 20])
def test_squares_of_sums_of_windows_in_place(channels):
    images, errors = integers(2, channels, 21, 31), integers(2, 19, 21, 31)
    text = "n c y+k-1 x+l-1, n o y x -> n o c k l"
    gradient = reference(text, images, errors, sizes={"k": 3, "l": 3})
    norms = compile_einsum(
        "n c y+k-1 x+l-1, n o y x, n c p+k-1 q+l-1, n o p q -> n", sizes={"k": 3, "l": 3}
    )
    operands = images, errors, images, errors
    expected = np.einsum("nockl,nockl->n", gradient, gradient, dtype="f8")
    np.testing.assert_allclose(norms(*operands), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "shapes", "taps", "dtype"),
    [
        (
            "n g c y+k-3 x+l-3, n g o y x -> n g o c k l",
            [(2, 9, 1, 23, 28), (2, 9, 1, 23, 28)],
            7,
            "f4",
        ),
        ("n g c y+k-3 x+l-3, n g y x -> g c k l", [(3, 9, 2, 23, 11), (3, 9, 23, 11)], 7, "f8"),
        (
            "n g c y+k-1 x+l-1, n g o y x -> n g o c k l",
            [(2, 5, 4, 23, 28), (2, 5, 3, 23, 28)],
            3,
            "f4",
        ),
        ("n g c 2*y+k-1 x+l-1, n g y x -> n g c k l", [(2, 5, 4, 23, 30), (2, 5, 12, 30)], 3, "i4"),
        ("n g y+k-1 x+l-1, n g y x -> n g k l", [(2, 17, 23, 30), (2, 17, 23, 30)], 3, "c8"),
    ],
)
def test_gradients_of_few_channels(text, shapes, taps, dtype):
    """Narrow groups are read in place, single channels in rows whose ends are masked."""
    operands = [integers(*shape, dtype=dtype, seed=n) for n, shape in enumerate(shapes)]
    wide = [each.astype("c16" if dtype == "c8" else "f8") for each in operands]
    sizes = {"k": taps, "l": taps}
    expected = reference(text, *wide, sizes=sizes)
    np.testing.assert_array_equal(compile_einsum(text, sizes=sizes)(*operands), expected)


def test_gradients_of_few_channels_keep_infinity_where_it_is():
    image, errors = integers(2, 9, 23, 28), integers(2, 9, 23, 28)
    image[1, 3, 0, 27] = errors[0, 2, 22, 0] = np.inf
    text = "n g y+k-1 x+l-1, n g y x -> n g k l"
    sizes = {"k": 3, "l": 3}
    found = compile_einsum(text, sizes=sizes)(image, errors)
    whole = np.isfinite(found).all(axis=(2, 3))
    assert sorted(map(tuple, np.argwhere(~whole))) == [(0, 2), (1, 3)]
    assert np.isfinite(found[1, 3]).sum() == 5  # the first row and the last column see no pixel


@pytest.mark.parametrize(
    ("taps", "dtype"),
    sweep(
        product([(3, 3), (2, 5), (7, 7), (4, 2), (2, 2)], ["f4", "f8", "c8", "i4"]),
        lambda taps, dtype: dtype == "f4" and taps in [(3, 3), (7, 7), (4, 2)],
    ),
)
def test_taps_of_depthwise_convolutions_stand_side_by_side(taps, dtype):
    for width in (20, 28, 32):
        gradient = integers(9, 26, width, dtype=dtype)
        image = integers(9, 25 + taps[0], width + taps[1] - 1, dtype=dtype)[:, ::-1]
        windows = np.lib.stride_tricks.sliding_window_view(image, taps, axis=(1, 2))
        found = np.einsum("gyx,gyxkl->gkl", gradient, windows)
        compiled = compile_einsum("g y x, g y+k x+l -> g k l")
        np.testing.assert_array_equal(compiled(gradient, image), found)
        squares = compile_einsum("g y x, g y+k x+l, g b a, g b+k a+l -> g")
        squared = np.einsum("gkl,gkl->g", found, found)
        np.testing.assert_array_equal(squares(gradient, image, gradient, image), squared)
        (step,) = compiled.explain(gradient, image).steps
        rows = [each.indices for each in step.groups if each.name == "u"]
        assert rows == [("k", "l")] or dtype != "f4"
