"""All figures of docs/performance.md: measure them, and write what is generated there.

    python benchmarks/figures.py --json results.json [--quick] [--only tccg-f4,threads]
    python benchmarks/figures.py --report results.json

The first runs one command for each group, one after the other in processes of their own, and keeps
everything in one JSON file: groups that are run again replace what the file has of them. The second
measures nothing. It writes the blocks between the markers of docs/performance.md and of
docs/gradient-norms.md, leaves alone what people wrote around them, and draws docs/roofline.svg.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from groups import GROUPS, Group
from report import norm_blocks, write_report

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "performance.md"
NORMS = HERE.parent / "docs" / "gradient-norms.md"
PICTURE = HERE.parent / "docs" / "roofline.svg"


@dataclass(frozen=True)
class Processor:
    """The machine, as /proc and /sys describe it; what they do not say stays empty."""

    name: str
    cores: int
    caches: tuple[str, ...]

    @classmethod
    def here(cls) -> Processor:
        """This one."""
        try:
            lines = Path("/proc/cpuinfo").read_text().splitlines()
        except OSError:
            lines = []
        fields = dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)
        name = fields.get("model name", platform.machine()).strip()
        model = [fields[key].strip() for key in ("cpu family", "model") if key in fields]
        if len(model) == 2:
            name += f", family {model[0]} model {model[1]}"
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        caches = []
        for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
            level, kind, size = (
                (index / each).read_text().strip() for each in ("level", "type", "size")
            )
            if kind != "Instruction":
                caches.append(f"L{level} {size}")
        return cls(name, cores, tuple(caches))


def machine() -> dict[str, Any]:
    """What the figures were measured on and with."""
    processor = Processor.here()
    versions = {}
    for name in ("numba", "llvmlite", "numpy"):
        versions[name] = metadata.version(name)
    return {
        "processor": processor.name,
        "cores": processor.cores,
        "caches": list(processor.caches),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": versions,
        "date": time.strftime("%Y-%m-%d"),
    }


def run_group(group: Group, quick: bool) -> dict[str, Any]:
    """Run a group's command and return its record for the results.

    Raises:
        CalledProcessError: the command failed.
    """
    command = group.command + (group.quick if quick else ())
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "result.json"
        script, *options = command
        begin = time.perf_counter()
        subprocess.run(
            [sys.executable, str(HERE / script), *options, "--json", str(path)],
            check=True,
            stdout=sys.stderr,
        )
        took = time.perf_counter() - begin
        result = json.loads(path.read_text())
    return {"command": list(command), "took": took, "quick": quick, "result": result}


def measure(groups: Sequence[Group], path: Path, quick: bool) -> None:
    """Run groups, and write the results after each of them."""
    results = json.loads(path.read_text()) if path.exists() else {"groups": {}}
    results["machine"] = machine()
    for group in groups:
        print(f"== {group.name}: {' '.join(group.command)}", file=sys.stderr)
        results["groups"][group.name] = run_group(group, quick)
        path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    took = sum(results["groups"][group.name]["took"] for group in groups)
    print(f"{len(groups)} groups in {took / 60:.1f} minutes", file=sys.stderr)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="measure, and keep everything in this file")
    parser.add_argument(
        "--report", type=Path, help="write docs/performance.md and docs/roofline.svg from this file"
    )
    parser.add_argument("--quick", action="store_true", help="a few cases of every group")
    parser.add_argument("--only", default="", help=f"groups, by comma: {', '.join(GROUPS)}")
    options = parser.parse_args(arguments)
    if options.json is None and options.report is None:
        parser.error("either --json or --report, or both")
    names = list(filter(None, options.only.split(","))) or list(GROUPS)
    if unknown := set(names) - set(GROUPS):
        parser.error(f"no group {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    options.groups = [GROUPS[name] for name in names]
    return options


def main() -> None:
    options = parse_arguments()
    if options.json is not None:
        measure(options.groups, options.json, options.quick)
    if options.report is not None:
        results = json.loads(options.report.read_text())
        DOCUMENT.write_text(write_report(DOCUMENT.read_text(), results))
        NORMS.write_text(write_report(NORMS.read_text(), results, norm_blocks))
        from picture import draw

        draw(results, PICTURE)


if __name__ == "__main__":
    main()
