"""Kernels on disk, with the faults made for real: bytes flipped, writers killed, disks filled."""

import errno
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from einsumc.runtime import kernel_file, trouble
from einsumc.runtime import store as store_module
from einsumc.runtime.kernel_file import MAX_HEADER, MAX_IMAGE
from einsumc.runtime.key import ABI_VERSION, SCHEMA_VERSION, canonical_json, kernel_key
from einsumc.runtime.store import (
    Store,
    StoredKernel,
    StorePath,
    StoreWarning,
    add_store,
    default_stores,
)
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

ROOT = os.geteuid() == 0
NOBODY = 65534


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every test see the warnings that come only once, and the stores it adds itself."""
    monkeypatch.setattr(trouble, "_warned", {})
    monkeypatch.setattr(store_module, "_added", [])


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that other users can reach, unlike pytest's."""
    path = Path(tempfile.mkdtemp(prefix="einsumc-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def sample(number: int = 0, size: int = 80) -> tuple[str, dict[str, Any], bytes]:
    """Return key, header and image of a made-up kernel."""
    fields = {"kind": "kernel", "text": f"kernel {number}", "abi": ABI_VERSION}
    image = random.Random(number).randbytes(size)
    return kernel_key(fields), {"fields": fields, "entries": [0, 16], "features": ["avx2"]}, image


def path_of(store: Store, key: str) -> Path:
    return Path(store.path, key[:2], key + ".kernel")


def overwrite(path: Path, blob: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(blob)
    path.chmod(0o444)


def filled(path: Path, count: int = 1) -> Store:
    store = Store(path)
    for number in range(count):
        assert store.put(*sample(number))
    return store


def holds(store: Store | StorePath, number: int = 0, size: int = 80) -> bool:
    """Whether the store has this kernel; what it has must be right."""
    key, header, image = sample(number, size)
    found = store.get(key)
    if found is not None:
        assert found.key == found.header["key"] == key
        assert found.image == image
        assert header.items() <= found.header.items()
    return found is not None


def caught(action: Callable[[], object]) -> list[str]:
    """Return what `action` warns of."""
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        action()
    assert all(warning.category is StoreWarning for warning in record), record
    return [str(warning.message) for warning in record]


def quiet(action: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StoreWarning)
        return action()


def fork(action: Callable[[], object]) -> int:
    """Run `action` in a child process; return the child's id."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def run(action: Callable[[], object]) -> None:
    """Run `action` in a child process; fail if it fails."""
    assert os.waitpid(fork(action), 0)[1] == 0


def python(script: str, *prefix: str) -> subprocess.CompletedProcess[str]:
    roots = os.pathsep.join(filter(None, map(os.path.abspath, sys.path)))
    return subprocess.run(
        [*prefix, sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": roots},
        capture_output=True,
        check=False,
        text=True,
    )


# What is put comes back


def test_round_trip(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    key, header, image = sample()
    assert store.get(key) is None
    assert store.put(key, header, image)
    added = {"key": key, "kind": "kernel", "schema": SCHEMA_VERSION, "abi": ABI_VERSION}
    assert store.get(key) == StoredKernel(key, header | added, image)
    assert store.keys() == [key]
    assert store.verify(key)
    assert store.problem(key) is None


def test_plan(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fields = {"kind": "plan", "equation": "ij,jk->ik"}
    key = kernel_key(fields)
    assert store.put(key, {"kind": "plan", "fields": fields, "steps": [1, 2]}, b"")
    found = store.get(key)
    assert found is not None
    assert (found.kind, found.header["steps"], found.image) == ("plan", [1, 2], b"")


def test_the_file_is_as_documented(tmp_path: Path) -> None:
    store = filled(tmp_path)
    key, _, image = sample()
    blob = path_of(store, key).read_bytes()
    assert blob[:8] == b"EINSUMC\0"
    lengths = [int.from_bytes(blob[a:b], "little") for a, b in ((8, 12), (12, 20), (20, 28))]
    assert lengths == [1, len(blob) - 60 - len(image), len(image)]
    assert blob[28:60] == hashlib.sha256(blob[8:28] + blob[60:]).digest()
    header = blob[60 : -len(image)]
    assert canonical_json(json.loads(header)) == header
    assert blob.endswith(image)


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_modes_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        store = filled(tmp_path / "new" / "store")
    finally:
        os.umask(old)
    file = path_of(store, sample()[0])
    assert stat.S_IMODE(file.stat().st_mode) == 0o444
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(os.stat(store.path).st_mode) == 0o700
    assert holds(store)


def test_same_input_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = Store(tmp_path / "a"), Store(tmp_path / "elsewhere" / "b")
    for number in (0, 1, 2):
        one.put(*sample(number))
    monkeypatch.setattr(time, "time", lambda: 4e9)
    for number in (2, 0, 1):
        key, header, image = sample(number)
        other.put(key, dict(reversed(header.items())), image)
    for key in one.keys() + other.keys():
        assert path_of(one, key).read_bytes() == path_of(other, key).read_bytes()
    assert len(one.keys()) == 3


def test_an_equal_file_is_left_alone(tmp_path: Path) -> None:
    store = filled(tmp_path)
    file = path_of(store, sample()[0])
    before = file.stat().st_ino
    assert store.put(*sample())
    assert file.stat().st_ino == before
    key, header, _ = sample()
    assert store.put(key, header, b"another build of it")
    assert file.stat().st_ino != before


def test_listing_and_removal(tmp_path: Path) -> None:
    store = filled(tmp_path, 5)
    keys = sorted(sample(number)[0] for number in range(5))
    for stranger in ("README", f"{keys[0][:2]}/notes.txt", f"{keys[0][:2]}/x.kernel"):
        (tmp_path / stranger).write_text("not a kernel")
    (tmp_path / keys[1][:2] / f"{'0' * 64}.kernel").write_text("in the wrong place")
    assert store.keys() == keys
    overwrite(path_of(store, keys[1]), b"damaged")
    entries = quiet(lambda: list(store.entries()))
    assert [entry.key for entry in entries] == [key for key in keys if key != keys[1]]
    assert all(entry.size == path_of(store, entry.key).stat().st_size for entry in entries)
    assert all(entry.header["key"] == entry.key for entry in entries)
    assert store.remove(keys[0])
    assert not store.remove(keys[0])
    assert store.get(keys[0]) is None
    assert store.clear() == 4
    assert store.keys() == []
    assert (tmp_path / "README").exists()


def test_a_missing_store_is_empty(tmp_path: Path) -> None:
    store = Store(tmp_path / "none")
    key = sample()[0]
    assert caught(lambda: (store.get(key), store.keys(), list(store.entries()))) == []
    assert caught(lambda: (store.remove(key), store.clear(), store.writable)) == []
    assert "missing" in str(store.problem(key))
    assert not os.path.exists(store.path)


def test_contradictions_are_the_caller_s_mistake(tmp_path: Path) -> None:
    store = Store(tmp_path)
    key, header, image = sample()
    wrongs: list[tuple[str, dict[str, Any], bytes]] = [
        (sample(1)[0], header, image),
        (key, header | {"key": sample(1)[0]}, image),
        (key, header | {"abi": ABI_VERSION + 1}, image),
        (key, header | {"kind": "song"}, image),
        (key, header, b""),
        (key, {}, image),
        (key, {"fields": []}, image),
    ]
    for wrong in wrongs:
        with pytest.raises(ValueError):
            store.put(*wrong)
    for value in (1.5, (1,), b"x"):
        with pytest.raises(TypeError):
            store.put(key, header | {"extra": value}, image)
    for bad in ("", "../../etc/passwd", key[:-1], key.upper(), key + "\n"):
        with pytest.raises(ValueError, match="64"):
            store.get(bad)
    assert store.keys() == []


def test_limits(tmp_path: Path) -> None:
    store = Store(tmp_path)
    key, header, image = sample()
    room = MAX_HEADER - 400
    assert store.put(key, header | {"notes": "x" * room}, image)
    assert quiet(lambda: store.put(key, header | {"notes": "x" * MAX_HEADER}, image)) is False
    huge = bytes(MAX_IMAGE + 1)
    said = caught(lambda: [store.put(key, header, huge) for _ in range(2)])
    assert len(said) == 1
    assert "too large" in said[0]
    found = store.get(key)
    assert found is not None
    assert len(found.header["notes"]) == room


# Damage


def test_flip_every_byte(tmp_path: Path) -> None:
    store = filled(tmp_path)
    key, header, image = sample()
    blob = path_of(store, key).read_bytes()
    for place in range(len(blob)):
        for mask in (0x01, 0x80, 0xFF):
            bad = bytearray(blob)
            bad[place] ^= mask
            overwrite(path_of(store, key), bytes(bad))
            assert quiet(lambda: store.get(key)) is None, (place, mask)
            assert not store.verify(key)
            assert "damaged" in str(store.problem(key))
            quiet(lambda: list(store.entries()))
    assert caught(lambda: store.put(key, header, image)) == []
    assert path_of(store, key).read_bytes() == blob
    assert holds(store)


def test_cut_and_stretch_to_every_length(tmp_path: Path) -> None:
    store = filled(tmp_path)
    key, header, image = sample()
    blob = path_of(store, key).read_bytes()
    cuts = [blob[:length] for length in range(len(blob))]
    stretched = [blob + bytes(1), blob + blob, bytes(len(blob)), blob[1:] + blob[:1]]
    for bad in cuts + stretched:
        overwrite(path_of(store, key), bad)
        assert quiet(lambda: store.get(key)) is None, len(bad)
        assert quiet(lambda: list(store.entries())) == []
    assert store.put(key, header, image)
    assert holds(store)


@pytest.mark.parametrize("lengths", [(MAX_HEADER + 1, 0), (10, MAX_IMAGE + 1), (2**63, 2**63 - 60)])
def test_a_huge_file_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lengths: tuple[int, int]
) -> None:
    store = filled(tmp_path)
    key = sample()[0]
    blob = kernel_file.PREFIX.pack(b"EINSUMC\0", 1, *lengths, bytes(32))
    overwrite(path_of(store, key), blob)
    if sum(lengths) < 1 << 30:
        path_of(store, key).chmod(0o644)
        os.truncate(path_of(store, key), len(blob) + sum(lengths))
    asked: list[int] = []
    read = os.read

    def noting(fd: int, count: int) -> bytes:
        asked.append(count)
        return read(fd, count)

    monkeypatch.setattr(os, "read", noting)
    assert "too large" in str(store.problem(key))
    assert asked == [len(blob)]


def test_damage_is_told_once_and_with_the_way_out(tmp_path: Path) -> None:
    store = filled(tmp_path)
    key = sample()[0]
    overwrite(path_of(store, key), b"EINSUMC")
    said = caught(lambda: [store.get(key) for _ in range(3)] + [Store(tmp_path).get(key)])
    assert len(said) == 1
    assert str(path_of(store, key)) in said[0]
    assert "damaged" in said[0]
    assert "replaces" in said[0]


def test_one_kernel_under_the_name_of_another(tmp_path: Path) -> None:
    store = filled(tmp_path, 2)
    one, other = sample(0)[0], sample(1)[0]
    overwrite(path_of(store, one), path_of(store, other).read_bytes())
    assert quiet(lambda: store.get(one)) is None
    assert "another key" in str(store.problem(one))
    assert holds(store, 1)


def test_files_of_another_version_are_sound_but_never_asked_for(tmp_path: Path) -> None:
    store = Store(tmp_path)
    _, header, image = sample()
    key = kernel_key(header["fields"], schema=SCHEMA_VERSION + 1, abi=ABI_VERSION + 1)
    versions = {"key": key, "schema": SCHEMA_VERSION + 1, "abi": ABI_VERSION + 1}
    text = canonical_json({"kind": "kernel"} | header | versions)
    (tmp_path / key[:2]).mkdir()
    overwrite(path_of(store, key), kernel_file.encode(text, image))
    assert key != sample()[0]
    assert store.verify(key)
    assert [entry.key for entry in store.entries()] == [key]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["key", "fields", "kind", "schema", "abi", "extra"])


def changed(changes: dict[str, Any], dropped: set[str], indent: int | None) -> bytes:
    header = {"key": sample()[0], "kind": "kernel", "schema": SCHEMA_VERSION, "abi": ABI_VERSION}
    header |= sample()[1] | changes
    header = {name: value for name, value in header.items() if name not in dropped}
    if indent is None:
        return json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    return json.dumps(header, sort_keys=True, indent=indent).encode()


HEADERS = (
    st.binary(max_size=200)
    | st.text().map(lambda text: text.encode("utf-8", "surrogatepass"))
    | VALUES.map(lambda value: json.dumps(value).encode())
    | st.builds(
        changed,
        st.dictionaries(NAMES, VALUES, max_size=2),
        st.sets(NAMES, max_size=1),
        st.none() | st.integers(0, 2),
    )
    | st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000, b"1" * 10_000, b'"\\ud800"', b""])
)


@hypothesis_settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=HEADERS, image=st.sampled_from([sample()[2], b""]))
def test_any_header_with_a_right_digest(tmp_path: Path, text: bytes, image: bytes) -> None:
    store, key = Store(tmp_path), sample()[0]
    path_of(store, key).parent.mkdir(exist_ok=True)
    overwrite(path_of(store, key), kernel_file.encode(text, image))
    found = quiet(lambda: store.get(key))
    assert store.verify(key) is (found is not None)
    assert len(quiet(lambda: list(store.entries()))) == (found is not None)
    if found is not None:
        assert canonical_json(found.header) == text
        assert found.header["key"] == key == kernel_key(found.header["fields"])
        assert found.kind == "plan" or found.image


@hypothesis_settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(blob=st.binary(max_size=300) | st.binary(max_size=300).map(b"EINSUMC\0\1\0\0\0".__add__))
def test_any_file(tmp_path: Path, blob: bytes) -> None:
    store, key = Store(tmp_path), sample()[0]
    path_of(store, key).parent.mkdir(exist_ok=True)
    overwrite(path_of(store, key), blob)
    assert quiet(lambda: store.get(key)) is None


def test_no_code_is_run_by_reading(tmp_path: Path) -> None:
    # Audit hooks see every unpickling, eval, exec, compile and import; they cannot be removed
    # again, hence the process of its own.
    store = filled(tmp_path)
    bad = sample(1)[0]
    (tmp_path / bad[:2]).mkdir(exist_ok=True)
    overwrite(path_of(store, bad), b"cos\nsystem\n(S'true'\ntR.")
    script = f"""
import pickle, sys, warnings
from einsumc.runtime.store import Store
store = Store({str(tmp_path)!r})
warnings.simplefilter("ignore")
def use():
    for key in store.keys() + [{bad!r}]:
        kernel = store.get(key)
        if kernel:
            store.put(key, kernel.header, kernel.image + b"!")
    list(store.entries())
use()  # whatever is imported late is imported now
seen = set()
sys.addaudithook(lambda event, args: seen.add(event))
use()
watched = ("pickle.", "marshal.", "exec", "compile", "import", "code.", "ctypes.", "subprocess")
assert "open" in seen
print(sorted(event for event in seen if event.startswith(watched)))
try:
    pickle.loads(b"cos\\nsystem\\n.")
finally:
    assert "pickle.find_class" in seen
"""
    done = python(script)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_importing_the_runtime_is_light() -> None:
    script = """
import sys
import einsumc.runtime.key, einsumc.runtime.settings, einsumc.runtime.store, einsumc.runtime.target
heavy = ("numba", "llvmlite", "scipy", "opt_einsum", "platformdirs", "einsumc.compiler")
print([name for name in sys.modules if name.startswith(heavy)])
"""
    done = python(script)
    assert done.stdout == "[]\n", done.stderr


# Writers that die


def kill_before(step: int) -> None:
    """Make this process kill itself before its `step`th system call of writing."""
    count = 0

    def wrapped(call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **named: Any) -> Any:
            nonlocal count
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            if call is write:  # in small pieces, so that it can be cut off
                args = (args[0], args[1][:100])
            return call(*args, **named)

        return counting

    write = os.write
    for name in ("mkdir", "open", "write", "fchmod", "fsync", "close", "replace", "unlink"):
        setattr(os, name, wrapped(getattr(os, name)))


@pytest.mark.parametrize("before", ["nothing", "damaged", "another build"])
def test_kill_between_any_two_system_calls(tmp_path: Path, before: str) -> None:
    key, header, image = sample()
    step, alive = 0, False
    survivors: set[bool] = set()
    while not alive:
        path = tmp_path / str(step)
        store = Store(path)
        if before != "nothing":
            assert store.put(key, header, b"another build")
        if before == "damaged":
            overwrite(path_of(store, key), b"EINSUMC")

        def write(store: Store = store, step: int = step) -> None:
            kill_before(step)
            store.put(key, header, image)

        status = os.waitpid(fork(write), 0)[1]
        alive = os.WIFEXITED(status)
        assert alive or os.WTERMSIG(status) == signal.SIGKILL

        found = quiet(lambda: Store(path).get(key))  # noqa: B023
        if before == "another build":
            assert found is not None
            assert found.image in (image, b"another build")
        else:
            assert found is None or found.image == image
        survivors.add(found is not None and found.image == image)
        # What the dead left behind is in nobody's way, and goes when it is old.
        for leftover in path.glob("*/.*.tmp"):
            os.utime(leftover, (1, 1))
        assert Store(path).put(key, header, image)
        assert holds(Store(path))
        assert [file.name for file in path.rglob("*") if file.is_file()] == [f"{key}.kernel"]
        step += 1
    assert survivors == {True, False}
    assert step > 10


def test_kill_writers_at_random(tmp_path: Path) -> None:
    sizes = {number: (50, 5_000, 300_000)[number % 3] for number in range(12)}
    samples = [sample(*item) for item in sizes.items()]

    def write_forever(seed: int) -> None:
        store, dice = Store(tmp_path), random.Random(seed)
        while True:
            key, header, image = dice.choice(samples)
            if dice.random() < 0.5:
                assert store.put(key, header, image)
            else:
                store.remove(key)

    dice = random.Random(7)
    seen = kills = 0
    writers: list[int] = []
    end = time.monotonic() + 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nobody ever meets a damaged file, nor fails to write one
        try:
            while time.monotonic() < end:
                while len(writers) < 3:
                    seed = kills + len(writers)
                    writers.append(fork(partial(write_forever, seed)))
                time.sleep(dice.random() * 0.02)
                for number in dice.choices(list(sizes), k=3):
                    seen += holds(Store(tmp_path), number, sizes[number])
                victim = writers.pop(dice.randrange(len(writers)))
                os.kill(victim, signal.SIGKILL)
                assert os.waitpid(victim, 0)[1] == signal.SIGKILL  # and not its own failure
                kills += 1
        finally:
            for writer in writers:
                os.kill(writer, signal.SIGKILL)
                os.waitpid(writer, 0)
        store = Store(tmp_path)
        assert all(map(store.verify, store.keys()))
        for key, header, image in samples:
            assert store.put(key, header, image)
        assert all(holds(store, *item) for item in sizes.items())
    assert kills > 10
    assert seen > 10


def test_written_and_flushed_before_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("write", "fchmod", "fsync", "replace"):
        real = getattr(os, name)

        def noting(*args: Any, name: str = name, real: Any = real, **named: Any) -> Any:
            directory = name == "fsync" and stat.S_ISDIR(os.fstat(args[0]).st_mode)
            calls.append("fsync directory" if directory else name)
            return real(*args, **named)

        monkeypatch.setattr(os, name, noting)
    filled(tmp_path)
    ending = ["write", "fchmod", "fsync", "replace", "fsync directory"]
    assert calls == ["fsync directory", *ending]  # the first is for the new shard


def test_old_leftovers_go_and_young_ones_stay(tmp_path: Path) -> None:
    store = filled(tmp_path)
    shard = path_of(store, sample()[0]).parent
    far = tmp_path / ("00" if shard.name != "00" else "01")
    far.mkdir(mode=0o700)
    now = time.time()
    ages = {shard / ".a.tmp": 4000, shard / ".b.tmp": 3000, far / ".c.tmp": 1e6, far / "d.tmp": 1e6}
    for path, age in ages.items():
        path.write_bytes(b"half a kern")
        os.utime(path, (now - age, now - age))
    assert len(store.keys()) == 1
    assert all(path.exists() for path in ages)
    assert Store(tmp_path).put(*sample())
    assert [path.name for path in ages if path.exists()] == [".b.tmp", "d.tmp"]
    os.utime(shard / ".b.tmp", (1, 1))
    assert store.clear() == 1
    assert not (shard / ".b.tmp").exists()


def test_many_threads(tmp_path: Path) -> None:
    store = filled(tmp_path, 8)
    bad = sample(8)[0]
    (tmp_path / bad[:2]).mkdir(exist_ok=True)
    overwrite(path_of(store, bad), b"EINSUMC")
    wrong: list[object] = []
    start = threading.Barrier(16)

    def work(seed: int) -> None:
        start.wait()
        for step in range(30):
            number = (seed + step) % 8
            if step % 10 == seed % 10 and not store.put(*sample(number)):
                wrong.append(number)
            if not holds(store, number):
                wrong.append(number)
            if store.get(bad) is not None:
                wrong.append(bad)

    def everybody() -> None:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert len(caught(everybody)) == 1
    assert wrong == []


# Disks that are full or read-only


def no_leftovers(path: Path) -> bool:
    return not [file for file in path.rglob("*") if file.name.endswith(".tmp")]


@pytest.mark.parametrize("limit", [0, 1, 59, 60, 1000, 4095])
def test_a_file_that_may_not_grow(tmp_path: Path, limit: int) -> None:
    store = filled(tmp_path)

    def write() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        results: list[bool] = []
        said = caught(lambda: results.extend(store.put(*sample(n, 9999)) for n in (1, 2)))
        assert results == [False, False]
        assert len(said) == 1
        assert os.strerror(errno.EFBIG) in said[0]
        assert "not kept" in said[0]

    run(write)
    assert no_leftovers(tmp_path)
    assert store.keys() == [sample()[0]]
    assert holds(store)


def in_a_mount(script: str, folder: Path, options: str) -> None:
    """Run a script with a tmpfs over `folder` that nobody else sees and that goes with it."""
    if not ROOT or not shutil.which("unshare") or not shutil.which("mount"):
        pytest.skip("only root can mount")
    mount = f'mount -t tmpfs -o {options} none "{folder}" || exit 77; exec "$0" "$@"'
    done = python(script, "unshare", "-m", "sh", "-c", mount)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"mounting is not possible: {done.stderr}")
    assert done.returncode == 0, done.stderr


MOUNTED = """
import os, subprocess, sys, warnings
from einsumc.runtime.key import kernel_key
from einsumc.runtime.store import Store
folder = {folder!r}
store = Store(folder + "/store")
warnings.simplefilter("always")

def put(number):
    fields = dict(number=number)
    with warnings.catch_warnings(record=True) as said:
        done = store.put(kernel_key(fields), dict(fields=fields), os.urandom(10_000))
    return done, [str(warning.message) for warning in said]
"""


def test_a_full_disk(tmp_path: Path) -> None:
    script = (
        MOUNTED
        + """
done = [put(number) for number in range(20)]
kept = [number for number in range(20) if done[number][0]]
assert 3 <= len(kept) < 20, done
said = [text for _, texts in done for text in texts]
assert len(said) == 1 and "No space left" in said[0], said
assert sorted(kernel_key(dict(number=number)) for number in kept) == store.keys()
assert all(map(store.verify, store.keys()))
assert not [name for _, _, names in os.walk(folder) for name in names if name.endswith(".tmp")]
assert store.clear() == len(kept)
assert put(100) == (True, [])
"""
    )
    in_a_mount(script.replace("{folder!r}", repr(str(tmp_path))), tmp_path, "size=128k,mode=755")


def test_a_disk_mounted_read_only(tmp_path: Path) -> None:
    script = (
        MOUNTED
        + """
assert put(1) == (True, []) and store.writable
subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
assert not store.writable
(first, said), again = put(2), put(3)
assert not first and again == (False, []), (said, again)
assert len(said) == 1 and "Read-only file system" in said[0], said
key = kernel_key(dict(number=1))
assert store.get(key) and store.keys() == [key]
store = Store(folder + "/missing")
assert not store.writable and put(4)[0] is False and store.get(key) is None
"""
    )
    in_a_mount(script.replace("{folder!r}", repr(str(tmp_path))), tmp_path, "size=256k,mode=755")


def as_nobody(action: Callable[[], object]) -> None:
    """Run `action` as a user whom permissions stop, which they do not stop root."""

    def unprivileged() -> None:
        if ROOT:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        action()

    run(unprivileged)


def test_a_directory_without_write_permission(folder: Path) -> None:
    store = filled(folder / "store")
    for path in (Path(store.path), *Path(store.path).iterdir()):
        path.chmod(0o555)
    (folder / "locked").mkdir(mode=0o555)

    def use() -> None:
        assert holds(store)
        assert not store.writable
        said = caught(lambda: [store.put(*sample(number)) for number in (1, 2)])
        assert len(said) == 1
        assert store.path in said[0]
        assert "Permission denied" in said[0]
        assert holds(store)
        assert store.keys() == [sample()[0]]
        assert len(caught(lambda: store.remove(sample()[0]))) == 1
        inside = Store(folder / "locked" / "inside")
        assert not inside.writable
        assert inside.get(sample()[0]) is None
        said = caught(lambda: [inside.put(*sample(number)) for number in (1, 2)])
        assert len(said) == 1
        # The result is kept where it can be.
        assert len(caught(lambda: StorePath((store, inside)).put(*sample()))) == 1

    as_nobody(use)
    assert holds(store)
    for path in (Path(store.path), *Path(store.path).iterdir()):
        path.chmod(0o755)


@pytest.mark.parametrize("part", ["store", "shard", "file"])
def test_what_may_not_be_read(folder: Path, part: str) -> None:
    store = filled(folder / "store")
    file = path_of(store, sample()[0])
    for directory in (file.parent, file.parent.parent):
        directory.chmod(0o755)
    path = {"store": file.parent.parent, "shard": file.parent, "file": file}[part]
    path.chmod(0)

    def use() -> None:
        said = caught(lambda: [store.get(sample()[0]) for _ in range(2)])
        assert len(said) == 1
        assert f"{path} cannot be opened: Permission denied" in said[0]

    as_nobody(use)
    path.chmod(0o755)


# Owners and permissions


@pytest.mark.parametrize("part", ["store", "shard", "file"])
@pytest.mark.parametrize("bits", [0o020, 0o002, 0o022])
def test_what_others_can_write_is_refused(tmp_path: Path, part: str, bits: int) -> None:
    store = filled(tmp_path / "store", 3)
    key = sample()[0]
    file = path_of(store, key)
    path = {"store": file.parent.parent, "shard": file.parent, "file": file}[part]
    right = stat.S_IMODE(path.stat().st_mode)
    path.chmod(right | bits)

    def use() -> None:
        assert store.get(key) is None
        assert Store(store.path).get(key) is None
        assert key not in [entry.key for entry in store.entries()]
        assert not store.verify(key)
        if part != "file":
            assert not store.put(*sample())

    said = caught(use)
    assert len(said) == 1
    assert str(path) in said[0]
    assert "others can write" in said[0]
    assert f"{right | bits:04o}" in said[0]
    assert f"chmod -R go-w {store.path}" in said[0]
    if part == "store":
        assert not quiet(lambda: store.writable)
        assert quiet(store.keys) == []

    subprocess.run(["chmod", "-R", "go-w", store.path], check=True)  # as it says
    assert all(holds(store, number) for number in range(3))


def test_a_store_full_of_files_that_others_can_write_is_one_warning(tmp_path: Path) -> None:
    store = filled(tmp_path, 5)
    keys = store.keys()
    for key in keys:
        path_of(store, key).chmod(0o664)
    assert len(caught(lambda: [store.get(key) for key in keys])) == 1


def test_put_replaces_a_file_that_others_can_write(tmp_path: Path) -> None:
    store = filled(tmp_path)
    file = path_of(store, sample()[0])
    file.chmod(0o666)
    assert store.put(*sample())
    assert stat.S_IMODE(file.stat().st_mode) == 0o444
    assert holds(store)


@pytest.mark.skipif(not ROOT, reason="only root can give files away")
@pytest.mark.parametrize("part", ["store", "shard", "file"])
def test_what_belongs_to_somebody_else_is_refused(folder: Path, part: str) -> None:
    store = filled(folder / "store")
    key = sample()[0]
    file = path_of(store, key)
    parts = {"store": file.parent.parent, "shard": file.parent, "file": file}
    for path in parts.values():
        path.chmod(0o755)

    # What is root's, everybody may use.
    as_nobody(lambda: holds(store) or pytest.fail("refused"))

    os.chown(parts[part], 12345, -1)
    for runner in (run, as_nobody):

        def use() -> None:
            said = caught(lambda: [store.get(key) for _ in range(2)])
            assert len(said) == 1
            assert str(parts[part]) in said[0]
            assert "belongs to user 12345" in said[0]
            assert store.get(key) is None

        runner(use)

    # What is one's own, too, but it is not root's business then.
    for path in parts.values():
        os.chown(path, NOBODY, -1)
    as_nobody(lambda: holds(store) or pytest.fail("refused"))
    assert not quiet(lambda: holds(store))


def test_symbolic_links(tmp_path: Path) -> None:
    real = filled(tmp_path / "real", 2)
    # The store itself may be one: its target is what is checked.
    linked = tmp_path / "linked"
    linked.symlink_to(real.path)
    assert holds(Store(linked))
    # Nothing inside may be one, wherever it leads.
    key = sample()[0]
    store = Store(tmp_path / "store")
    path_of(store, key).parent.mkdir(parents=True, mode=0o755)
    path_of(store, key).symlink_to(path_of(real, key))
    said = caught(lambda: store.get(key))
    assert len(said) == 1
    assert "symbolic link" in said[0]
    assert store.put(*sample())  # the link is replaced, not followed
    assert not path_of(store, key).is_symlink()
    assert holds(store)
    shutil.rmtree(path_of(store, key).parent)
    path_of(store, key).parent.symlink_to(path_of(real, key).parent)
    assert quiet(lambda: store.get(key)) is None
    assert quiet(lambda: store.put(*sample())) is False
    assert holds(real)
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nowhere")
    assert Store(dangling).get(key) is None
    assert not Store(dangling).writable
    assert quiet(lambda: Store(dangling).put(*sample())) is False


@pytest.mark.parametrize("thing", ["pipe", "directory", "socket", "device"])
def test_things_that_are_not_files(tmp_path: Path, thing: str) -> None:
    store = filled(tmp_path / "s")
    key = sample()[0]
    path = path_of(store, key)
    path.unlink()
    if thing == "pipe":
        os.mkfifo(path, 0o444)  # opening it would wait for a writer, reading it too
    elif thing == "directory":
        path.mkdir(mode=0o755)
    elif thing == "socket":
        os.mknod(path, 0o600 | stat.S_IFSOCK)
    elif ROOT:
        os.mknod(path, 0o444 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero never ends
    else:
        pytest.skip("only root can make a device")
    said = caught(lambda: [store.get(key) for _ in range(2)])
    assert len(said) == 1
    assert thing == "socket" or "not a regular file" in said[0]  # a socket cannot even be opened
    assert quiet(lambda: list(store.entries())) == []
    assert quiet(lambda: store.put(*sample())) is (thing != "directory")
    assert quiet(lambda: holds(store)) is (thing != "directory")


def test_a_file_in_the_place_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("I am not a directory")
    (tmp_path / "store").chmod(0o755)
    store = Store(tmp_path / "store")
    key = sample()[0]
    assert len(caught(lambda: [store.get(key) for _ in range(2)])) == 1
    assert quiet(lambda: store.put(*sample())) is False
    assert not quiet(lambda: store.writable)
    below = Store(tmp_path / "store" / "below")
    assert quiet(lambda: below.get(key)) is None
    assert quiet(lambda: below.put(*sample())) is False


# Several stores


def test_stores_are_searched_in_order(tmp_path: Path) -> None:
    first, second = Store(tmp_path / "a"), Store(tmp_path / "b")
    both = StorePath((first, second))
    assert second.put(*sample(0))
    assert holds(both, 0)
    assert both.put(*sample(1))
    assert (first.keys(), second.keys()) == ([sample(1)[0]], [sample(0)[0]])
    assert both.keys() == sorted([sample(0)[0], sample(1)[0]])
    key, header, _ = sample(0)
    assert first.put(key, header, b"the first one's build")
    found = both.get(key)
    assert found is not None
    assert found.image == b"the first one's build"
    # A damaged kernel in one store is found in the next.
    overwrite(path_of(first, key), b"EINSUMC")
    assert quiet(lambda: holds(both, 0))


def test_the_first_writable_store_is_written(tmp_path: Path) -> None:
    locked, free = Store(tmp_path / "locked", readonly=True), Store(tmp_path / "free")
    assert StorePath((locked, free)).put(*sample())
    assert holds(free)
    assert not os.path.exists(locked.path)
    none = StorePath((locked, Store(tmp_path / "other", readonly=True)))
    said = caught(lambda: [none.put(*sample(number)) for number in (1, 2)])
    assert len(said) == 1
    assert locked.path in said[0]
    assert "EINSUMC_CACHE_DIR" in said[0]
    assert quiet(lambda: StorePath(()).put(*sample())) is False
    assert StorePath(()).get(sample()[0]) is None


def test_readonly_never_writes(tmp_path: Path) -> None:
    store = filled(tmp_path / "s")
    before = sorted(tmp_path.rglob("*"))
    locked = Store(store.path, readonly=True)
    assert caught(lambda: locked.put(*sample(1))) == []
    assert not locked.put(*sample(1))
    assert not locked.remove(sample()[0])
    assert locked.clear() == 0
    assert not locked.writable
    assert holds(locked)
    assert sorted(tmp_path.rglob("*")) == before


def test_default_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EINSUMC_CACHE_DIR", str(tmp_path / "own"))
    filled(tmp_path / "shipped")
    assert not holds(default_stores())
    for _ in range(2):
        add_store(tmp_path / "shipped")
    paths = [store.path for store in default_stores().stores]
    assert paths == [str(tmp_path / "own"), str(tmp_path / "shipped")]
    assert holds(default_stores())
    assert default_stores().put(*sample(1))
    assert Store(tmp_path / "own").keys() == [sample(1)[0]]
    assert len(Store(tmp_path / "shipped").keys()) == 1
    monkeypatch.setenv("EINSUMC_CACHE_DIR", str(tmp_path / "moved"))
    assert not holds(default_stores(), 1)
    monkeypatch.setenv("EINSUMC_CACHE_DIR", str(tmp_path / "shipped"))
    assert [store.path for store in default_stores().stores] == [str(tmp_path / "shipped")]
