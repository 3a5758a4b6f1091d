"""Kernels on disk: whole or absent, checked before use, never changed.

A store is a directory of files `<key[:2]>/<key>.kernel`. The name is the content key (`key.py`), so
there is no index to corrupt and nothing to lock: two writers of one name write the same kernel.

The time of last modification of a file is when it was last used, to a day: this is what `prune`
goes by. It is no part of what is stored, and a disk that does not keep it is no trouble.

A file (its format is in `kernel_file.py`) is written under a temporary name, flushed, and renamed.
A reader checks the owner and the permissions of the directories and the file, then every byte, and
only then hands anything out. A damaged file counts as missing, and the next `put` replaces it.

The digest finds accidents, not attacks. Loading a store runs its code; what guards it is that
nobody else can write there, which is why a store that others can write is refused.

Nothing here raises for what a disk holds or lacks: trouble is one `StoreWarning`, and the caller
computes on without the store.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from ..compiler.records import dataclass
from . import settings
from .disk import (
    DIRECTORY,
    READ,
    delete_stale,
    delete_unused,
    flush_directory,
    note_use,
    opened,
    read,
    write_file,
)
from .kernel_file import (
    MAX_HEADER,
    MAX_IMAGE,
    PREFIX,
    digest_of,
    encode,
    header_text,
    parse_header,
    parse_prefix,
)
from .key import KEY_DIGITS, request
from .trouble import StoreWarning, UnusableError, damage, problem_with, reading, warn_once, warning

__all__ = [
    "Entry",
    "Store",
    "StorePath",
    "StoreWarning",
    "StoredKernel",
    "add_store",
    "default_stores",
]

_SUFFIX = ".kernel"
_SHARD_DIGITS = 2


def _is_hexadecimal(name: str, digits: int) -> bool:
    return len(name) == digits and not name.strip("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class StoredKernel:
    """A checked file: its header and its code."""

    key: str
    header: dict[str, Any]
    image: bytes

    @property
    def kind(self) -> str:
        """Either "kernel" or "plan"."""
        return str(self.header["kind"])


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a listing: the header of a file, its size in bytes, and when it was last used.

    The code is not checked. The time is in seconds since 1970.
    """

    key: str
    header: dict[str, Any]
    size: int
    used: float


class Store:
    """One directory of kernels.

    Nothing is touched before the first use; a missing directory is an empty store, and `put` makes
    it. Any number of processes and threads may use one directory at once.

    Args:
        path: the directory; a relative one is resolved now.
        readonly: True never writes, False always tries, None finds out (see `writable`).
        shipped: whether others may read the directories that `put` makes: root builds an image,
            and somebody else runs it.

    >>> import tempfile
    >>> from einsumc.runtime.key import kernel_key
    >>> fields = {"kind": "plan", "equation": "ij,jk->ik"}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = Store(folder)
    ...     store.put(kernel_key(fields), {"kind": "plan", "fields": fields, "steps": []}, b"")
    ...     store.get(kernel_key(fields)).header["steps"]
    True
    []
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        readonly: bool | None = None,
        shipped: bool = False,
    ) -> None:
        self.path = os.path.abspath(path)
        self.readonly = readonly
        self._mode = 0o755 if shipped else 0o700
        self._swept = False

    def __repr__(self) -> str:
        return f"Store({self.path!r}, readonly={self.readonly})"

    def get(self, key: str) -> StoredKernel | None:
        """Return what is stored under `key`, every byte of it checked, or None.

        Raises:
            ValueError: `key` is not 64 lower-case hexadecimal digits.
        """
        with reading(f"kernel {self._path(key)}"):
            return self._load(key)
        return None

    def find(self, key: str) -> StoredKernel | None:
        """Return what is stored under `key`, or another build of the same request.

        A process without a compiler does not know what the last digits of a key would be; nor does
        it matter, where all else is equal, which LLVM made the code. Among several builds by
        others, the first in the order of the keys is taken.
        """
        found = self.get(key)
        if found is None:
            with reading(f"kernel store {self.path}"), self._root() as root:
                others = self._keys_in(root, key[:2], request(key))
                return next((other for name in others if (other := self.get(name))), None)
        return found

    def keys(self) -> list[str]:
        """Return the keys of all files here, sorted. A file may still turn out to be damaged."""
        found: list[str] = []
        with reading(f"kernel store {self.path}"), self._root() as root:
            for shard in self._shards(root):
                found += self._keys_in(root, shard)
        return sorted(found)

    def entries(self) -> Iterator[Entry]:
        """Yield the header of every file here in the order of the keys, leaving out damaged ones.

        For listings: the code is neither read nor checked.
        """
        for key in self.keys():
            entry = None
            with reading(f"kernel {self._path(key)}"):
                entry = self._entry(key)
            if entry is not None:
                yield entry

    def verify(self, key: str) -> bool:
        """Say whether `get` would return this kernel."""
        return self.problem(key) is None

    def problem(self, key: str) -> str | None:
        """Say in words why `get` would not return this kernel; None if it would."""
        what = f"kernel {self._path(key)}"
        return problem_with(lambda: self._load(key), f"{what} cannot be read", f"{what} is missing")

    @property
    def trouble(self) -> str | None:
        """Why nothing can be read; None if that is not so. A missing store is empty."""

        def look() -> None:
            with self._root() as root:
                os.listdir(root)

        return problem_with(look, "", "it does not exist")

    @property
    def writable(self) -> bool:
        """Whether `put` is worth trying: the directory is trusted and can be written, or made."""
        if self.readonly is not None:
            return not self.readonly
        with reading(f"kernel store {self.path}"):
            with suppress(FileNotFoundError), self._root():
                pass  # it is there and trusted
            place = self.path
            while not os.path.lexists(place):
                place = os.path.dirname(place)
            effective = os.access in os.supports_effective_ids
            return os.access(place, os.W_OK | os.X_OK, effective_ids=effective)
        return False

    def put(self, key: str, header: Mapping[str, object], image: bytes) -> bool:
        """Store a kernel or a plan; return whether it is on disk now.

        Args:
            key: `kernel_key` of `header["fields"]`.
            header: what `canonical_json` accepts: "fields"; "kind", "kernel" by default or "plan";
                and anything else that stays the same whenever the same kernel is built, so no time
                and no path. "key", "schema" and "abi" are added here.
            image: the machine code; only a plan may have none.

        Raises:
            TypeError, ValueError: the arguments contradict each other, or cannot be written as
                canonical JSON. (What the disk does is never an exception.)
        """
        text = header_text(key, header, image)
        if self.readonly:
            return False
        if len(text) > MAX_HEADER or len(image) > MAX_IMAGE:
            sizes = f"header {len(text)}, image {len(image)} bytes"
            warn_once(f"kernel {key} is too large for a store ({sizes}) and is not kept")
            return False
        with warning(f"kernel store {self.path} cannot be written, so kernels are not kept"):
            self._write(key, encode(text, image))
            return True
        return False

    def remove(self, key: str) -> bool:
        """Delete one file; return whether it was there and now is not."""
        name = os.path.basename(self._path(key))
        if not self.readonly:
            with (
                warning(f"kernel {self._path(key)} cannot be removed"),
                suppress(FileNotFoundError),
                self._root() as root,
                self._shard(root, key[:2]) as shard,
            ):
                os.unlink(name, dir_fd=shard)
                return True
        return False

    def clear(self) -> int:
        """Delete all kernels, and what killed writers left; return how many kernels are gone."""
        if self.readonly:
            return 0
        with reading(f"kernel store {self.path}"), self._root() as root:
            self._sweep(root, self._shards(root))
        return sum(map(self.remove, self.keys()))

    def prune(self, limit: int) -> tuple[int, int]:
        """Delete the kernels that were not used for longest until the rest fits.

        A kernel that is used meanwhile stays. What is deleted while a process computes with it is
        in that process's memory: it computes on.

        Args:
            limit: bytes that all files together may have.

        Returns:
            How many files are gone, and how many bytes the rest has.
        """
        gone = total = 0
        with reading(f"kernel store {self.path}"), self._root() as root:
            files = [each for shard in self._shards(root) for each in self._files_in(root, shard)]
            total = sum(size for _, _, size in files)
            for used, key, size in sorted(files):
                if total <= limit or self.readonly:
                    break
                with reading(f"kernel {self._path(key)}"), self._shard(root, key[:2]) as shard:
                    if delete_unused(shard, key + _SUFFIX, used):
                        gone += 1
                        total -= size
        return gone, total

    def _files_in(self, root: int, shard: str) -> list[tuple[float, str, int]]:
        """When the kernels in a shard were last used, their keys, and their sizes in bytes."""
        found = []
        with (
            reading(f"kernel store {self.path}"),
            self._shard(root, shard) as fd,
            os.scandir(fd) as files,
        ):
            for file in files:
                key = file.name.removesuffix(_SUFFIX)
                if key != file.name and _is_hexadecimal(key, KEY_DIGITS):
                    with suppress(FileNotFoundError):
                        status = file.stat(follow_symlinks=False)
                        found.append((status.st_mtime, key, status.st_size))
        return found

    def _path(self, key: str) -> str:
        if not _is_hexadecimal(key, KEY_DIGITS):
            raise ValueError(f"a key is 64 lower-case hexadecimal digits, not {key!r}")
        return os.path.join(self.path, key[:2], key + _SUFFIX)

    # Directories are opened once and everything inside is reached through the open descriptor, so
    # that what was checked is what is used, even if somebody renames things meanwhile.

    @contextmanager
    def _root(self) -> Iterator[int]:
        what = f"kernel store {self.path}"
        with opened(what, self.path, DIRECTORY) as fd:
            self._check_trust(what, os.fstat(fd))
            yield fd

    @contextmanager
    def _shard(self, root: int, shard: str) -> Iterator[int]:
        what = f"kernel store {os.path.join(self.path, shard)}"
        with opened(what, shard, DIRECTORY | os.O_NOFOLLOW, root) as fd:
            self._check_trust(what, os.fstat(fd))
            yield fd

    @contextmanager
    def _file(self, shard: int, key: str) -> Iterator[tuple[int, os.stat_result]]:
        """Open a kernel; yield its descriptor and status."""
        what = f"kernel {self._path(key)}"
        with opened(what, key + _SUFFIX, READ, shard) as fd:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise UnusableError(f"{what} is refused: it is not a regular file")
            self._check_trust(what, status)
            yield fd, status

    def _check_trust(self, what: str, status: os.stat_result) -> None:
        """Refuse what somebody else can change; to load it would be to run their code."""
        if status.st_uid not in (os.geteuid(), 0):
            why = f"it belongs to user {status.st_uid}, not to user {os.geteuid()} (you) or root"
            mend = f"chown -R {os.geteuid()}"
        elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            why = f"others can write to it (mode {stat.S_IMODE(status.st_mode):04o})"
            mend = "chmod -R go-w"
        else:
            return
        import shlex

        raise UnusableError(
            f"{what} is refused: {why}, and to load it is to run its code. If you trust what is in"
            f" it now: {mend} {shlex.quote(self.path)}. Or use another directory"
            " (EINSUMC_CACHE_DIR).",
            once=f"{self.path} {mend}",
        )

    def _shards(self, root: int) -> list[str]:
        return sorted(n for n in os.listdir(root) if _is_hexadecimal(n, _SHARD_DIGITS))

    def _keys_in(self, root: int, shard: str, begin: str = "") -> list[str]:
        """The keys in a shard that begin so, sorted."""
        with reading(f"kernel store {self.path}"), self._shard(root, shard) as fd:
            keys = [n.removesuffix(_SUFFIX) for n in os.listdir(fd) if n.endswith(_SUFFIX)]
            begin = begin or shard
            return sorted(
                key for key in keys if _is_hexadecimal(key, KEY_DIGITS) and key.startswith(begin)
            )
        return []

    @contextmanager
    def _kernel(self, key: str) -> Iterator[tuple[int, os.stat_result]]:
        """Open a kernel from the top; inside, the format's complaints become `UnusableError`."""
        with (
            self._root() as root,
            self._shard(root, key[:2]) as shard,
            self._file(shard, key) as opened,
            damage(self._path(key)),
        ):
            yield opened

    def _load(self, key: str) -> StoredKernel:
        with self._kernel(key) as (fd, status):
            lengths = parse_prefix(read(fd, PREFIX.size), status.st_size)
            header_length, image_length, digest = lengths
            text, image = read(fd, header_length), read(fd, image_length)
            if digest_of(text, image) != digest:
                raise ValueError("the digest does not match")
            found = StoredKernel(key, parse_header(text, key, image_length), image)
            if not self.readonly:
                note_use(fd, status)
            return found

    def _entry(self, key: str) -> Entry:
        with self._kernel(key) as (fd, status):
            size = status.st_size
            header_length, image_length, _ = parse_prefix(read(fd, PREFIX.size), size)
            header = parse_header(read(fd, header_length), key, image_length)
            return Entry(key, header, size, status.st_mtime)

    def _holds(self, shard: int, key: str, blob: bytes) -> bool:
        with suppress(UnusableError, OSError), self._file(shard, key) as (fd, status):
            return status.st_size == len(blob) and read(fd, len(blob)) == blob
        return False

    def _write(self, key: str, blob: bytes) -> None:
        os.makedirs(self.path, mode=self._mode, exist_ok=True)
        with self._root() as root:
            with suppress(FileExistsError):
                os.mkdir(key[:2], self._mode, dir_fd=root)
                flush_directory(root)
            self._sweep(root, [key[:2]] if self._swept else self._shards(root))
            self._swept = True
            with self._shard(root, key[:2]) as shard:
                if not self._holds(shard, key, blob):
                    write_file(shard, key + _SUFFIX, blob)

    def _sweep(self, root: int, shards: Iterable[str]) -> None:
        for shard in shards:
            with suppress(UnusableError, OSError), self._shard(root, shard) as fd:
                delete_stale(fd)


class StorePath:
    """Several stores, searched in order; what is new goes to the first that can be written.

    Args:
        stores: in the order in which they are searched.
        limit: bytes that the one that is written may have (see `Store.prune`); None for any.
    """

    def __init__(self, stores: Iterable[Store], limit: int | None = None) -> None:
        self.stores = tuple(stores)
        self.limit = limit

    def __repr__(self) -> str:
        return f"StorePath({self.stores})"

    def get(self, key: str) -> StoredKernel | None:
        """Return the first store's answer that is not None; see `Store.get`."""
        return next((found for store in self.stores if (found := store.get(key))), None)

    def find(self, key: str) -> StoredKernel | None:
        """Return the first store's answer that is not None; see `Store.find`."""
        return next((found for store in self.stores if (found := store.find(key))), None)

    def put(self, key: str, header: Mapping[str, object], image: bytes) -> bool:
        """Put into the first writable store, and keep that within `limit`; see `Store.put`."""
        for store in self.stores:
            if store.writable:
                done = store.put(key, header, image)
                if done and self.limit is not None:
                    _keep_within(store, self.limit, len(image) + len(repr(header)))
                return done
        paths = ", ".join(store.path for store in self.stores) or "there is none"
        warn_once(
            f"no kernel store can be written ({paths}), so kernels are not kept;"
            " set EINSUMC_CACHE_DIR to a directory that can be"
        )
        return False

    def keys(self) -> list[str]:
        """Return the keys of all stores together, sorted."""
        return sorted(set().union(*(store.keys() for store in self.stores)))


_since: dict[str, int] = {}  # bytes that this process wrote since it last looked at a store's size


def _keep_within(store: Store, limit: int, new: int) -> None:
    """Prune a store, but look at it once in a while only: a look takes time for every file."""
    written = _since.get(store.path, limit) + new
    if written * 16 >= limit:
        store.prune(limit)
        written = 0
    _since[store.path] = written


_added: list[Store] = []


def add_store(path: str | os.PathLike[str], *, readonly: bool = True) -> None:
    """Search another directory after the user's own store, such as one that a package ships.

    A package calls this when it is imported, with a directory that `einsumc precompile --output`
    filled. Several directories are searched in the order in which they were added. Adding one again
    changes nothing; one that does not exist is an empty store.

    Args:
        path: the directory; a relative one is resolved now. It must belong to the user or to root,
            and nobody else may be able to write there: loading a store is running its code.
        readonly: by default nothing is ever written there. With False, new kernels go there if the
            user's own store cannot be written.

    Raises:
        ValueError: the path is empty.

    >>> import os, tempfile
    >>> import einsumc
    >>> folder = os.path.join(tempfile.gettempdir(), "kernels of an example")
    >>> einsumc.add_store(folder)
    """
    if not path:
        raise ValueError("add_store() needs the name of a directory")
    store = Store(os.fsdecode(path), readonly=readonly)
    if all(store.path != other.path for other in _added):
        _added.append(store)


def default_stores() -> StorePath:
    """Return the user's own store (`settings.Settings.store_dir`), then the added ones in order."""
    wishes = settings.current()
    own = Store(wishes.store_dir)
    stores = (own, *(store for store in _added if store.path != own.path))
    return StorePath(stores, wishes.cache_size)
