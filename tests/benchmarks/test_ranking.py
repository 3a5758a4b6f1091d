"""The check of the cost model's ranking: its statistics and its tables; nothing is timed."""

from math import isnan, prod

import pytest
from benchmark_scripts import benchmark

ranking = benchmark("ranking")


def timed(*pairs):
    return [ranking.Timed("", predicted, measured) for predicted, measured in pairs]


def test_spearman_compares_orders():
    assert ranking.spearman(timed((1, 10), (2, 200), (3, 201))) == pytest.approx(1)
    assert ranking.spearman(timed((1, 3), (2, 2), (3, 1))) == pytest.approx(-1)
    assert ranking.spearman(timed((1, 1), (2, 3), (3, 2), (4, 4))) == pytest.approx(0.8)
    assert ranking.spearman(timed((1, 1), (1, 2), (3, 3))) == pytest.approx(0.866, abs=1e-3)
    assert isnan(ranking.spearman(timed((1, 1), (1, 2))))


def test_all_orders_or_a_sample():
    assert ranking.orders(2, 99) == [((0, 1),), ((0, 1),)]
    assert len({*ranking.orders(3, 99)}) == 1 + 3
    assert len({*ranking.orders(4, 99)}) == 1 + 6 * 3
    assert len(ranking.orders(5, 20)) == 21
    assert ranking.orders(5, 20) == ranking.orders(5, 20)


@pytest.mark.parametrize("table", ["STEPS", "ORDERS"])
def test_tables_can_be_read(table):
    found = list(ranking.read(getattr(ranking, table)))
    assert len(found) > 15
    for equation, extents in found:
        assert {*equation} - {*",->"} == {*extents}
        assert prod(extents.values()) > 0


def test_steps_and_orders_are_measured(monkeypatch):
    monkeypatch.setattr(ranking, "STEPS", "ij,jk->ik 4x5x6\nij->i 8x9")
    steps = ranking.measure_steps(["f4"], rounds=1)
    assert [step.what.split()[0] for step in steps] == ["ij,jk->ik", "ij->i"]
    found = ranking.measure_orders(
        "ij,jk,kl->il", dict.fromkeys("ijkl", 4), "f8", rounds=1, most=9, seconds=1.0
    )
    assert len(found) == 4
    for pair in (*steps, *found):
        assert pair.predicted > 0
        assert pair.measured > 0
    assert ranking.summary(found).startswith("4: Spearman")
