"""Explanations as text: the program, the tree of its steps, loops, source and assembler text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from ..compiler import show

if TYPE_CHECKING:
    from .explain import ExplainedStep, Explanation

__all__ = ["STAGES", "whole"]


def whole(plan: Explanation) -> str:
    """Everything but assembler text."""
    parts = [_program(plan), _tree(plan)]
    for steps in _by_kernel(plan.steps):
        parts += [_heading(step, plan.steps) + "\n" + _groups(step) for step in steps]
        parts += [steps[0].schedule, _loops(steps[0]), _titled("source", steps[0].source)]
    return "\n\n".join(parts)


def _program(plan: Explanation) -> str:
    head = f"{plan.equation}    {show.sizes(plan.sizes)}    {plan.dtype}"
    return f"{head}\n{_indented(plan.program)}"


def _tree(plan: Explanation) -> str:
    if not plan.steps:
        return plan.note
    sliced = bool(plan.slices or plan.chains)
    rows = [
        [
            str(number),
            *([show.count(step.runs)] if sliced else []),
            step.computes,
            step.subscripts,
            show.count(step.cost.flops),
            show.size(step.cost.bytes),
            *_times(step.predicted, step.measured, step.least),
            str(step.threads),
            f"{step.recipe} {step.key[:8]}, {step.origin}",
        ]
        for number, step in enumerate(plan.steps, start=1)
    ]
    measured = plan.measured is not None
    least = sum(step.least for step in plan.steps)
    times = _times(plan.predicted, plan.measured, least)
    totals = ["all", "", show.count(plan.flops), show.size(plan.bytes), *times, "", ""]
    rows.append(["", *([""] if sliced else []), *totals])
    took = ["predicted", *(["measured"] if measured else []), "roofline"]
    numbers = ["flops", "bytes", *took, "threads"]
    head = ["step", *(["runs"] if sliced else []), "computes", "subscripts", *numbers, "kernel"]
    loops = f"in slices: {', '.join(map(str, plan.slices))}\n" if plan.slices else ""
    loops += "".join(f"together: statements {chain}\n" for chain in plan.chains)
    steps = _indented(show.table(head, rows, " ".join(["runs", *numbers])))
    found = plan.factorization
    memory = f"memory: {_memory(plan)}\n"
    if plan.intermediates:
        places = ", ".join(f"{name} in {place}" for name, place in plan.intermediates.items())
        memory += show.wrapped(f"intermediates: {places}") + "\n"
    if plan.note:
        memory += f"{plan.note}\n"
    if found is None:
        return f"{memory}{steps}"
    return "\n\n".join(
        (
            f"factorization: {found.chosen}\n{memory}{loops}{steps}",
            "candidates, with the time of one core\n"
            + _indented(show.candidates(found.candidates, found.chosen)),
        )
    )


def _memory(plan: Explanation) -> str:
    """What a call needs besides operands and result."""
    temporaries = "no temporaries"
    if plan.temporaries:
        temporaries = (
            f"temporaries of {show.size(plan.temporary_bytes)}, "
            f"{show.size(plan.peak_memory)} at the peak"
        )
    return f"{temporaries}; scratch of {show.size(plan.scratch_bytes)} a thread"


def _times(predicted: float, measured: float | None, least: float) -> list[str]:
    """The predicted time, the measured one if there is one, and the better known's share."""
    took = predicted if measured is None else measured
    share = f"{100 * least / took:.0f} %" if took else ""
    known = [] if measured is None else [show.seconds(measured)]
    return [show.seconds(predicted), *known, share]


def _heading(step: ExplainedStep, every: Sequence[ExplainedStep]) -> str:
    return f"-------- step {every.index(step) + 1}: {step.statement}"


def _groups(step: ExplainedStep) -> str:
    """Which loop stands for which indices, and in what steps it is walked."""
    rows = [
        [
            group.name,
            show.indices(group.indices),
            str(group.extent),
            group.role,
            ", ".join(map(str, group.blocks)),
        ]
        for group in step.groups
    ]
    head = ["group", "indices", "extent", "role", "blocks"]
    tiles = f"{step.tiles} tile{'s' * (step.tiles != 1)} to share among threads"
    scratch = f"{show.size(step.scratch_bytes)} of scratch for each"
    return f"{show.table(head, rows, 'extent')}\n{tiles}, {scratch}"


def _loops(step: ExplainedStep) -> str:
    (_, before), *_, (_, after) = step.nests
    return f"{_titled('loops before the passes', before)}\n{_titled('loops after', after)}"


def _titled(title: str, text: str) -> str:
    return f"{title}\n{_indented(text)}"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.rstrip("\n").split("\n"))


def _by_kernel(steps: Iterable[ExplainedStep]) -> list[list[ExplainedStep]]:
    """The steps that share a kernel, together, in the order of the first."""
    kernels: dict[str, list[ExplainedStep]] = {}
    for step in steps:
        kernels.setdefault(step.key, []).append(step)
    return list(kernels.values())


def _for_each_kernel(text: Callable[[ExplainedStep], str]) -> Callable[[Explanation], str]:
    """A stage that has one text for each kernel, below the names of the steps that use it."""

    def stage(plan: Explanation) -> str:
        kernels = _by_kernel(plan.steps)
        parts = (
            "\n".join([*(_heading(step, plan.steps) for step in steps), text(steps[0]).rstrip()])
            for steps in kernels
        )
        return "\n\n".join(parts) or plan.note

    return stage


STAGES: dict[str, Callable[[Explanation], str]] = {
    "program": _program,
    "tree": _tree,
    "loops": _for_each_kernel(_loops),
    "source": _for_each_kernel(lambda step: step.source),
    "asm": _for_each_kernel(lambda step: step.assembly()),
}
"""What an explanation can show, by name; "asm" compiles."""
