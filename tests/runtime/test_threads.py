"""Every tile runs exactly once, whatever happens: callers at once, forks, signals, exits.

The kernels are a few lines of LLVM IR. Tests that fork, kill or exit do so in a script of their
own, which gets the kernels as images: such a process has no compiler, as in production.
"""

import ctypes
import faulthandler
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import llvmlite.binding as llvm
import pytest
from einsumc.compiler import chain as chain_source
from einsumc.compiler import pool as pool_source
from einsumc.compiler.assemble import assemble
from einsumc.compiler.image import Image, link
from einsumc.runtime import settings, threads
from einsumc.runtime.load import LoadedImage, load
from einsumc.runtime.target import architecture

from scripts import interrupted

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or architecture() != "x86_64", reason="images hold x86-64 code"
)

# `count` adds one to counts[tile], after a number of cycles that stands for work. Meanwhile the
# tile's number lies in the scratch: another one there afterwards means that two threads shared it.
# args: counts, cycles for each tile, how often the scratch was spoilt, thread of each tile,
# rounding and denormal mode of each tile.
IR = """
target triple = "x86_64-unknown-linux-gnu"
declare i64 @llvm.readcyclecounter()
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
declare i64 @syscall(i64, ...)

define void @count(ptr %args, i64 %begin, i64 %end, ptr %scratch) {
entry:
  %counts = load ptr, ptr %args
  %a1 = getelementptr i64, ptr %args, i64 1
  %cycles = load i64, ptr %a1
  %spoilt = getelementptr i64, ptr %args, i64 2
  %a3 = getelementptr i64, ptr %args, i64 3
  %owners = load ptr, ptr %a3
  %a4 = getelementptr i64, ptr %args, i64 4
  %modes = load ptr, ptr %a4
  %observed = icmp ne ptr %owners, null
  %own = alloca i64
  %has_scratch = icmp ne ptr %scratch, null
  %slot = select i1 %has_scratch, ptr %scratch, ptr %own
  br label %tile
tile:
  %i = phi i64 [ %begin, %entry ], [ %i1, %done ]
  store volatile i64 %i, ptr %slot
  %start = call i64 @llvm.readcyclecounter()
  br label %work
work:
  %now = call i64 @llvm.readcyclecounter()
  %passed = sub i64 %now, %start
  %busy = icmp ult i64 %passed, %cycles
  br i1 %busy, label %work, label %check
check:
  %still = load volatile i64, ptr %slot
  %other = icmp ne i64 %still, %i
  %wrong = zext i1 %other to i64
  %w = atomicrmw add ptr %spoilt, i64 %wrong seq_cst
  %p = getelementptr i64, ptr %counts, i64 %i
  %c = atomicrmw add ptr %p, i64 1 seq_cst
  br i1 %observed, label %observe, label %done
observe:
  %thread = call i64 (i64, ...) @syscall(i64 186)
  %q = getelementptr i64, ptr %owners, i64 %i
  store i64 %thread, ptr %q
  %m = getelementptr i64, ptr %modes, i64 %i
  call void @llvm.x86.sse.stmxcsr(ptr %m)
  br label %done
done:
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, %end
  br i1 %more, label %tile, label %out
out:
  ret void
}

define void @set_mode(ptr %args, i64 %begin, i64 %end, ptr %scratch) {
  call void @llvm.x86.sse.ldmxcsr(ptr %args)
  ret void
}
"""

# What the scripts start with.
PRELUDE = """
import ctypes, faulthandler, json, os, random, signal, sys, threading, time
from einsumc.runtime import threads
from einsumc.runtime.load import load
faulthandler.dump_traceback_later(25, exit=True)

def provide(path=sys.argv[1]):
    with open(path) as file:
        images = json.load(file)
    for image in images.values():
        image["code"] = bytes.fromhex(image["code"])
    threads.provide(lambda: load(**images["pool"]))
    return load(**images["kernels"]).entries

class Job:
    def __init__(self, tiles, cycles=0):
        self.counts = (ctypes.c_int64 * tiles)()
        self.args = (ctypes.c_int64 * 8)(ctypes.addressof(self.counts), cycles)
        self.tiles = tiles
    def run(self, scratch=64):
        threads.run(KERNELS["count"], ctypes.addressof(self.args), self.tiles, scratch)
    def check(self, times=1):
        assert list(self.counts) == [times] * self.tiles, "a tile ran twice or never"
        assert self.args[2] == 0, "threads shared scratch"

def work(rounds=50, tiles=20, cycles=5000):
    job = Job(tiles, cycles)
    for _ in range(rounds):
        job.run()
    job.check(rounds)

def in_child(action, fork=os.fork):
    child = fork()
    if child == 0:
        try:
            action()
            assert len(os.listdir("/proc/self/task")) == 3, "no workers in the child"
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child

def finished(child):
    for _ in range(2000):
        process, status = os.waitpid(child, os.WNOHANG)
        if process:
            assert status == 0, f"the child failed: {status}"
            return
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    raise SystemExit("the child hangs")

KERNELS = provide()
threads.set_num_threads(3)
"""


def compiled(ir: str) -> Image:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple("x86_64-unknown-linux-gnu").create_target_machine(
        cpu="x86-64", opt=2, reloc="pic", codemodel="default"
    )
    return link(machine.emit_object(llvm.parse_assembly(ir)))


@pytest.fixture(scope="session")
def images() -> dict[str, Image]:
    return {"pool": link(assemble(chain_source.IR)), "kernels": compiled(IR)}


@pytest.fixture(scope="session")
def kernels(images: dict[str, Image]) -> dict[str, int]:
    loaded = load(images["kernels"].code, **images["kernels"].header())  # type: ignore[arg-type]
    return loaded.entries


@pytest.fixture(scope="session")
def native(images: dict[str, Image]) -> LoadedImage:
    return load(images["pool"].code, **images["pool"].header())  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def own_pool(monkeypatch: pytest.MonkeyPatch, native: LoadedImage) -> Iterator[None]:
    """A pool of this file's own, four threads, and everything as before afterwards."""
    for name in ("_pool", "_source", "_chosen"):
        monkeypatch.setattr(threads, name, getattr(threads, name))
    monkeypatch.delenv("EINSUMC_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "_pool", _pools.get("native"))
    if "native" not in _pools:
        threads.install_pool(native)
        _pools["native"] = threads.pool()
    threads.set_num_threads(4)
    faulthandler.dump_traceback_later(120, exit=True, file=sys.__stderr__)  # a hang is a failure
    yield
    faulthandler.cancel_dump_traceback_later()


_pools: dict[str, threads.Pool | None] = {}  # one for all tests: workers are never ended


class Job:
    """A kernel's arguments, and what it did."""

    def __init__(self, kernel: int, tiles: int, cycles: int = 0, *, observe: bool = False) -> None:
        self.kernel, self.tiles = kernel, tiles
        self.counts, self.owners, self.modes = ((ctypes.c_int64 * tiles)() for _ in range(3))
        addresses = [ctypes.addressof(x) for x in (self.owners, self.modes)] if observe else []
        self.args = (ctypes.c_int64 * 8)(ctypes.addressof(self.counts), cycles, 0, *addresses)

    @property
    def address(self) -> int:
        return ctypes.addressof(self.args)

    def run(self, scratch: int = 64, most: int | None = None) -> None:
        threads.run(self.kernel, self.address, self.tiles, scratch, most=most)

    def check(self, times: int = 1) -> None:
        assert list(self.counts) == [times] * self.tiles, "a tile ran twice or never"
        assert self.args[2] == 0, "threads shared scratch"


@pytest.fixture
def new_job(kernels: dict[str, int]) -> Callable[..., Job]:
    return lambda *args, **options: Job(kernels["count"], *args, **options)


@pytest.fixture
def script(images: dict[str, Image], tmp_path: Path) -> Callable[..., str]:
    """Run a script in a process without a compiler; return what it printed."""
    stored = tmp_path / "images.json"
    stored.write_text(
        json.dumps({name: {"code": x.code.hex(), **x.header()} for name, x in images.items()})
    )

    def run(body: str) -> str:
        path = tmp_path / "script.py"
        path.write_text(PRELUDE + body)
        done = subprocess.run(
            [sys.executable, path, stored], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
        return done.stdout

    return run


# Each tile once


@pytest.mark.parametrize("tiles", [0, 1, 2, 3, 7, 64, 1000, 5000])
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("scratch", [0, 8, 5000])
def test_every_tile_runs_once(
    new_job: Callable[..., Job], tiles: int, count: int, scratch: int
) -> None:
    threads.set_num_threads(count)
    job = new_job(tiles, 300)
    job.run(scratch)
    job.check()


def test_no_wake_up_is_lost(new_job: Callable[..., Job]) -> None:
    threads.set_num_threads(2)
    job = new_job(3)
    for _ in range(20_000):
        job.run()
    job.check(20_000)


def test_workers_that_fell_asleep_come_back(new_job: Callable[..., Job]) -> None:
    job = new_job(5, 20_000)
    pauses = random.Random(1)
    for _ in range(300):
        time.sleep(pauses.choice([0, 0.00003, 0.0001, 0.002]))  # before, while and after they doze
        job.run()
    job.check(300)


def test_more_threads_than_processors(new_job: Callable[..., Job]) -> None:
    threads.set_num_threads(8 * (os.cpu_count() or 1))
    job = new_job(100, 3000)
    for _ in range(300):
        job.run()
    job.check(300)


def test_the_number_of_threads_may_change_any_time(new_job: Callable[..., Job]) -> None:
    job = new_job(23, 1000)
    counts = random.Random(2)
    for _ in range(1000):
        threads.set_num_threads(counts.randint(1, 9))
        job.run()
    job.check(1000)


def test_work_is_shared(new_job: Callable[..., Job]) -> None:
    job = new_job(60, 2_000_000, observe=True)
    job.run()
    job.check()
    assert threading.get_native_id() in set(job.owners)
    assert len(set(job.owners)) > 1


def test_no_more_threads_than_asked_for(
    new_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_SLICE_NS", 0)  # the next slice may have other workers
    new_job(20, 100_000).run()  # four threads exist
    threads.set_num_threads(2)
    for _ in range(20):
        job = new_job(40, 50_000, observe=True)
        job.run()
        assert len(set(job.owners)) <= 2


@pytest.mark.parametrize("most", [0, 1])
def test_little_work_stays_here(new_job: Callable[..., Job], most: int) -> None:
    job = new_job(50, 20_000, observe=True)
    job.run(most=most)
    job.check()
    assert set(job.owners) == {threading.get_native_id()}


def test_much_work_is_shared_as_ever(new_job: Callable[..., Job]) -> None:
    job = new_job(60, 2_000_000, observe=True)
    job.run(most=1000)
    assert len(set(job.owners)) > 1


def test_callers_at_once(new_job: Callable[..., Job]) -> None:
    jobs = [new_job(30, 2000) for _ in range(64)]
    failures: list[BaseException] = []

    def call(job: Job) -> None:
        try:
            start.wait()
            for _ in range(30):
                job.run(4096)
        except BaseException as failure:
            failures.append(failure)

    start = threading.Barrier(64)
    callers = [threading.Thread(target=call, args=(job,)) for job in jobs]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
        assert not caller.is_alive(), "a caller hangs"
    assert not failures
    for job in jobs:
        job.check(30)


@pytest.mark.parametrize("mode", [0x1F80, 0x9FC0, 0x7F80])  # default; no denormals; toward zero
def test_workers_round_as_the_caller_does(
    new_job: Callable[..., Job], kernels: dict[str, int], mode: int
) -> None:
    """Or the bits would depend on who ran a tile."""
    job = new_job(60, 1_000_000, observe=True)
    wanted, default = (ctypes.c_uint32 * 1)(mode), (ctypes.c_uint32 * 1)(0x1F80)
    try:
        threads.run(kernels["set_mode"], ctypes.addressof(wanted), 1)
        job.run()
    finally:
        threads.run(kernels["set_mode"], ctypes.addressof(default), 1)
    assert {seen & 0xFFC0 for seen in job.modes} == {mode & 0xFFC0}
    assert len(set(job.owners)) > 1


@pytest.mark.parametrize("count", [1, 4])
def test_a_deadline_leaves_whole_tiles(new_job: Callable[..., Job], count: int) -> None:
    native = threads.pool()
    assert native is not None
    job = new_job(1000, 200_000)
    done, slices = 0, 0
    while done < 1000:
        scratch = (ctypes.c_int64 * count)()
        before, done = done, native.call(
            native.state, job.kernel, job.address, done, 1000, count, ctypes.addressof(scratch), 8,
            1_000_000, 0,
        )  # fmt: skip
        assert before < done <= 1000
        assert list(job.counts) == [1] * done + [0] * (1000 - done)
        slices += 1
    assert slices > 1
    job.check()


# Scratch


def test_scratch_is_kept_and_large_scratch_is_not(new_job: Callable[..., Job]) -> None:
    new_job(8).run(1 << 20)
    kept = threads._kept.buffer.address
    new_job(8).run(1 << 19)
    assert threads._kept.buffer.address == kept
    new_job(8).run(32 << 20)
    assert threads._kept.buffer.address == kept
    assert kept % 4096 == 0


def test_too_much_scratch_is_a_memory_error(new_job: Callable[..., Job]) -> None:
    for size in (2**60, 2**62):
        with pytest.raises(MemoryError, match="bytes of scratch"):
            new_job(8).run(size)


# The number of threads


def test_the_environment_gives_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EINSUMC_NUM_THREADS", "3")
    assert threads.get_num_threads() == 4, "the program said 4"
    threads.set_num_threads(None)
    assert threads.get_num_threads() == 3
    monkeypatch.setenv("EINSUMC_NUM_THREADS", "5")
    assert threads.get_num_threads() == 5
    monkeypatch.delenv("EINSUMC_NUM_THREADS")
    assert 1 <= threads.get_num_threads() <= len(os.sched_getaffinity(0))
    monkeypatch.setenv("EINSUMC_NUM_THREADS", "many")
    with pytest.raises(settings.SettingsError, match="EINSUMC_NUM_THREADS='many'"):
        threads.get_num_threads()


@pytest.mark.parametrize("count", [0, -1, 1025])
def test_an_impossible_number_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="expected 1 to 1024"):
        threads.set_num_threads(count)


@pytest.mark.parametrize(
    ("groups", "files", "quotas"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000\n", "a/cpu.max": "max 100000\n"}, [1.5]),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "cpu.max": "50000 100000"}, [0.5, 3.0]),
        ("0::/\n", {}, []),
        ("0::/../x\n", {"cpu.max": "nonsense"}, []),
        ("3:cpuset:/x\n2:cpu,cpuacct:/x\n",
         {"cpu,cpuacct/x/cpu.cfs_quota_us": "200000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000",
          "cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, [2.0]),
    ],
)  # fmt: skip
def test_quotas(tmp_path: Path, groups: str, files: dict[str, str], quotas: list[float]) -> None:
    (tmp_path / "groups").write_text(groups)
    for name, text in files.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert list(threads._quotas(f"{tmp_path}/groups", f"{tmp_path}/root")) == quotas
    assert not list(threads._quotas(f"{tmp_path}/none", f"{tmp_path}/root"))


# Where the pool comes from


def test_the_pool_is_fetched_once_and_when_needed(
    new_job: Callable[..., Job], native: LoadedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def source() -> LoadedImage:
        asked.append(True)
        time.sleep(0.05)
        return native

    monkeypatch.setattr(threads, "_pool", None)
    threads.provide(source)
    new_job(1).run()
    assert not asked, "one tile needs no pool"
    callers = [threading.Thread(target=new_job(2).run) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert len(asked) == 1


def test_without_a_pool_kernels_run_here(
    new_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(threads, "_pool", None)
    threads.provide(lambda: asked.append(True))
    for tiles in (0, 1, 2, 1000):
        job = new_job(tiles, 100, observe=True)
        job.run()
        job.check()
        assert set(job.owners) <= {threading.get_native_id()}
    assert len(asked) == 1
    assert threads.pool() is None


def test_other_architectures_do_not_ask_for_a_pool(
    new_job: Callable[..., Job], native: LoadedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_pool", None)
    monkeypatch.setattr(threads, "architecture", lambda: "riscv64")
    threads.provide(lambda: native)
    job = new_job(100)
    job.run()
    job.check()
    assert threads.pool() is None


def test_only_a_pool_is_a_pool() -> None:
    with pytest.raises(ValueError, match="not a thread pool"):
        threads.install_pool(load(b"\xc3", entries={"kernel": 0}))


def test_both_sides_agree() -> None:
    assert (threads.POOL_ENTRY, threads.CHAIN_ENTRY) == (pool_source.ENTRY, chain_source.ENTRY)
    assert threads._STATE_BYTES == pool_source.STATE_BYTES


# Faults


def test_workers_block_signals_and_have_a_name(script: Callable[..., str]) -> None:
    script("""
work()
own = threading.get_native_id()
workers = []
while len(workers) < 2:  # the workers name themselves when they first run
    workers = [task for task in map(int, os.listdir("/proc/self/task"))
               if open(f"/proc/self/task/{task}/comm").read() == "einsumc\\n"]
assert len(workers) == 2 and own not in workers
for worker in workers:
    [line] = [x for x in open(f"/proc/self/task/{worker}/status") if x.startswith("SigBlk")]
    blocked = int(line.split()[1], 16)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPROF, signal.SIGALRM, signal.SIGCHLD):
        assert blocked >> (number - 1) & 1
    assert not blocked >> (signal.SIGSEGV - 1) & 1
assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
""")


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("fork", ["os.fork", "ctypes.PyDLL(None).fork"])
def test_fork(script: Callable[..., str], before: bool, fork: str) -> None:
    """Also when C code forks and Python does not know."""
    script(f"""
if {before}: work()
for _ in range(5):
    child = in_child(work, fork={fork})
    work()
    finished(child)
# And a child's child.
finished(in_child(lambda: (work(), finished(in_child(work, fork={fork})))))
""")


def test_fork_without_help_of_the_system(script: Callable[..., str]) -> None:
    """As before Linux 4.14: the state is not wiped for us."""
    script("""
threads.wipe_on_fork = lambda address, size: False
work()
finished(in_child(work))
work()
""")


def test_fork_while_other_threads_compute(script: Callable[..., str]) -> None:
    script("""
work()
stop = False
def compute():
    while not stop:
        Job(200, 200_000).run()
others = [threading.Thread(target=compute) for _ in range(3)]
for other in others:
    other.start()
children = []
for _ in range(20):
    time.sleep(0.01)
    children.append(in_child(lambda: work(10)))
for child in children:
    finished(child)
stop = True
for other in others:
    other.join()
work()
""")


def test_forked_children_do_not_share_scratch(script: Callable[..., str]) -> None:
    script("""
Job(50, 100_000).run()
children = [in_child(lambda: work(20, 50, 20_000)) for _ in range(4)]
work(20, 50, 20_000)
for child in children:
    finished(child)
""")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(script: Callable[..., str], method: str) -> None:
    script(f"""
def task(number):
    work(20)
    return number
if __name__ == "__main__":
    import multiprocessing
    work()
    with multiprocessing.get_context("{method}").Pool(2) as processes:
        assert processes.map(task, range(8)) == list(range(8))
    work()
""")


@pytest.mark.parametrize("count", [1, 3])
def test_ctrl_c(script: Callable[..., str], count: int) -> None:
    run = interrupted("job.run()")
    printed = script(f"""
threads.set_num_threads({count})
work()
job = Job(100_000, 1_000_000)  # tens of seconds
{run}
assert 0 < sum(job.counts) < 100_000
assert set(job.counts) == {{0, 1}}
done = list(job.counts)
time.sleep(0.1)
assert list(job.counts) == done, "somebody still computes"
work()
""")
    assert float(printed) < 5, "hang guard; 0.06 s is usual"


def test_ctrl_c_without_a_pool(script: Callable[..., str]) -> None:
    script("""
threads.provide(lambda: None)
job = Job(100_000, 1_000_000)
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    job.run()
except KeyboardInterrupt:
    assert set(job.counts) == {0, 1}
else:
    raise SystemExit("not interrupted")
""")


def test_a_signal_handler_may_compute(script: Callable[..., str]) -> None:
    script("""
calls = []
def handler(*_):
    calls.append(True)
    work(2)
    Job(50, 1000).run(1 << 20)
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
job = Job(3000, 300_000)
job.run()
signal.setitimer(signal.ITIMER_REAL, 0)
job.check()
assert calls
""")


@pytest.mark.parametrize("how", ["pass", "sys.exit(0)", "os._exit(0)", "raise SystemExit"])
def test_exit_while_a_daemon_thread_computes(script: Callable[..., str], how: str) -> None:
    script(f"""
work()
started = threading.Event()
def compute():
    job = Job(1_000_000, 100_000)
    started.set()
    job.run(1 << 20)
threading.Thread(target=compute, daemon=True).start()
started.wait()
time.sleep(0.05)
{how}
""")


def test_exit_with_sleeping_workers(script: Callable[..., str]) -> None:
    script("work()\ntime.sleep(0.05)\n")


def test_a_system_without_room_for_threads(script: Callable[..., str]) -> None:
    script("""
import resource
threads.set_num_threads(64)
job = Job(100, 100_000)
job.args[3] = ctypes.addressof(owners := (ctypes.c_int64 * 100)())
job.args[4] = ctypes.addressof(modes := (ctypes.c_int64 * 100)())
threads.pool()
threads._scratch(64 * 4096)
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (3 << 20), -1))
for _ in range(20):
    job.run()
job.check(20)
assert len(set(owners)) <= 4, "the limit did nothing"
""")


def test_no_compiler_is_needed(script: Callable[..., str]) -> None:
    compiler = {"llvmlite", "numba", "einsumc.compiler.pool", "einsumc.compiler.program"}
    script(f"work()\nassert not {compiler} & set(sys.modules)\n")
