"""The package as a whole: what importing it costs, and that its parts keep their distance."""

import ast
import subprocess
import sys
import tomllib
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import einsumc
import pytest

PROJECT = Path(__file__).parents[1]
PACKAGE = Path(einsumc.__file__).parent


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", *arguments], check=True, capture_output=True, text=True
    )


def test_version_is_the_one_in_pyproject():
    declared = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    assert einsumc.__version__ == declared == version("einsumc")


def test_package_is_marked_as_typed():
    assert files("einsumc").joinpath("py.typed").is_file()


def test_import_loads_nothing_heavy():
    report = python("-X", "importtime", "-c", "import einsumc").stderr
    loaded = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in report.splitlines()}
    assert "einsumc" in loaded
    heavy = {"click", "llvmlite", "numba", "numpy", "opt_einsum", "platformdirs", "rich"}
    assert not heavy & loaded


@pytest.mark.parametrize("name", einsumc.__all__)
def test_public_name_exists(name):
    assert name in dir(einsumc)
    assert getattr(einsumc, name) is not None


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = einsumc.no_such_name


def test_compiler_never_imports_runtime():
    for path in (PACKAGE / "compiler").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.ImportFrom(module=module, names=names):
                    imported = [module or "", *(alias.name for alias in names)]
                case ast.Import(names=names):
                    imported = [alias.name for alias in names]
                case _:
                    continue
            words = {word for name in imported for word in name.split(".")}
            assert "runtime" not in words, f"{path.name}:{node.lineno} imports the runtime"
