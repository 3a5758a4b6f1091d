"""The operations on register tiles, one by one, in kernels of a few lines."""

from itertools import product

import numpy as np
import pytest
from einsumc.runtime.target import LEVELS, can_run
from tile_calls import LANES, SENTINEL, call, numbers

pytestmark = pytest.mark.skipif(
    not can_run(LEVELS["x86-64-v3"]), reason="the kernels are for x86-64-v3"
)

# --- loads and stores -----------------------------------------------------------------------------

COPY = {
    "rows": (
        "t = load_rows(operand(args, 0, {e}), 0, 20, {r}, {c}, {l}{part})\n"
        "store_rows(operand(args, 1, {e}), 0, 20, t{part})"
    ),
    "columns": (
        "t = load_columns(operand(args, 0, {e}), 0, 20, {r}, {c}, {l}{part})\n"
        "store_columns(operand(args, 1, {e}), 0, 20, t{part})"
    ),
    "any": (
        "t = load_any(operand(args, 0, {e}), 0, 20, 1, {r}, {c}, {l}{part})\n"
        "store_any(operand(args, 1, {e}), 0, 20, 1, t{part})"
    ),
}
PARTS = [(0, 0), (1, 1), (2, 3), (3, 8), (5, 15), (8, 16), (16, 16), (1, 16), (16, 1)]


@pytest.mark.parametrize("element", LANES)
@pytest.mark.parametrize("how", COPY)
def test_partial_loads_and_stores_touch_nothing_outside(element, how):
    """Tiles of 16 by 16: what is inside arrives, what is outside stays."""
    body = COPY[how].format(e=element, r=16, c=16, l=LANES[element], part=", begin, end")
    source = numbers((20, 20), element)
    for rows, columns in PARTS:
        found = np.full((20, 20), SENTINEL, element)
        call(body, source, found, begin=rows, end=columns)
        expected = np.full((20, 20), SENTINEL, element)
        inside = (
            (slice(columns), slice(rows)) if how == "columns" else (slice(rows), slice(columns))
        )
        expected[inside] = source[inside]
        np.testing.assert_array_equal(found, expected, err_msg=f"{rows} x {columns}")


@pytest.mark.parametrize("element", LANES)
def test_columns_are_transposed(element):
    """The same tile, by columns and by rows: 16 x 8 and 8 x 16."""
    lanes = min(LANES[element], 8)
    source = numbers((8, 16), element)
    body = (
        f"x, y = operand(args, 0, {element}), operand(args, 1, {element})\n"
        f"store_rows(y, 0, 8, load_columns(x, 0, 16, 16, 8, {lanes}))\n"
        f"store_columns(y, 128, 16, load_rows(y, 0, 8, 16, 8, {lanes}))"
    )
    found = np.full(256, SENTINEL, element)
    call(body, source, found)
    np.testing.assert_array_equal(found[:128].reshape(16, 8), source.T)
    np.testing.assert_array_equal(found[128:].reshape(8, 16), source)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("element", [e for e in LANES if LANES[e] < 16])
def test_woven_rows_are_sorted(element, rows):
    """Rows that are neighbours, in lanes that are as many apart as there are rows, or more."""
    lanes = LANES[element]
    columns = 2 * lanes
    body = (
        f"x, y = operand(args, 0, {element}), operand(args, 1, {element})\n"
        f"z = operand(args, 2, {element})\n"
        f"t = load_woven(x, 1, args[3], {rows}, {columns}, {lanes})\n"
        f"store_rows(y, 0, {columns}, t)\n"
        f"store_woven(z, 1, args[3], t)\n"
    )
    for step in (rows, rows + 1, 2 * rows + 3, 0, -rows):
        if step > 0:
            source, first = numbers(columns * step + 1, element), 1
        else:
            source, first = numbers(columns * rows + rows, element), 1 - step * (columns - 1)
        found = np.full((rows, columns), SENTINEL, element)
        back = np.full(source.shape, SENTINEL, element)
        shift = source.itemsize * (first - 1)
        call(body, source.ctypes.data + shift, found, back.ctypes.data + shift, step)
        places = first + np.arange(columns) * step + np.arange(rows)[:, None]
        np.testing.assert_array_equal(found, source[places])
        if step:
            expected = np.full(source.shape, SENTINEL, element)
            expected[places] = source[places]
            np.testing.assert_array_equal(back, expected)


@pytest.mark.parametrize("element", [e for e in LANES if LANES[e] < 16])
def test_parts_of_woven_tiles_touch_nothing_outside(element):
    """Rows outside are zero; columns outside repeat the last one inside, or are zero."""
    lanes = LANES[element]
    rows, columns = 6, 2 * lanes
    body = (
        f"x, y = operand(args, 0, {element}), operand(args, 1, {element})\n"
        f"t = load_woven(x, 0, args[2], {rows}, {columns}, {lanes}, begin, end)\n"
        f"store_woven(y, 0, args[2], t, begin, end)\n"
    )
    for step in (rows, rows + 3):
        for inside in ((1, 1), (6, 1), (2, 5), (5, columns), (6, columns - 1), (6, columns)):
            source = numbers(columns * step, element)
            found = np.full(source.shape, SENTINEL, element)
            call(body, source, found, step, begin=inside[0], end=inside[1])
            places = np.arange(inside[1]) * step + np.arange(inside[0])[:, None]
            expected = np.full(source.shape, SENTINEL, element)
            expected[places] = source[places]
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("element", "held", "depth"),
    [("f4", "f4", 8), ("f4", "f8", 7), ("f8", "f8", 8), ("c8", "c8", 5), ("i4", "i4", 3)],
)
def test_short_runs_fill_as_many_rows_of_a_panel(element, held, depth):
    """Whether lanes follow each other without gaps or not; nothing lies in other rows."""
    lanes = LANES[held]
    body = (
        f"x, y = operand(args, 0, {element}), operand(args, 1, {held})\n"
        f"hold_part(y, 0, {lanes + 2}, x, 0, args[2], begin, end, {depth}, {lanes})\n"
    )
    for rows, columns in product(range(1, depth + 1), (1, lanes - 1, lanes)):
        if (rows, columns) == (depth, lanes):
            continue  # what is whole is for another operation
        for step in (rows, rows + 3):
            source = numbers((columns - 1) * step + rows, element)
            found = np.full((depth, lanes + 2), SENTINEL, held)
            call(body, source, found, step, begin=rows, end=columns)
            places = np.arange(columns) * step + np.arange(rows)[:, None]
            np.testing.assert_array_equal(found[:rows, :columns], source[places].astype(held))
            assert (found[rows:] == SENTINEL).all()
            assert (found[:, lanes:] == SENTINEL).all()


def test_tiles_may_start_at_any_element():
    source, found = numbers(200, "f4"), np.zeros(200, "f4")
    body = (
        "x, y = operand(args, 0, f4), operand(args, 1, f4)\n"
        "store_rows(y, args[2], args[3], load_rows(x, args[2], args[3], 2, 16, 8))"
    )
    for offset, stride in ((1, 16), (3, 17), (100, -31)):
        found[:] = 0
        call(body, source, found, offset, stride)
        expected = np.zeros(200, "f4")
        for row in (0, 1):
            begin = offset + row * stride
            expected[begin : begin + 16] = source[begin : begin + 16]
        np.testing.assert_array_equal(found, expected)


def test_a_table_of_offsets_stands_for_a_stride():
    source, found = numbers((10, 16), "f4"), np.zeros((3, 16), "f4")
    table = np.array([99, 16 * 7, 0, 16 * 4], "i8")
    body = (
        "x, at = operand(args, 0, f4), advance(operand(args, 2, i8), 1)\n"
        "store_rows(operand(args, 1, f4), 0, 16, load_rows(x, 0, at, 3, 16, 8))"
    )
    call(body, source, found, table)
    np.testing.assert_array_equal(found, source[[7, 0, 4]])
    scattered = np.zeros((10, 16), "f4")
    body = (
        "y, at = operand(args, 1, f4), advance(operand(args, 2, i8), 1)\n"
        "store_rows(y, peek(at, 1), at, load_rows(operand(args, 0, f4), 0, 16, 3, 16, 8))"
    )
    call(body, found, scattered, table)
    np.testing.assert_array_equal(scattered[[7, 0, 4]], found)


def test_splat_reads_one_value_a_row():
    source, found = numbers((6, 10), "f8"), np.zeros((6, 8))
    body = (
        "t = load_splat(operand(args, 0, f8), 3, 10, 6)\n"
        "store_rows(operand(args, 1, f8), 0, 8, stretch(t, 6, 8, 4))"
    )
    call(body, source, found)
    np.testing.assert_array_equal(found, np.repeat(source[:, 3:4], 8, axis=1))


# --- tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("span", [(0, 24), (5, 17), (23, 24), (7, 7)])
def test_tabulate_walks_a_composite_group_in_c_order(span):
    extents, strides = (2, 3, 4), (100, -10, 3)
    description = [3, *extents, 9, 9, 9, *strides]  # of the second tensor: slot 1
    table = np.full(30, SENTINEL, "i8")
    call("tabulate(args, 1, 1, begin, end, operand(args, 0, i8))", table, *description,
         begin=span[0], end=span[1])  # fmt: skip
    places = np.ndindex(*extents)
    every = [sum(d * s for d, s in zip(place, strides, strict=True)) for place in places]
    count = span[1] - span[0]
    assert table[:count].tolist() == every[slice(*span)]
    assert (table[count:] == SENTINEL).all()


def test_tabulate_of_no_indices_is_one_position():
    table = np.full(3, SENTINEL, "i8")
    call("tabulate(args, 1, 0, begin, end, operand(args, 0, i8))", table, 0, end=1)
    assert table.tolist() == [0, SENTINEL, SENTINEL]


def test_is_run():
    body = (
        "if is_run(operand(args, 0, i8), 8):\n"
        "    store_rows(operand(args, 1, f8), 0, 0, load_splat(operand(args, 2, f8), 0, 0, 1))"
    )
    for offsets, expected in (
        (range(5, 13), True),
        (range(0, 16, 2), False),
        ([3, 4, 5, 6, 7, 8, 9, 11], False),
        ([0] * 8, False),
        (range(-4, 4), True),
    ):
        found = np.zeros(1)
        call(body, np.array(offsets, "i8"), found, np.ones(1))
        assert found[0] == expected, offsets


def test_is_brick():
    body = (
        "if is_brick(operand(args, 0, i8), 4, 3):\n"
        "    store_rows(operand(args, 1, f8), 0, 0, load_splat(operand(args, 2, f8), 0, 0, 1))"
    )
    brick = np.add.outer(np.arange(3), [7, 50, -3, 50]).ravel()
    for changed in (None, *range(12)):
        offsets = brick.copy()
        if changed is not None:
            offsets[changed] += 1
        found = np.zeros(1)
        call(body, offsets, found, np.ones(1))
        assert found[0] == (changed is None), changed


# --- arithmetic -----------------------------------------------------------------------------------

BINARY = (
    "x = load_rows(operand(args, 0, {e}), 0, 16, 3, 16, {l})\n"
    "y = load_rows(operand(args, 1, {e}), 0, 16, 3, 16, {l})\n"
    "z = operand(args, 2, {e})\n"
    "store_rows(z, 0, 16, multiply(x, y))\n"
    "store_rows(z, 48, 16, add(x, y))\n"
    "store_rows(z, 96, 16, multiply_add(multiply(x, x), x, y))\n"
    "store_rows(z, 144, 16, accumulate(x, y))\n"
    "column, row = load_splat(operand(args, 0, {e}), 0, 16, 3), load_rows(z, 0, 0, 1, 16, {l})\n"
    "store_rows(z, 192, 16, multiply(column, row))\n"
    "store_rows(z, 240, 1, total_rows(x))"
)


@pytest.mark.parametrize("element", ["f4", "f8", "c8", "c16", "i1", "i4", "u1", "b1"])
def test_arithmetic_is_numpys(element):
    """For booleans a product is `and` and a sum is `or`; whole numbers wrap."""
    x, y = numbers((3, 16), element, 1), numbers((3, 16), element, 2)
    found = np.zeros(244, element)
    call(BINARY.format(e=element, l=LANES.get(element, 16)), x, y, found)
    tiles = found[:240].reshape(5, 3, 16)
    np.testing.assert_array_equal(tiles[0], x * y)
    np.testing.assert_array_equal(tiles[1], x + y)
    np.testing.assert_array_equal(tiles[2], x * x + x * y)
    np.testing.assert_array_equal(tiles[3], x + y)
    np.testing.assert_array_equal(tiles[4], x[:, :1] * (x * y)[:1])
    total = x.any(axis=1) if element == "b1" else x.sum(axis=1, dtype=element)
    np.testing.assert_array_equal(found[240:243], total)
    assert found[243] == 0


def test_multiply_add_rounds_once():
    x = np.full((1, 4), 1 + 2**-30)
    found = np.zeros((1, 4))
    body = (
        "x = load_rows(operand(args, 0, f8), 0, 4, 1, 4, 4)\n"
        "acc = load_rows(operand(args, 1, f8), 0, 4, 1, 4, 4)\n"
        "store_rows(operand(args, 2, f8), 0, 4, multiply_add(acc, x, x))"
    )
    call(body, x, np.full((1, 4), -(1 + 2**-29)), found)
    assert (found == 2.0**-60).all()


def test_partial_arithmetic_leaves_other_columns():
    acc, x = numbers((2, 16), "f4", 3), np.full((2, 16), np.nan, "f4")
    x[:, :5] = 2
    found = np.zeros((4, 16), "f4")
    body = (
        "acc, x = load_rows(operand(args, 0, f4), 0, 16, 2, 16, 8), "
        "load_rows(operand(args, 1, f4), 0, 16, 2, 16, 8)\n"
        "store_rows(operand(args, 2, f4), 0, 16, accumulate(acc, x, 2, begin))\n"
        "store_rows(operand(args, 2, f4), 32, 16, multiply_add(acc, x, x, 2, begin))"
    )
    call(body, acc, x, found, begin=5)
    np.testing.assert_array_equal(found[:, 5:], np.tile(acc[:, 5:], (2, 1)))
    np.testing.assert_array_equal(found[:2, :5], acc[:, :5] + 2)
    np.testing.assert_array_equal(found[2:, :5], acc[:, :5] + 4)


def test_total_is_of_the_same_order_at_any_place():
    rng = np.random.default_rng(4)
    row = rng.random(32).astype("f4")
    found = np.zeros(3, "f4")
    body = (
        "store_rows(operand(args, 1, f4), 0, 1, "
        "total_rows(load_rows(operand(args, 0, f4), 0, 0, 3, 32, 8)))"
    )
    call(body, row, found)
    assert len({*found.tolist()}) == 1
    assert found[0] == pytest.approx(row.sum(), rel=1e-6)


def test_convert_rounds_halves_as_numpy_does():
    every = np.arange(2**16, dtype="u2").view("f2")
    every = every[~np.isnan(every)]
    every = every[: every.size // 16 * 16]
    body = (
        "x, y, z = operand(args, 0, f2), operand(args, 1, f4), operand(args, 2, f2)\n"
        "for i in range(begin, end, 16):\n"
        "    wide = convert(load_rows(x, i, 0, 1, 16, 8), f4)\n"
        "    store_rows(y, i, 0, wide)\n"
        "    store_rows(z, i, 0, convert(multiply(wide, load_splat(y, 0, 0, 1)), f2))"
    )
    every[0] = np.float16(1 / 3)
    wide, back = np.zeros(every.size, "f4"), np.zeros(every.size, "f2")
    call(body, every, wide, back, end=every.size)
    np.testing.assert_array_equal(wide, every.astype("f4"))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(back, (wide * wide[0]).astype("f2"))


# --- loops ----------------------------------------------------------------------------------------


def test_range_and_min():
    body = (
        "t = operand(args, 0, f8)\n"
        "one = load_splat(operand(args, 1, f8), 0, 0, 1)\n"
        "for i in range(begin, min(end, 20, args[2]), 3):\n"
        "    for j in range(i, i + 2):\n"
        "        store_rows(t, j, 0, add(one, load_splat(t, j, 0, 1)))"
    )
    for begin, end, least in ((0, 9, 50), (2, 40, 30), (2, 40, 3), (5, 5, 9), (6, 2, 9)):
        found = np.zeros(32)
        call(body, found, np.ones(1), least, begin=begin, end=end)
        expected = np.zeros(32)
        for i in range(begin, min(end, 20, least), 3):
            expected[i : i + 2] += 1
        np.testing.assert_array_equal(found, expected)


# --- what a table says ----------------------------------------------------------------------------

OFFSETS = {
    "neighbours": lambda n: 5 + n,
    "the same": lambda n: 7 + 0 * n,
    "backwards": lambda n: 20 - n,
    "two runs": lambda n: n + 9 * (n > 5),
}


@pytest.mark.parametrize("element", LANES)
@pytest.mark.parametrize("offsets", OFFSETS.values(), ids=OFFSETS)
@pytest.mark.parametrize("count", [16, 9, 1, 0])
def test_rows_are_found_where_a_table_says(element, offsets, count):
    table = offsets(np.arange(16))
    part = "" if count == 16 else ", 1, begin"
    body = (
        f"t = load_found(operand(args, 0, {element}), 3, operand(args, 2, i8), 16,"
        f" {LANES[element]}{part})\n"
        f"store_rows(operand(args, 1, {element}), 0, 0, t)"
    )
    source, found = numbers(64, element), np.full(16, SENTINEL, element)
    call(body, source, found, table, begin=count)
    wanted = np.where(np.arange(16) < count, source[3 + table], np.zeros((), element))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("element", LANES)
@pytest.mark.parametrize("kind", ["neighbours", "backwards", "two runs"])
@pytest.mark.parametrize("count", [16, 9, 1, 0])
def test_rows_are_stored_where_a_table_says(element, kind, count):
    table = OFFSETS[kind](np.arange(16))
    part = "" if count == 16 else ", 1, begin"
    body = (
        f"t = load_rows(operand(args, 0, {element}), 0, 0, 1, 16, {LANES[element]})\n"
        f"store_found(operand(args, 1, {element}), 3, operand(args, 2, i8), t{part})"
    )
    source, found = numbers(16, element), np.full(64, SENTINEL, element)
    wanted = found.copy()
    wanted[3 + table[:count]] = source[:count]
    call(body, source, found, table, begin=count)
    np.testing.assert_array_equal(found, wanted)
