"""Every EINSUMC_ variable: what it accepts, what it refuses, and that it is read late."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from einsumc.runtime import settings
from einsumc.runtime.settings import Settings, SettingsError, current


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in settings.VARIABLES:
        monkeypatch.delenv(variable.name, raising=False)


def test_defaults() -> None:
    assert current() == Settings(None, 1 << 30, "auto", None, None, None, (), "native")


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("EINSUMC_CACHE_DIR", "/somewhere/else", "cache_dir", "/somewhere/else"),
        ("EINSUMC_CACHE_DIR", "~/kernels", "cache_dir", os.path.expanduser("~/kernels")),
        ("EINSUMC_CACHE_DIR", "kernels", "cache_dir", os.path.abspath("kernels")),
        ("EINSUMC_CACHE_SIZE", "500MB", "cache_size", 500_000_000),
        ("EINSUMC_CACHE_SIZE", "1.5 GiB", "cache_size", 3 << 29),
        ("EINSUMC_CACHE_SIZE", "0", "cache_size", 0),
        ("EINSUMC_CACHE_SIZE", "unlimited", "cache_size", None),
        ("EINSUMC_COMPILE", "never", "compile", "never"),
        ("EINSUMC_COMPILE", " auto ", "compile", "auto"),
        ("EINSUMC_MACHINE", "/somewhere/machine.toml", "machine", "/somewhere/machine.toml"),
        ("EINSUMC_MACHINE", "machine.toml", "machine", os.path.abspath("machine.toml")),
        ("EINSUMC_NUM_THREADS", "1", "num_threads", 1),
        ("EINSUMC_NUM_THREADS", "64", "num_threads", 64),
        ("EINSUMC_SHOW", "asm", "show", ("asm",)),
        ("EINSUMC_SHOW", "source, program,", "show", ("program", "source")),
        ("EINSUMC_TARGET", "x86-64-v4", "target", "x86-64-v4"),
    ],
)
def test_accepted(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, field: str, value: object
) -> None:
    monkeypatch.setenv(name, text)
    assert getattr(current(), field) == value


@pytest.mark.parametrize("name", [variable.name for variable in settings.VARIABLES])
@pytest.mark.parametrize("text", ["", "  "])
def test_empty_is_unset(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv(name, text)
    assert current() == Settings()


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("EINSUMC_CACHE_SIZE", "much", "nor 'unlimited'"),
        ("EINSUMC_CACHE_SIZE", "-1", "nor 'unlimited'"),
        ("EINSUMC_COMPILE", "sometimes", "auto or never"),
        ("EINSUMC_COMPILE", "Never", "auto or never"),
        ("EINSUMC_NUM_THREADS", "0", "positive whole number"),
        ("EINSUMC_NUM_THREADS", "-1", "positive whole number"),
        ("EINSUMC_NUM_THREADS", "2.0", "positive whole number"),
        ("EINSUMC_NUM_THREADS", "٣", "positive whole number"),
        ("EINSUMC_NUM_THREADS", "9" * 5000, "positive whole number"),
        ("EINSUMC_SHOW", "tree,lops", "'lops' is none of program,tree,loops,source,asm"),
        ("EINSUMC_TARGET", "haswell", "native or x86-64-v2 or x86-64-v3 or x86-64-v4"),
    ],
)
def test_refused(monkeypatch: pytest.MonkeyPatch, name: str, text: str, says: str) -> None:
    monkeypatch.setenv(name, text)
    for _ in range(2):  # a refusal is not forgotten
        with pytest.raises(SettingsError, match=name) as error:
            current()
        assert says in str(error.value)


def test_changes_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EINSUMC_NUM_THREADS", "2")
    assert current().num_threads == 2
    assert current() is current()
    monkeypatch.setenv("EINSUMC_NUM_THREADS", "3")
    assert current().num_threads == 3
    monkeypatch.delenv("EINSUMC_NUM_THREADS")
    assert current().num_threads is None


MOVED = """
import os, sys
import numpy as np
import einsumc
from einsumc.runtime.settings import current
os.mkdir("elsewhere")
os.chdir("elsewhere")
einsumc.einsum("i,i->", np.ones(3), np.ones(3))
os.environ["EINSUMC_NUM_THREADS"] = "1"
print(current().store_dir, os.listdir(), len(os.listdir("../kernels")) > 0)
"""

DELETED = """
import os, warnings
os.mkdir("gone"); os.chdir("gone"); os.rmdir("../gone")
import numpy as np
import einsumc
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print(einsumc.einsum("i,i->", np.ones(3), np.ones(3)))
print(len({str(each.message)[:60] for each in caught}) > 0)
"""


def in_new_process(script: str, folder: Path, **variables: str) -> str:
    env = {**os.environ, **variables, "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-c", script]
    return subprocess.run(
        command, cwd=folder, env=env, check=True, text=True, stdout=subprocess.PIPE
    ).stdout


def test_no_later_change_of_directory_moves_a_store(tmp_path: Path) -> None:
    printed = in_new_process(MOVED, tmp_path, EINSUMC_CACHE_DIR="kernels")
    assert printed == f"{tmp_path / 'kernels'} [] True\n"


def test_a_working_directory_that_is_deleted_is_a_warning(tmp_path: Path) -> None:
    names = {"EINSUMC_CACHE_DIR": "kernels", "EINSUMC_RECORD": "used.toml"}
    assert in_new_process(DELETED, tmp_path, **names) == "3.0\nTrue\n"


def test_without_a_home_the_store_is_no_relative_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert os.path.isabs(current().store_dir)


def test_default_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert os.path.basename(current().store_dir) == "einsumc"
    if sys.platform == "linux":
        assert current().store_dir == "/somewhere/einsumc"
    monkeypatch.setenv("EINSUMC_CACHE_DIR", "/mine")
    assert current().store_dir == "/mine"


@pytest.mark.parametrize("caches", ["", "relative", "/somewhere/else"])
def test_the_default_is_the_systems_and_found_without_platformdirs(caches: str) -> None:
    script = (
        "import sys; from einsumc.runtime.settings import current;"
        "print(current().store_dir, 'platformdirs' in sys.modules);"
        "import platformdirs; print(platformdirs.user_cache_path('einsumc'))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "EINSUMC_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment | {"XDG_CACHE_HOME": caches},
        capture_output=True,
        check=False,
        text=True,
    )
    ours, loaded, theirs = done.stdout.split()
    assert loaded == "False", done.stderr
    # A relative path is none, says the specification; platformdirs takes it from some version on.
    assert ours == theirs or caches == "relative"
    assert os.path.isabs(ours)


def test_the_table_and_the_record_agree() -> None:
    fields = [variable.field for variable in settings.VARIABLES]
    assert fields == list(Settings.__dataclass_fields__)
    assert all(variable.name == f"EINSUMC_{variable.name[8:]}" for variable in settings.VARIABLES)
