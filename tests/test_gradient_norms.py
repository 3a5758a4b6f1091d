"""`docs/gradient-norms.md` shows the plan that the compiler makes; and a body has the same one.

After a change that is meant to change it: `pytest tests/test_gradient_norms.py --update-golden`.
"""

import re
from pathlib import Path
from unittest.mock import patch

import numpy as np
from einsumc.compiler import paths
from einsumc.compiler.machine import TARGETS, Machine
from einsumc.compiler.resolve import resolve
from einsumc.compiler.subscripts import parse
from einsumc.runtime import execute, explain, threads

DOCUMENT = Path(__file__).parents[1] / "docs" / "gradient-norms.md"
BLOCK = re.compile(
    r"(?<=<!-- generated: plan -->\n)(.*?)(?=^<!-- end -->$)", re.DOTALL | re.MULTILINE
)
MACHINE = Machine(TARGETS["x86-64-v3"])


def plan():
    shapes = [(32, 128, 768)] * 4
    b, a = (np.ones(shapes[0], "f4") for _ in range(2))
    expression = resolve(parse("nti,nsi,ntj,nsj->n"), shapes)
    with (
        patch.object(execute, "machine", lambda: MACHINE),
        patch.object(explain, "machine", lambda: MACHINE),
        patch.object(threads, "get_num_threads", lambda: 1),
        patch.object(paths, "find_spec", lambda name: None),  # whether opt_einsum is here or not
    ):
        text = explain.explain(expression, [b, b, a, a]).stage("tree")
    return re.sub(r" [0-9a-f]{8}, (not )?stored", "", text)


def test_the_plan_is_what_the_compiler_makes(update_golden):
    document = DOCUMENT.read_text(encoding="utf-8")
    made = BLOCK.sub(lambda _: f"```text\n{plan().strip()}\n```\n", document)
    if update_golden:
        DOCUMENT.write_text(made, encoding="utf-8")
        return
    assert document == made
