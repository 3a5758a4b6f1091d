"""For all tests: importable helpers, a kernel store of their own, golden files.

The helpers beside this file, such as `strategies.py`, can be imported from any test. Kernels go to
a new directory, which all workers of a run share, unless EINSUMC_CACHE_DIR names another one: the
user's own store is never touched. Nothing is flushed to the disk, which would take twenty
milliseconds a kernel: that it would be is what `runtime/test_store_writers.py` tests.
"""

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

import sweeps


def pytest_configure(config):
    if config.option.markexpr.startswith("slow"):
        sweeps.factor = 10
    os.fsync = lambda file: None
    if hasattr(config, "workerinput"):  # a worker of pytest-xdist: it inherits the rest
        return
    # What a shell starts in the background ignores Ctrl-C, and so do the processes that tests
    # start: some press it themselves.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = tempfile.mkdtemp(prefix="einsumc-tests-")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.environ.setdefault("EINSUMC_CACHE_DIR", os.path.join(folder, "kernels"))
    # For tests, and processes that they start, which unset that one.
    os.environ["XDG_CACHE_HOME"] = folder


def pytest_addoption(parser):
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="rewrite tests/golden/ and the generated blocks of docs/architecture.md",
    )


@pytest.fixture
def update_golden(request):
    """Whether golden files are to be rewritten instead of compared."""
    return request.config.getoption("--update-golden")
