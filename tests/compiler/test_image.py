"""Objects to images: every kind of hole filled rightly, everything else refused by name."""

import ctypes
import math
import sys

import llvmlite.binding as llvm
import pytest
from einsumc.compiler import entry, pool
from einsumc.compiler.assemble import assemble
from einsumc.compiler.entry import program
from einsumc.compiler.image import IMPORTS, Image, ImageError, link
from einsumc.runtime.load import LIBRARIES, LoadError, load
from einsumc.runtime.target import architecture

runs_here = pytest.mark.skipif(
    sys.platform != "linux" or architecture() != "x86_64", reason="images hold x86-64 code"
)


def compile_ir(text: str, *, cpu: str = "x86-64", codemodel: str = "default") -> bytes:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = llvm.parse_assembly(f'target triple = "x86_64-unknown-linux-gnu"\n{text}')
    module.verify()
    machine = llvm.Target.from_triple("x86_64-unknown-linux-gnu").create_target_machine(
        cpu=cpu, opt=2, reloc="pic", codemodel=codemodel
    )
    return bytes(machine.emit_object(module))


def function(image: Image, name: str, result: type, *arguments: type) -> ctypes._CFuncPtr:
    loaded = load(image.code, **image.header())  # type: ignore[arg-type]
    return ctypes.CFUNCTYPE(result, *arguments)(loaded.entries[name])


# A constant table, constants of the code generator, a jump table, calls to the C library, a table
# of functions, and the address of a function that might be replaced (through a slot).
EVERYTHING = """
@table = internal constant [4 x double] [double 1.0, double 2.0, double 3.0, double 4.0], align 64
@functions = internal constant [2 x ptr] [ptr @second, ptr @first]
@libm = internal constant [1 x ptr] [ptr @tanh]
declare double @exp(double)
declare double @tanh(double)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)

define i64 @first(i64 %i) {
  ret i64 1
}
define i64 @second(i64 %i) {
  switch i64 %i, label %other [ i64 0, label %a
                                i64 1, label %b
                                i64 2, label %c
                                i64 3, label %d ]
a:
  ret i64 7
b:
  ret i64 90
c:
  %e = call double @exp(double 2.0)
  %f = fptosi double %e to i64
  ret i64 %f
d:
  ret i64 13
other:
  ret i64 -1
}
define double @table_exp(i64 %i) {
  %p = getelementptr [4 x double], ptr @table, i64 0, i64 %i
  %v = load double, ptr %p
  %r = call double @exp(double %v)
  %s = fadd double %r, 3.5
  ret double %s
}
define i64 @by_table(i64 %which, i64 %i) {
  %p = getelementptr [2 x ptr], ptr @functions, i64 0, i64 %which
  %f = load ptr, ptr %p
  %r = call i64 %f(i64 %i)
  ret i64 %r
}
define double @libm_by_table(i64 %zero, double %x) {
  %p = getelementptr [1 x ptr], ptr @libm, i64 0, i64 %zero
  %f = load ptr, ptr %p
  %r = call double %f(double %x)
  ret double %r
}
define ptr @address_of_second() {
  ret ptr @second
}
define ptr @address_of_exp() {
  ret ptr @exp
}
define void @clear(ptr %p, i64 %n) {
  call void @llvm.memset.p0.i64(ptr %p, i8 0, i64 %n, i1 false)
  ret void
}
"""


def test_all_parts_are_there() -> None:
    image = link(compile_ir(EVERYTHING))
    names = "address_of_exp address_of_second by_table clear first libm_by_table second table_exp"
    assert " ".join(image.entries) == names
    assert {symbol for _, symbol in image.imports} == {"exp", "tanh", "memset"}
    slots = [offset for offset, _ in image.imports] + list(image.rebase)
    assert len(set(slots)) == len(slots)
    assert all(offset % 8 == 0 and offset + 8 <= len(image.code) for offset in slots)
    assert len(image.rebase) >= 3


@runs_here
def test_every_relocation_leads_to_the_right_place() -> None:
    image = link(compile_ir(EVERYTHING))
    i64, f64, pointer = ctypes.c_int64, ctypes.c_double, ctypes.c_void_p
    table_exp = function(image, "table_exp", f64, i64)
    assert [table_exp(i) for i in range(4)] == [math.exp(i + 1) + 3.5 for i in range(4)]
    second = function(image, "second", i64, i64)
    assert [second(i) for i in range(5)] == [7, 90, 7, 13, -1]
    by_table = function(image, "by_table", i64, i64, i64)
    assert [by_table(0, 1), by_table(1, 1)] == [90, 1]
    assert function(image, "libm_by_table", f64, i64, f64)(0, 0.25) == math.tanh(0.25)
    address = function(image, "address_of_second", pointer)()
    assert ctypes.CFUNCTYPE(i64, i64)(address)(3) == 13
    address = function(image, "address_of_exp", pointer)()
    assert ctypes.CFUNCTYPE(f64, f64)(address)(1.5) == math.exp(1.5)
    buffer = ctypes.create_string_buffer(b"x" * 100, 100)
    function(image, "clear", None, pointer, i64)(ctypes.addressof(buffer), 99)
    assert buffer.raw == bytes(99) + b"x"


def test_alignment_is_kept() -> None:
    image = link(compile_ir(EVERYTHING))
    table = b"".join(map(bytes, (ctypes.c_double(x) for x in (1, 2, 3, 4))))
    assert image.code.index(table) % 64 == 0


@runs_here
def test_half_floats_come_from_the_compiler_library() -> None:
    text = """
    define float @round_trip(float %x) {
      %h = fptrunc float %x to half
      %f = fpext half %h to float
      ret float %f
    }"""
    image = link(compile_ir(text))
    assert {symbol for _, symbol in image.imports} == {"__truncsfhf2", "__extendhfsf2"}
    assert function(image, "round_trip", ctypes.c_float, ctypes.c_float)(0.1) == 0.0999755859375
    assert not link(compile_ir(text, cpu="x86-64-v3")).imports


def test_equal_objects_give_equal_images() -> None:
    assert link(compile_ir(EVERYTHING)) == link(compile_ir(EVERYTHING))
    assert link(assemble(pool.IR)).header() == link(assemble.__wrapped__(pool.IR)).header()


def test_local_functions_are_no_entries() -> None:
    image = link(compile_ir("define internal void @f() noinline { ret void }\n"
                            "define void @g() { call void @f() ret void }"))  # fmt: skip
    assert list(image.entries) == ["g"]


def test_unused_writable_variables_are_dropped() -> None:
    """Numba leaves such variables in every module."""
    kernel = "define void @kernel() { ret void }"
    plain = link(compile_ir(kernel))
    assert link(compile_ir(f"@env = common global ptr null\n{kernel}")) == plain
    assert link(compile_ir(f"@env = global i64 0\n{kernel}")) == plain
    assert link(compile_ir(f"@env = global i64 7\n{kernel}")) == plain


LOAD = "define i64 @kernel() {{ %x = load i64, ptr @x {} ret i64 %x }}".format("\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"@x = common global i64 0\n{LOAD}", "'x' is a writable variable"),
        (f"@x = global i64 0\n{LOAD}", "'x' is a writable variable"),
        (f"@x = global i64 7\n{LOAD}", "'x' is a writable variable"),
        (f"@x = internal global i64 7\n{LOAD}\n"
         "define void @store() { store i64 1, ptr @x\nret void }", "writable variable"),
        (f"@x = thread_local global i64 7\n{LOAD}", "relocation R_X86_64_TLS.*'x'"),
        (f"@x = external thread_local global i64\n{LOAD}", "relocation R_X86_64_TLS.*'x'"),
        (f"@x = external global i64\n{LOAD}", "'x' is not a function that kernels may call"),
        ("declare i32 @system(ptr)\ndefine i32 @kernel() { %r = call i32 @system(ptr null)\n"
         "ret i32 %r }", "'system' is not a function that kernels may call"),
        ("define void @kernel() { ret void }\n@llvm.global_ctors = appending global "
         "[1 x { i32, ptr, ptr }] [{ i32, ptr, ptr } { i32 1, ptr @kernel, ptr null }]",
         "runs no constructors"),
        ('@x = constant i64 7, section ".text.x"\nmodule asm ".quad kernel"\n'
         "define void @kernel() { ret void }", "relocation R_X86_64_64 in .text"),
    ],
)  # fmt: skip
def test_what_an_image_cannot_have_is_refused_by_name(text: str, message: str) -> None:
    if "module asm" in text:
        llvm.initialize_all_targets()
        llvm.initialize_native_asmparser()
    with pytest.raises(ImageError, match=message):
        link(compile_ir(text))


def test_code_with_absolute_addresses_is_refused() -> None:
    with pytest.raises(ImageError, match=r"relocation R_X86_64_[A-Z0-9]+ in \.ltext"):
        link(compile_ir(EVERYTHING, codemodel="large"))


def test_other_files_are_refused() -> None:
    for data in (b"", b"\x7fELF", b"!<arch>\n", compile_ir(LOAD.join(["@x = global i64 0\n", ""]))):
        with pytest.raises(ImageError):
            link(data)
    whole = bytearray(compile_ir(EVERYTHING))
    whole[18] = 183  # EM_AARCH64
    with pytest.raises(ImageError, match="machine 183"):
        link(bytes(whole))


def test_a_cut_object_is_refused() -> None:
    whole = compile_ir(EVERYTHING)
    for length in range(len(whole)):
        with pytest.raises(ImageError):
            link(whole[:length])


def test_loader_knows_the_same_functions() -> None:
    assert set(LIBRARIES) == IMPORTS


def test_pool_is_small_and_needs_only_the_c_library() -> None:
    image = link(assemble(pool.IR))
    assert list(image.entries) == [pool.ENTRY]
    assert len(image.code) <= 4096
    assert {LIBRARIES[symbol] for _, symbol in image.imports} == {""}


def test_the_native_entry_imports_what_it_says_and_nothing_else() -> None:
    image = link(assemble(program.IR), entry.symbols())
    assert set(image.entries) == {entry.CALL, entry.FACTS}
    imported = {symbol for _, symbol in image.imports}
    assert imported - IMPORTS == entry.symbols()
    with pytest.raises(ImageError, match="is not a function that kernels may call"):
        link(assemble(program.IR))


@runs_here
def test_what_an_image_imports_beside_libraries_is_provided_or_refused() -> None:
    image = link(assemble(program.IR), entry.symbols())
    with pytest.raises(LoadError, match="is not a function that kernels may call"):
        load(image.code, **image.header())
    loaded = load(image.code, **image.header(), provided=dict.fromkeys(entry.symbols(), 1))
    assert set(loaded.entries) == set(image.entries)
