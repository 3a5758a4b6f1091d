"""Code becomes executable, only the code it is, and never writable again."""

import ctypes
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import pytest
from einsumc.compiler.image import Image, link
from einsumc.runtime import load as load_module
from einsumc.runtime.load import LIBRARIES, LoadedImage, LoadError, anonymous_pages, load
from einsumc.runtime.target import architecture
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or architecture() != "x86_64", reason="images hold x86-64 code"
)

RET = b"\xc3" + bytes(63)

IR = """
target triple = "x86_64-unknown-linux-gnu"
@functions = internal constant [2 x ptr] [ptr @one, ptr @two]
declare double @cosh(double)
define i64 @one() { ret i64 1 }
define i64 @two() { ret i64 2 }
define i64 @by_table(i64 %which) {
  %p = getelementptr [2 x ptr], ptr @functions, i64 0, i64 %which
  %f = load ptr, ptr %p
  %r = call i64 %f()
  ret i64 %r
}
define double @imported(double %x) {
  %r = call double @cosh(double %x)
  ret double %r
}
"""


@pytest.fixture(scope="module")
def image() -> Image:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple("x86_64-unknown-linux-gnu").create_target_machine(
        cpu="x86-64", opt=2, reloc="pic", codemodel="default"
    )
    return link(machine.emit_object(llvm.parse_assembly(IR)))


def call(loaded: LoadedImage, name: str, *arguments: int) -> int:
    kinds = [ctypes.c_int64] * len(arguments)
    return int(ctypes.CFUNCTYPE(ctypes.c_int64, *kinds)(loaded.entries[name])(*arguments))


def mapping(address: int) -> str:
    """Return the line of /proc/self/maps that this address is in."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if start <= address < end:
            return line
    raise AssertionError(f"{address:#x} is not mapped")


def test_functions_run(image: Image) -> None:
    header = json.loads(json.dumps(image.header()))  # as it comes out of a file
    loaded = load(image.code, **header)
    assert [call(loaded, "by_table", which) for which in (0, 1)] == [1, 2]
    imported = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(loaded.entries["imported"])
    assert imported(1.5) == math.cosh(1.5)
    assert loaded.size == len(image.code)


def test_images_do_not_touch_each_other(image: Image) -> None:
    header: dict[str, Any] = image.header()
    several = [load(image.code, **header) for _ in range(20)]
    assert len({loaded.address for loaded in several}) == 20
    assert all(call(loaded, "by_table", 1) == 2 for loaded in several)


def test_code_is_executable_and_not_writable() -> None:
    loaded = load(RET, entries={"f": 0})
    ctypes.CFUNCTYPE(None)(loaded.entries["f"])()
    _, permissions, _, device, inode, *_ = mapping(loaded.address).split()
    assert permissions == "r-xp"
    assert (device, inode) == ("00:00", "0"), "no file lies under the code"


def test_every_import_is_found() -> None:
    optional = {name for name, library in LIBRARIES.items() if library == "libgcc_s.so.1"}
    optional |= {"roundeven", "roundevenf", "bcmp"}
    for name in LIBRARIES:
        try:
            load(RET, imports=[(8, name)])
        except LoadError:
            assert name in optional


@pytest.mark.parametrize("name", ["system", "execve", "dlopen", "", "exp\0", None, 7, ["exp"]])
def test_no_other_import_is_resolved(name: object) -> None:
    with pytest.raises(LoadError, match="is not a function that kernels may call"):
        load(RET, imports=[(8, name)])


@pytest.mark.parametrize("entry", [(), (8,), (8, "exp", 1)])
def test_a_malformed_import_is_refused(entry: tuple[object, ...]) -> None:
    with pytest.raises(LoadError, match="is not an import"):
        load(RET, imports=[entry])


@pytest.mark.parametrize("offset", [-1, -8, 57, 64, 2**63, 2**64, True, None, "8", 8.0])
def test_an_offset_outside_the_code_is_refused(offset: Any) -> None:
    with pytest.raises(LoadError, match="outside its code"):
        load(RET, imports=[(offset, "exp")])
    with pytest.raises(LoadError, match="outside its code"):
        load(RET, rebase=[offset])
    if offset != 57:
        with pytest.raises(LoadError, match="outside its code"):
            load(RET, entries={"f": offset})


def test_a_slot_that_points_outside_the_code_is_refused() -> None:
    load(RET[:8] + (64).to_bytes(8, "little") + bytes(48), rebase=[8])
    with pytest.raises(LoadError, match="outside its code"):
        load(RET[:8] + (65).to_bytes(8, "little") + bytes(48), rebase=[8])


def test_no_code_is_refused() -> None:
    with pytest.raises(LoadError):
        load(b"")


@given(
    code=st.binary(min_size=1, max_size=100),
    imports=st.lists(st.tuples(st.integers(-10, 110), st.sampled_from(["exp", "memset", "no"]))),
    rebase=st.lists(st.integers(-10, 110), max_size=3),
    entries=st.dictionaries(st.text(max_size=3), st.integers(-10, 110), max_size=3),
)
def test_any_header_is_loaded_or_refused(
    code: bytes, imports: list[tuple[int, str]], rebase: list[int], entries: dict[str, int]
) -> None:
    try:
        loaded = load(code, imports, rebase, entries)
    except LoadError:
        return
    slots = {byte for at in [*rebase, *(at for at, _ in imports)] for byte in range(at, at + 8)}
    copied = ctypes.string_at(loaded.address, len(code))
    assert all(copied[i] == code[i] for i in range(len(code)) if i not in slots)
    assert ctypes.string_at(loaded.address + len(code), 8) == bytes(8), "the rest of the page"


def test_other_architectures_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "architecture", lambda: "aarch64")
    with pytest.raises(LoadError, match="this process is aarch64"):
        load(RET)


def test_anonymous_pages_are_zero_and_aligned() -> None:
    address = anonymous_pages(5000)
    assert address % 4096 == 0
    assert ctypes.string_at(address, 5000) == bytes(5000)
    with pytest.raises(LoadError, match="no memory"):
        anonymous_pages(2**60)


def python(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_system_that_forbids_executable_memory_gets_an_error() -> None:
    """PR_SET_MDWE is what systemd's MemoryDenyWriteExecute=yes uses since Linux 6.3."""
    done = python(
        "import ctypes, sys\n"
        "if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0): sys.exit(77)\n"
        "from einsumc.runtime.load import LoadError, load\n"
        "try: load(b'\\xc3')\n"
        "except LoadError as error: print(error)\n"
    )
    if done.returncode == 77:
        pytest.skip("this Linux cannot forbid executable memory")
    assert done.returncode == 0, done.stderr
    assert "the system forbids new executable memory: Permission denied" in done.stdout


def test_loading_needs_no_compiler() -> None:
    done = python(
        "import sys\nfrom einsumc.runtime.load import load\nload(b'\\xc3')\n"
        "assert not {'llvmlite', 'numba', 'einsumc.compiler.image'} & set(sys.modules)\n"
    )
    assert done.returncode == 0, done.stderr


def test_profilers_find_the_names() -> None:
    script = (
        "import os\nfrom einsumc.runtime.load import load\n"
        "loaded = load(bytes(64), entries={'b': 16, 'a': 48}, label='test')\n"
        "print(os.getpid(), loaded.address)\n"
    )
    done = python(script, EINSUMC_PERF_MAP="1")
    assert done.returncode == 0, done.stderr
    process, address = map(int, done.stdout.split())
    listed = Path(f"/tmp/perf-{process}.map")
    lines = listed.read_text().splitlines()
    listed.unlink()
    assert lines == [f"{address + 16:x} 20 test:b", f"{address + 48:x} 10 test:a"]
    process, _ = map(int, python(script, EINSUMC_PERF_MAP="").stdout.split())
    assert not Path(f"/tmp/perf-{process}.map").exists()
