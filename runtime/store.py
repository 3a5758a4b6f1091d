"""Kernels on disk: whole or absent, checked before use, never changed.

A store is a directory of files `<key[:2]>/<key>.kernel`. The name is the content key (`key.py`), so
there is no index to corrupt and nothing to lock: two writers of one name write the same kernel.

A file is, in little-endian order:

    magic            8 bytes   "EINSUMC" and a zero byte
    format version   4 bytes
    header length    8 bytes
    image length     8 bytes
    digest          32 bytes   SHA-256 of version, lengths, header and image
    header                     canonical JSON with at least key, fields, kind, schema and abi
    image                      position-independent machine code; may be empty for a plan

It is written under a temporary name, flushed, and renamed. A reader checks the owner and the
permissions of the directories and the file, then every byte, and only then hands anything out. A
damaged file counts as missing, and the next `put` replaces it.

The digest finds accidents, not attacks. Loading a store runs its code; what guards it is that
nobody else can write there, which is why a store that others can write is refused.

Nothing here raises for what a disk holds or lacks: trouble is one `StoreWarning`, and the caller
computes on without the store.
"""

import errno
import hashlib
import json
import os
import re
import stat
import struct
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from . import settings
from .key import ABI_VERSION, SCHEMA_VERSION, canonical_json, kernel_key

__all__ = [
    "Entry",
    "Store",
    "StorePath",
    "StoreWarning",
    "StoredKernel",
    "add_store",
    "default_stores",
]

FORMAT_VERSION = 1
MAX_HEADER = 1 << 20
MAX_IMAGE = 64 << 20
STALE_SECONDS = 3600
"""Age at which a temporary file can only be a killed writer's."""

_MAGIC = b"EINSUMC\0"
_PREFIX = struct.Struct("<8sIQQ32s")
_COUNTS = struct.Struct("<IQQ")  # the part of the prefix that the digest covers
_SUFFIX = ".kernel"
_KEY = re.compile("[0-9a-f]{64}")
_SHARD = re.compile("[0-9a-f]{2}")

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: a named pipe in the place of a kernel must not make us wait for its writer.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class StoreWarning(RuntimeWarning):
    """A store or one of its files cannot be used; the message says why and how to mend it."""


class StoredKernel(NamedTuple):
    """A checked file: its header and its code."""

    key: str
    header: dict[str, Any]
    image: bytes

    @property
    def kind(self) -> str:
        """Either "kernel" or "plan"."""
        return str(self.header["kind"])


class Entry(NamedTuple):
    """A line of a listing: the header of a file and its size in bytes. The code is not checked."""

    key: str
    header: dict[str, Any]
    size: int


class Store:
    """One directory of kernels.

    Nothing is touched before the first use; a missing directory is an empty store, and `put` makes
    it. Any number of processes and threads may use one directory at once.

    Args:
        path: the directory; a relative one is resolved now.
        readonly: True never writes, False always tries, None finds out (see `writable`).

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

    def __init__(self, path: str | os.PathLike[str], *, readonly: bool | None = None) -> None:
        self.path = os.path.abspath(path)
        self.readonly = readonly
        self._swept = False

    def __repr__(self) -> str:
        return f"Store({self.path!r}, readonly={self.readonly})"

    def get(self, key: str) -> StoredKernel | None:
        """Return what is stored under `key`, every byte of it checked, or None.

        Raises:
            ValueError: `key` is not 64 lower-case hexadecimal digits.
        """
        with _reading(f"kernel {self._path(key)}"):
            return self._load(key)
        return None

    def keys(self) -> list[str]:
        """Return the keys of all files here, sorted. A file may still turn out to be damaged."""
        found: list[str] = []
        with _reading(f"kernel store {self.path}"), self._root() as root:
            for shard in self._shards(root):
                found += self._keys_in(root, shard)
        return sorted(found)

    def entries(self) -> Iterator[Entry]:
        """Yield the header of every file here in the order of the keys, leaving out damaged ones.

        For listings: the code is neither read nor checked.
        """
        for key in self.keys():
            entry = None
            with _reading(f"kernel {self._path(key)}"):
                entry = self._entry(key)
            if entry is not None:
                yield entry

    def verify(self, key: str) -> bool:
        """Say whether `get` would return this kernel."""
        return self.problem(key) is None

    def problem(self, key: str) -> str | None:
        """Say in words why `get` would not return this kernel; None if it would."""
        path = self._path(key)
        try:
            self._load(key)
        except FileNotFoundError:
            return f"kernel {path} is missing"
        except OSError as error:
            return f"kernel {path} cannot be read: {_reason(error)}"
        except _UnusableError as problem:
            return str(problem)
        return None

    @property
    def writable(self) -> bool:
        """Whether `put` is worth trying: the directory is trusted and can be written, or made."""
        if self.readonly is not None:
            return not self.readonly
        with _reading(f"kernel store {self.path}"):
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
        text = _header_text(key, header, image)
        if self.readonly:
            return False
        if len(text) > MAX_HEADER or len(image) > MAX_IMAGE:
            sizes = f"header {len(text)}, image {len(image)} bytes"
            _warn_once(f"kernel {key} is too large for a store ({sizes}) and is not kept")
            return False
        with _warning(f"kernel store {self.path} cannot be written, so kernels are not kept"):
            self._write(key, _encode(text, image))
            return True
        return False

    def remove(self, key: str) -> bool:
        """Delete one file; return whether it was there and now is not."""
        name = os.path.basename(self._path(key))
        if not self.readonly:
            with (
                _warning(f"kernel {self._path(key)} cannot be removed"),
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
        with _reading(f"kernel store {self.path}"), self._root() as root:
            self._sweep(root, self._shards(root))
        return sum(map(self.remove, self.keys()))

    def _path(self, key: str) -> str:
        if not _KEY.fullmatch(key):
            raise ValueError(f"a key is 64 lower-case hexadecimal digits, not {key!r}")
        return os.path.join(self.path, key[:2], key + _SUFFIX)

    # Directories are opened once and everything inside is reached through the open descriptor, so
    # that what was checked is what is used, even if somebody renames things meanwhile.

    @contextmanager
    def _root(self) -> Iterator[int]:
        what = f"kernel store {self.path}"
        with _opened(what, self.path, _DIRECTORY) as fd:
            self._check_trust(what, os.fstat(fd))
            yield fd

    @contextmanager
    def _shard(self, root: int, shard: str) -> Iterator[int]:
        what = f"kernel store {os.path.join(self.path, shard)}"
        with _opened(what, shard, _DIRECTORY | os.O_NOFOLLOW, root) as fd:
            self._check_trust(what, os.fstat(fd))
            yield fd

    @contextmanager
    def _file(self, shard: int, key: str) -> Iterator[tuple[int, int]]:
        """Open a kernel; yield its descriptor and size."""
        what = f"kernel {self._path(key)}"
        with _opened(what, key + _SUFFIX, _READ, shard) as fd:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise _UnusableError(f"{what} is refused: it is not a regular file")
            self._check_trust(what, status)
            yield fd, status.st_size

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

        raise _UnusableError(
            f"{what} is refused: {why}, and to load it is to run its code. If you trust what is in"
            f" it now: {mend} {shlex.quote(self.path)}. Or use another directory"
            " (EINSUMC_CACHE_DIR).",
            once=f"{self.path} {mend}",
        )

    def _shards(self, root: int) -> list[str]:
        return sorted(filter(_SHARD.fullmatch, os.listdir(root)))

    def _keys_in(self, root: int, shard: str) -> list[str]:
        with _reading(f"kernel store {self.path}"), self._shard(root, shard) as fd:
            keys = [n.removesuffix(_SUFFIX) for n in os.listdir(fd) if n.endswith(_SUFFIX)]
            return [key for key in keys if _KEY.fullmatch(key) and key.startswith(shard)]
        return []

    @contextmanager
    def _kernel(self, key: str) -> Iterator[tuple[int, int]]:
        """Open a kernel from the top; inside, the format's complaints become `_UnusableError`."""
        with (
            self._root() as root,
            self._shard(root, key[:2]) as shard,
            self._file(shard, key) as opened,
            _damage(self._path(key)),
        ):
            yield opened

    def _load(self, key: str) -> StoredKernel:
        with self._kernel(key) as (fd, size):
            header_length, image_length, digest = _parse_prefix(_read(fd, _PREFIX.size), size)
            text, image = _read(fd, header_length), _read(fd, image_length)
            if _digest(text, image) != digest:
                raise ValueError("the digest does not match")
            return StoredKernel(key, _parse_header(text, key, image_length), image)

    def _entry(self, key: str) -> Entry:
        with self._kernel(key) as (fd, size):
            header_length, image_length, _ = _parse_prefix(_read(fd, _PREFIX.size), size)
            return Entry(key, _parse_header(_read(fd, header_length), key, image_length), size)

    def _holds(self, shard: int, key: str, blob: bytes) -> bool:
        with suppress(_UnusableError, OSError), self._file(shard, key) as (fd, size):
            return size == len(blob) and _read(fd, size) == blob
        return False

    def _write(self, key: str, blob: bytes) -> None:
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        with self._root() as root:
            with suppress(FileExistsError):
                os.mkdir(key[:2], 0o700, dir_fd=root)
                _flush_directory(root)
            self._sweep(root, [key[:2]] if self._swept else self._shards(root))
            self._swept = True
            with self._shard(root, key[:2]) as shard:
                if not self._holds(shard, key, blob):
                    _write_file(shard, key + _SUFFIX, blob)

    def _sweep(self, root: int, shards: Iterable[str]) -> None:
        for shard in shards:
            with suppress(_UnusableError, OSError), self._shard(root, shard) as fd:
                _delete_stale(fd)


class StorePath:
    """Several stores, searched in order; what is new goes to the first that can be written."""

    def __init__(self, stores: Iterable[Store]) -> None:
        self.stores = tuple(stores)

    def __repr__(self) -> str:
        return f"StorePath({self.stores})"

    def get(self, key: str) -> StoredKernel | None:
        """Return the first store's answer that is not None; see `Store.get`."""
        return next((found for store in self.stores if (found := store.get(key))), None)

    def put(self, key: str, header: Mapping[str, object], image: bytes) -> bool:
        """Put into the first writable store; see `Store.put`."""
        for store in self.stores:
            if store.writable:
                return store.put(key, header, image)
        paths = ", ".join(store.path for store in self.stores) or "there is none"
        _warn_once(
            f"no kernel store can be written ({paths}), so kernels are not kept;"
            " set EINSUMC_CACHE_DIR to a directory that can be"
        )
        return False

    def keys(self) -> list[str]:
        """Return the keys of all stores together, sorted."""
        return sorted(set().union(*(store.keys() for store in self.stores)))


_added: list[Store] = []


def add_store(path: str | os.PathLike[str], *, readonly: bool = True) -> None:
    """Search another directory after the user's own store, such as one that a package ships.

    Adding a directory again changes nothing.
    """
    store = Store(path, readonly=readonly)
    if all(store.path != other.path for other in _added):
        _added.append(store)


def default_stores() -> StorePath:
    """Return the user's own store (`settings.Settings.store_dir`), then the added ones in order."""
    own = Store(settings.current().store_dir)
    return StorePath((own, *(store for store in _added if store.path != own.path)))


# The format


def _header_text(key: str, header: Mapping[str, object], image: bytes) -> bytes:
    full: dict[str, object] = {"kind": "kernel", **header}
    for name, value in (("key", key), ("schema", SCHEMA_VERSION), ("abi", ABI_VERSION)):
        if full.setdefault(name, value) != value:
            raise ValueError(f"header[{name!r}] is {full[name]!r}, expected {value!r}")
    text = canonical_json(full)
    _parse_header(text, key, len(image))
    return text


def _encode(text: bytes, image: bytes) -> bytes:
    counts = (FORMAT_VERSION, len(text), len(image))
    return _PREFIX.pack(_MAGIC, *counts, _digest(text, image)) + text + image


def _digest(text: bytes, image: bytes) -> bytes:
    digest = hashlib.sha256(_COUNTS.pack(FORMAT_VERSION, len(text), len(image)))
    digest.update(text)
    digest.update(image)
    return digest.digest()


def _parse_prefix(prefix: bytes, size: int) -> tuple[int, int, bytes]:
    """Return header length, image length and digest, if a file of `size` bytes may have them."""
    if len(prefix) < _PREFIX.size:
        raise ValueError("it is too short")
    magic, version, header_length, image_length, digest = _PREFIX.unpack(prefix)
    if magic != _MAGIC:
        raise ValueError("it does not begin as a kernel does")
    if version != FORMAT_VERSION:
        raise ValueError(f"its format version is {version}, this program's {FORMAT_VERSION}")
    if header_length > MAX_HEADER or image_length > MAX_IMAGE:
        raise ValueError("it claims to be too large")
    expected = _PREFIX.size + header_length + image_length
    if size != expected:
        raise ValueError(f"it has {size} bytes where it should have {expected}")
    return header_length, image_length, digest


def _parse_header(text: bytes, key: str, image_length: int) -> dict[str, Any]:
    header = json.loads(text.decode("ascii"))
    if not isinstance(header, dict) or canonical_json(header) != text:
        raise ValueError("the header is not canonical JSON")
    fields, schema, abi = (header.get(name) for name in ("fields", "schema", "abi"))
    if not (isinstance(fields, dict) and isinstance(schema, int) and isinstance(abi, int)):
        raise ValueError("the header lacks fields, schema or abi")
    # A file of another version of einsumc is sound under its own versions. This one never asks for
    # it, since its keys differ, but lists and verifies it.
    if header.get("key") != key or kernel_key(fields, schema=schema, abi=abi) != key:
        raise ValueError("the fields in the header belong to another key")
    kind = header.get("kind")
    if kind not in ("kernel", "plan") or (kind == "kernel" and not image_length):
        raise ValueError(f"the header says kind {kind!r}, with {image_length} bytes of code")
    return header


# Files


@contextmanager
def _opened(what: str, path: str, flags: int, dir_fd: int | None = None) -> Iterator[int]:
    try:
        fd = os.open(path, flags, dir_fd=dir_fd)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _UnusableError(f"{what} cannot be opened: {_reason(error)}") from None
    try:
        yield fd
    finally:
        os.close(fd)


def _read(fd: int, count: int) -> bytes:
    """Read `count` bytes, or fewer where the file ends."""
    parts = []
    while count > 0 and (part := os.read(fd, count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _write_file(directory: int, name: str, blob: bytes) -> None:
    """Make the file `name` with these bytes, at once: before it appears it is whole and on disk."""
    temporary = f".{name}.{os.getpid()}.{os.urandom(8).hex()}.tmp"
    fd = os.open(temporary, _CREATE, 0o600, dir_fd=directory)
    try:
        try:
            rest = memoryview(blob)
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fchmod(fd, 0o444)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        raise
    _flush_directory(directory)


def _delete_stale(directory: int) -> None:
    """Delete the temporary files of writers that were killed."""
    oldest = time.time() - STALE_SECONDS
    with os.scandir(directory) as files:
        stale = [
            file.name
            for file in files
            if file.name.startswith(".")
            and file.name.endswith(".tmp")
            and file.stat(follow_symlinks=False).st_mtime < oldest
        ]
    for name in stale:
        os.unlink(name, dir_fd=directory)


def _flush_directory(fd: int) -> None:
    # Some file systems cannot; what a power cut then takes away is a whole kernel, not half of one.
    with suppress(OSError):
        os.fsync(fd)


# Trouble


class _UnusableError(Exception):
    """A directory or file is there but must not be used."""

    def __init__(self, message: str, once: str | None = None) -> None:
        super().__init__(message)
        self.once = once


@contextmanager
def _damage(path: str) -> Iterator[None]:
    """Say of which file the format's complaints are."""
    try:
        yield
    except (TypeError, ValueError, RecursionError) as why:
        raise _UnusableError(
            f"kernel {path} is damaged and counts as missing: {why}. Compiling it again replaces"
            " it, if the store can be written."
        ) from None


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Turn trouble with reading into one warning; what is missing is no trouble."""
    with _warning(f"{what} cannot be read"), suppress(FileNotFoundError):
        yield


@contextmanager
def _warning(doing: str) -> Iterator[None]:
    """Turn trouble with a disk into one warning."""
    try:
        yield
    except _UnusableError as problem:
        _warn_once(str(problem), problem.once)
    except OSError as error:
        _warn_once(f"{doing}: {_reason(error)}")


def _reason(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "it is a symbolic link"
    return error.strerror or str(error)


_warned: dict[str, object] = {}


def _warn_once(message: str, once: str | None = None) -> None:
    token = object()
    if _warned.setdefault(once or message, token) is token:  # atomic: one thread wins
        warnings.warn(message, StoreWarning, stacklevel=2)
