"""Golden files: the loop nests and the source of a few schedules, as text in `tests/golden/`.

After a change that is meant to change them: `pytest tests/compiler/test_golden.py --update-golden`,
and read the difference.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from einsumc.compiler import pipeline
from einsumc.compiler.choose import choose
from einsumc.compiler.geometry import canonical
from einsumc.compiler.pipeline import stages, stages_of
from einsumc.compiler.show import schedule, show
from steps import Step

FOLDER = Path(__file__).parents[1] / "golden"

STEPS = {
    "matrix-product-f4": Step("ij,jk->ik", {"i": 300, "j": 200, "k": 310}),
    "batched-product-f8": Step("bij,bjk->bik", dict.fromkeys("bijk", 64), "f8"),
    "transposed-operands-f4": Step("ij,jk->ik", {"i": 300, "j": 200, "k": 310}, memory="ij,kj->ik"),
    "complex-product-c8": Step("ij,jk->ik", dict.fromkeys("ijk", 200), "c8"),
    "half-product-f2": Step("ij,jk->ik", dict.fromkeys("ijk", 200), "f2"),
    "composite-groups-f4": Step("iajb,jkbc->ikac", dict.fromkeys("iajbkc", 20)),
    "scaled-product-f4": Step("ki,k,kj,k->ij", {"i": 40, "j": 50, "k": 60}),
    "transposition-f4": Step("ab->ba", {"a": 300, "b": 200}),
    "turned-transposition-f4": Step("ab->ba", {"a": 5000, "b": 3000}),
    "turned-short-axes-f8": Step("abcdef->fedcba", dict.fromkeys("abcdef", 14), "f8"),
    "elementwise-f4": Step("abc,abc,abc->abc", {"a": 5, "b": 60, "c": 70}),
    "sum-of-rows-f4": Step("ij->i", {"i": 300, "j": 20000}),
    "sum-of-columns-f4": Step("ij->j", {"i": 20000, "j": 300}),
    "short-sums-f4": Step("nc,nc->n", {"n": 5000, "c": 3}),
    "short-rows-f4": Step("ni,ij->nj", {"n": 5000, "i": 3, "j": 3}),
    "diagonal-f8": Step("ii->i", {"i": 300}, "f8"),
}


def made(step):
    """What the compiler makes of a step."""
    form = canonical(step.geometry())
    choice = choose(form, step.machine)
    return choice, stages_of(choice, form)


def text(step):
    """A golden file's content."""
    choice, found = made(step)
    (first, lowered), *_, (last, final) = found.nests
    sizes = " ".join(f"{index}={extent}" for index, extent in step.extents.items())
    groups = [f"{name} = ({', '.join(indices)})" for name, indices in choice.members.items()]
    return "\n".join(
        [
            f"{step.equation}, {sizes}, {step.element}; in memory {','.join(step.orders)}",
            f"groups: {', '.join(groups)}",
            "",
            schedule(choice.schedule),
            "",
            f"==== after {first}",
            show(lowered),
            f"==== after {last}",
            show(final),
            "==== source",
            found.source,
        ]
    )


def digest():
    """One number for all texts."""
    return hashlib.sha256("".join(map(text, STEPS.values())).encode()).hexdigest()


@pytest.mark.parametrize("name", STEPS)
def test_golden(name, update_golden):
    file = FOLDER / f"{name}.txt"
    if update_golden:
        FOLDER.mkdir(exist_ok=True)
        file.write_text(text(STEPS[name]))
    assert text(STEPS[name]) == file.read_text(), "meant? then --update-golden"


def test_every_golden_file_is_of_a_step():
    assert sorted(file.stem for file in FOLDER.iterdir()) == sorted(STEPS)


def test_nothing_is_numbered_by_what_came_before():
    first = digest()
    stages.cache_clear()
    for step in reversed(STEPS.values()):
        text(step)
    assert digest() == first


@pytest.mark.parametrize("seed", ["1", "2"])
def test_another_process_makes_the_same_text(seed):
    here = Path(__file__)
    program = (
        "import sys, runpy; sys.path.append(sys.argv[1]);"
        "print(runpy.run_path(sys.argv[2])['digest']())"
    )
    process = subprocess.run(
        [sys.executable, "-c", program, str(here.parents[1]), str(here)],
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == digest()


@pytest.mark.parametrize("name", STEPS)
def test_indices_do_not_change_the_kernel(name):
    """Source is made from the schedule alone: neither sizes nor names of indices are in it."""
    step = STEPS[name]
    other = Step(
        step.equation.upper(),
        {index.upper(): extent for index, extent in step.extents.items()},
        step.element,
        step.memory and step.memory.upper(),
    )
    choice, found = made(step)
    again, same = made(other)
    assert again.schedule == choice.schedule
    assert same.source == found.source == stages(choice.schedule).source
    assert pipeline.describe(again.schedule) == pipeline.describe(choice.schedule)
