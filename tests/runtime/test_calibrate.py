"""Calibrating: what it measures is a machine, whatever noise there is. No times are compared."""

import itertools
from dataclasses import astuple, replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from einsumc.compiler.machine import estimate
from einsumc.runtime import calibrate as module
from einsumc.runtime import threads
from einsumc.runtime.calibrate import calibrate
from einsumc.runtime.cli import command
from einsumc.runtime.machine import FILE, described, forget, host_machine, machine, source
from einsumc.runtime.machine_file import from_text, read, to_text, write


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure little."""
    monkeypatch.delenv("EINSUMC_MACHINE", raising=False)
    for name, value in {"ROUNDS": 1, "SAMPLE": 1e-5, "SIDE": 48, "MOST": 1 << 22}.items():
        monkeypatch.setattr(module, name, value)


def numbers(values) -> list[float]:
    """All numbers in nested tuples."""
    if isinstance(values, tuple):
        return list(itertools.chain.from_iterable(map(numbers, values)))
    return [values]


def check(found) -> None:
    host = host_machine()
    assert replace(found, speeds=host.speeds) == host, "sizes are not measured"
    assert [number for number in numbers(astuple(found.speeds)) if not 0 < number < 1e18] == []
    assert from_text(to_text(described(found))).machine == found
    for levels in (found.speeds.read, found.speeds.write):
        rates = [levels.l1, levels.l2, levels.l3, levels.memory]
        assert rates == sorted(rates, reverse=True), "nearer caches are not slower"
    for one, every in (
        (found.speeds.read, found.speeds.read_all),
        (found.speeds.write, found.speeds.write_all),
    ):
        assert all(a <= b for a, b in zip(astuple(one), astuple(every), strict=True))


def test_it_describes_this_host():
    threads.set_num_threads(1)
    try:
        said = []
        check(calibrate(said.append))
        assert said
        assert threads.get_num_threads() == 1, "the number of threads is what it was"
    finally:
        threads.set_num_threads(None)


@pytest.mark.parametrize("pattern", [(1.0, 5.0, 0.001), (1e-9,), (0.0, 1.0)])
def test_a_clock_gone_mad_does_no_harm(monkeypatch, pattern):
    steps = itertools.cycle(pattern)
    now = itertools.accumulate(steps)
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(now))
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(module, "SAMPLE", 0.0)
    check(calibrate())


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EINSUMC_CACHE_DIR", str(tmp_path))
    forget()
    yield tmp_path
    forget()


def run(*arguments):
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_command_writes_what_is_used(store, monkeypatch):
    host = host_machine()
    fast = replace(host, speeds=estimate(host.target, host.cores, 9e9))
    monkeypatch.setattr(module, "calibrate", lambda progress: fast)
    assert "estimated" in run("calibrate", "--show").splitlines()[0]
    assert machine() == host
    assert str(store / FILE) in run("calibrate")
    assert machine() == fast
    assert run("calibrate", "--show").splitlines()[0] == f"# measured, in {store / FILE}"
    assert from_text(run("calibrate", "--show")).machine == fast
    assert f"measured, in {store / FILE}" in run("versions")


def test_the_command_writes_elsewhere(store, monkeypatch):
    monkeypatch.setattr(module, "calibrate", lambda progress: host_machine())
    run("calibrate", "--output", store / "other.toml")
    assert read(str(store / "other.toml")) == described(host_machine())
    assert source().startswith("estimated")
    assert not (store / FILE).exists()


def test_a_file_in_the_store_is_no_kernel(store):
    write(str(store / FILE), described(host_machine()))
    assert run("cache", "list").startswith("0 kernels")
    run("cache", "clear")
    assert (store / FILE).exists()
