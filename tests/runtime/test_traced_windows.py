"""Affine indices and views of windows in the bodies of compiled functions."""

import numpy as np
import pytest
from einsumc import EinsumError, compile_einsum, einsum
from numpy.lib.stride_tricks import sliding_window_view
from sweeps import every

CONVOLUTION = "n c y+k-1 x+l-1, o c k l -> n o y x"
IMAGE_GRADIENT = "n o y x, o c k l -> n c y+k-1 x+l-1"
WEIGHT_GRADIENT = "n c y+k-1 x+l-1, n o y x -> o c k l"


def integers(*shape, dtype="f8", seed=0):
    return np.random.default_rng(seed + len(shape)).integers(-3, 4, shape).astype(dtype)


def check(body, *operands):
    """Compiled or not, a body computes the same: not compiled, its einsums are equations."""
    found, expected = compile_einsum(body)(*operands), body(*operands)
    if not isinstance(expected, tuple):
        found, expected = (found,), (expected,)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12, strict=True)


IMAGES = [(2, 3, 7, 8), (2, 3, 1, 8), (2, 3, 1, 1), (1, 1, 5, 1), (0, 3, 4, 4), (2, 0, 4, 4)]


@pytest.mark.parametrize("shape", every(2, [(shape,) for shape in IMAGES]), ids=str)
def test_a_layer_forward_and_backward(shape):
    def layer(image, weight, errors):
        forward = np.maximum(einsum(CONVOLUTION, image, weight), 0)
        sizes = {"k": 3, "l": 3}
        return (
            forward,
            einsum(WEIGHT_GRADIENT, image, errors, sizes=sizes),
            einsum(IMAGE_GRADIENT, errors, weight),
        )

    errors = (shape[0], 4, *shape[2:])
    check(layer, integers(*shape), integers(4, shape[1], 3, 3, seed=1), integers(*errors, seed=2))


@pytest.mark.parametrize(
    "text",
    [
        "n c 2*y+k-1 2*x+l-1, o c k l -> n o y x",
        "n c y+2*k-2 x+l, o c k l -> n o y x",
        "n c y-k x-l, o c k l -> n o y x",
        "n c y+k-1 x+l-1, c o k l -> n o y x",
        "n c y x, c o k l -> n o 2*y+k-1 2*x+l-1",
    ],
)
def test_kinds_of_convolutions(text):
    def body(image, weight):
        return einsum(text, image, weight)

    channels = text.split(", ")[1][0]
    weight = (3, 3) if channels == "c" else (4, 3)
    check(body, integers(2, 3, 7, 8), integers(*weight, 3, 3))


def test_two_convolutions():
    def body(image, first, second):
        hidden = np.tanh(einsum(CONVOLUTION, image, first))
        return einsum(CONVOLUTION, hidden, second), hidden

    check(body, integers(2, 3, 7, 8), integers(4, 3, 3, 3), integers(2, 4, 3, 3))


@pytest.mark.parametrize(
    "part",
    [
        lambda x: x[:, :, 1:-1],  # what is left out is not what is outside
        lambda x: x[:, :, 3:4],
        lambda x: x[:, :, 2],
        lambda x: np.exp(x),  # exp(0) is not what is outside
        lambda x: x + 1,
        lambda x: x * x[:, :1],
        lambda x: x.swapaxes(2, 3),
        lambda x: x[:, :, ::-1],
        lambda x: np.broadcast_to(x[:, :, :1], x.shape),
        lambda x: x.reshape(2, 3, -1, 2),
        lambda x: x.astype("f4").astype("f8"),
    ],
)
def test_outside_of_a_part_is_zero(part):
    def body(image, taps):
        return einsum("n c y+k-1 ..., k -> n c y ...", part(image), taps)

    check(body, integers(2, 3, 7, 8), integers(3))


def test_axes_that_were_split_and_merged():
    def body(image, weight):
        n, c, h, w = image.shape
        grouped = image.reshape(n, 3, c // 3, h, w)
        made = einsum(
            "n g c y+k-1 x+l-1, g o c k l -> n g o y x",
            grouped,
            weight.reshape(3, -1, c // 3, 3, 3),
        )
        return made.reshape(n, -1, h, w)

    check(body, integers(2, 6, 7, 8), integers(12, 2, 3, 3))


def test_windows_of_a_merged_axis():
    def body(image, taps):
        return einsum("p+k, k -> p", (image * 2).reshape(-1), taps)

    check(body, integers(3, 40), integers(3))
    check(body, integers(40, 3), integers(3))

    def views(image):
        windows = sliding_window_view((image * 2).reshape(-1), 3)
        return windows[::2] + 1, np.einsum("pk->k", windows)

    check(views, integers(3, 4))


def test_sums_at_positions_of_what_is_repeated():
    def body(x):
        v = np.broadcast_to(x, (5, 3, 4))
        none = np.broadcast_to(x, (0, 3, 4))
        return (
            einsum("p q r -> q+r", v),
            einsum("p q r -> p+q r", v),
            einsum("p q r -> q+r", none) + 1,
            einsum("p+k r -> p", x, sizes={"k": 2}),
            einsum("p+k r -> r", np.broadcast_to(x[0], (5, 4)), sizes={"k": 2}),
        )

    check(body, integers(3, 4))


def test_sizes_may_be_those_of_arrays():
    @compile_einsum
    def body(image, errors, weight):
        return einsum("c 2*y+k, o y -> o c k", image, errors, sizes={"k": weight.shape[2]})

    for taps in (3, 4):  # a window of either fits as often
        image, errors, weight = integers(3, 10), integers(2, 4), integers(2, 3, taps)
        expected = body.__wrapped__(image, errors, weight)
        np.testing.assert_array_equal(body(image, errors, weight), expected)
        assert expected.shape == (2, 3, taps)
    with pytest.raises(EinsumError, match="sizes are for equations"):
        compile_einsum(body.__wrapped__, sizes={"y": 3})


def test_a_line_that_does_not_fit_is_named():
    @compile_einsum
    def blurred(image, taps):
        return einsum("y+k x, k -> y x", image, taps)

    with pytest.raises(EinsumError, match="no position of 'y' fits") as raised:
        blurred(np.ones((2, 4)), np.ones(3))
    assert "in blurred" in str(raised.value)


def test_an_output_that_repeats_an_index():
    check(lambda x: einsum("i->ii", x) + 1, integers(4))


# --- views ----------------------------------------------------------------------------------------


def test_views_of_windows():
    def body(image, weight, errors):
        windows = sliding_window_view(image, (3, 3), axis=(2, 3))
        return (
            np.einsum("ncyxkl,ockl->noyx", windows, weight),
            np.einsum("ncijkd,noij->ockd", windows, errors),
            np.einsum("ncyxkl,ockl->noyx", windows[:, :, ::2, ::2], weight),
            windows.mean(axis=(4, 5)),
            windows,
        )

    check(body, integers(2, 3, 7, 8), integers(4, 3, 3, 3), integers(2, 4, 5, 6))


def test_a_view_of_windows_is_no_copy():
    @compile_einsum
    def body(image, kernel):
        return np.einsum("xyij,ij->xy", sliding_window_view(image, (3, 5)), kernel)

    program, _ = body.planned(integers(20, 30), integers(3, 5))
    assert str(program) == "out[x,y] = sum_{i,j} image[i+x,j+y] * kernel[i,j]"


def test_windows_along_one_axis():
    check(lambda x: sliding_window_view(x, 3, axis=-1).sum(-1), integers(2, 9))
    with pytest.raises(EinsumError, match="windows in windows"):
        compile_einsum(lambda x: sliding_window_view(x, (3, 2), axis=(0, 0)))(integers(9))
    with pytest.raises(EinsumError, match="do not fit the array's axes"):
        compile_einsum(lambda x: sliding_window_view(x, (3, 2)))(integers(9))


# --- a layer in NumPy -----------------------------------------------------------------------------


def numpy_layer(images, weight, errors):
    """A convolution layer as it is written in NumPy: its result and both of its gradients."""
    windows = sliding_window_view(np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), (2, 3))
    windows = windows.transpose(0, 1, 4, 5, 2, 3)  # the taps, then the positions
    around = sliding_window_view(np.pad(errors, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), (2, 3))
    return {
        "forward": np.maximum(np.einsum("nijkde,oijk->node", windows, weight), 0),
        "weight": np.einsum("nijkde,node->oijk", windows, errors),
        "images": np.einsum("nodejk,oijk->nide", around, weight[:, :, ::-1, ::-1]),
    }


def test_a_layer_written_in_numpy():
    layer = compile_einsum(numpy_layer)
    for seed, extents in enumerate([(7, 8), (5, 5), (1, 3)]):
        operands = (
            integers(2, 3, *extents),
            integers(4, 3, 3, 3, seed=seed),
            integers(2, 4, *extents),
        )
        found, expected = layer(*operands), numpy_layer(*operands)
        assert found.keys() == expected.keys()
        for name, each in expected.items():
            np.testing.assert_array_equal(found[name], each, err_msg=name)
    # The images' gradient is what the images have to do with the result.
    moved = integers(2, 3, 1, 3, seed=9)
    linear = np.einsum("nijkde,oijk->node", _windows(moved), operands[1])
    assert np.sum(linear * operands[2]) == np.sum(moved * found["images"])


def _windows(images):
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return sliding_window_view(padded, (3, 3), (2, 3)).transpose(0, 1, 4, 5, 2, 3)


def test_padding_with_zeros():
    check(lambda x: np.pad(x, 2) * 3, integers(2, 3))
    check(lambda x: np.pad(np.exp(x), ((0, 1), (2, 0))), integers(2, 3))
    check(lambda x: np.pad(x, 0), integers(2, 3))
    check(lambda x: np.pad(x[1:], ((1, 1), (0, 0))), integers(3, 1))
    check(lambda x: (np.pad(x, (0, 1)) + 1).sum(0), integers(3, 2))
    check(lambda x: np.pad(np.broadcast_to(x, (2, 3)), (0, 2)).sum(0), integers(3))
    with pytest.raises(EinsumError, match="zeros alone"):
        compile_einsum(lambda x: np.pad(x, 1, mode="edge"))(integers(3))
