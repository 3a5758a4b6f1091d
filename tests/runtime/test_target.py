"""The host's features, and that code never runs where its instructions are missing."""

import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from einsumc.runtime import target
from einsumc.runtime.target import (
    ISA_FEATURES,
    LEVELS,
    can_run,
    host,
    host_features,
    host_level,
    instruction_features,
)

V1 = "fpu cx8 cmov mmx fxsr sse sse2 syscall nx lm constant_tsc nopl "
NEHALEM = V1 + "pni ssse3 cx16 sse4_1 sse4_2 popcnt lahf_lm "
SANDY_BRIDGE = NEHALEM + "pclmulqdq aes xsave avx xsaveopt "
HASWELL = SANDY_BRIDGE + "fma movbe f16c rdrand abm fsgsbase bmi1 avx2 smep bmi2 erms invpcid "
SKYLAKE_X = HASWELL + "avx512f avx512dq rdseed adx clflushopt clwb avx512cd avx512bw avx512vl pku "
ZEN_3 = HASWELL + "sse4a misalignsse 3dnowprefetch rdseed adx clflushopt sha_ni vaes vpclmulqdq "
ZEN_4 = ZEN_3 + (
    "avx512f avx512dq avx512ifma avx512cd avx512bw avx512vl avx512_bf16 avx512vbmi avx512_vbmi2 "
    "gfni avx512_vnni avx512_bitalg avx512_vpopcntdq pku ospke "
)

# What /proc/cpuinfo says, and the highest level that runs there.
CPUS = {
    "core 2": (V1 + "pni ssse3 cx16 sse4_1 lahf_lm", "x86-64-v1"),
    "nehalem": (NEHALEM, "x86-64-v2"),
    "sandy bridge": (SANDY_BRIDGE, "x86-64-v2"),
    "haswell": (HASWELL, "x86-64-v3"),
    "haswell, avx switched off by the kernel": (
        " ".join(set(HASWELL.split()) - {"avx", "avx2", "fma", "f16c", "xsave", "xsaveopt"}),
        "x86-64-v2",
    ),
    "skylake-x": (SKYLAKE_X, "x86-64-v4"),
    "knights landing": (HASWELL + "avx512f avx512cd avx512er avx512pf", "x86-64-v3"),
    "zen 3": (ZEN_3, "x86-64-v3"),
    "zen 4": (ZEN_4, "x86-64-v4"),
}


def features_of(folder: Path, flags: str) -> frozenset[str]:
    path = folder / "cpuinfo"
    path.write_text(
        f"processor\t: 0\nmodel name\t: flags: none\nflags\t\t: {flags}\nbugs\t: x\n" * 2
    )
    return target._translate(target._cpuinfo_flags(str(path)), target._X86_CPUINFO)


@pytest.fixture
def uncached() -> Iterator[None]:
    host.cache_clear()
    host_features.cache_clear()
    yield
    host.cache_clear()
    host_features.cache_clear()


@pytest.mark.parametrize("cpu", CPUS)
def test_every_level_on_every_cpu(tmp_path: Path, cpu: str) -> None:
    flags, highest = CPUS[cpu]
    features = features_of(tmp_path, flags)
    assert host_level(features) == highest
    names = list(LEVELS)
    for name in names:
        runs = names.index(name) <= names.index(highest)
        assert can_run(LEVELS[name], features) is runs
        # As LLVM writes them, with tuning among them.
        text = ",".join(f"+{feature}" for feature in sorted(LEVELS[name]))
        assert can_run(text + ",+prefer-256-bit,-avx512er,+slow-3ops-lea", features) is runs


@pytest.mark.parametrize("level", LEVELS)
def test_one_missing_feature_is_enough_to_refuse(level: str) -> None:
    for feature in LEVELS[level]:
        assert not can_run(LEVELS[level], LEVELS[level] - {feature}), feature


def test_levels_grow() -> None:
    v1, v2, v3, v4 = LEVELS.values()
    assert v1 < v2 < v3 < v4 < ISA_FEATURES


def test_cpuinfo_names(tmp_path: Path) -> None:
    found = features_of(tmp_path, ZEN_4)
    assert found >= target._words(
        """sse3 sse4.1 sse4.2 crc32 lzcnt sahf bmi sha pclmul rdrnd prfchw x87 64bit pku
        avx512bf16 avx512vnni avx512vbmi avx512vbmi2 avx512vpopcntdq"""
    )
    assert not found & {"pni", "abm", "nx", "syscall", "smep", "constant_tsc"}
    # The CPU has protection keys, but the kernel does not let programs use them.
    assert "pku" not in features_of(tmp_path, SKYLAKE_X)


def test_tuning_does_not_count() -> None:
    tuning = target._words(
        """prefer-256-bit prefer-128-bit fast-gather fast-variable-perlane-shuffle slow-shld
        tuning-fast-imm-vector-shift false-deps-popcnt no-bypass-delay-mov macrofusion
        branchfusion vzeroupper idivq-to-divl ermsb fsrm sbb-dep-breaking use-slm-arith-costs
        allow-light-256-bit tuning"""
    )
    assert instruction_features(tuning) == frozenset()
    assert can_run(tuning, frozenset())


def test_what_is_unknown_counts() -> None:
    assert instruction_features(["avx2", "+quantum", "-sse4a", "", " +fma "]) == {
        "avx2",
        "fma",
        "quantum",
    }
    assert not can_run(["quantum"])
    assert not can_run(["QUANTUM"], LEVELS["x86-64-v4"])


def test_isa_features_are_kept() -> None:
    assert instruction_features(ISA_FEATURES) == ISA_FEATURES
    assert not ISA_FEATURES & (target._TUNING | target._NEVER_EMITTED)
    known = (target._X86_CPUINFO, target._ARM_CPUINFO, target._NUMPY, target._IMPLIED)
    for names in known:
        assert set(names.values()) - {""} <= ISA_FEATURES


def test_this_host_runs_what_llvm_would_use_here() -> None:
    binding = pytest.importorskip("llvmlite.binding")
    named = [name for name, present in binding.get_host_cpu_features().items() if present]
    assert instruction_features(named) - host_features() == frozenset()


def test_this_host_agrees_with_numpy() -> None:
    numpy_has = import_module("numpy._core._multiarray_umath").__cpu_features__
    for level in ("v2", "v3", "v4"):
        if f"X86_{level.upper()}" in numpy_has and target.architecture() == "x86_64":
            runs = can_run(LEVELS[f"x86-64-{level}"])
            assert runs == numpy_has[f"X86_{level.upper()}"]


def test_numpy_stands_in_for_cpuinfo(monkeypatch: pytest.MonkeyPatch, uncached: None) -> None:
    if target.architecture() != "x86_64":
        pytest.skip("about x86-64")
    read, level = host_features(), host_level()
    host_features.cache_clear()
    monkeypatch.setattr(target, "_cpuinfo_flags", lambda: [])
    assert LEVELS["x86-64-v1"] <= host_features() <= read
    assert host_level() == level
    host_features.cache_clear()
    monkeypatch.setattr(target, "_numpy_flags", lambda: [])
    assert host_level() == "x86-64-v1"
    assert not can_run(["avx2"])


def test_other_architectures(monkeypatch: pytest.MonkeyPatch, uncached: None) -> None:
    monkeypatch.setattr(target, "architecture", lambda: "riscv64")
    assert host_features() == frozenset()
    assert host_level() is None
    assert host().level is None
    assert can_run([])
    assert not can_run(LEVELS["x86-64-v1"])
    host_features.cache_clear()
    monkeypatch.setattr(target, "architecture", lambda: "aarch64")
    flags = ["fp", "asimd", "atomics", "asimddp", "sve"]
    monkeypatch.setattr(target, "_cpuinfo_flags", lambda: flags)
    assert host_features() == {"fp-armv8", "neon", "lse", "dotprod", "sve"}
    assert not can_run(LEVELS["x86-64-v1"])


def test_unreadable_files(tmp_path: Path) -> None:
    assert target._cpuinfo_flags(str(tmp_path / "none")) == []
    assert target._cache_sizes(str(tmp_path / "none")) == {}
    (tmp_path / "empty").touch()
    assert target._cpuinfo_flags(str(tmp_path / "empty")) == []


def test_cache_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5, 3}, raising=False)
    caches = [("1", "Data", "48K"), ("1", "Instruction", "32K"), ("2", "Unified", "2M")]
    caches += [("3", "Unified", "36864K"), ("4", "Unified", "lots")]
    for number, texts in enumerate(caches):
        folder = tmp_path / "cpu3" / "cache" / f"index{number}"
        folder.mkdir(parents=True)
        for name, text in zip(("level", "type", "size"), texts, strict=True):
            (folder / name).write_text(text + "\n")
    (tmp_path / "cpu3" / "cache" / "uevent").touch()
    assert target._cache_sizes(str(tmp_path)) == {1: 48 << 10, 2: 2 << 20, 3: 36 << 20}


def test_host(uncached: None) -> None:
    here = host()
    assert here is host()
    assert here.features == host_features()
    assert here.level == host_level()
    assert here.cores >= 1
    assert 4 << 10 <= here.l1d <= here.l2
    assert here.l3 >= 0
