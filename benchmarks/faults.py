"""The same faults made to einsumc's store and to Numba's cache, and what becomes of them.

    python benchmarks/faults.py [--tries 200] [--systems einsumc,numba] [--markdown]

Every try begins with a good store in a directory of its own, does something to it, and then lets a
new process compute. What that process does is one of

    right     it computes what is right, from the store or anew
    error     it raises an exception
    wrong     it returns a wrong number
    signal    the system ends it (SIGSEGV, SIGILL, SIGBUS, ...), or it hangs for 20 seconds

Processes are forked from one that has the packages in memory, so thousands of tries are no matter.
Linux only; what needs root is left out for others.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.dont_write_bytecode = True  # what is tested is not Python's own cache

OUTCOMES = ("right", "error", "wrong", "signal")
NOBODY = 65534
X, Y = np.arange(1.0, 65.0), np.arange(64.0) % 7


class Einsumc:
    """einsumc's store. `compute` is what a new process does."""

    def warm(self) -> None:
        import einsumc

        os.environ["EINSUMC_CACHE_DIR"] = tempfile.mkdtemp()
        einsumc.einsum("ij->j", np.ones((3, 3)))

    def use(self, folder: Path) -> None:
        os.environ["EINSUMC_CACHE_DIR"] = str(folder / "store")

    def fill_more(self) -> None:
        pass

    def compute(self, dtype: str = "f8", other: bool = False, **_: Any) -> tuple[Any, Any]:
        import einsumc

        x, y = X.astype(dtype), Y.astype(dtype)
        if other:
            return einsumc.compile_einsum("i,i->i")(x, y).sum(), (x * y).sum()
        return einsumc.compile_einsum("i,i->")(x, y), x @ y

    def files(self, folder: Path) -> list[Path]:
        return sorted((folder / "store").rglob("*.kernel"))

    def plant(self, folder: Path) -> None:
        """Other code under the name of a kernel, with a right digest."""
        from einsumc.runtime.kernel_file import PREFIX, encode

        for path in self.files(folder):
            blob = path.read_bytes()
            length = PREFIX.unpack(blob[: PREFIX.size])[2]
            text, image = blob[PREFIX.size : PREFIX.size + length], blob[PREFIX.size + length :]
            if image:
                path.chmod(0o666)
                path.write_bytes(encode(text, b"\xc3" + image[1:]))  # it returns at once

    def kill_while_writing(self) -> None:
        os.replace = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]

    def change_options(self) -> None:
        os.environ["EINSUMC_TARGET"] = "x86-64-v2"

    def options_noticed(self, folder: Path) -> bool:
        from einsumc.runtime.store import Store

        kernels = [e.header["fields"] for e in Store(folder / "store").entries()]
        return len({f["target"] for f in kernels if f.get("layout")}) == 2


MODULE = """
import os
from numba import njit
OPTIONS = {"error_model": os.environ.get("FAULTS_MODEL", "numpy")}
@njit(cache=True, **OPTIONS)
def dot(x, y):
    total = x[0] * 0
    for i in range(len(x)):
        total += x[i] * y[i]
    return total
@njit(cache=True, **OPTIONS)
def divide(x, y):
    return x / y
"""
CHANGED = MODULE.replace("total += x[i] * y[i]", "total += x[i] + y[i]")


class Numba:
    """Numba's cache, of a module that is imported anew by every process."""

    def warm(self) -> None:
        import numba

        numba.njit(lambda x: x + 1)(1.0)

    def use(self, folder: Path) -> None:
        import numba

        numba.config.CACHE_DIR = str(folder / "cache")
        path = folder / "faulty.py"
        if not path.exists():
            path.write_text(MODULE)
        sys.path.insert(0, str(folder))

    def fill_more(self) -> None:
        import faulty

        faulty.divide(1.0, 0.0)

    def compute(self, folder: Path, dtype: str = "f8", other: bool = False) -> tuple[Any, Any]:
        module = folder / "faulty.py"
        if other and module.read_text() == MODULE:  # the same function, whose source is changed
            module.write_text(CHANGED)
        import faulty

        x, y = X.astype(dtype), Y.astype(dtype)
        return faulty.dot(x, y), (x + y).sum() if other else x @ y

    def files(self, folder: Path) -> list[Path]:
        return sorted((folder / "cache").rglob("*.nb*"))

    def plant(self, folder: Path) -> None:
        """The code of another function under the name of this one."""
        data = [p for p in self.files(folder) if p.suffix == ".nbc"]
        blob = next(p for p in data if "divide" in p.name).read_bytes()
        target = next(p for p in data if "dot" in p.name)
        target.chmod(0o666)
        target.write_bytes(blob)

    def kill_while_writing(self) -> None:
        from numba.core.caching import IndexDataCacheFile

        IndexDataCacheFile._save_data = lambda *a: os.kill(os.getpid(), signal.SIGKILL)

    def change_options(self) -> None:
        os.environ["FAULTS_MODEL"] = "python"

    def options_noticed(self, folder: Path) -> bool:
        import faulty

        try:
            faulty.divide(1.0, 0.0)
        except ZeroDivisionError:
            return True
        return False


SYSTEMS = {"einsumc": Einsumc, "numba": Numba}


# --- processes ------------------------------------------------------------------------------------


def child(action: Callable[[], object]) -> int:
    """Start a process that does something; 0, 3 or 4 is how it ends by itself."""
    pid = os.fork()
    if pid:
        return pid
    code = 4
    try:
        signal.alarm(20)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        warnings.simplefilter("ignore")
        code = 0 if action() in (None, True) else 3
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def outcome(pid: int) -> str:
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return "signal"
    return {0: "right", 3: "wrong"}.get(os.WEXITSTATUS(status), "error")


def run(system: Any, folder: Path, before: Callable[[], object] = lambda: None, **how: Any) -> str:
    """What a new process makes of the store in this folder."""

    def work() -> bool:
        system.use(folder)
        before()
        found, right = system.compute(folder=folder, **how)
        return bool(found == right)

    return outcome(child(work))


# --- faults ---------------------------------------------------------------------------------------


class Places:
    """A good store, and copies of it."""

    def __init__(self, system: Any, root: Path, tries: int) -> None:
        self.system, self.tries = system, tries
        self.good, self.place = root / "good", root / "place"
        self.place.mkdir()
        assert outcome(child(self._fill)) == "right"
        self.files = [path.relative_to(self.place) for path in system.files(self.place)]
        shutil.copytree(self.place, self.good)

    def _fill(self) -> bool:
        self.system.use(self.place)
        found, right = self.system.compute(folder=self.place)
        self.system.fill_more()
        return bool(found == right)

    def copy(self) -> Path:
        """The good store again, always in the same place: Numba names caches by their modules."""
        shutil.rmtree(self.place)
        shutil.copytree(self.good, self.place)
        return self.place


def spread(count: int, tries: int) -> Iterator[int]:
    step = max(1, count // tries)
    return iter(range(0, count, step))


def flips(places: Places) -> Iterator[str]:
    """One byte changed, at places spread over every file."""
    for file in places.files:
        size = (places.good / file).stat().st_size
        for place in spread(size, places.tries // len(places.files)):
            folder = places.copy()
            path = folder / file
            blob = bytearray(path.read_bytes())
            blob[place] ^= 0xFF if place % 2 else 0x01
            rewrite(path, bytes(blob))
            yield run(places.system, folder)


def cuts(places: Places) -> Iterator[str]:
    """A file cut off, at lengths spread over every file."""
    for file in places.files:
        size = (places.good / file).stat().st_size
        for length in spread(size, places.tries // len(places.files)):
            folder = places.copy()
            rewrite(folder / file, (folder / file).read_bytes()[:length])
            yield run(places.system, folder)


def races(places: Places) -> Iterator[str]:
    """Two processes fill an empty store at once, for two dtypes; then each is used."""
    for _ in range(max(1, places.tries // 20)):
        folder = places.copy()
        for path in places.system.files(folder):
            path.unlink()
        start = time.monotonic() + 0.05

        def wait(start: float = start) -> None:
            while time.monotonic() < start:
                pass

        def work(dtype: str, folder: Path = folder, wait: Any = wait) -> int:
            def compute() -> bool:
                places.system.use(folder)
                wait()
                found, right = places.system.compute(dtype=dtype, folder=folder)
                return bool(found == right)

            return child(compute)

        yield from map(outcome, [work("f8"), work("i8")])
        for dtype in ("f8", "i8"):
            yield run(places.system, folder, dtype=dtype)


def kills(places: Places) -> Iterator[str]:
    """A process killed while it writes what takes the place of older code; then another one."""
    for _ in range(max(1, places.tries // 20)):
        folder = places.copy()
        run(places.system, folder, places.system.kill_while_writing, other=True)
        yield run(places.system, folder, other=True)


def options(places: Places) -> Iterator[str]:
    """An option of the compiler changed, and nothing else."""
    folder = places.copy()

    def work() -> bool:
        places.system.change_options()
        places.system.use(folder)
        places.system.compute(folder=folder)
        return bool(places.system.options_noticed(folder))

    yield outcome(child(work))


def plants(places: Places) -> Iterator[str]:
    """A directory that everybody may write to, with code that somebody else put there."""
    folder = places.copy()
    places.system.plant(folder)
    for path in folder.rglob("*"):
        path.chmod(path.stat().st_mode | stat.S_IWGRP | stat.S_IWOTH)
    yield run(places.system, folder)


def foreigners(places: Places) -> Iterator[str]:
    """The same in a directory that belongs to another user."""
    if os.geteuid() == 0:
        folder = places.copy()
        places.system.plant(folder)
        folder.chmod(0o755)
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
            os.chown(path, NOBODY, NOBODY)
        yield run(places.system, folder)


def full(places: Places) -> Iterator[str]:
    """A disk that takes so many bytes and no more (a limit on the size of files)."""
    for limit in (0, 1, 100, 1000):
        folder = places.copy()
        for path in places.system.files(folder):
            path.unlink()

        def limited(limit: int = limit) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        yield run(places.system, folder, limited)
        yield run(places.system, folder)


def unwritable(places: Places) -> Iterator[str]:
    """Directories that may be read but not written, by a user who has no other."""
    if os.geteuid() == 0:
        folder = places.copy()
        for path in places.system.files(folder):
            path.unlink()
        for parent in [folder, *folder.parents[:2]]:
            parent.chmod(0o755)
        for path in folder.rglob("*"):
            path.chmod(0o555 if path.is_dir() else 0o444)

        def become() -> None:
            os.environ["HOME"] = "/nonexistent"
            os.setuid(NOBODY)

        yield run(places.system, folder, become)


FAULTS = (flips, cuts, races, kills, options, plants, foreigners, full, unwritable)


def rewrite(path: Path, blob: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(blob)
    path.chmod(0o444)


def measure(name: str, tries: int, wanted: str) -> dict[str, dict[str, int]]:
    """How often each fault had each outcome."""
    system = SYSTEMS[name]()
    system.warm()
    found = {}
    for fault in FAULTS:
        if wanted and fault.__name__ not in wanted.split(","):
            continue
        with tempfile.TemporaryDirectory(prefix="faults-") as root:
            Path(root).chmod(0o755)
            counted = Counter(fault(Places(system, Path(root), tries)))
        found[fault.__name__] = {kind: counted[kind] for kind in OUTCOMES}
        print(f"{name:8} {fault.__name__:12} {found[fault.__name__]}", file=sys.stderr)
    return found


def table(results: dict[str, dict[str, dict[str, int]]]) -> str:
    """All results in Markdown."""
    heads = [f"{name}: {' / '.join(OUTCOMES)}" for name in results]
    lines = [f"| Fault | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for fault in FAULTS:
        if all(any(each.get(fault.__name__, {}).values()) for each in results.values()):
            told = (fault.__doc__ or "").rstrip(".")
            cells = (" / ".join(map(str, e[fault.__name__].values())) for e in results.values())
            lines.append(f"| {told} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tries", type=int, default=200, help="of each of the large faults")
    parser.add_argument("--systems", default="einsumc,numba")
    parser.add_argument("--faults", default="", help="only these, by comma")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(measure(given.child, given.tries, given.faults)))
        return
    results = {}
    for name in given.systems.split(","):
        arguments = ["--child", name, "--tries", str(given.tries), "--faults", given.faults]
        command = [sys.executable, "-P", __file__, *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        results[name] = json.loads(done.stdout.splitlines()[-1])
    print(table(results))
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
