"""Kernel stores on full and read-only disks, and what others may write."""

import errno
import os
import resource
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from einsumc.runtime.store import (
    Store,
    StorePath,
)
from kernel_stores import (
    NOBODY,
    ROOT,
    caught,
    filled,
    holds,
    no_leftovers,
    path_of,
    python,
    quiet,
    run,
    sample,
)

pytestmark = pytest.mark.usefixtures("fresh_stores")


# Disks that are full or read-only


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


def test_a_store_that_is_shipped_can_be_read_by_others(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        for shipped, mode in ((True, 0o755), (False, 0o700)):
            store = Store(tmp_path / str(shipped), shipped=shipped)
            assert store.put(*sample(1))
            for folder in (Path(store.path), *Path(store.path).iterdir()):
                assert folder.stat().st_mode & 0o777 == mode
            assert store.trouble is None
    finally:
        os.umask(old)
    assert Store(tmp_path / "none").trouble == "it does not exist"
