"""The host: its instruction set, its caches, its cores.

Features carry LLVM's names, as kernels record them. They are read from the operating system,
without LLVM: a process that finds its kernels in the store never loads it. Where nothing can be
read, the answer is the least that the architecture guarantees: better a kernel refused than an
illegal instruction.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable
from functools import cache
from importlib import import_module

from ..compiler.records import dataclass

__all__ = [
    "ISA_FEATURES",
    "LEVELS",
    "Host",
    "architecture",
    "available_cores",
    "can_run",
    "clock",
    "cpu_model",
    "host",
    "host_features",
    "host_level",
    "instruction_features",
]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_V1 = _words("64bit cmov cx8 fxsr mmx nopl sse sse2 x87")
_V2 = _V1 | _words("crc32 cx16 popcnt sahf sse3 sse4.1 sse4.2 ssse3")
_V3 = _V2 | _words("avx avx2 bmi bmi2 f16c fma lzcnt movbe xsave")
_V4 = _V3 | _words("avx512bw avx512cd avx512dq avx512f avx512vl evex512")

LEVELS: dict[str, frozenset[str]] = {
    "x86-64-v1": _V1,
    "x86-64-v2": _V2,
    "x86-64-v3": _V3,
    "x86-64-v4": _V4,
}
"""The levels of the x86-64 psABI, lowest first, each with all its features.

From "Micro-architecture levels" in the System V ABI, AMD64 supplement, 1.0, section 3.1.1; "nopl",
"crc32" and "evex512" are LLVM's names for parts of them."""

ISA_FEATURES = _V4 | _words(
    """
    16bit-mode 32bit-mode 64bit-mode adx aes amx-avx512 amx-bf16 amx-complex amx-fp16 amx-fp8
    amx-int8 amx-movrs amx-tf32 amx-tile avx10.1 avx10.1-512 avx10.2 avx10.2-512 avx512bf16
    avx512bitalg avx512er avx512fp16 avx512ifma avx512pf avx512vbmi avx512vbmi2 avx512vnni
    avx512vp2intersect avx512vpopcntdq avxifma avxneconvert avxvnni avxvnniint16 avxvnniint8 ccmp
    cf clflushopt clwb clzero cmpccxadd egpr fma4 fsgsbase gfni lwp movdir64b movdiri
    movrs mwaitx ndd nf pclmul pku ppx prfchw push2pop2 raoint rdpid rdpru rdrnd rdseed rtm
    serialize sha sha512 sm3 sm4 sse-unaligned-mem sse4a tbm tsxldtrk vaes vpclmulqdq waitpkg xop
    xsavec xsaveopt xsaves zu

    bf16 crc dotprod fp-armv8 fp16fml fullfp16 i8mm lse neon rdm sha2 sve sve2
    """
)
"""Features that stand for instructions a kernel might contain."""

# Preferences of the code generator: any CPU runs the code, faster or slower.
_TUNING_PREFIXES = (
    *("fast-", "faster-", "slow-", "prefer-", "false-deps-", "no-bypass-delay", "tuning"),
    *("idivl-to-", "idivq-to-", "lea-", "use-", "fuse-", "harden-sls-", "lvi-", "retpoline"),
)
_TUNING = _words(
    """
    allow-light-256-bit branchfusion ermsb fsrm inline-asm-use-gpr32 macrofusion
    pad-short-functions sbb-dep-breaking vzeroupper
    """
)

# Real instructions, but for operating systems and tracing, or hints that older CPUs skip. No
# kernel contains one, and Linux often hides them where LLVM, which asks the CPU, lists them: a
# kernel built for the host's every feature would otherwise be refused on that very host.
_NEVER_EMITTED = _words(
    """
    branch-hint cldemote enqcmd hreset invpcid kl pconfig prefetchi ptwrite sgx shstk uintr usermsr
    wbnoinvd widekl
    """
)

# Names of /proc/cpuinfo that differ from LLVM's. "pku" is what the CPU has, "ospke" what the
# kernel lets a process use. Kernel: arch/x86/include/asm/cpufeatures.h; LLVM: X86.td.
_X86_CPUINFO = {
    "3dnowprefetch": "prfchw",
    "abm": "lzcnt",
    "amx_bf16": "amx-bf16",
    "amx_complex": "amx-complex",
    "amx_fp16": "amx-fp16",
    "amx_int8": "amx-int8",
    "amx_tile": "amx-tile",
    "avx512_bf16": "avx512bf16",
    "avx512_bitalg": "avx512bitalg",
    "avx512_fp16": "avx512fp16",
    "avx512_vbmi2": "avx512vbmi2",
    "avx512_vnni": "avx512vnni",
    "avx512_vp2intersect": "avx512vp2intersect",
    "avx512_vpopcntdq": "avx512vpopcntdq",
    "avx_ifma": "avxifma",
    "avx_ne_convert": "avxneconvert",
    "avx_vnni": "avxvnni",
    "avx_vnni_int16": "avxvnniint16",
    "avx_vnni_int8": "avxvnniint8",
    "bmi1": "bmi",
    "fpu": "x87",
    "lahf_lm": "sahf",
    "lm": "64bit",
    "ospke": "pku",
    "pclmulqdq": "pclmul",
    "pku": "",
    "pni": "sse3",
    "rdrand": "rdrnd",
    "sha_ni": "sha",
    "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
}
_ARM_CPUINFO = {
    "asimd": "neon",
    "asimddp": "dotprod",
    "asimdfhm": "fp16fml",
    "asimdhp": "fullfp16",
    "asimdrdm": "rdm",
    "atomics": "lse",
    "crc32": "crc",
    "fp": "fp-armv8",
}
_NUMPY = {
    "asimd": "neon",
    "asimddp": "dotprod",
    "asimdfhm": "fp16fml",
    "asimdhp": "fullfp16",
    "fma3": "fma",
    "lahf": "sahf",
    "sse41": "sse4.1",
    "sse42": "sse4.2",
}
# A feature that comes with another and that the sources above do not list.
_IMPLIED = {"sse4.2": "crc32", "avx": "xsave", "avx512f": "evex512"}
# What every CPU of the architecture has.
_BASELINE = {"x86_64": _V1 | {"64bit-mode"}, "aarch64": frozenset({"fp-armv8", "neon"})}


def architecture() -> str:
    """Return the architecture of this process in LLVM's spelling, as in "x86_64" or "aarch64"."""
    machine = os.uname().machine.lower()
    name = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    if sys.maxsize < 2**32 and name in _BASELINE:
        return f"{name}-32"  # a 32-bit process on a 64-bit kernel: nothing of ours runs there
    return name


@cache
def host_features() -> frozenset[str]:
    """Return the instruction set features this process may use, by their LLVM names.

    From the first processor of /proc/cpuinfo (Linux offers a program only what all cores have, and
    leaves out what the kernel has switched off), else from numpy. Empty on architectures that
    einsumc does not know.
    """
    arch = architecture()
    if arch not in _BASELINE:
        return frozenset()
    names, llvm_names = _cpuinfo_flags(), _X86_CPUINFO if arch == "x86_64" else _ARM_CPUINFO
    if not names:
        names, llvm_names = _numpy_flags(), _NUMPY
    return _translate(names, llvm_names) | _BASELINE[arch]


def _translate(names: Iterable[str], llvm_names: dict[str, str]) -> frozenset[str]:
    found = ISA_FEATURES.intersection(llvm_names.get(name, name) for name in names)
    return found | {more for name, more in _IMPLIED.items() if name in found}


def _cpuinfo_flags(path: str = "/proc/cpuinfo") -> list[str]:
    return _cpuinfo("flags", "Features", path=path).split()


def _cpuinfo(*names: str, path: str = "/proc/cpuinfo") -> str:
    """What the first line that has one of these names says."""
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() in names:
                    return value.strip()
    except OSError:
        pass
    return ""


@cache
def cpu_model() -> str:
    """Return the CPU's name as the operating system has it, or the architecture's."""
    return _cpuinfo("model name") or architecture()


def clock(root: str = "/sys/devices/system/cpu/cpu0/cpufreq") -> float:
    """Return cycles a second, about: the highest there is, or what the CPU is sold as, or 3e9.

    Not what it is at this moment, which /proc/cpuinfo has: estimates should not vary.
    """
    try:
        return int(_line(f"{root}/cpuinfo_max_freq")) * 1e3
    except (OSError, ValueError):
        sold = cpu_model().rpartition("@")[2].strip()
        try:
            return float(sold.removesuffix("GHz")) * 1e9 if sold.endswith("GHz") else 3e9
        except ValueError:
            return 3e9


def _numpy_flags() -> list[str]:
    try:
        features = import_module("numpy._core._multiarray_umath").__cpu_features__
    except (ImportError, AttributeError):
        return []
    return [name.lower() for name, present in features.items() if present]


def instruction_features(features: Iterable[str]) -> frozenset[str]:
    """Return those of `features` that a CPU must have, without LLVM's "+".

    Takes names or LLVM's comma-separated text. Dropped are the switched off ("-avx"), tuning, and
    what no kernel contains. A name unknown here is kept: better refused than an illegal
    instruction.

    >>> sorted(instruction_features("+avx2,+fma,-sse4a,+prefer-256-bit"))
    ['avx2', 'fma']
    """
    names = features.split(",") if isinstance(features, str) else features
    on = (name.strip() for name in names)
    bare = {name.removeprefix("+") for name in on if not name.startswith("-")}
    return frozenset(name for name in bare if name in ISA_FEATURES or not _runs_anywhere(name))


def _runs_anywhere(name: str) -> bool:
    return not name or name in _TUNING | _NEVER_EMITTED or name.startswith(_TUNING_PREFIXES)


def can_run(required: Iterable[str], host: Collection[str] | None = None) -> bool:
    """Say whether a CPU with the features `host` (by default this one) runs code using `required`.

    >>> can_run(["avx2", "tuning-fast-imm-vector-shift"], LEVELS["x86-64-v3"])
    True
    >>> can_run(LEVELS["x86-64-v4"], LEVELS["x86-64-v3"])
    False
    """
    return instruction_features(required).issubset(host_features() if host is None else host)


def host_level(host: Collection[str] | None = None) -> str | None:
    """Return the highest of `LEVELS` that the host runs; None where it is no x86-64."""
    return next((name for name in reversed(LEVELS) if can_run(LEVELS[name], host)), None)


@dataclass(frozen=True, slots=True)
class Host:
    """The machine as the cost model and the thread pool see it.

    Attributes:
        arch: see `architecture`.
        features: see `host_features`.
        level: see `host_level`.
        cores: processors this process may run on.
        l1d, l2, l3: bytes of cache seen from one core; where the system does not tell, a small
            usual size for `l1d` and `l2`, and 0 for `l3`.
    """

    arch: str
    features: frozenset[str]
    level: str | None
    cores: int
    l1d: int
    l2: int
    l3: int


@cache
def host() -> Host:
    """Return a description of this machine, made at the first call and kept."""
    sizes = _cache_sizes()
    return Host(
        arch=architecture(),
        features=host_features(),
        level=host_level(),
        cores=available_cores(),
        l1d=sizes.get(1, 32 << 10),
        l2=sizes.get(2, 256 << 10),
        l3=sizes.get(3, 0),
    )


def available_cores() -> int:
    """Return how many processors this process may run on now (at least 1)."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count() or 1


def _cache_sizes(root: str = "/sys/devices/system/cpu") -> dict[int, int]:
    """Return bytes of data or unified cache by level, of the first processor we may run on."""
    try:
        folder = f"{root}/cpu{min(os.sched_getaffinity(0))}/cache"
        entries = sorted(os.listdir(folder))
    except (AttributeError, OSError):
        return {}
    sizes: dict[int, int] = {}
    for entry in entries:
        try:
            level, kind, size = (
                _line(f"{folder}/{entry}/{name}") for name in ("level", "type", "size")
            )
            if kind in ("Data", "Unified"):
                sizes[int(level)] = int(size.rstrip("KMG")) << _SHIFTS.get(size[-1:], 0)
        except (OSError, ValueError):
            continue
    return sizes


_SHIFTS = {"K": 10, "M": 20, "G": 30}


def _line(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.readline().strip()
