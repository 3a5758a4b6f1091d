"""Every layout has one plan, made once; a counting executor stands in for the real one."""

import os
import threading
import timeit

import numpy as np
import pytest
from einsumc.compiler.errors import EinsumError
from einsumc.runtime.decorator import compile_einsum, einsum

rng = np.random.default_rng(0)
chain = compile_einsum("ij,jk,kl->il")


def prepared_by(executor, *calls):
    """How many of these calls made a plan."""
    before = len(executor.prepared)
    for call in calls:
        call()
    return len(executor.prepared) - before


def test_a_layout_is_prepared_once(executor):
    multiply = compile_einsum("ij,jk->ik")
    a, b = rng.random((3, 3)), rng.random((3, 3))
    assert prepared_by(executor, lambda: multiply(a, b), lambda: multiply(a, b)) == 1
    assert prepared_by(executor, lambda: multiply(b.copy(), a.copy())) == 0
    assert prepared_by(executor, lambda: multiply(a, b.T), lambda: multiply(a.T, b)) == 2
    assert prepared_by(executor, lambda: multiply(a.astype("f4"), b)) == 1
    assert prepared_by(executor, lambda: multiply(a.astype("f4"), b.astype("f4"))) == 1
    assert prepared_by(executor, lambda: multiply(a, b, order="F")) == 1
    assert prepared_by(executor, lambda: multiply(a, b, dtype="c16")) == 1
    assert prepared_by(executor, lambda: multiply(a, b, dtype=np.complex128)) == 0
    assert prepared_by(executor, lambda: multiply(a[:2], b)) == 1


def test_the_same_operand_twice_has_its_own_plan(executor):
    """A plan that takes two operands for one must never see two."""
    multiply = compile_einsum("ij,kj->ik")
    a, b = rng.random((3, 3)), rng.random((3, 3))
    for first, second, new in ((a, a, 1), (a, b, 1), (b, b, 0), (a, a[:], 0), (b[:], a, 0)):
        count = prepared_by(
            executor,
            lambda first=first, second=second: np.testing.assert_allclose(
                multiply(first, second), first @ second.T
            ),
        )
        assert count == new
    assert executor.prepared[0][1][0] is executor.prepared[0][1][1]
    assert executor.prepared[1][1][0] is not executor.prepared[1][1][1]


def test_which_of_many_operands_are_the_same_counts(executor):
    a, b, c = rng.random((3, 2, 2))
    patterns = ((a, b, c), (a, a, b), (a, b, a), (b, a, a), (a, a, a))
    assert prepared_by(executor, *(lambda p=p: chain(*p) for p in patterns)) == 5
    views = ((c, b, a), (b, b[:], a), (b, c, b[:]), (a, c, c[:]), (c, c[:], c[:]))
    assert prepared_by(executor, *(lambda p=p: chain(*p) for p in views)) == 0


def test_a_converted_operand_given_twice_is_converted_once(executor):
    a = np.ones((3, 3), ">f4")
    einsum("ij,jk->ik", a, a)
    first, second = executor.prepared[0][1]
    assert first is second
    assert first.dtype.isnative


def test_out_and_its_overlap_are_part_of_the_layout(executor):
    multiply = compile_einsum("ij,jk->ik")
    a, b, out = rng.random((3, 3, 3))
    assert prepared_by(executor, lambda: multiply(a, b, out=out)) == 1
    assert executor.prepared[-1][2] is out
    assert prepared_by(executor, lambda: multiply(a, b, out=out.copy())) == 0
    assert prepared_by(executor, lambda: multiply(a, b, out=out.T)) == 1
    expected = a @ b
    assert prepared_by(executor, lambda: multiply(a, b, out=b)) == 1
    np.testing.assert_allclose(b, expected)
    out.flags.writeable = False
    with pytest.raises(EinsumError, match="out is read-only"):
        multiply(a, b, out=out)


def test_alignment_is_part_of_the_layout(executor):
    total = compile_einsum("i->")
    memory = np.zeros(25, "u1")
    aligned, unaligned = memory[:24].view("f8"), memory[1:].view("f8")
    aligned[:] = [1, 2, 3]
    assert total(aligned) == 6
    unaligned[:] = [1, 2, 3]
    assert prepared_by(executor, lambda: total(unaligned), lambda: total(unaligned)) == 1
    assert total(unaligned) == 6


def test_many_layouts_do_not_pile_up(executor, monkeypatch):
    monkeypatch.setattr("einsumc.runtime.plan_cache._PLANS", 10)
    total = compile_einsum("i->")
    for length in range(1, 30):
        assert total(np.ones(length)) == length
    assert len(total._plans) <= 10


def test_equations_are_parsed_once(executor):
    a = np.ones((2, 2))
    calls = [lambda: einsum("ij,jk->ki", a, a), lambda: einsum(a, [0, 1], a, [1, 2], [2, 0])]
    for call in calls:
        assert prepared_by(executor, call, call) == 1


def test_many_threads_make_one_plan(executor):
    barrier = threading.Barrier(32)
    multiply = compile_einsum("ij,jk->ik")
    a, b = rng.random((3, 3)), rng.random((3, 3))
    results = []

    def work():
        barrier.wait()
        results.append(multiply(a, b))

    executor.hook = lambda: threading.Event().wait(0.05)
    workers = [threading.Thread(target=work) for _ in range(32)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(executor.prepared) == 1
    assert len(results) == 32
    for result in results:
        np.testing.assert_allclose(result, a @ b)


def test_a_plan_that_fails_is_tried_again(executor):
    total = compile_einsum("i->")

    def fail():
        raise KeyboardInterrupt

    executor.hook = fail
    with pytest.raises(KeyboardInterrupt):
        total(np.ones(3))
    executor.hook = lambda: None
    assert total(np.ones(3)) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_while_a_plan_is_made_makes_its_own(executor):
    total = compile_einsum("i->")
    inside, go_on = threading.Event(), threading.Event()

    def hook():
        inside.set()
        go_on.wait(10)

    executor.hook = hook
    worker = threading.Thread(target=total, args=(np.ones(3),))
    worker.start()
    assert inside.wait(10)
    threading.Timer(0.2, go_on.set).start()  # a fork waits until the plan is made
    child = os.fork()
    if child == 0:
        executor.hook = lambda: None
        os._exit(int(total(np.ones(3))))
    worker.join()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 3


def test_a_later_call_costs_little(executor, monkeypatch):
    """The aim is 5 µs; the bound leaves room for slow machines."""
    monkeypatch.setattr(executor, "prepare", lambda *arguments: lambda operands, out: None)
    multiply = compile_einsum("ij,jk->ik")
    a, b = np.ones((4, 4)), np.ones((4, 4))
    out = multiply(a, b)
    for call in (
        lambda: multiply(a, b),
        lambda: multiply(a, b, out=out),
        lambda: einsum("ij,jk->ik", a, b),
    ):
        assert min(timeit.repeat(call, number=1000, repeat=20)) / 1000 < 25e-6
