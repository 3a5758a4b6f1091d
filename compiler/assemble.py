"""LLVM IR as text -> object file, for the programs that are written in it: no Numba is needed."""

from functools import cache

__all__ = ["assemble"]

_TRIPLE = "x86_64-unknown-linux-gnu"


@cache
def assemble(ir: str, cpu: str = "x86-64") -> bytes:
    """Compile a module: an ELF object for `compiler.image.link`. Equal LLVMs give equal bytes.

    Args:
        ir: the module's text.
        cpu: LLVM's name of a CPU or level. The default is what every x86-64 has.
    """
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = llvm.parse_assembly(ir)
    module.verify()
    machine = llvm.Target.from_triple(_TRIPLE).create_target_machine(
        cpu=cpu, opt=2, reloc="pic", codemodel="default"
    )
    tuning = llvm.create_pipeline_tuning_options(speed_level=2)
    builder = llvm.create_pass_builder(machine, tuning)
    builder.getModulePassManager().run(module, builder)
    return bytes(machine.emit_object(module))
