"""Fixtures: a stand-in for execution, which counts, and what tests of kernel stores need."""

import importlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from einsumc.compiler.subscripts import Expression
from einsumc.runtime import covering, kernels, stored_plan, trouble
from einsumc.runtime import store as store_module


class Executor(ModuleType):
    """Stands in for `runtime/execute.py`: counts what is prepared, computes with np.einsum."""

    def __init__(self) -> None:
        super().__init__("einsumc.runtime.execute")
        self.prepared: list[tuple[Expression, list[Any], Any, Any]] = []
        self.hook: Callable[[], object] = lambda: None

    def prepare(
        self,
        expression: Expression,
        operands: Sequence[Any],
        out: Any,
        optimize: Any,
        memory_limit: int | None,
    ) -> Callable[[Sequence[Any], Any], None]:
        for array in (*operands, out):
            assert array.dtype == out.dtype
            assert array.dtype.isnative
            assert array.flags.aligned
            assert not any(stride % array.itemsize for stride in array.strides)
        assert 0 not in expression.sizes.values()
        assert not any(np.may_share_memory(array, out, max_work=1000) for array in operands)
        self.prepared.append((expression, list(operands), out, optimize))
        self.hook()
        numbers = {name: n for n, (name, _) in enumerate(expression.extents)}

        def execute(operands: Sequence[Any], out: Any) -> None:
            arguments = []
            for axes, array in zip(expression.inputs, operands, strict=True):
                taken = array[(*(0 if axis is None else slice(None) for axis in axes), ...)]
                arguments += [taken, [numbers[a.names[0]] for a in axes if a is not None]]
            np.einsum(*arguments, [numbers[a.names[0]] for a in expression.output], out=out)

        return execute


@pytest.fixture
def executor(monkeypatch):
    made = Executor()
    monkeypatch.setitem(sys.modules, made.__name__, made)
    monkeypatch.setattr(stored_plan, "_fields", lambda *call: None)
    return made


@pytest.fixture
def fresh_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every test see the warnings that come only once, and the stores it adds itself."""
    monkeypatch.setattr(trouble, "_warned", {})
    monkeypatch.setattr(store_module, "_added", [])


@pytest.fixture
def empty_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_stores: None) -> Path:
    """An empty store, in a process that has no kernel in memory and has kept no plan."""
    monkeypatch.setenv("EINSUMC_CACHE_DIR", str(tmp_path / "store"))
    monkeypatch.delenv("EINSUMC_TARGET", raising=False)
    monkeypatch.setattr(kernels, "_kernels", {})
    monkeypatch.setattr(kernels, "_addresses", {})
    monkeypatch.setattr(stored_plan, "_kept", 0)
    return tmp_path / "store"


@pytest.fixture
def few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels for signatures are those of few calls: for tests that any kernels will do for."""
    monkeypatch.setattr(covering, "CALLS", 100)


@pytest.fixture
def module_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], ModuleType]]:
    """Makes a module of a text that can be imported by its name, for one test."""
    made: list[str] = []

    def make(name: str, text: str) -> ModuleType:
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        made.append(name)
        return importlib.import_module(name)

    yield make
    for name in made:
        sys.modules.pop(name, None)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that other users can reach, unlike pytest's."""
    path = Path(tempfile.mkdtemp(prefix="einsumc-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)
