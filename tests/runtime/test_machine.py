"""The machine's description: its file, whose it is, what is used when it cannot be."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from einsumc.compiler.machine import TARGETS, Levels, Machine, Peak, Speeds, estimate
from einsumc.runtime import machine_file, target
from einsumc.runtime.decorator import compile_einsum
from einsumc.runtime.machine import FILE, described, forget, host_machine, machine, source
from einsumc.runtime.machine_file import (
    Description,
    MachineFileError,
    from_text,
    read,
    to_text,
    write,
)
from einsumc.runtime.trouble import StoreWarning
from einsumc.runtime.virtual import virtual
from hypothesis import given, settings
from hypothesis import strategies as st

SERVER = Machine(
    TARGETS["x86-64-v4"],
    cores=64,
    l1_bytes=48 << 10,
    l2_bytes=2 << 20,
    l3_bytes=256 << 20,
    speeds=estimate(TARGETS["x86-64-v4"], cores=64, clock=2.5e9),
)


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_stores: None):
    monkeypatch.setenv("EINSUMC_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("EINSUMC_MACHINE", raising=False)
    monkeypatch.delenv("EINSUMC_TARGET", raising=False)
    forget()
    yield tmp_path
    forget()


def measured() -> Machine:
    """This host, five times as fast as it would be estimated."""
    host = host_machine()
    return replace(host, speeds=estimate(host.target, host.cores, 5 * target.clock()))


# --- the file -------------------------------------------------------------------------------------

_RATES = st.floats(1e-12, 1e18)


@st.composite
def _machines(draw: st.DrawFn) -> Machine:
    levels = st.builds(Levels, _RATES, _RATES, _RATES, _RATES)
    peak = st.builds(Peak, *[_RATES] * 7)
    speeds = st.builds(Speeds, peak, levels, levels, levels, levels, _RATES, _RATES)
    sizes = [draw(st.integers(1, 1 << 40)) for _ in range(4)]
    return Machine(draw(st.sampled_from([*TARGETS.values()])), *sizes, draw(speeds))


@settings(max_examples=50, deadline=None)
@given(_machines(), st.text(), st.integers(1, 4096))
def test_what_is_written_is_read(machine, cpu, processors):
    found = from_text(to_text(Description(machine, cpu, processors)))
    assert (found.machine, found.processors) == (machine, processors)
    if cpu.isprintable() and not {*cpu} & {*'"\\'}:
        assert found.cpu == cpu


def test_a_file_is_written_whole(tmp_path):
    path = tmp_path / "new" / "machine.toml"
    write(str(path), described(SERVER))
    assert read(str(path)) == described(SERVER)
    write(str(path), described(measured()))
    assert read(str(path)).machine == measured()
    assert os.listdir(path.parent) == ["machine.toml"]


def test_every_cut_is_damage():
    text = to_text(described(SERVER))
    for end in range(0, len(text.rstrip()) - 18):  # the last value may lose digits
        with pytest.raises(MachineFileError):
            from_text(text[:end])


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 4000), st.characters(codec="utf-8"))
def test_a_changed_character_is_no_crash(place, character):
    text = to_text(described(SERVER))
    place %= len(text)
    try:
        found = from_text(text[:place] + character + text[place + 1 :])
    except MachineFileError:
        return
    assert found.machine.speeds.call > 0


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("format = 1", "format = 2", "format 2"),
        ('level = "x86-64-v4"', 'level = "pdp-11"', "pdp-11"),
        ("cores = 64", "cores = 0", "host.cores"),
        ("cores = 64", "cores = 64.5", "host.cores"),
        ("cores = 64", "cores = true", "host.cores"),
        ("l2_bytes", "l2_kilobytes", "host.l2_bytes"),
        ("call = ", "call = -", "seconds.call"),
        ("call = ", "call = nan #", "seconds.call"),
        ("wake = ", "wake = inf #", "seconds.wake"),
        ("[read_all]", "[read_some]", "[read_all]"),
        ("c16 = ", "c16 = 'fast' #", "flops.c16"),
        ("i2 = ", "i2 = 0 #", "flops.i2"),
    ],
)
def test_wrong_values_are_named(old, new, says):
    text = to_text(described(SERVER))
    assert old in text
    with pytest.raises(MachineFileError) as error:
        from_text(text.replace(old, new, 1))
    assert says in str(error.value)


# --- which description is used --------------------------------------------------------------------


def test_without_a_file_speeds_are_estimated():
    assert machine() == host_machine()
    assert source().startswith("estimated")


def test_a_file_of_this_host_is_used(store):
    write(str(store / FILE), described(measured()))
    assert machine() == measured()
    assert source() == f"measured, in {store / FILE}"


@pytest.mark.parametrize("change", [{"cpu": "another CPU"}, {"processors": 4096}])
def test_a_file_of_another_host_is_not(store, change):
    write(str(store / FILE), replace(described(measured()), **change))
    assert machine() == host_machine()
    assert "of another machine" in source()


def test_sizes_of_this_host_are_the_systems(store):
    """Block sizes, and with them bits, do not depend on what a file says."""
    write(str(store / FILE), described(replace(measured(), l1_bytes=1000, l2_bytes=2000, cores=9)))
    assert machine() == measured()


def test_another_file_is_used_as_it_is(store, monkeypatch):
    write(str(store / "server.toml"), Description(SERVER, "another CPU", 64))
    monkeypatch.setenv("EINSUMC_MACHINE", str(store / "server.toml"))
    monkeypatch.setenv("EINSUMC_TARGET", "x86-64-v4")
    assert machine() == SERVER
    assert "EINSUMC_MACHINE" in source()


def test_instructions_are_the_targets(store, monkeypatch):
    """A description of wider vectors scales: the host could not run them."""
    write(str(store / "server.toml"), Description(SERVER, "another CPU", 64))
    monkeypatch.setenv("EINSUMC_MACHINE", str(store / "server.toml"))
    monkeypatch.setenv("EINSUMC_TARGET", "x86-64-v3")
    found = machine()
    assert found.target == TARGETS["x86-64-v3"]
    assert found.l2_bytes == SERVER.l2_bytes
    assert found.speeds.flops.f8 == SERVER.speeds.flops.f8 / 2
    assert found.speeds.read == SERVER.speeds.read


@pytest.mark.parametrize("content", [b"", b"format = 1", b"\xff\xfe", b"[[[", b"\0" * 100])
def test_a_damaged_file_is_a_warning_and_estimates(store, content):
    (store / FILE).write_bytes(content)
    with pytest.warns(StoreWarning, match="is damaged"):
        assert machine() == host_machine()
    operands = [np.ones((3, 4)), np.ones((4, 5))]
    assert np.array_equal(compile_einsum("ij,jk->ik")(*operands), 4 * np.ones((3, 5)))


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_named_file_that_cannot_be_read_is_a_warning(store, monkeypatch, name):
    monkeypatch.setenv("EINSUMC_MACHINE", str(store / name))
    with pytest.warns(StoreWarning, match="cannot be read"):
        assert machine() == host_machine()


def test_a_plan_for_a_server(store, monkeypatch):
    """A laptop says what a server would do; nothing runs."""
    write(str(store / "server.toml"), Description(SERVER, "another CPU", 64))
    for name, text in (("MACHINE", str(store / "server.toml")), ("TARGET", "x86-64-v4")):
        monkeypatch.setenv(f"EINSUMC_{name}", text)
    monkeypatch.setenv("EINSUMC_NUM_THREADS", "64")
    product = compile_einsum("ij,jk->ik")
    (step,) = product.explain(*[virtual((4096, 4096), "f4")] * 2).steps
    assert step.threads == 64
    assert step.tiles >= 64
    assert "vectors of 64 bytes" in step.schedule
    assert 0.3 < step.share < 1
    (small,) = product.explain(*[virtual((64, 64), "f4")] * 2).steps
    assert (small.threads, small.tiles) == (1, 1)


# --- the host -------------------------------------------------------------------------------------


def test_clock_of_the_host(tmp_path, monkeypatch):
    assert 1e8 < target.clock() < 1e10
    (tmp_path / "cpuinfo_max_freq").write_text("4100000\n")
    assert target.clock(str(tmp_path)) == 4.1e9
    monkeypatch.setattr(target, "cpu_model", lambda: "Some(R) CPU @ 2.60GHz")
    assert target.clock("/nowhere") == 2.6e9
    monkeypatch.setattr(target, "cpu_model", lambda: "Some CPU")
    assert target.clock("/nowhere") == 3e9


def test_the_description_is_read_once(store, monkeypatch):
    reads = []
    (store / FILE).touch()

    def read_once(path):
        reads.append(path)
        return described(measured())

    monkeypatch.setattr(machine_file, "read", read_once)
    for _ in range(3):
        machine()
        source()
    assert len(reads) == 1
