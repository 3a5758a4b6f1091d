"""Build machine code from generated source: the only place that knows Numba's and LLVM's insides.

Numba is used for what it does best, from Python source to optimised LLVM code for a named CPU, and
for nothing else: a typing and a target context of our own know integers, ``range``, ``min`` and the
operations of :mod:`.simd`; neither Numba's array support nor its run time is imported or linked.
Its ahead-of-time code generator (:class:`numba.core.codegen.AOTCPUCodegen`) takes the CPU's name
and emits a relocatable object, which :mod:`.image` turns into what the store keeps.
"""

from __future__ import annotations

import gc
import linecache
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
from numba.core import codegen, compiler, cpu, lowering, types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.typed_passes import (
    AnnotateTypes,
    BaseNativeLowering,
    NoPythonBackend,
    NopythonTypeInference,
)
from numba.core.typing.context import BaseContext
from numba.core.untyped_passes import FixupArgs, IRProcessing, TranslateByteCode

from . import simd
from .alone import alone
from .machine import Target

ENTRY = "einsumc_kernel"

_ELEMENTS = (
    *(f"i{n}" for n in (1, 2, 4, 8)),
    *(f"u{n}" for n in (1, 2, 4, 8)),
    *("b1", "f2", "f4", "f8", "c8", "c16"),
)

# Numba returns a status and takes two more pointers; callers see a plain C function instead.
_WRAPPER = """
target triple = "{triple}"
declare i32 @"{name}"(ptr, ptr, ptr, i64, i64, i64)
define void @{entry}(ptr %args, i64 %begin, i64 %end, i64 %scratch) {{
  %result = alloca ptr
  %error = alloca ptr
  call i32 @"{name}"(ptr %result, ptr %error, ptr %args, i64 %begin, i64 %end, i64 %scratch)
  ret void
}}
"""


class _Typing(BaseContext):  # type: ignore[misc]
    """Types of integers and of register tiles."""

    def refresh(self) -> None:
        """None of Numba's builtins: some load its array support, and ours have one meaning each."""
        self.install_registry(simd.TYPING)

    def resolve_value_type(self, value: Any) -> Any:
        if isinstance(value, simd.ElementName):
            return simd.Element(value.element)
        if value is range or value is min:
            value = simd.positions if value is range else simd.least
        return super().resolve_value_type(value)


ELEMENT_NAMES = {element: simd.ElementName(element) for element in _ELEMENTS}


class _Library(codegen.AOTCodeLibrary):  # type: ignore[misc]
    """A code library that is optimised once, as a whole, and for one CPU."""

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        manager, passes = self._codegen._module_pass_manager()
        manager.run(self._final_module, passes)


class _Codegen(codegen.AOTCPUCodegen):  # type: ignore[misc]
    """Numba's ahead-of-time code generator with our library."""

    _library_class = _Library

    def _module_pass_manager(self, **_: Any) -> Any:
        # Loops are in order, unrolled and vectorised by our own passes, and what does not change in
        # them is hoisted when instructions are selected. LLVM's usual list takes four times longer.
        builder = llvm.create_pass_builder(self._tm, llvm.PipelineTuningOptions(speed_level=1))
        manager = llvm.create_new_module_pass_manager()
        manager.add_sroa_pass()
        manager.add_simplify_cfg_pass()
        manager.add_instruction_combine_pass()
        manager.add_loop_rotate_pass()
        manager.add_new_gvn_pass()
        manager.add_simplify_cfg_pass()
        return manager, builder

    def _check_llvm_bugs(self) -> None:
        """The bug is one of locales that print numbers with commas; no number is printed here."""


class _Target(cpu.CPUContext):  # type: ignore[misc]
    """Lowering of integers, loops and register tiles; no run time, no arrays."""

    def init(self) -> None:
        self.is32bit = False
        self._internal_codegen = None

    def refresh(self) -> None:
        """None of Numba's builtins, as for the types."""
        self.install_registry(simd.LOWERING)
        self.typing_context.refresh()

    def post_lowering(self, mod: Any, library: Any) -> None:
        """No run time to link."""


class _Lower(lowering.Lower):  # type: ignore[misc]
    """Lowering for code without reference counts: storing and deleting need not clean up."""

    def storevar(self, value: Any, name: str, argidx: int | None = None) -> None:
        self._alloca_var(name, self.typeof(name))
        if name in self._singly_assigned_vars:
            self._blk_local_varmap[name] = value
        else:
            self.builder.store(value, self.getvar(name))

    def delvar(self, name: str) -> None:
        """Nothing is counted, so nothing is released."""


class _Lowering(BaseNativeLowering):  # type: ignore[misc]
    """Numba's lowering pass with our lowering."""

    _name = "einsumc_lowering"
    lowering_class = _Lower


register_pass(mutates_CFG=True, analysis_only=False)(_Lowering)


class _Compiler(compiler.CompilerBase):  # type: ignore[misc]
    """Numba's pipeline without the passes that generated source has no use for."""

    def define_pipelines(self) -> list[Any]:
        manager = PassManager("einsumc")
        manager.add_pass(TranslateByteCode, "bytecode")
        manager.add_pass(FixupArgs, "arguments")
        manager.add_pass(IRProcessing, "processing")
        manager.add_pass(NopythonTypeInference, "types")
        manager.add_pass(AnnotateTypes, "annotate")
        manager.add_pass(_Lowering, "lowering")
        manager.add_pass(NoPythonBackend, "backend")
        manager.finalize()
        return [manager]


class Builder:
    """Compiles generated source for one target."""

    def __init__(self, target: Target) -> None:
        self.typing = _Typing()
        context = _Target(self.typing).subtarget(
            _internal_codegen=_Codegen("einsumc", target.cpu), aot_mode=True
        )
        context.fused = target.fma
        context.refresh()
        self.context = context
        flags = compiler.Flags()
        flags.no_compile = True  # leave the code in its library: nothing is loaded here
        flags.no_cpython_wrapper = True
        flags.no_cfunc_wrapper = True
        flags.nrt = False
        flags.error_model = "numpy"
        self.flags = flags

    def library(self, source: str) -> Any:
        """Numba's code library for the function ``kernel`` that ``source`` defines."""
        arguments = (types.CPointer(types.int64), types.int64, types.int64, types.int64)
        with global_compiler_lock, _no_collection():
            result = compiler.compile_extra(
                self.typing,
                self.context,
                _function(source),
                arguments,
                types.none,
                self.flags,
                {},
                pipeline_class=_Compiler,
            )
            name = result.fndesc.llvm_func_name
            triple = llvm.get_process_triple()
            wrapper = _WRAPPER.format(name=name, entry=ENTRY, triple=triple)
            library = result.library
            library.add_llvm_module(llvm.parse_assembly(wrapper))
            library._final_module.get_function(name).linkage = "internal"
            library.finalize()
        return library

    def object_code(self, source: str) -> bytes:
        """A relocatable object that defines :data:`ENTRY`."""
        return bytes(self.library(source).emit_native_object())

    def combined(self, driver: str, sources: Mapping[str, str]) -> bytes:
        """One relocatable object of a driver and its kernels.

        Args:
            driver: LLVM's text of a module, which defines the functions that are exported.
            sources: the kernels that it declares, by name.
        """
        tuning = self.context.codegen()._tm
        whole = llvm.parse_assembly(driver)
        for name, source in sources.items():
            kernel = llvm.parse_assembly(str(self.library(source)._final_module))
            kernel.get_function(ENTRY).name = name
            whole.data_layout = kernel.data_layout
            whole.link_in(kernel)
            whole.get_function(name).linkage = "internal"
        whole.verify()
        return bytes(tuning.emit_object(whole))

    def assembly(self, source: str) -> str:
        """The same as assembler text."""
        library = self.library(source)
        return str(self.context.codegen()._tm.emit_assembly(library._final_module))


@contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection meanwhile: it would walk all of Numba several times for nothing."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


_BUILDERS: dict[Target, Builder] = {}


def builder(target: Target) -> Builder:
    """The builder for a target, made once a process."""
    with alone:
        if target not in _BUILDERS:
            _BUILDERS[target] = Builder(target)
        return _BUILDERS[target]


def _function(source: str) -> Any:
    """The function that generated source defines, with the names that it may use."""
    file = "<einsumc kernel>"
    linecache.cache[file] = (len(source), None, source.splitlines(True), file)
    names: dict[str, Any] = {**simd.OPERATIONS, **ELEMENT_NAMES}
    names["__name__"] = "einsumc_kernel"
    exec(compile(source, file, "exec"), names)
    return names["kernel"]
