"""Tiles that are added to the output, or stored where nothing is there yet."""

import numpy as np
import pytest
from einsumc.runtime.target import LEVELS, can_run
from tile_calls import LANES, SENTINEL, call, numbers

pytestmark = pytest.mark.skipif(
    not can_run(LEVELS["x86-64-v3"]), reason="the kernels are for x86-64-v3"
)

PITCH = 40
WHOLE = """
t = load_rows(operand(args, 0, {e}), 0, {columns}, 6, {columns}, {lanes})
update_rows(operand(args, 1, {e}), 3, 40, t, args[2] > 0)
"""
PART = """
t = load_rows(operand(args, 0, {e}), 0, {columns}, 6, {columns}, {lanes})
update_part(operand(args, 1, {e}), 3, 40, {step}, t, args[2] > 0, args[3], args[4])
"""
TABLE = "advance(operand(args, 5, i8), 1)"


@pytest.mark.parametrize("element", LANES)
@pytest.mark.parametrize("again", [0, 1])
def test_a_whole_tile_is_stored_or_added(element, again):
    columns = 2 * LANES[element]
    tile, out = numbers((6, columns), element), numbers((6, PITCH), element, seed=2)
    expected = out.copy()
    part = expected[:, 3 : 3 + columns]
    part[...] = part + tile if again else tile
    call(WHOLE.format(e=element, columns=columns, lanes=LANES[element]), tile, out, again)
    np.testing.assert_array_equal(out, expected)


# Offsets of a tile's columns: one run, runs of 3, 5, 6 and 14, no neighbours at all, backwards.
def offsets(run, count):
    if run < 0:
        return 35 - np.arange(count)
    return np.array([i // run * (run + 1) + i % run for i in range(count)])


@pytest.mark.parametrize("element", ["f2", "f4", "f8", "c16", "i4", "b1"])
@pytest.mark.parametrize("run", [20, 14, 6, 5, 3, 1, -1])
@pytest.mark.parametrize("again", [0, 1])
def test_part_of_a_tile_goes_where_a_table_says(element, run, again):
    columns = 2 * LANES[element]
    columns = min(columns, 16)
    lanes = min(LANES[element], columns)
    body = PART.format(e=element, columns=columns, lanes=lanes, step=TABLE)
    tile = numbers((6, columns), element)
    for rows, inside in [(6, columns), (1, 1), (5, columns - 1), (6, columns - 3), (3, 4), (0, 5)]:
        out = np.full((6, PITCH), 1 if element == "b1" else SENTINEL, element)
        at = offsets(run, columns)
        # What lies behind the columns inside must not be looked at: it would be out of bounds.
        table = np.concatenate([[10**15], at[:inside], np.full(columns - inside, 10**15)])
        expected = out.copy()
        for row in range(rows):
            where = 3 + at[:inside]
            before = expected[row, where]
            expected[row, where] = before + tile[row, :inside] if again else tile[row, :inside]
        call(body, tile, out, again, rows, inside, table.astype(np.int64))
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("step", [1, 2, -1, 0])
def test_part_of_a_tile_with_a_stride(step):
    body = PART.format(e="f4", columns=8, lanes=8, step="args[5]")
    tile = numbers((6, 8), "f4")
    for rows, inside in [(6, 8), (2, 7), (4, 1)]:
        out = np.full((6, PITCH), SENTINEL, "f4")
        begin = out[0, 10:]
        expected = out.copy()
        for row in range(rows):
            for column in range(inside):
                expected[row, 13 + column * step] = tile[row, column]
        call(body, tile, begin, 0, rows, inside, step)
        np.testing.assert_array_equal(out, expected)


def test_what_is_asked_for_may_lie_anywhere():
    """Lines that do not exist are not touched."""
    body = "prefetch_rows(operand(args, 0, f4), args[1], args[2], 6, 16)"
    out = np.full(64, SENTINEL, "f4")
    for first, step in [(0, 8), (-(10**9), 3), (2**40, 2**33)]:
        call(body, out, first, step)
    assert (out == SENTINEL).all()
