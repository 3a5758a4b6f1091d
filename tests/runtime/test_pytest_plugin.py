"""The plugin of pytest: tests in which something is compiled fail, and say what."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

TESTS = """
import numpy as np
import pytest
import einsumc

def product(size="f8"):
    return einsumc.einsum("ij,j->i", np.ones((3, 4), size), np.ones(4, size))

def test_plain():
    product()

def test_after_that_it_is_there(einsumc_no_compile):
    product()

def test_fixture(einsumc_no_compile):
    product("f4")

@pytest.mark.einsumc_no_compile
def test_marker():
    product("c8")

@pytest.mark.einsumc_no_compile
def test_caught():
    with pytest.raises(RuntimeError):
        product("c16")

@pytest.mark.einsumc_no_compile
def test_no_kernels():
    assert einsumc.einsum("ij->ji", np.ones((2, 3))).shape == (3, 2)

@pytest.mark.einsumc_no_compile
def test_failed_anyway():
    assert product() is None

def test_allowed_again():
    product("i4")
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project with a store of its own."""
    monkeypatch.setenv("EINSUMC_CACHE_DIR", str(pytester.path / "store"))
    monkeypatch.delenv("EINSUMC_COMPILE", raising=False)
    pytester.makepyfile(TESTS)
    return pytester


def run(project: pytest.Pytester, *options: str) -> pytest.RunResult:
    plugin = ("-p", "einsumc.runtime.pytest_plugin")
    return project.runpytest_subprocess("-p", "no:einsumc", *plugin, "-rA", *options)


def test_fixture_and_marker(project):
    result = run(project)
    result.assert_outcomes(passed=4, failed=4)
    outcome = dict(
        line.split(" - ")[0].split(" ")[::-1]
        for line in result.outlines
        if line.startswith(("PASSED ", "FAILED "))
    )
    names = {name.split("::")[1]: word for name, word in outcome.items()}
    assert names == {
        "test_plain": "PASSED",
        "test_after_that_it_is_there": "PASSED",
        "test_fixture": "FAILED",
        "test_marker": "FAILED",
        "test_caught": "FAILED",
        "test_no_kernels": "PASSED",
        "test_failed_anyway": "FAILED",
        "test_allowed_again": "PASSED",
    }
    result.stdout.fnmatch_lines(["*operands   complex128 3x4 C, complex128 4 C"])
    result.stdout.fnmatch_lines(["*equation   ij,j->i"])
    result.stdout.fnmatch_lines(["*einsumc precompile kernels.toml --target*"])


def test_option(project):
    result = run(project, "--einsumc-no-compile")
    result.assert_outcomes(passed=1, failed=7)
    assert not Path(project.path / "store").exists()


@pytest.mark.slow
def test_option_after_a_run_that_was_allowed_to(project):
    run(project, "-k", "test_plain or test_allowed_again")
    run(project, "--einsumc-no-compile", "-k", "test_plain or test_allowed_again").assert_outcomes(
        passed=2
    )


def test_idle_where_nobody_asks(project):
    project.makepyfile(
        test_other="""
        import os, sys
        def test_nothing_is_loaded_or_set():
            assert "EINSUMC_COMPILE" not in os.environ
            assert not {"numpy", "numba", "einsumc.runtime.kernels"} & set(sys.modules)
        """
    )
    run(project, "test_other.py").assert_outcomes(passed=1)
    assert "einsumc_no_compile" in run(project, "--markers").stdout.str()
