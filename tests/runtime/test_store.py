"""Kernels on disk: what is put comes back."""

import hashlib
import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from einsumc.runtime.kernel_file import MAX_HEADER, MAX_IMAGE
from einsumc.runtime.key import ABI_VERSION, SCHEMA_VERSION, canonical_json, kernel_key
from einsumc.runtime.store import (
    Store,
    StoredKernel,
    StorePath,
    add_store,
    default_stores,
)
from kernel_stores import (
    caught,
    filled,
    holds,
    overwrite,
    path_of,
    quiet,
    sample,
)

pytestmark = pytest.mark.usefixtures("fresh_stores")


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
