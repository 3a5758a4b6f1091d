"""The native entry: what it returns, what it leaves to Python, and that it keeps nothing alive."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from einsumc import compile_einsum, einsum, set_num_threads
from einsumc.runtime import entry
from einsumc.runtime.decorator import CompiledEinsum
from einsumc.runtime.operands import Array
from strategies import Seeded, draw_call, draw_overlapping_call
from sweeps import groups, sweep

from scripts import interrupted

pytestmark = pytest.mark.skipif(not entry._is_supported(), reason="there is no native entry here")

ELEMENTS = ("?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16")
EVERY_RUN = ("?", "u1", "i8", "f2", "f4", "f8", "c16")


@pytest.fixture
def in_python(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The operands of every call that comes to Python."""
    seen: list[Any] = []
    original = CompiledEinsum._call

    def call(self: CompiledEinsum, operands: Any, *rest: Any) -> Any:
        seen.append(operands)
        return original(self, operands, *rest)

    monkeypatch.setattr(CompiledEinsum, "_call", call)
    return seen


def warm(compiled: CompiledEinsum, *operands: Any, **options: Any) -> Any:
    """Call until the native entry knows the layout."""
    compiled(*operands, **options)
    return compiled(*operands, **options)


def twin(array: Array, seed: int) -> Array:
    """Another array of the same dtype, shape and strides."""
    reach = [(n - 1) * step for n, step in zip(array.shape, array.strides, strict=True) if n]
    first = -sum(step for step in reach if step < 0)
    size = first + sum(step for step in reach if step > 0) + array.itemsize
    memory = np.zeros(size + 128, np.uint8)
    wanted = array.__array_interface__["data"][0] - memory.__array_interface__["data"][0]
    offset = first + (wanted - first) % 64
    made: Array = np.ndarray(array.shape, array.dtype, memory, offset, array.strides)
    if 0 not in array.strides:
        values = np.random.default_rng(seed).permutation(array.flatten())
        made[...] = values.reshape(array.shape)
    return made


def copies(arrays: list[Array], seed: int) -> list[Array]:
    made = {id(array): twin(array, seed + n) for n, array in enumerate(arrays)}
    return [made[id(array)] for array in arrays]


def described(result: Any) -> tuple[Any, ...]:
    array = np.asarray(result)
    return type(result), array.dtype, array.shape, array.strides, array.tobytes()


# --- the same as in Python ------------------------------------------------------------------------


def test_it_is_there(in_python: list[Any]) -> None:
    compiled = compile_einsum("ij,jk->ik")
    a, b = np.ones((3, 4)), np.ones((4, 5))
    for _ in range(5):
        compiled(a, b)
    assert len(in_python) == 2
    for _ in range(5):
        einsum("ij,jk->ik", b.T, a.T)
    assert len(in_python) == 4


@pytest.mark.parametrize("group", groups(16, 1))
def test_any_call_gives_the_same(group: int, in_python: list[Any]) -> None:
    native = 0
    for seed in range(25 * group, 25 * (group + 1)):
        call = draw_call(Seeded(seed))
        optimize = call.options.get("optimize", True)
        compiled = compile_einsum(call.equation.text, optimize=optimize)
        try:
            warm(compiled, *call.arrays, out=call.out)
        except TypeError:  # a cast of its random dtypes that is not safe
            continue
        for again in range(2):
            arrays = copies(call.arrays, seed + again)
            outs = [None if call.out is None else twin(call.out, seed) for _ in range(2)]
            if any(a.ctypes.data % a.dtype.alignment for a in arrays):
                arrays = call.arrays
            before = len(in_python)
            result = compiled(*arrays, out=outs[0])
            native += len(in_python) == before
            expected = compiled._call(tuple(arrays), outs[1], None, "K", "safe")
            assert described(result) == described(expected), call
            assert outs[0] is None or result is outs[0], call
    assert native > 12


@pytest.mark.parametrize("group", groups(4, 1))
def test_out_over_operands_gives_the_same(group: int) -> None:
    for seed in range(25 * group, 25 * (group + 1)):
        call = draw_overlapping_call(Seeded(seed))
        compiled = compile_einsum(call.equation.text)
        assert call.memory is not None
        before = call.memory.copy()
        try:
            compiled(*call.arrays, out=call.out)
        except ValueError:  # elements of the drawn out share memory
            continue
        expected = call.memory.copy()
        for _ in range(3):
            call.memory[...] = before
            compiled(*call.arrays, out=call.out)
            assert np.array_equal(call.memory, expected, equal_nan=call.memory.dtype.kind in "fc")


@pytest.mark.parametrize("kind", sweep(ELEMENTS, lambda kind: kind in EVERY_RUN))
def test_every_dtype(kind: str, in_python: list[Any]) -> None:
    a = np.arange(12).reshape(3, 4).astype(kind)
    b = np.arange(20).reshape(4, 5).astype(kind)
    for equation in ("ij,jk->ik", "ij,jk->ki", "ij,jk->"):
        compiled = compile_einsum(equation)
        expected = warm(compiled, a, b)
        in_python.clear()
        assert described(compiled(a, b)) == described(expected)
        assert not in_python


def test_dtypes_that_were_pickled_are_known(in_python: list[Any]) -> None:
    import pickle

    a = pickle.loads(pickle.dumps(np.ones((3, 3))))
    compiled = compile_einsum("ij,jk->ik")
    warm(compiled, np.ones((3, 3)), np.ones((3, 3)))
    in_python.clear()
    assert compiled(a, a.copy()).dtype is np.dtype("f8")
    assert not in_python


def test_one_array_twice_is_not_two_arrays(in_python: list[Any]) -> None:
    compiled = compile_einsum("ni,ni,nj,nj->n")
    rng = np.random.default_rng(0)
    a, b, c, d = (rng.random((5, 6)) for _ in range(4))
    warm(compiled, a, a, b, b)
    in_python.clear()
    assert np.allclose(compiled(c, c, d, d), np.einsum("ni,ni,nj,nj->n", c, c, d, d))
    assert not in_python
    for given in ((a, b, c, d), (a, b, b, a), (a, a, b, c), (a, a, a, a), (a, c, b, b)):
        for _ in range(3):
            assert np.allclose(compiled(*given), np.einsum("ni,ni,nj,nj->n", *given))
    view = a[:]
    assert np.allclose(compiled(a, view, b, b), np.einsum("ni,ni,nj,nj->n", a, a, b, b))


def test_intermediates(in_python: list[Any]) -> None:
    rng = np.random.default_rng(0)
    matrices = [rng.random((4 + n, 5 + n)) for n in range(7)]
    equation = "ab,bc,cd,de,ef,fg,gh->ah"
    compiled = compile_einsum(equation)
    expected = warm(compiled, *matrices)
    in_python.clear()
    assert described(compiled(*matrices)) == described(expected)
    assert np.allclose(expected, np.linalg.multi_dot(matrices))
    assert not in_python


@pytest.mark.parametrize("count", [1, 2, 5])
def test_long_work_on_threads(count: int, in_python: list[Any]) -> None:
    set_num_threads(count)
    try:
        rng = np.random.default_rng(0)
        a, b, c = rng.random((300, 200)), rng.random((200, 250)), rng.random((250, 40))
        compiled = compile_einsum("ij,jk,kl->il")
        expected = warm(compiled, a, b, c)
        in_python.clear()
        assert described(compiled(a, b, c)) == described(expected)
        assert not in_python
        assert np.allclose(expected, a @ b @ c)
    finally:
        set_num_threads(None)


def test_many_layouts(in_python: list[Any]) -> None:
    compiled = compile_einsum("i,i->")
    vectors = [np.arange(n, dtype="f8") for n in range(1, 60)]
    for _ in range(3):
        assert [compiled(v, v.copy()) for v in vectors] == [v @ v for v in vectors]
    assert len(in_python) == 2 * len(vectors)


def test_the_number_of_threads_is_part_of_a_plan(in_python: list[Any]) -> None:
    compiled = compile_einsum("i,i->")
    v = np.ones(5)
    try:
        for count in (1, 2, None):
            set_num_threads(count)
            in_python.clear()
            assert [compiled(v, v) for _ in range(4)] == [5.0] * 4
            assert len(in_python) == 2
    finally:
        set_num_threads(None)


# --- what is left to Python -----------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_unusual_arguments_go_to_python(in_python: list[Any]) -> None:
    compiled = compile_einsum("ij,jk->ik")
    a, b = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4)
    expected = warm(compiled, a, b)
    warm(compiled, a, b, out=np.empty((2, 4)))
    unusual: list[tuple[Any, Any, dict[str, Any]]] = [
        (a.tolist(), b, {}),
        (a, b.tolist(), {}),
        (np.asmatrix(a), b, {}),
        (a, np.ma.array(b), {}),
        (a.astype("f4"), b, {}),
        (a, b, {"dtype": "c16"}),
        (a, b.astype(">f8"), {}),
        (a, b, {"order": "F"}),
        (a, b, {"casting": "no"}),
        (a, b, {"out": np.empty((2, 4), "f4"), "casting": "same_kind"}),
        (a, b, {"out": np.empty((2, 4), "c16")}),
        (a, b, {"out": np.asmatrix(np.empty((2, 4)))}),
    ]
    for first, second, options in unusual:
        in_python.clear()
        assert np.array_equal(compiled(first, second, **options), expected)
        assert len(in_python) == 1
    in_python.clear()
    assert np.array_equal(compiled(a, b, out=None), expected)
    assert np.array_equal(compiled(a, b, **{"".join(["o", "ut"]): None}), expected)


def test_what_is_wrong_is_told(in_python: list[Any]) -> None:
    compiled = compile_einsum("ij,jk->ik")
    a, b, out = np.ones((2, 3)), np.ones((3, 4)), np.empty((2, 4))
    warm(compiled, a, b, out=out)
    frozen = out.copy()
    frozen.flags.writeable = False
    wrong: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((), {}, "operand"),
        ((a,), {}, "operand"),
        ((a, b, b), {}, "operand"),
        ((a, a), {}, "size"),
        ((a, b), {"out": frozen}, "read-only"),
        ((a, b), {"out": np.empty((4, 2))}, "shape"),
        ((a, b), {"out": [1]}, "array"),
        ((a, b), {"output": out}, "output"),
        ((a, np.array(["x"])), {}, "."),
        ((np.ones(3), np.ones(3)), {}, "axes|dimension|axis"),
    ]
    for operands, options, message in wrong:
        with pytest.raises((TypeError, ValueError), match=message):
            compiled(*operands, **options)


def test_operands_by_name() -> None:
    @compile_einsum("ij,jk->ik")
    def product(left: Any, right: Any) -> Any:
        "A product."

    a, b = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4)
    for _ in range(4):
        assert np.array_equal(product(a, right=b), a @ b)
        assert np.array_equal(product(right=b, left=a), a @ b)
        assert np.array_equal(product(a, b), a @ b)
    assert product.__doc__ == "A product."


def test_the_method_describes_itself() -> None:
    import inspect

    warm(compile_einsum("i,i->"), np.ones(3), np.ones(3))
    assert [*inspect.signature(CompiledEinsum.__call__).parameters] == [
        "self", "operands", "out", "dtype", "order", "casting", "named",
    ]  # fmt: skip
    assert "Compute" in str(CompiledEinsum.__call__.__doc__)
    with pytest.raises(TypeError, match="CompiledEinsum"):
        CompiledEinsum.__call__(3)  # type: ignore[call-overload]


def test_subclasses_may_extend_the_method() -> None:
    class Doubled(CompiledEinsum):
        def __call__(self, *operands: Any, **options: Any) -> Any:  # type: ignore[override]
            return 2 * super().__call__(*operands, **options)

    plain = compile_einsum("i,i->")
    doubled = Doubled(plain._subscripts)
    v = np.arange(4.0)
    assert [doubled(v, v) for _ in range(4)] == [28.0] * 4
    assert [plain(v, v) for _ in range(4)] == [14.0] * 4


# --- memory ---------------------------------------------------------------------------------------


def test_references_are_given_back() -> None:
    a, b, out = np.ones((4, 4)), np.ones((4, 4)), np.empty((4, 4))
    compiled, dot = compile_einsum("ij,jk->ik"), compile_einsum("ij,ij->")
    counted = (a, b, out, compiled, dot, np.dtype("f8"), np.ndarray, None)

    def run(times: int) -> None:
        for _ in range(times):
            compiled(a, b)
            compiled(a, b, out=out)
            dot(a, b)
            compiled(a, [[1.0] * 4] * 4)
            with pytest.raises(ValueError, match="size"):
                compiled(a, b[1:])

    run(5)
    gc.collect()  # what earlier tests left behind
    before = [sys.getrefcount(item) for item in counted]
    run(200)
    after = [sys.getrefcount(item) for item in counted]
    assert all(abs(x - y) < 100 for x, y in zip(before, after, strict=True)), (before, after)


def test_memory_does_not_grow() -> None:
    a, b = np.ones((4, 4)), np.ones((4, 4))
    compiled, dot = compile_einsum("ij,jk->ik"), compile_einsum("ij,ij->")
    for _ in range(10):
        compiled(a, b), dot(a, b)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(100_000):
            compiled(a, b)
            dot(a, b)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
    finally:
        tracemalloc.stop()


def test_objects_die() -> None:
    a = np.ones((4, 4))
    gc.disable()
    try:
        compiled = compile_einsum("ij,jk->ik")
        warm(compiled, a, a)
        result = compiled(a, a)
        plans = compiled._native_plans[1]
        assert isinstance(plans, bytes)
        seen = [weakref.ref(compiled), weakref.ref(result)]
        del compiled, result
        assert [reference() for reference in seen] == [None, None]
        assert sys.getrefcount(plans) <= 2
    finally:
        gc.enable()


def test_a_block_is_kept_and_grows() -> None:
    chain = compile_einsum("ab,bc,cd->ad")
    for size in (4, 40, 160, 10, 200):
        x = np.random.default_rng(size).random((size, size))
        for _ in range(3):
            assert np.allclose(chain(x, x.T, x), x @ x.T @ x)


# --- threads, signals, processes ------------------------------------------------------------------


def test_calls_while_plans_are_made_and_thrown_away() -> None:
    compiled, problems = compile_einsum("ij,jk->ik"), []
    end = time.monotonic() + 2

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            while time.monotonic() < end:
                n, m, k = rng.integers(1, 9, 3)
                a, b = rng.random((n, m)), rng.random((m, k))
                for _ in range(3):
                    assert np.allclose(compiled(a, b), a @ b)
        except BaseException as problem:
            problems.append(problem)

    def disturb() -> None:
        while time.monotonic() < end:
            set_num_threads(1)
            time.sleep(0.01)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    threads.append(threading.Thread(target=disturb))
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        set_num_threads(None)
    assert not problems


def test_long_calls_at_once() -> None:
    compiled, problems = compile_einsum("ij,jk->ik"), []
    rng = np.random.default_rng(0)
    a, b = rng.random((200, 300)), rng.random((300, 250))
    expected = warm(compiled, a, b).tobytes()

    def work() -> None:
        for _ in range(20):
            if compiled(a, b).tobytes() != expected:
                problems.append("other bits")

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems


Script = Callable[[str], str]

PRELUDE = """
import os, signal, sys, threading, time
import numpy as np
from einsumc import compile_einsum, set_num_threads
from einsumc.runtime import entry
from einsumc.runtime.decorator import CompiledEinsum
in_python = []
original = CompiledEinsum._call
def call(self, operands, *rest):
    in_python.append(operands)
    return original(self, operands, *rest)
CompiledEinsum._call = call
"""


@pytest.fixture
def script() -> Script:
    """Runs a script in a process of its own."""

    def run(text: str, **variables: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", PRELUDE + text],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | variables,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


@pytest.mark.parametrize("count", [1, 2])
def test_ctrl_c(script: Script, count: int) -> None:
    run = interrupted("for _ in range(100): compiled(a, a)")
    printed = script(f"""
set_num_threads({count})
compiled = compile_einsum("ij,jk->ik")
a = np.ones((2800, 2800))
small = np.ones((8, 8))
for _ in range(3): compiled(small, small)
# The plan is made and handed over without running it.
from einsumc.runtime import execute
run = execute.Execution.__call__
execute.Execution.__call__ = lambda self, operands, out: None
compiled(a, a), compiled(a, a)
execute.Execution.__call__ = run
in_python.clear()
assert len(compiled._native_plans[0]) == 2, len(compiled._native_plans[0])
{run}
assert not in_python, len(in_python)
assert compiled(small, small)[0, 0] == 8
""")
    assert float(printed) < 5, "hang guard; 0.06 s is usual"


@pytest.mark.parametrize(
    ("equation", "shape"), [("ij,jk->ik", (4000, 4000)), ("ki,kj->ij", (1_000_000, 300))]
)
def test_ctrl_c_within_a_long_product(
    script: Script, equation: str, shape: tuple[int, int]
) -> None:
    """Of one call of seconds: the signal is seen between tasks, whichever loop is the long one."""
    printed = script(f"""
set_num_threads(1)
compiled = compile_einsum({equation!r})
a = np.broadcast_to(np.ones((1, 1)), {shape})
once, twice = compiled(a[:80, :80], a[:80, :80]), compiled(a[:80, :80], a[:80, :80])
{interrupted("compiled(a, a)")}
again = compiled(a[:80, :80], a[:80, :80])
assert (once == 80).all() and (again == 80).all()
""")
    assert float(printed) < 2, "0.1 s is usual"


def test_other_threads_run_meanwhile(script: Script) -> None:
    script("""
compiled = compile_einsum("ij,jk->ik")
a = np.ones((1500, 1500))
compiled(a, a), compiled(a, a)
in_python.clear()
ticks = []
running = True
def tick():
    while running:
        ticks.append(time.monotonic())
        time.sleep(0.001)
thread = threading.Thread(target=tick)
thread.start()
compiled(a, a)
running = False
thread.join()
assert len(ticks) > 5 and not in_python
""")


def test_fork(script: Script) -> None:
    script("""
compiled = compile_einsum("ij,jk->ik")
small, large = np.ones((8, 8)), np.ones((400, 400))
for _ in range(3):
    compiled(small, small), compiled(large, large)
in_python.clear()
for _ in range(5):
    child = os.fork()
    for _ in range(20):
        assert compiled(small, small)[0, 0] == 8 and compiled(large, large)[0, 0] == 400
    assert not in_python
    if not child:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
""")


def test_a_signal_handler_may_call(script: Script) -> None:
    script("""
compiled = compile_einsum("ij,jk->ik")
a, small = np.ones((900, 900)), np.ones((300, 300))
for _ in range(3): compiled(a, a), compiled(small, small)
calls = []
def handler(*_):
    calls.append(compiled(small, small)[0, 0])
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
for _ in range(20):
    assert (compiled(a, a) == 900).all()
signal.setitimer(signal.ITIMER_REAL, 0)
assert calls and set(calls) == {300.0}
""")


def test_exceptions_of_handlers_come_through(script: Script) -> None:
    script("""
compiled = compile_einsum("ij,jk->ik")
a = np.ones((1200, 1200))
for _ in range(2): compiled(a, a)
def handler(*_):
    raise LookupError("from the handler")
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.05)
try:
    for _ in range(1000):
        compiled(a, a)
except LookupError:
    pass
assert (compiled(a, a) == 1200).all()
""")


WORKS_IN_PYTHON = """
compiled = compile_einsum("ij,jk->ik")
a = np.ones((3, 3))
for _ in range(5):
    assert (compiled(a, a) == 3).all()
assert len(in_python) == 5, in_python
"""


def test_without_the_stored_code_calls_go_through_python(script: Script, tmp_path: Any) -> None:
    store = {"EINSUMC_CACHE_DIR": str(tmp_path / "store")}
    script("compile_einsum('ij,jk->ik')(np.ones((3, 3)), np.ones((3, 3)))", **store)
    script(WORKS_IN_PYTHON, EINSUMC_COMPILE="never", **store)


@pytest.mark.parametrize(
    "fault",
    [
        "entry._is_supported = lambda: False",
        "entry._objects_are_as_expected = lambda: False",
        "entry._slot_offset = lambda *_: None",
        "entry._provided = lambda state: {}",
        "from einsumc.runtime import kernels; kernels.entry_image = lambda provided: None",
    ],
)
def test_where_it_cannot_be_calls_go_through_python(script: Script, fault: str) -> None:
    script(fault + "\n" + WORKS_IN_PYTHON)


def test_damaged_code_is_replaced(script: Script, tmp_path: Any) -> None:
    store = {"EINSUMC_CACHE_DIR": str(tmp_path / "store")}
    works = WORKS_IN_PYTHON.replace("== 5, in", "== 2, in")
    script(works, **store)
    from einsumc.runtime.kernels import entry_fields

    key = entry_fields().key()
    path = tmp_path / "store" / key[:2] / f"{key}.kernel"
    blob = bytearray(path.read_bytes())
    blob[-500] ^= 1
    path.chmod(0o644)
    path.write_bytes(blob)
    script(works, **store)
    script(works.replace("== 2, in", "in (2, 5), in"), EINSUMC_COMPILE="never", **store)


def test_no_compiler_is_imported(script: Script, tmp_path: Any) -> None:
    works = WORKS_IN_PYTHON.replace("== 5, in", "== 2, in")
    store = {"EINSUMC_CACHE_DIR": str(tmp_path / "store")}
    script(works, **store)
    script(works + "assert not {'llvmlite', 'numba'} & set(sys.modules)", **store)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="POSIX")
def test_exit_while_a_daemon_thread_computes(script: Script) -> None:
    script("""
compiled = compile_einsum("ij,jk->ik")
a = np.ones((700, 700))
for _ in range(2): compiled(a, a)
def work():
    while True:
        compiled(a, a)
threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
""")
