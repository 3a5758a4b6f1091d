"""`docs/architecture.md` shows what the compiler really does: all of its blocks are generated.

After a change that is meant to change them: `pytest tests/test_architecture.py --update-golden`.
"""

import difflib
import re
import sys
from functools import cache
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from einsumc.compiler import passes, pipeline, show
from einsumc.compiler.choose import choose
from einsumc.compiler.geometry import Geometry, canonical
from einsumc.compiler.machine import TARGETS, Machine
from einsumc.compiler.pipeline import stages
from einsumc.compiler.resolve import resolve
from einsumc.compiler.subscripts import parse
from einsumc.runtime import execute, explain, kernels, threads
from steps import Step

DOCUMENT = Path(__file__).parents[1] / "docs" / "architecture.md"
BLOCK = re.compile(
    r"^<!-- generated: (?P<name>[\w-]+) -->\n(?P<text>.*?)^<!-- end -->$", re.DOTALL | re.MULTILINE
)

EQUATION = "abj,jk,abk->abk"
MACHINE = Machine(TARGETS["x86-64-v3"])  # not this host: the same text everywhere
SUM = Step("ij->i", {"i": 300, "j": 20000})
COMPOSITE = Step("iajb,jkbc->ikac", dict.fromkeys("iajbkc", 20))


@cache
def example():
    """The equation of the document on its operands: its execution, and that explained."""
    shapes = {"x": (20, 15, 200), "w": (200, 310), "g": (20, 15, 310)}
    arrays = [np.ones(shape, "f4") for shape in shapes.values()]
    expression = resolve(parse(EQUATION), list(shapes.values()))
    with (
        patch.object(execute, "machine", lambda: MACHINE),
        patch.object(explain, "machine", lambda: MACHINE),
        patch.object(threads, "get_num_threads", lambda: 2),
    ):
        return explain.explain(expression, arrays, names=list(shapes))


def step(number):
    """The geometry and the choice of a step of the example."""
    found = example().steps[number - 1]._step
    return found.geometry, found.choice


def nests(number):
    """A step's loop nests by pass, without the list of buffers at their head."""
    return {name: loops(text) for name, text in example().steps[number - 1].nests}


def loops(text):
    """A nest's loops."""
    return "".join(re.findall(r"^(?:for|tiles| ).*\n", text, re.MULTILINE))


def steps_text():
    """The table of steps and the candidates; which kernels are stored here is left out."""
    text = example().stage("tree")
    return re.sub(r" [0-9a-f]{8}, (not )?stored", "", text)


def geometry_text(form):
    """Extents and strides, an index a column."""
    head = ["", *form.extents]
    rows = [["extent", *map(str, form.extents.values())]]
    names = [*(f"operand {i}" for i in range(len(form.strides) - 1)), "output"]
    for name, strides in zip(names, form.strides, strict=True):
        rows.append([f"strides of {name}", *(str(strides.get(i, ".")) for i in form.extents)])
    return show.table(head, rows, " ".join(form.extents))


def geometry_block():
    """The first step before and after it is made canonical."""
    sizes = {"a": 20, "b": 15, "j": 200, "k": 310}
    given = Step("abj,jk,abk->abk", sizes).geometry()
    form, _ = step(1)
    extents = {i: sizes[i] for i in "abkj"}
    plain = Geometry(given.elements, "f4", extents, given.strides, finish=form.finish)
    assert canonical(plain) == form
    merged = [f"{i} stands for ({', '.join(indices)})" for i, indices in form.merged.items()]
    return "\n".join(
        ["as given", geometry_text(plain), "", "canonical", geometry_text(form), *merged]
    )


def schedule_block(number):
    """Groups and schedule of a step."""
    found = example().steps[number - 1]
    rows = [
        [g.name, show.indices(g.indices), str(g.extent), g.role, ", ".join(map(str, g.blocks))]
        for g in found.groups
    ]
    head = ["group", "indices", "extent", "role", "steps of its loops"]
    return f"{show.table(head, rows, 'extent')}\n\n{found.schedule}"


def changes(before, after):
    """What a pass changed: removed and added lines."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    kept = [line for line in lines if not line.startswith(("@@", "+++", "---"))]
    return "\n".join(kept) or "(nothing)"


def passes_block():
    """The passes in order, by the first line of their files."""
    return "\n".join(
        f"{number}. {run.__module__.rpartition('.')[2]}: {first_line(run)}"
        for number, (_, run) in enumerate(passes.PASSES, start=1)
    )


def first_line(function):
    """What a pass does, in the words of its file's first line."""
    text = sys.modules[function.__module__].__doc__.splitlines()[0]
    return text.partition(": ")[2]


def part(text, first, last=None):
    """The lines from one that contains ``first`` (the last such) to one with ``last``."""
    lines = text.splitlines()
    begin = max(i for i, line in enumerate(lines) if first in line)
    end = (
        len(lines)
        if last is None
        else next(i for i in range(begin, len(lines)) if last in lines[i])
    )
    depth = len(lines[begin]) - len(lines[begin].lstrip())
    return "\n".join(line[depth:] for line in lines[begin:end])


def source_head():
    """The beginning of the packed kernel's source: its calling convention and memory."""
    source = stages(step(1)[1].schedule).source
    head, _, _ = source.partition("    for tile in")
    return head.rstrip()


def key_block():
    """What a kernel's key is made of; digests and versions differ from build to build."""
    found = kernels.fields(step(1)[1].schedule, MACHINE.target).fields()
    found["text"] = "<SHA-256 of the schedule as text>"
    found["generator"] = "<digest of the compiler's sources>"
    found["llvm"] = "<versions of numba and llvmlite>"
    found["features"] = f"<{len(found['features'])} names, avx2 and fma among them>"
    return "\n".join(f"{name}: {value}" for name, value in found.items())


def arguments_block():
    """The argument array of the packed step, with names."""
    found = example().steps[0]._step
    values = zip(found.kernel.parameters, found.arguments.tolist(), strict=False)
    listed = [
        f"{name}={'<address>' if name in found.choice.schedule.names else value}"
        for name, value in values
    ]
    lines = [", ".join(listed[i : i + 8]) for i in range(0, len(listed), 8)]
    return "\n".join([*lines, f"tiles: {found.tiles}; scratch: {found.scratch_bytes} bytes"])


def composite_block():
    """What tables of offsets look like in a nest, shortened."""
    choice = choose(canonical(COMPOSITE.geometry()), MACHINE)
    found = loops(show.show(stages(choice.schedule).final)).splitlines()
    wanted = [
        line.strip()
        for line in found
        if re.search(r"tabulate|^tiles|panel\[.*\] = |^ *out\[", line)
    ]
    groups = [f"{g} = {show.indices(m)}" for g, m in choice.members.items()]
    return "\n".join([", ".join(groups), *wanted])


def sum_block():
    """The nest of a long sum."""
    return loops(show.show(stages(choose(canonical(SUM.geometry()), MACHINE).schedule).final))


@cache
def microkernel():
    """The beginning of the packed kernel's innermost loop, as assembler text."""
    text = pipeline.assembly(step(1)[1].schedule, MACHINE.target)
    blocks = re.split(r"^\.LBB\w+:\n", text, flags=re.MULTILINE)
    busiest = max(blocks, key=lambda block: block.count("vfmadd"))
    lines = (line.split("\t", 2) for line in busiest.strip("\n").splitlines())
    text = [f"{words[1]:<13}{' '.join(words[2:])}".rstrip() for words in lines]
    return "\n".join([*text[:8], f"... {len(text) - 8} more"])


BLOCKS = {
    "program": lambda: example().stage("program"),
    "steps": steps_text,
    "geometry": geometry_block,
    "schedule-1": lambda: schedule_block(1),
    "passes": passes_block,
    "lower": lambda: nests(1)["lower"],
    "fuse": lambda: nests(1)["fuse"],
    "tile": lambda: nests(1)["tile"],
    "reorder": lambda: nests(1)["reorder"],
    "pack": lambda: changes(nests(1)["reorder"], nests(1)["pack"]),
    "vectorize": lambda: part(nests(1)["vectorize"], "for k in k_block").rpartition("rows")[0],
    "parallelize": lambda: nests(1)["parallelize"].split("\n")[0],
    "source-head": source_head,
    "source-kernel": lambda: part(stages(step(1)[1].schedule).source, "for n_tile in"),
    "composite": composite_block,
    "sum": sum_block,
    "key": key_block,
    "arguments": arguments_block,
    "microkernel": microkernel,
}

LOOSE = {"microkernel": "vfmadd"}  # LLVM's versions differ: only that this is in it


def fenced(text):
    """A block's text in the document."""
    return "```text\n" + "\n".join(line.rstrip() for line in text.rstrip().split("\n")) + "\n```\n"


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_are_what_the_compiler_makes(name, update_golden):
    text = DOCUMENT.read_text()
    made = fenced(BLOCKS[name]())
    if update_golden:
        head, end = f"<!-- generated: {name} -->\n", "<!-- end -->"
        text = BLOCK.sub(lambda m: head + made + end if m["name"] == name else m[0], text)
        DOCUMENT.write_text(text)
    found = {match["name"]: match["text"] for match in BLOCK.finditer(text)}
    if name in LOOSE:
        assert LOOSE[name] in made
        assert LOOSE[name] in found[name]
    else:
        assert found[name] == made, "meant? then --update-golden"


def test_all_blocks_of_the_document_are_generated():
    text = DOCUMENT.read_text()
    names = [match["name"] for match in BLOCK.finditer(text)]
    assert len(names) == text.count("<!-- generated:")
    assert sorted(names) == sorted(BLOCKS)


def test_files_that_the_document_names_exist():
    root = DOCUMENT.parents[1]
    if not (root / "compiler").is_dir():
        pytest.skip("the package is installed from a wheel, not from this checkout")
    named = set(re.findall(r"`((?:compiler|runtime|tests|docs)/[\w/.-]*)`", DOCUMENT.read_text()))
    assert named
    assert [name for name in sorted(named) if not (root / name).exists()] == []


def test_the_document_stays_readable():
    assert len(DOCUMENT.read_text().splitlines()) < 640
