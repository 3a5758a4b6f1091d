"""Kernels on disk that are damaged: every byte flipped, every length cut."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from einsumc.runtime import kernel_file
from einsumc.runtime.kernel_file import MAX_HEADER, MAX_IMAGE
from einsumc.runtime.key import ABI_VERSION, SCHEMA_VERSION, canonical_json, kernel_key
from einsumc.runtime.store import (
    Store,
)
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from kernel_stores import caught, filled, holds, overwrite, path_of, python, quiet, sample

pytestmark = pytest.mark.usefixtures("fresh_stores")


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
light = {"einsumc.compiler", "einsumc.compiler.alone", "einsumc.compiler.records"}
print([name for name in sys.modules if name.startswith(heavy) and name not in light])
"""
    done = python(script)
    assert done.stdout == "[]\n", done.stderr
