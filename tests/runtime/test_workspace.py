"""Intermediates: one workspace a call, kept by its thread, never shared and never the result's."""

import ctypes
import resource
import signal
import subprocess
import sys
import threading
import time

import einsumc
import numpy as np
import pytest
from einsumc.runtime import workspaces
from einsumc.runtime.buffers import KEEP_BYTES, Kept
from einsumc.runtime.decorator import compile_einsum
from sweeps import every

rng = np.random.default_rng(0)
PATH = [(0, 1), (0, 3), (0, 2), (0, 1)]
chain = compile_einsum("ij,jk,kl,lm,mn->in", optimize=PATH)


def matrices(seed: int, n: int = 40) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).random((5, n, n)))


def expected(operands):
    a, b, c, d, e = operands
    return a @ b @ c @ d @ e


def test_intermediates_share_memory():
    plan = chain.explain(*matrices(0))
    assert plan.temporary_bytes == 3 * 40 * 40 * 8
    assert plan.peak_memory == 2 * 40 * 40 * 8
    assert f"{2 * 40 * 40 * 8 / 1024:.1f} KiB at the peak" in plan.stage("tree")
    assert plan.scratch_bytes == max(step.scratch_bytes for step in plan.steps)


def test_the_result_is_not_in_the_workspace():
    operands = matrices(1)
    results = [chain(*operands) for _ in range(4)]
    kept = workspaces.kept.buffer
    assert kept.size >= chain.explain(*operands).peak_memory
    for result in results:
        begin = result.ctypes.data
        assert begin + result.nbytes <= kept.address or kept.address + kept.size <= begin
    before = [result.copy() for result in results]
    chain(*matrices(2))
    for result, copy in zip(results, before, strict=True):
        np.testing.assert_array_equal(result, copy)
        np.testing.assert_allclose(result, expected(operands))


def test_what_lies_in_the_workspace_does_not_matter():
    operands = matrices(3)
    first = chain(*operands)
    for byte in (0xFF, 0x7F):
        kept = workspaces.kept.buffer
        ctypes.memset(kept.address, byte, kept.size)
        np.testing.assert_array_equal(chain(*operands), first)


def test_many_threads_at_once():
    operands = [matrices(seed) for seed in range(8)]
    wanted = [expected(each) for each in operands]
    chain(*operands[0])
    wrong = []

    def work(number):
        for _ in range(100):
            if not np.allclose(chain(*operands[number]), wanted[number]):
                wrong.append(number)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no interval timers")
@pytest.mark.parametrize("limit", [None, 5000])
def test_a_signal_handler_may_compute_too(limit):
    """It interrupts between the steps, when the workspace is in use."""
    compiled = compile_einsum("ij,jk,kl,lm,mn->in", optimize=PATH, memory_limit=limit)
    ours, theirs = matrices(4), matrices(5)
    wanted = expected(ours), expected(theirs)
    compiled(*ours)
    wrong, handled = [], []

    def handler(*_):
        handled.append(1)
        if not np.allclose(compiled(*theirs), wanted[1]):
            wrong.append("the handler's")

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
        end = time.monotonic() + 1
        while time.monotonic() < end:
            if not np.allclose(compiled(*ours), wanted[0]):
                wrong.append("ours")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(handled) > 20
    assert not wrong


def test_a_buffer_in_use_is_given_to_nobody_else():
    kept = Kept("tests")
    first = kept.take(1000)
    second = kept.take(1000)
    assert first.address != second.address
    kept.give_back(first)
    assert kept.take(500).address == first.address
    kept.give_back(first)
    huge = kept.take(KEEP_BYTES + 1)
    kept.give_back(huge)
    assert kept.buffer.size < KEEP_BYTES
    with pytest.raises(MemoryError, match="bytes of tests"):
        kept.take(1 << 60)


def test_later_calls_do_not_fault_pages_in_anew():
    n = 1024
    operands = [rng.random((n, 4)), rng.random((4, n)), rng.random((n, 4))]
    compiled = compile_einsum("ij,jk,kl->il", optimize=[(0, 1), (0, 1)])
    out = compiled(*operands)
    pages = n * n * 8 // 4096
    assert compiled.explain(*operands).peak_memory == n * n * 8
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        compiled(*operands, out=out)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < pages


def test_too_large_a_workspace_is_a_memory_error(monkeypatch):
    monkeypatch.setattr(workspaces, "available_memory", lambda: 100 << 20)
    n = 4096
    operands = [rng.random((n, 2)), rng.random((2, n)), rng.random((n, 2))]
    compiled = compile_einsum("ij,jk,kl->il", optimize=[(0, 1), (0, 1)])
    with pytest.raises(MemoryError, match=r"134,\d+,\d+ bytes.*memory_limit="):
        compiled(*operands)


INTERRUPT = """
import os, signal, threading, time
import einsumc
import numpy as np
from einsumc import compile_einsum

{setup}
compiled(*operands)  # planned and compiled
begin = time.perf_counter()
compiled(*operands)
whole = time.perf_counter() - begin
pressed = []
def press():
    pressed.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)
threading.Timer(0.3 * whole, press).start()
try:
    compiled(*operands)
    print("it went on")
except KeyboardInterrupt:
    late = time.perf_counter() - pressed[0]
    print("in time" if late < 0.1 + 0.2 * whole else f"{{late:.2f}} s late")
small = [x[:2, :2] for x in operands]
assert np.allclose(compiled(*small), np.linalg.multi_dot(small))
"""

NETWORK = """
names = [chr(0x4E00 + n) for n in range(202)]
text = ",".join(map("".join, zip(names, names[1:]))) + "->" + names[0] + names[-1]
path = [(0, 1), *((0, left) for left in range(199, 0, -1))]
compiled = compile_einsum(text, optimize=path)
operands = list(np.random.default_rng(0).random((201, 400, 400)) / 200)
"""

SLICES = """
compiled = compile_einsum("ij,jk,kl->il", optimize=[(0, 1), (0, 1)], memory_limit="256 KiB")
operands = list(np.random.default_rng(0).random((3, 2000, 2000)))
assert compiled.explain(*operands).slices
"""


@pytest.mark.parametrize("setup", every(2, [NETWORK, SLICES]), ids=["network", "slices"])
def test_ctrl_c_between_steps(setup):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPT.format(setup=setup)],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.stdout == "in time\n", (done.stdout, done.stderr)


def test_what_an_epilogue_reads_lives_until_then():
    """Here a sum of products is multiplied with intermediates before it is summed further."""
    rng = np.random.default_rng(3)
    v, m = rng.random(100), rng.random((100, 100))
    operands = (v, v, v, v, m, m, m, m, m, m)
    equation = "a,b,c,d,ab,ac,ad,bc,bd,cd->"
    expected = np.einsum(equation, *operands, optimize=True)
    np.testing.assert_allclose(einsumc.einsum(equation, *operands), expected, rtol=1e-12)
