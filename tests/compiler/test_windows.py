"""Extents that affine axes fix: torch's formula, NumPy's modes, and what users say instead."""

import pytest
from einsumc.compiler.errors import EinsumError
from einsumc.compiler.resolve import resolve
from einsumc.compiler.subscripts import parse
from einsumc.compiler.windows import given_sizes
from hypothesis import given
from hypothesis import strategies as st


def sizes_of(text: str, *shapes: tuple[int, ...], **sizes: int) -> dict[str, int]:
    return resolve(parse(text), shapes, given_sizes(sizes)).sizes


def output_of(text: str, *shapes: tuple[int, ...], sizes=None) -> tuple[int, ...]:
    return resolve(parse(text), shapes, given_sizes(sizes)).output_shape


extents = st.integers(1, 9)


@given(st.integers(1, 40), extents, st.integers(1, 4), st.integers(1, 3), st.integers(0, 5))
def test_padding_is_torchs(length, taps, stride, dilation, padding):
    expected = (length + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
    text = f"{stride}*y+{dilation}*k-{padding}, k -> y"
    if expected < 1:
        with pytest.raises(EinsumError, match="no position of 'y' fits"):
            sizes_of(text, (length,), (taps,))
    else:
        assert sizes_of(text, (length,), (taps,))["y"] == expected


@given(st.integers(1, 20), extents)
def test_a_true_convolution_is_full_same_or_valid(length, taps):
    assert sizes_of("y-k, k -> y", (length,), (taps,))["y"] == length + taps - 1
    if taps % 2:
        assert sizes_of(f"y-k+{taps // 2}, k -> y", (length,), (taps,))["y"] == length
    if taps <= length:
        assert sizes_of(f"y-k+{taps - 1}, k -> y", (length,), (taps,))["y"] == length - taps + 1


@given(st.integers(1, 20), extents, st.integers(1, 4), st.integers(1, 3), st.integers(0, 3))
def test_a_transposed_convolution_is_as_long_as_torchs(length, taps, stride, dilation, padding):
    expected = (length - 1) * stride - 2 * padding + dilation * (taps - 1) + 1
    text = f"y, k -> {stride}*y+{dilation}*k-{padding}"
    if expected < 1:
        with pytest.raises(EinsumError, match="padding leaves nothing"):
            output_of(text, (length,), (taps,))
    else:
        assert output_of(text, (length,), (taps,)) == (expected,)


def test_a_window_may_move_backwards():
    assert sizes_of("k-y+6, k -> y", (9,), (3,))["y"] == 7  # from the end to the beginning


def test_any_index_may_be_the_unknown_one():
    assert sizes_of("n c y+k-1 x+l-1, n o y x -> o c k l", (2, 3, 9, 8), (2, 4, 9, 8)) == {
        "n": 2,
        "c": 3,
        "y": 9,
        "k": 3,
        "x": 8,
        "l": 3,
        "o": 4,
    }


def test_one_axis_after_the_other():
    assert sizes_of("y+k+m, y+k, k -> y", (9,), (7,), (3,)) == {"y": 5, "k": 3, "m": 3}


def test_sizes_come_first():
    assert sizes_of("y+k-1, k -> y", (9,), (3,), y=4)["y"] == 4
    assert sizes_of("y+k -> y", (9,), k=3) == {"y": 7, "k": 3}
    assert sizes_of("y+k y, k -> y", (9, 1), (3,), y=4)["y"] == 4  # the axis of 1 broadcasts
    assert output_of("y, k -> 2*y+k-1", (4,), (3,), sizes={"2*y + k - 1": 8}) == (8,)


@pytest.mark.parametrize(
    ("text", "shapes", "sizes", "message"),
    [
        ("ij->i", [(2, 3)], {"i": 4}, "index 'i' has size 2 in operand 0 .* sizes= says 4"),
        ("ij->i", [(2, 3)], {"z": 4}, "sizes= has an extent for 'z', which is neither"),
        ("y+k, k -> y", [(9,), (3,)], {"y+k": 9}, "extent for 'k.y', which is neither"),
        ("ij->i", [(2, 3)], {"i": -1}, r"sizes\['i'\] must be an extent, not -1"),
        ("ij->i", [(2, 3)], {"i": 2.0}, r"sizes\['i'\] must be an extent"),
        ("ij->i", [(2, 3)], {"2i": 2}, "'2i' is not an index name"),
        ("ij->i", [(2, 3)], {0: 2}, "sizes must have indices as keys"),
        ("ij->i", [(2, 3)], [2], "sizes must map"),
    ],
)
def test_wrong_sizes(text, shapes, sizes, message):
    with pytest.raises(EinsumError, match=message):
        resolve(parse(text), shapes, given_sizes(sizes))
