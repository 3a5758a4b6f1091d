"""The layout of new results is NumPy's, and those that do not fit are refused."""

import resource
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
from einsumc.compiler.resolve import resolve
from einsumc.compiler.subscripts import parse
from einsumc.runtime import memory
from einsumc.runtime.memory import allocate, available_memory, check_fits, memory_order
from einsumc.runtime.operands import KERNEL_DTYPES
from strategies import Seeded, draw_call


def resolved(text, *arrays):
    return resolve(parse(text), [array.shape for array in arrays])


def test_order_k_is_numpys():
    seen = 0
    for seed in range(1500):
        call = draw_call(Seeded(seed))
        arrays = call.arrays
        if call.equation.repeats or np.result_type(*arrays) not in KERNEL_DTYPES:
            continue
        expected = np.einsum(call.equation.text, *arrays)
        if expected.ndim < 2 or not expected.size or np.shares_memory(expected, arrays[0]):
            continue
        expression = resolved(call.equation.text, *arrays)
        axes = memory_order(expression, arrays, "K")
        made = allocate(expected.shape, expected.dtype, axes)()
        long = np.array(expected.shape) > 1
        assert np.array_equal(np.array(made.strides)[long], np.array(expected.strides)[long]), call
        seen += 1
    assert seen > 300


@pytest.mark.parametrize("order", "CFA")
@pytest.mark.parametrize("layouts", [*product("CF", repeat=2)])
def test_other_orders_are_numpys(order, layouts):
    a, b = (np.ones((2, 3), order=layout) for layout in layouts)
    for equation in ("ij,kj->ik", "ij,kj->kij", "ij,ij->ji"):
        expected = np.einsum(equation, a, b, order=order)
        axes = memory_order(resolved(equation, a, b), [a, b], order)
        assert allocate(expected.shape, expected.dtype, axes)().strides == expected.strides


def test_allocate_makes_any_order():
    for axes in ((0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)):
        made = allocate((2, 3, 4), np.dtype("f4"), axes)()
        assert made.shape == (2, 3, 4)
        assert made.transpose(axes).flags.c_contiguous
    assert allocate((2, 3), np.dtype("i1"))().flags.c_contiguous
    assert allocate((), np.dtype("i1"), ())().shape == ()


def test_a_result_that_cannot_be_addressed_is_refused():
    with pytest.raises(MemoryError, match=r"shape \(10000000000, 10000000000\) of float64.*cannot"):
        allocate((10**10, 10**10), np.dtype("f8"))()


def test_a_result_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 3 << 30)
    with pytest.raises(MemoryError) as caught:
        allocate((1 << 15, 1 << 15), np.dtype("f4"), (1, 0))()
    assert str(caught.value) == (
        "the result, shape (32768, 32768) of float32, 4.0 GiB, does not fit: 3.0 GiB are available"
    )
    check_fits((1 << 14, 1 << 14), np.dtype("f4"))
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    check_fits((1 << 15, 1 << 15), np.dtype("f4"))


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc are Linux's")
def test_a_limit_of_the_process_counts():
    script = (
        "import resource, numpy as np\n"
        "from einsumc.runtime.memory import allocate, available_memory\n"
        "resource.setrlimit(resource.RLIMIT_AS, (4 << 30, resource.RLIM_INFINITY))\n"
        "assert available_memory() < 4 << 30\n"
        "try:\n"
        "    allocate((1 << 15, 1 << 14), np.dtype('f8'))()\n"
        "except MemoryError as error:\n"
        "    print(error)\n"
    )
    environment = {"PYTHONPATH": ":".join(sys.path), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True
    )
    assert "the result, shape (32768, 16384) of float64, 4.0 GiB, does not fit" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_available_memory_is_plausible():
    there = available_memory()
    assert there is not None
    assert 0 < there < 1 << 50
    assert resource.getrlimit(resource.RLIMIT_AS)[0] in (resource.RLIM_INFINITY, -1) or there
