"""NumPy's own tests of einsum, with `einsumc.einsum` in the place of `np.einsum`.

They are taken from the NumPy that is installed. Left out is what tests `np.einsum_path` alone, and
one assertion: NumPy refuses `ij->jij`, which here writes a diagonal.
"""

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from einsumc.runtime.decorator import einsum

MODULE = "numpy._core.tests.test_einsum"

# Those that compile fifty kernels.
SLOW = re.compile(r"test_einsum_sums_.*|test_complex|test_edge_cases|test_random_cases")


def source() -> tuple[str, Path] | None:
    """The text of NumPy's tests, if they are installed."""
    try:
        spec = importlib.util.find_spec(MODULE)
    except ModuleNotFoundError:
        return None
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).read_text(encoding="utf-8"), Path(spec.origin)


def with_our_einsum(text: str) -> str:
    """The same tests of another function."""
    text = re.sub(r"\bnp\.einsum, np\.einsum_path\b", "np.einsum", text)
    text = re.sub(r"\bnp\.einsum\b", "einsumc_einsum", text)
    repeated = r'assert_raises\(ValueError, einsum_fn, "ij->jij", [^)]*\)'
    assert len(re.findall(repeated, text)) == 1
    return re.sub(repeated, "pass", text)


def without_path_tests(tree: ast.Module) -> ast.Module:
    """Drop the tests that never call einsum."""

    def calls_einsum(node: ast.stmt) -> bool:
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        methods = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
        return bool(names & {"einsumc_einsum", "einsum_fn"}) or bool(
            methods & {"optimize_compare", "check_einsum_sums"}
        )

    for item in tree.body:
        if isinstance(item, ast.ClassDef):
            item.body = [
                node
                for node in item.body
                if not isinstance(node, ast.FunctionDef)
                or not node.name.startswith("test_")
                or calls_einsum(node)
            ]
    return tree


def load() -> dict[str, Any]:
    """NumPy's test classes and functions, by name."""
    found = source()
    if found is None:
        return {}
    text, path = found
    module = ModuleType("numpy_einsum_tests")
    module.__dict__["einsumc_einsum"] = einsum
    tree = without_path_tests(ast.parse(with_our_einsum(text)))
    exec(compile(tree, str(path), "exec"), module.__dict__)
    found = {name: value for name, value in vars(module).items() if re.match("[Tt]est", name)}
    for name, test in vars(found["TestEinsum"]).items():
        if SLOW.fullmatch(name):
            pytest.mark.slow(test)
    return found


NUMPY_TESTS = load()
globals().update(NUMPY_TESTS)


def test_numpy_tests_are_there():
    if not NUMPY_TESTS:
        pytest.skip(f"this NumPy came without its tests: there is no {MODULE}")
    assert {"TestEinsum", "TestEinsumPath", "test_overlap"} <= NUMPY_TESTS.keys()
    assert len([name for name in vars(NUMPY_TESTS["TestEinsum"]) if name.startswith("test_")]) > 40
