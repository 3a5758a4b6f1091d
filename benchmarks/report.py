"""The generated parts of docs/performance.md: from results to text, and into the document.

Results are what `figures.py` keeps: {"machine": ..., "groups": {name: {"command", "quick",
"result"}}}, where "result" is what the group's command wrote with `--json`. Nothing here measures.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bounds import Limits, limits
from groups import GROUPS, Group
from run import OURS, format_seconds, geometric_mean

__all__ = ["blocks", "measured_by_run", "norm_blocks", "points", "ratios", "write_report"]

Results = Mapping[str, Any]
BlocksOf = Callable[[Results], dict[str, str]]
BLOCK = re.compile(
    r"^<!-- generated: (?P<name>[\w-]+) -->\n(?P<text>.*?)^<!-- end -->$", re.DOTALL | re.MULTILINE
)
WORST = 10  # cases of a table
MiB = 2**20
SHORT = {"float32": "f4", "float64": "f8"}


def ratios(group: Group, cases: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """For each case the time of the fastest peer that counts over einsumc's.

    Cases without einsumc's time, or without any peer's, are left out.
    """
    found = {}
    for case in cases:
        peer = fastest_peer(group, case)
        if peer is not None and OURS in case["seconds"]:
            found[case["name"]] = case["seconds"][peer] / case["seconds"][OURS]
    return found


def fastest_peer(group: Group, case: Mapping[str, Any]) -> str | None:
    """The fastest contender that the group is measured against."""
    seconds = {
        name: value
        for name, value in case["seconds"].items()
        if name != OURS and (not group.against or name in group.against)
    }
    return min(seconds, key=seconds.__getitem__) if seconds else None


@dataclass(frozen=True)
class Point:
    """A measured case with its place under the roofline.

    Attributes:
        limits: the least seconds by resource.
        ratio: fastest peer over einsumc, if there is a peer.
    """

    group: str
    case: Mapping[str, Any]
    seconds: float
    limits: Limits
    peer: str | None
    ratio: float | None

    @property
    def share(self) -> float:
        """Of the roofline: what arithmetic and memory allow, over the time taken."""
        return max(self.limits.compute, self.limits.memory) / self.seconds


def points(results: Results, name: str) -> list[Point]:
    """einsumc's cases of a group that `run.py` measured, those with the lowest ratio first."""
    group, result = GROUPS[name], results["groups"][name]["result"]
    roofs = {roof["dtype"]: roof for roof in result["roofline"]}
    overhead = results["groups"].get("overhead", {}).get("result")
    found = ratios(group, result["cases"])
    listed = [
        Point(
            name,
            case,
            case["seconds"][OURS],
            limits(case, roofs[case["dtype"]], overhead),
            fastest_peer(group, case),
            found.get(case["name"]),
        )
        for case in result["cases"]
        if OURS in case["seconds"]
    ]
    return sorted(listed, key=lambda point: (point.ratio is None, point.ratio or point.share))


def measured_by_run(results: Results) -> list[str]:
    """The groups of these results that have cases, contenders and a roofline."""
    return [name for name in results["groups"] if GROUPS[name].command[0] == "run.py"]


# Figures of the table: what was measured, and whether it is what was asked for


def _figure_of_ratios(group: Group, results: Results) -> tuple[str, bool]:
    cases = results["groups"][group.name]["result"]["cases"]
    found = ratios(group, cases)
    if not found:
        return "no case with a peer", False
    mean, least = geometric_mean(list(found.values())), min(found.values())
    slower = sum(value < 1 for value in found.values())
    text = f"geomean {mean:.2f}, least {least:.2f}, slower in {slower} of {len(found)}"
    if failed := len(cases) - sum(OURS in case["seconds"] for case in cases):
        text += f"; {failed} not computed"
    return text, mean >= group.geomean and least >= group.least and not failed


def _figure_of_threads(group: Group, results: Results) -> tuple[str, bool]:
    asked = {"compute": 1.7, "memory": 1.4}
    words = {"compute": "compute-bound", "memory": "bandwidth-bound"}
    cases = results["groups"][group.name]["result"]["cases"]
    texts, met = [], True
    for bound, factor in asked.items():
        found = [case["ratio"] for case in cases if case["bound"] == bound]
        if found:
            mean = geometric_mean(found)
            texts.append(f"{mean:.2f} {words[bound]} ({len(found)} cases)")
            met &= mean >= factor
    return ", ".join(texts), met and len(texts) == len(asked)


def _figure_of_memory(group: Group, results: Results) -> tuple[str, bool]:
    result = results["groups"][group.name]["result"]
    most = max(case["extra"] for case in result["cases"]) / result["threads"] / MiB
    return f"at most {most:.2f} MiB ({len(result['cases'])} cases)", most < 16


def _figure_of_compilation(group: Group, results: Results) -> tuple[str, bool]:
    kernels = results["groups"][group.name]["result"]["kernels"]
    most = max(kernel["seconds"] for kernel in kernels)
    return f"{most:.2f} s ({len(kernels)} kernels)", most <= 0.5


_FIGURES: dict[str, Callable[[Group, Results], tuple[str, bool]]] = {
    "run.py": _figure_of_ratios,
    "scaling.py": _figure_of_threads,
    "memory.py": _figure_of_memory,
    "compile_time.py": _figure_of_compilation,
}


# Blocks


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[str] = ()) -> str:
    """A Markdown table; the columns named in `right` hold numbers and are aligned so."""
    rule = ["---:" if name in right else "---" for name in head]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows)) + "\n"


def figures_block(results: Results) -> str:
    """The table of what is asked and what was measured."""
    rows = []
    for name, group in GROUPS.items():
        if not group.asked:
            continue
        text, verdict = "not measured", "-"
        command = list(group.command)
        if name in results["groups"]:
            text, met = _FIGURES[group.command[0]](group, results)
            verdict = "yes" if met else "no"
            command = results["groups"][name]["command"]
            if results["groups"][name]["quick"]:
                text, verdict = f"{text} (a sample)", "-"  # a few cases meet or miss nothing
        called = f"`python benchmarks/{' '.join(command)}`"
        rows.append((group.what, group.asked, text, verdict, called))
    return table(("what", "asked", "measured", "met", "command"), rows)


def machine_block(results: Results) -> str:
    """The machine, its roofline and the versions."""
    machine = results["machine"]
    rooflines: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for record in results["groups"].values():
        for roof in record["result"].get("roofline", ()):
            rooflines.setdefault((roof["dtype"], roof["threads"]), []).append(roof)
    caches = ", ".join(machine["caches"])
    lines = [f"- {machine['processor']}; {machine['cores']} cores; caches {caches}"]
    for (dtype, threads), roofs in sorted(rooflines.items()):
        flops = max(roof["flops"] for roof in roofs)
        bandwidth = max(roof["bandwidth"] for roof in roofs)
        lines.append(
            f"- {dtype}, {threads} thread{'s' * (threads > 1)}: P = {flops / 1e9:.1f} GFLOP/s, "
            f"W = {bandwidth / 1e9:.1f} GB/s"
        )
    if "overhead" in results["groups"]:
        overhead = results["groups"]["overhead"]["result"]
        lines.append(
            f"- a call of one step takes {overhead['first'] * 1e6:.1f} µs by itself, each further "
            f"step {overhead['step'] * 1e6:.1f} µs"
        )
    versions = dict(machine["versions"])
    for name in measured_by_run(results):
        versions |= results["groups"][name]["result"]["versions"]
    versions.pop(OURS, None)
    versions.pop("blas", None)  # numpy's
    named = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    lines.append(f"- Python {machine['python']} on {machine['system']}; {named}")
    lines.append(f"- measured on {machine['date']}")
    return "\n".join(lines) + "\n"


_POINT_NUMBERS = ("time", "ratio", "roofline")
_POINT_HEAD = ("case", "dtype", "time", "ratio", "fastest peer", "roofline", "limit")


def _point_row(point: Point) -> tuple[str, ...]:
    return (
        f"`{point.case['name']}`",
        SHORT[point.case["dtype"]],
        format_seconds(point.seconds),
        "-" if point.ratio is None else f"{point.ratio:.2f}",
        point.peer or "-",
        f"{point.share:.0%}",
        f"{point.limits.name} {format_seconds(point.limits.seconds)}",
    )


def slowest_block(results: Results, name: str) -> str:
    """The cases of a group with the lowest ratios, and what limits them."""
    listed = points(results, name)
    rows = [_point_row(point) for point in listed[:WORST]]
    shares = [point.share for point in listed]
    text = table(_POINT_HEAD, rows, _POINT_NUMBERS)
    mean = geometric_mean(shares) if shares else 0.0
    return (
        f"{text}\nShare of the roofline, geometric mean of all {len(listed)} cases: {mean:.0%}.\n"
    )


def furthest_block(results: Results) -> str:
    """Of all groups, the cases with the lowest share of what limits them."""
    listed = [point for name in measured_by_run(results) for point in points(results, name)]
    listed.sort(key=lambda point: point.limits.seconds / point.seconds)
    rows = [
        (*_point_row(point), f"{point.limits.seconds / point.seconds:.0%}")
        for point in listed[:WORST]
    ]
    return table((*_POINT_HEAD, "of limit"), rows, (*_POINT_NUMBERS, "of limit"))


def threads_block(results: Results) -> str:
    """The cases that gain least from a second thread, by what bounds them."""
    result = results["groups"]["threads"]["result"]
    rows = []
    for bound in ("compute", "memory"):
        cases = sorted(
            (case for case in result["cases"] if case["bound"] == bound), key=lambda c: c["ratio"]
        )
        rows += [
            (
                f"`{case['name']}`",
                bound,
                format_seconds(case["one"]),
                format_seconds(case["several"]),
                f"{case['ratio']:.2f}",
            )
            for case in cases[: WORST // 2]
        ]
    numbers = ("one thread", f"{result['threads']} threads", "ratio")
    return f"{table(('case', 'bound by', *numbers), rows, numbers)}\n{machine_gain(result)}"


def machine_gain(result: Mapping[str, Any]) -> str:
    """What the further threads bring to peak and bandwidth, the most that kernels can gain."""
    roofs = {(roof["dtype"], roof["threads"]): roof for roof in result["roofline"]}
    texts = []
    for (dtype, threads), several in roofs.items():
        one = roofs[dtype, 1]
        if threads > 1:
            flops = several["flops"] / one["flops"]
            bandwidth = several["bandwidth"] / one["bandwidth"]
            texts.append(f"{SHORT[dtype]} P times {flops:.2f}, W times {bandwidth:.2f}")
    return f"The machine itself: {'; '.join(texts)}.\n"


def memory_block(results: Results) -> str:
    """The cases with the largest extra memory."""
    cases = sorted(results["groups"]["memory"]["result"]["cases"], key=lambda case: -case["extra"])
    rows = [
        (
            f"`{case['name']}`",
            f"{(case['operands'] + case['output']) / MiB:.1f}",
            f"{case['extra'] / MiB:.2f}",
        )
        for case in cases[:WORST]
    ]
    numbers = ("operands and output, MiB", "extra, MiB")
    return table(("case", *numbers), rows, numbers)


def compile_block(results: Results) -> str:
    """The kernels that take longest to compile."""
    kernels = results["groups"]["compile"]["result"]["kernels"]
    slowest = sorted(kernels, key=lambda kernel: -kernel["seconds"])[:WORST]
    rows = [
        (f"`{kernel['name']}`", kernel["recipe"], format_seconds(kernel["seconds"]))
        for kernel in slowest
    ]
    return table(("first needed by", "recipe", "time"), rows, ("time",))


def results_block(results: Results) -> str:
    """What large results cost as new arrays."""
    rows = [
        (
            f"`{each['name']}`",
            SHORT[each["dtype"]],
            f"{each['output'] / MiB:.0f}",
            format_seconds(each["new"]),
            format_seconds(each["existing"]),
        )
        for each in results["groups"]["results"]["result"]["results"][:WORST]
    ]
    numbers = ("result, MiB", "into a new array", "into one that exists")
    return table(("case", "dtype", *numbers), rows, numbers)


def planning_block(results: Results) -> str:
    """What planning networks takes, beside running them."""
    rows = [
        (
            each["name"],
            str(each["steps"]),
            str(each["kernels"]),
            format_seconds(each["planning"]),
            format_seconds(each["later"]),
            f"{each['peak'] / MiB:.2f} of {each['intermediates'] / MiB:.2f}",
        )
        for each in results["groups"]["planning"]["result"]["networks"]
    ]
    numbers = ("steps", "kernels", "planning", "a later call", "peak of intermediates, MiB")
    return table(("network", *numbers), rows, numbers)


def ranking_block(results: Results) -> str:
    """How well predicted times put steps, and orders of contraction, in order."""
    result = results["groups"]["ranking"]["result"]
    names = {"count": "{:.0f}", "spearman": "{:.3f}", "off": "{:.2f}", "off_nine_in_ten": "{:.2f}"}
    rows = [
        (what, *(text.format(result[what][name]) for name, text in names.items()))
        for what in ("steps", "orders")
    ]
    numbers = ("measured", "Spearman's correlation", "off by, median", "off by, nine in ten")
    regret = result["regret"]
    return (
        f"{table(('', *numbers), rows, numbers)}\nThe orders are those of {result['equations']} "
        f"equations. The one that is chosen takes {regret['mean']:.2f} times as long as the "
        f"fastest, as a geometric mean, and {regret['largest']:.2f} times at most.\n"
    )


def blocks(results: Results) -> dict[str, str]:
    """Every block that these results have something for, by name."""
    made = {"figures": figures_block(results), "machine": machine_block(results)}
    run = measured_by_run(results)
    made |= {name: slowest_block(results, name) for name in run}
    if run:
        made["furthest"] = furthest_block(results)
    others = {
        "threads": threads_block,
        "memory": memory_block,
        "compile": compile_block,
        "results": results_block,
        "planning": planning_block,
        "ranking": ranking_block,
    }
    made |= {name: make(results) for name, make in others.items() if name in results["groups"]}
    return made


def norms_block(results: Results) -> str:
    """Every norm of the group: its time, and how much longer its peers take."""
    group, found = GROUPS["norms"], results["groups"]["norms"]["result"]
    rows, against = [], {"program": [], "torch_einsum": []}
    for case in found["cases"]:
        seconds, peer = case["seconds"], fastest_peer(group, case)
        if OURS not in seconds or peer is None:
            continue
        ours = seconds[OURS]
        against["program"].append(seconds[peer] / ours)
        shot = "not measured"
        if "torch_einsum" in seconds:
            against["torch_einsum"].append(seconds["torch_einsum"] / ours)
            shot = f"{seconds['torch_einsum'] / ours:.2f}"
        took = format_seconds(ours), f"{seconds[peer] / ours:.2f}", peer.removesuffix("_expert")
        rows.append((f"{case['name']}: `{case['equation']}`", *took, shot))
    means = [f"{geometric_mean(each):.2f}" if each else "" for each in against.values()]
    rows.append(("geometric mean", "", means[0], "", means[1]))
    numbers = ("einsumc", "fastest program", "`torch.einsum`")
    return table(("norm", *numbers[:2], "of", numbers[2]), rows, numbers)


def norm_blocks(results: Results) -> dict[str, str]:
    """The blocks of docs/gradient-norms.md."""
    return {"norms-table": norms_block(results)} if "norms" in results["groups"] else {}


def write_report(document: str, results: Results, of: BlocksOf = blocks) -> str:
    """The document with its blocks made anew; what stands outside of them is untouched.

    A block for which the results have nothing stays as it is.

    Args:
        document: its text.
        results: what was measured.
        of: makes the document's blocks.

    Raises:
        ValueError: a block has no place in the document.
    """
    made = of(results)
    places = [match["name"] for match in BLOCK.finditer(document)]
    if missing := sorted(set(made) - set(places)):
        raise ValueError(f"the document has no place for the generated {', '.join(missing)}")

    def renewed(match: re.Match[str]) -> str:
        text = made.get(match["name"])
        if text is None:
            return match[0]
        return f"<!-- generated: {match['name']} -->\n\n{text}\n<!-- end -->"

    return BLOCK.sub(renewed, document)
