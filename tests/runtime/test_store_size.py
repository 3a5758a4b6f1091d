"""The size of a store: what was not used for longest goes first, and nothing of it is an error."""

import os
import threading
import time
from pathlib import Path

import pytest
from einsumc.runtime import store as module
from einsumc.runtime.disk import USE_SECONDS
from einsumc.runtime.store import Store, StorePath, default_stores
from kernel_stores import NOBODY, ROOT, caught, filled, fork, holds, path_of, quiet, run, sample

pytestmark = pytest.mark.usefixtures("fresh_stores")

DAY = USE_SECONDS


@pytest.fixture(autouse=True)
def fresh_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_since", {})


def key(number: int) -> str:
    return sample(number)[0]


def used(store: Store, number: int, days_ago: float) -> None:
    """Make it as if a kernel was last used then."""
    when = time.time() - days_ago * DAY
    os.utime(path_of(store, key(number)), (when, when))


def age(store: Store, number: int) -> float:
    """In days."""
    return (time.time() - path_of(store, key(number)).stat().st_mtime) / DAY


def size(store: Store) -> int:
    return sum(file.stat().st_size for file in Path(store.path).rglob("*.kernel"))


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    store = filled(tmp_path, 6)
    for number in range(6):
        used(store, number, days_ago=10 - number)
    assert holds(store, 0)  # which makes it the last to go
    assert holds(store, 3)
    each = path_of(store, key(0)).stat().st_size
    assert store.prune(size(store)) == (0, size(store))
    gone, left = store.prune(3 * each)
    assert (gone, left) == (3, size(store)) == (3, 3 * each)
    assert store.keys() == sorted(key(number) for number in (0, 3, 5))
    assert store.prune(0) == (3, 0)
    assert store.prune(0) == (0, 0)
    assert Store(tmp_path / "none").prune(0) == (0, 0)


def test_use_is_noted_once_a_day(tmp_path: Path) -> None:
    store = filled(tmp_path, 3)
    used(store, 0, days_ago=3)
    used(store, 1, days_ago=0.5)
    used(store, 2, days_ago=-3)  # by another clock
    for number in range(3):
        assert holds(store, number)
    assert abs(age(store, 0)) < 0.01
    assert abs(age(store, 1) - 0.5) < 0.01
    assert abs(age(store, 2)) < 0.01
    # A listing or a check is no use, and neither is what an added store is for.
    used(store, 0, days_ago=3)
    assert len(list(store.entries())) == 3
    assert holds(Store(tmp_path, readonly=True))
    assert abs(age(store, 0) - 3) < 0.01


def test_bytes_stay_the_same(tmp_path: Path) -> None:
    store = filled(tmp_path)
    before = path_of(store, key(0)).read_bytes()
    used(store, 0, days_ago=3)
    assert holds(store)
    assert path_of(store, key(0)).read_bytes() == before


@pytest.mark.skipif(not ROOT, reason="needs root, to become somebody else")
def test_a_file_that_cannot_be_touched_is_used_all_the_same(folder: Path) -> None:
    store = filled(folder / "store")
    for path in (folder / "store").rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o444)
    (folder / "store").chmod(0o755)
    used(store, 0, days_ago=3)

    def read_as_nobody() -> None:
        os.setuid(NOBODY)
        assert caught(lambda: holds(Store(store.path))) == []
        assert holds(Store(store.path))
        said = caught(lambda: Store(store.path).prune(0))
        assert len(said) == 1, said
        assert "cannot be read" in said[0]
        assert holds(Store(store.path))

    run(read_as_nobody)
    assert abs(age(store, 0) - 3) < 0.01


def test_a_store_is_kept_within_its_limit(tmp_path: Path) -> None:
    each = path_of(filled(tmp_path / "other"), key(0)).stat().st_size
    store = Store(tmp_path / "store")
    both = StorePath((store,), limit=20 * each)
    for number in range(100):
        assert both.put(*sample(number))
        used(store, number, days_ago=(100 - number) / 100)
        assert size(store) <= 23 * each
    assert holds(store, 99)
    assert not holds(store, 0)


def test_the_limit_is_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EINSUMC_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("EINSUMC_CACHE_SIZE", "1 KiB")
    for number in range(20):
        default_stores().put(*sample(number))
    assert size(Store(tmp_path)) <= 2048
    monkeypatch.setenv("EINSUMC_CACHE_SIZE", "unlimited")
    for number in range(20):
        default_stores().put(*sample(number))
    assert len(Store(tmp_path).keys()) == 20


def test_a_file_used_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path, 2)
    used(store, 0, days_ago=3)
    used(store, 1, days_ago=2)
    delete = module.delete_unused

    def slowly(directory: int, name: str, when: float) -> bool:
        assert holds(Store(tmp_path))  # another process finds it now
        return delete(directory, name, when)

    monkeypatch.setattr(module, "delete_unused", slowly)
    gone, _ = store.prune(0)
    assert gone == 1
    assert store.keys() == [key(0)]


def test_many_processes_write_read_and_prune(tmp_path: Path) -> None:
    limit = 3000

    def work() -> None:
        both = StorePath((Store(tmp_path),), limit=limit)
        for turn in range(100):
            number = (turn * 7 + os.getpid()) % 12
            assert both.put(*sample(number))
            holds(both, (number + 5) % 12)  # it may be gone, but not wrong

    def everybody() -> None:
        children = [fork(work) for _ in range(4)]
        assert all(os.waitpid(child, 0)[1] == 0 for child in children)

    assert caught(everybody) == []
    store = Store(tmp_path)
    assert all(map(store.verify, store.keys()))
    store.prune(limit)
    assert size(store) <= limit


def test_threads_prune_at_once(tmp_path: Path) -> None:
    store = filled(tmp_path, 40)
    found: list[tuple[int, int]] = []
    threads = [
        threading.Thread(target=lambda: found.append(Store(tmp_path).prune(0))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.keys() == []
    assert all(left == 0 for _, left in found)


def test_what_is_no_kernel_is_left_alone(tmp_path: Path) -> None:
    store = filled(tmp_path, 2)
    strangers = [tmp_path / "machine.toml", tmp_path / key(0)[:2] / "notes.kernel"]
    for stranger in strangers:
        stranger.write_text("mine")
    assert quiet(lambda: store.prune(0)) == (2, 0)
    assert all(stranger.exists() for stranger in strangers)
