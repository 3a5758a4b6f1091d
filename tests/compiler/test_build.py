"""From source to machine code: what is loaded for it, and what comes out."""

import os
import re
import subprocess
import sys
from functools import cache

import pytest
from einsumc.compiler.build import builder
from einsumc.compiler.choose import choose
from einsumc.compiler.geometry import canonical
from einsumc.compiler.image import link
from einsumc.compiler.machine import TARGETS, Machine
from einsumc.compiler.pipeline import stages
from steps import Step
from sweeps import checkered

EQUATIONS = {"product": "ij,jk->ik", "sum": "ij->j", "transposition": "ij->ji"}

LOADED = """
import sys
from einsumc.compiler.build import builder
from einsumc.compiler.machine import TARGETS
source = "def kernel(args, begin, end, scratch):\\n    " + sys.argv[1]
assert builder(TARGETS["x86-64-v3"]).object_code(source)
from numba.core.runtime import rtsys
print(*sorted(name for name in sys.modules if name.startswith("numba")), rtsys._init)
"""


def source_of(target, kind, element):
    """The source of a step for a target."""
    equation = EQUATIONS[kind]
    extents = dict.fromkeys(sorted(set(equation) - set(",->")), 200)
    step = Step(equation, extents, element, machine=Machine(TARGETS[target]))
    return stages(choose(canonical(step.geometry()), step.machine).schedule).source


def image_of(target, kind, element):
    """An image for a named target."""
    return link(builder(TARGETS[target]).object_code(source_of(target, kind, element)))


@cache
def assembly_of(target, kind):
    """The assembler text for a named target: nothing of this host is in it."""
    return builder(TARGETS[target]).assembly(source_of(target, kind, "f4"))


def test_building_loads_neither_arrays_nor_the_run_time():
    process = subprocess.run(
        [
            sys.executable,
            "-c",
            LOADED,
            "store_rows(operand(args, 0, f4), 0, 0, zeros(f4, 1, 8, 8))",
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    *modules, started = process.stdout.split()
    assert "numba.core.lowering" in modules
    unwanted = {
        "numba.np.arraymath",
        "numba.np.arrayobj",
        "numba.np.linalg",
        "numba.cpython.unicode",
    }
    assert not unwanted & {*modules}
    assert started == "False"


@pytest.mark.parametrize(
    ("target", "kind", "element"),
    checkered(["x86-64-v3", "x86-64-v4"], EQUATIONS, ["f4", "c16", "i2"]),
)
def test_kernels_need_nothing_but_memory_functions(target, kind, element):
    image = image_of(target, kind, element)
    assert list(image.entries) == ["einsumc_kernel"]
    assert {symbol for _, symbol in image.imports} <= {"memset", "memcpy"}


@pytest.mark.parametrize("kind", EQUATIONS)
def test_so_do_those_for_processors_without_fma(kind):
    image = image_of("x86-64-v2", kind, "f4")
    assert {symbol for _, symbol in image.imports} <= {"memset", "memcpy"}


@pytest.mark.parametrize("kind", EQUATIONS)
def test_the_named_instruction_set_is_used_and_no_other(kind):
    v2 = assembly_of("x86-64-v2", kind)
    assert "%xmm" in v2
    assert not re.search(r"%[yz]mm|\bv[a-z]+ps\b", v2)
    v3 = assembly_of("x86-64-v3", kind)
    assert "%ymm" in v3
    assert not re.search(r"%zmm|%k\d|%ymm(1[6-9]|2\d|3[01])", v3)
    v4 = assembly_of("x86-64-v4", kind)
    assert "%zmm" in v4


@pytest.mark.parametrize("columns", [200, 24, 40])
@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v4"])
def test_a_microkernel_keeps_its_tile_in_registers(target, columns):
    """The innermost loop of a product: one fused multiply-add a vector of the tile, no spills."""
    step = Step("ij,jk->ik", {"i": 200, "j": 200, "k": columns}, machine=Machine(TARGETS[target]))
    schedule = choose(canonical(step.geometry()), step.machine).schedule
    text = builder(TARGETS[target]).assembly(stages(schedule).source)
    loops = re.split(r"^\.LBB\w+:", text, flags=re.M)
    busiest = max(loops, key=lambda block: block.count("vfmadd"))
    lanes = schedule.vector_bytes // 4
    assert busiest.count("vfmadd") == schedule.row_tile * schedule.lane_tile // lanes
    assert not any("mm" in line and "%rsp" in line for line in busiest.splitlines()), busiest


def test_equal_source_gives_equal_code():
    source = source_of("x86-64-v3", "product", "f4")
    made = builder(TARGETS["x86-64-v3"])
    first, second = (link(made.object_code(source)) for _ in range(2))
    assert first == second
    assert builder(TARGETS["x86-64-v3"]) is made


def test_an_unknown_name_is_an_error():
    with pytest.raises(Exception, match="nonsense"):
        builder(TARGETS["x86-64-v3"]).object_code(
            "def kernel(args, begin, end, scratch):\n    nonsense(args)\n"
        )
