"""Writers of kernels: killed at any moment, and many at once."""

import os
import random
import signal
import stat
import threading
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from einsumc.runtime.store import (
    Store,
)
from kernel_stores import (
    caught,
    filled,
    fork,
    holds,
    overwrite,
    path_of,
    quiet,
    sample,
)

pytestmark = pytest.mark.usefixtures("fresh_stores")


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
