"""Keys: each field counts, nothing else does."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from einsumc.runtime import key as key_module
from einsumc.runtime.key import KernelFields, canonical_json, kernel_key, text_digest
from hypothesis import given
from hypothesis import strategies as st

SAMPLE = KernelFields(
    text=text_digest("for i: for k: for j: c[i,j] += a[i,k] * b[k,j]"),
    dtypes=("float32", "float32", "float32"),
    layout="C,C->C",
    options={"unroll": 4, "fuse": True, "pack": None},
    generator="0.1.0",
    llvm="20.1.8",
    target="x86-64-v3",
    features=("fma", "avx2"),
    abi=1,
)

CHANGED: dict[str, list[Any]] = {
    "text": [text_digest("for i: pass"), ""],
    "dtypes": [
        ("float64", "float32", "float32"),
        ("float32", "float32", "float64"),
        ("float32", "float32"),
        (),
    ],
    "layout": ["C,F->C"],
    "options": [
        {"unroll": 8, "fuse": True, "pack": None},
        {"unroll": 4, "fuse": 1, "pack": None},
        {"unroll": "4", "fuse": True, "pack": None},
        {"unroll": 4, "fuse": True, "pack": False},
        {"unroll": 4, "fuse": True},
        {"unroll": 4, "fuse": True, "pack": None, "tile": 6},
    ],
    "generator": ["0.1.1"],
    "llvm": ["20.1.9"],
    "target": ["znver3"],
    "features": [("fma",), ("fma", "avx2", "avx512f"), ()],
    "abi": [2],
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_every_field_is_tried() -> None:
    assert set(CHANGED) == {field.name for field in fields(KernelFields)}
    assert set(SAMPLE.fields()) == {*CHANGED, "kind"}


def test_each_field_alone_changes_the_key() -> None:
    variants = [
        replace(SAMPLE, **{name: value}) for name, values in CHANGED.items() for value in values
    ]
    keys = {variant.key() for variant in (SAMPLE, *variants)}
    assert len(keys) == 1 + len(variants)


@pytest.mark.parametrize("version", ["SCHEMA_VERSION", "ABI_VERSION"])
def test_versions_change_the_key(version: str) -> None:
    number = getattr(key_module, version)
    name = version.removesuffix("_VERSION").lower()
    old, new = (kernel_key(SAMPLE.fields(), **{name: n}) for n in (number, number + 1))
    assert old == SAMPLE.key() != new


def test_order_does_not_matter() -> None:
    options = dict(reversed(list(SAMPLE.options.items())))
    same = replace(SAMPLE, options=options, features=["avx2", "fma", "avx2"])
    assert same.key() == SAMPLE.key()
    assert kernel_key({"a": 1, "b": 2}) == kernel_key({"b": 2, "a": 1})


def test_the_key_is_what_it_always_was() -> None:
    # If this changes, SCHEMA_VERSION has to be raised with it: kernels in stores carry these keys.
    assert SAMPLE.key() == "8bb083bf40781ae1d1aadd4ef81b7f3e900e8a9c41541f2e0fe692b92a7861c9"


def test_nothing_of_the_process_enters(tmp_path: Path) -> None:
    script = (
        "from einsumc.runtime.key import KernelFields\n"
        f"print({SAMPLE!r}.key())\n"
        "options = {name: len(name) for name in {'fuse', 'pack', 'tile', 'unroll'}}\n"
        "features = frozenset({'avx', 'avx2', 'fma', 'bmi', 'f16c'})\n"
        "print(KernelFields('\\xe9', (), '', options, '', '', '', features).key())\n"
    )
    seen = set()
    roots = os.pathsep.join(filter(None, map(os.path.abspath, sys.path)))
    for number, surroundings in enumerate(
        [
            {"PYTHONHASHSEED": "0", "LC_ALL": "C", "TZ": "UTC", "PYTHONUTF8": "0"},
            {"PYTHONHASHSEED": "1", "LC_ALL": "tr_TR.UTF-8", "TZ": "Asia/Tokyo"},
            {"PYTHONHASHSEED": "2", "LC_ALL": "C.UTF-8", "EINSUMC_TARGET": "x86-64-v2"},
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | surroundings | {"PYTHONPATH": roots},
            cwd=folder,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        seen.add(done.stdout)
    assert len(seen) == 1
    assert SAMPLE.key() in seen.pop().decode()


@given(JSON)
def test_canonical_json_is_json_and_canonical(value: Any) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text
    assert text.isascii()
    assert b"\n" not in text


@given(JSON, JSON)
def test_canonical_json_tells_values_apart(one: Any, other: Any) -> None:
    # repr also tells 1 from True, which == does not.
    same = repr(_sorted(one)) == repr(_sorted(other))
    assert (canonical_json(one) == canonical_json(other)) == same


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


class _Number(IntEnum):
    ONE = 1


def _circle() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


def _deep(levels: int) -> list[Any]:
    return [_deep(levels - 1)] if levels else []


OTHERS = [1.0, float("nan"), np.float64(1), np.int64(1), np.bool_(True), np.str_("x"), _Number.ONE]
OTHERS += [(1, 2), {1, 2}, b"x", {1: 2}, {None: 1}, {"a": {"b": [0.5]}}, object()]


@pytest.mark.parametrize("value", OTHERS, ids=[type(value).__name__ for value in OTHERS])
def test_other_types_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match="canonical JSON"):
        canonical_json(value)


@pytest.mark.parametrize(
    "make", [lambda: 2**64, lambda: -(2**63) - 1, lambda: 1 << 99999, lambda: _deep(100), _circle]
)
def test_too_much_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="canonical JSON"):
        canonical_json(make())
