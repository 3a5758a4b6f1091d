"""A plugin of pytest: tests that fail if anything is compiled.

Installed with einsumc, and idle unless it is asked for:

    pytest --einsumc-no-compile                  in no test may anything be compiled
    @pytest.mark.einsumc_no_compile              nor in this test
    def test_it(einsumc_no_compile): ...         nor in this one

In such a test EINSUMC_COMPILE is "never", for processes that it starts as well, and a call whose
kernels are in no store raises `KernelMissing`, which names the equation and what would compile it.
The test fails even if it catches that. Kernels that were compiled before, by another test or while
modules were imported, are there and no error: to see all, start with an empty store
(EINSUMC_CACHE_DIR), and give the option.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .kernels import KernelMissing

__all__ = ["einsumc_no_compile"]

_OPTION = "--einsumc-no-compile"
_NAME = "einsumc_no_compile"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    group = parser.getgroup("einsumc")
    group.addoption(_OPTION, action="store_true", help="fail tests in which einsumc compiles")


def pytest_configure(config: pytest.Config) -> None:
    """Say what the marker is for; with the option, forbid to compile from now on."""
    from . import settings  # noqa: F401 - before a test changes the working directory

    config.addinivalue_line("markers", f"{_NAME}: the test fails if einsumc compiles in it")
    if config.getoption(_OPTION):
        before = os.environ.get("EINSUMC_COMPILE")
        os.environ["EINSUMC_COMPILE"] = "never"
        config.add_cleanup(lambda: _restore(before))


@pytest.fixture
def einsumc_no_compile() -> None:
    """Nothing may be compiled in the test (see `pytest_runtest_call`)."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Run a test; one that may not compile fails where a kernel is missing."""
    asked = (
        item.config.getoption(_OPTION)
        or item.get_closest_marker(_NAME) is not None
        or _NAME in getattr(item, "fixturenames", ())
    )
    if not asked:
        return (yield)
    with _forbidden() as missing:
        result = yield
    if missing:  # and the test has caught it
        pytest.fail("\n".join(map(str, missing)), pytrace=False)
    return result


@contextmanager
def _forbidden() -> Iterator[list[KernelMissing]]:
    """Forbid to compile; the list collects what would have been."""
    from .missing import hooks

    missing: list[KernelMissing] = []
    before = os.environ.get("EINSUMC_COMPILE")
    os.environ["EINSUMC_COMPILE"] = "never"
    hooks.append(missing.append)
    try:
        yield missing
    finally:
        hooks.remove(missing.append)
        _restore(before)


def _restore(before: str | None) -> None:
    if before is None:
        os.environ.pop("EINSUMC_COMPILE", None)
    else:
        os.environ["EINSUMC_COMPILE"] = before
