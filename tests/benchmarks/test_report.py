"""The generated parts of docs/performance.md: ratios, limits, tables, and what is left alone."""

import copy
from pathlib import Path

import pytest
from benchmark_scripts import BENCHMARKS, benchmark

ROOT = Path(__file__).parents[2]

bounds = benchmark("bounds")
groups = benchmark("groups")
report = benchmark("report")

ROOF = {"dtype": "float64", "threads": 1, "flops": 50e9, "bandwidth": 20e9}


def case(name, flops=1e9, size=1e6, steps=1, **seconds):
    return {
        "name": name,
        "dtype": "float64",
        "flops": flops,
        "bytes": size,
        "steps": steps,
        "seconds": seconds,
    }


def record(name, result):
    return {"command": list(groups.GROUPS[name].command), "quick": False, "result": result}


def run_result(*cases):
    return {"roofline": [ROOF], "versions": {"numpy": "2.4", "einsumc": "0"}, "cases": list(cases)}


RESULTS = {
    "machine": {
        "processor": "Abacus",
        "cores": 2,
        "caches": ["L1 32K", "L2 512K"],
        "system": "Linux 6",
        "python": "3.11.7",
        "versions": {"numba": "0.68"},
        "date": "2026-01-01",
    },
    "groups": {
        "products": record(
            "products",
            run_result(
                case("fast", einsumc=0.025, blas=0.05, torch=0.01),
                case("slow", einsumc=0.04, blas=0.02),
                case("alone", einsumc=0.03),
            ),
        ),
        "tccg-f8": record(
            "tccg-f8",
            run_result(
                case("two", einsumc=0.03, numpy=0.06, sesum=0.09),
                case("four", einsumc=0.02, numpy=0.09, sesum=0.08),
            ),
        ),
        "threads": record(
            "threads",
            {
                "threads": 2,
                "roofline": [ROOF, ROOF | {"threads": 2, "flops": 95e9}],
                "cases": [
                    {"name": "a", "bound": "compute", "one": 2.0, "several": 1.0, "ratio": 2.0},
                    {"name": "b", "bound": "memory", "one": 1.2, "several": 1.0, "ratio": 1.2},
                ],
            },
        ),
        "memory": record(
            "memory",
            {
                "threads": 2,
                "cases": [
                    {"name": "a", "operands": 2**20, "output": 2**20, "extra": 2**20},
                    {"name": "b", "operands": 2**20, "output": 2**20, "extra": 30 * 2**20},
                ],
            },
        ),
        "compile": record(
            "compile",
            {
                "kernels": [
                    {"name": "x f4", "recipe": "packed", "seconds": 0.61},
                    {"name": "y f4", "recipe": "streamed", "seconds": 0.1},
                ]
            },
        ),
        "results": record(
            "results",
            {
                "results": [
                    {
                        "name": "outer",
                        "dtype": "float64",
                        "output": 128 * 2**20,
                        "new": 0.17,
                        "existing": 0.01,
                    }
                ]
            },
        ),
        "planning": record(
            "planning",
            {
                "networks": [
                    {
                        "name": "a chain",
                        "steps": 99,
                        "kernels": 7,
                        "planning": 0.05,
                        "later": 0.002,
                        "peak": 2**20,
                        "intermediates": 3 * 2**20,
                    }
                ]
            },
        ),
        "ranking": record(
            "ranking",
            {
                "steps": {"count": 50, "spearman": 0.98, "off": 1.2, "off_nine_in_ten": 2.0},
                "orders": {"count": 90, "spearman": 0.9, "off": 1.3, "off_nine_in_ten": 2.5},
                "equations": 18,
                "regret": {"mean": 1.1, "largest": 1.9},
            },
        ),
        "overhead": record("overhead", {"first": 1e-5, "step": 2e-6}),
    },
}


def without(*names):
    results = copy.deepcopy(RESULTS)
    for name in names:
        del results["groups"][name]
    return results


def row(text, start):
    (found,) = (line for line in text.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in found.strip("|").split("|")]


def document(*names):
    places = "\n\n".join(f"words on {n}\n\n<!-- generated: {n} -->\n<!-- end -->" for n in names)
    return f"# Title\n\n{places}\n\nlast words\n"


# Ratios and limits


def test_ratios_count_only_the_peers_that_the_group_names():
    found = report.ratios(groups.GROUPS["products"], run_result_cases("products"))
    assert found == pytest.approx({"fast": 2.0, "slow": 0.5})  # torch does not count, no peer: out


def test_without_names_the_fastest_of_all_peers_counts():
    found = report.ratios(groups.GROUPS["tccg-f8"], run_result_cases("tccg-f8"))
    assert found == pytest.approx({"two": 2.0, "four": 4.0})


def run_result_cases(name):
    return RESULTS["groups"][name]["result"]["cases"]


@pytest.mark.parametrize(
    ("flops", "size", "steps", "name", "seconds"),
    [
        (50e9, 1e6, 1, "compute", 1.0),
        (1e6, 40e9, 1, "memory", 2.0),
        (10, 10, 1, "call", 1e-5),
        (10, 10, 101, "call", 2.1e-4),
    ],
)
def test_the_resource_that_takes_longest_is_the_limit(flops, size, steps, name, seconds):
    overhead = {"first": 1e-5, "step": 2e-6}
    found = bounds.limits(case("x", flops, size, steps), ROOF, overhead)
    assert found.name == name
    assert found.seconds == pytest.approx(seconds)


def test_without_a_measured_overhead_calls_are_no_limit():
    assert bounds.limits(case("x", 10, 100), ROOF).name == "memory"
    assert bounds.bound_by(10, 1, ROOF) == "compute"


def test_points_stand_in_the_order_of_their_ratios():
    found = report.points(RESULTS, "products")
    assert [point.case["name"] for point in found] == ["slow", "fast", "alone"]
    assert found[0].share == pytest.approx(0.5)  # 20 ms at peak, 40 ms taken


# The table of figures


def test_a_figure_is_met_only_if_both_of_its_numbers_are():
    text = report.figures_block(RESULTS)
    products = row(text, "square matrix products")
    assert products[2] == "geomean 1.00, least 0.50, slower in 1 of 2"
    assert products[3] == "no"  # the mean would do, the least does not
    tccg = row(text, "TCCG, f8")
    assert tccg[2] == "geomean 2.83, least 2.00, slower in 0 of 2"
    assert tccg[3] == "yes"
    assert tccg[4] == "`python benchmarks/run.py --cases tccg --dtype float64`"


def test_a_case_that_einsumc_does_not_compute_fails_the_figure():
    results = copy.deepcopy(RESULTS)
    results["groups"]["tccg-f8"]["result"]["cases"].append(case("wrong", numpy=0.1))
    found = row(report.figures_block(results), "TCCG, f8")
    assert found[2].endswith("; 1 not computed")
    assert found[3] == "no"


def test_samples_are_called_samples():
    results = copy.deepcopy(RESULTS)
    results["groups"]["tccg-f8"]["quick"] = True
    found = row(report.figures_block(results), "TCCG, f8")
    assert found[2].endswith("(a sample)")
    assert found[3] == "-"  # met or not, nobody knows


def test_threads_memory_and_compile_time_are_judged():
    text = report.figures_block(RESULTS)
    assert row(text, "two threads")[2:4] == [
        "2.00 compute-bound (1 cases), 1.20 bandwidth-bound (1 cases)",
        "no",
    ]
    assert row(text, "extra memory")[2:4] == ["at most 15.00 MiB (2 cases)", "yes"]  # a thread
    assert row(text, "largest kernel")[2:4] == ["0.61 s (2 kernels)", "no"]


def test_groups_without_results_are_not_measured():
    found = row(report.figures_block(without("tccg-f8")), "TCCG, f8")
    assert found[2:4] == ["not measured", "-"]
    assert "overhead" not in report.figures_block(RESULTS)  # nothing is asked of it


# Blocks


def test_slow_cases_come_with_what_limits_them():
    text = report.blocks(RESULTS)["products"]
    assert row(text, "`slow`")[1:] == ["f8", "40 ms", "0.50", "blas", "50%", "compute 20 ms"]
    assert row(text, "`alone`")[3:5] == ["-", "-"]


def test_only_ten_cases_are_listed():
    results = without("threads")
    many = [case(f"c{n:02}", einsumc=0.1, blas=0.01 * (n + 1)) for n in range(15)]
    results["groups"]["products"]["result"]["cases"] = many
    text = report.blocks(results)["products"]
    assert [name for name in (f"c{n:02}" for n in range(15)) if name in text] == [
        f"c{n:02}" for n in range(10)
    ]


def test_the_furthest_from_their_limit_come_from_every_group():
    lines = report.blocks(RESULTS)["furthest"].splitlines()[2:]
    assert [line.split("`")[1] for line in lines] == ["slow", "alone", "two", "fast", "four"]
    assert lines[0].endswith("| 50% |")


def test_the_machine_is_described_with_its_best_roofline():
    results = copy.deepcopy(RESULTS)
    results["groups"]["tccg-f8"]["result"]["roofline"] = [ROOF | {"flops": 51e9, "bandwidth": 1e9}]
    text = report.machine_block(results)
    assert "float64, 1 thread: P = 51.0 GFLOP/s, W = 20.0 GB/s" in text
    assert "float64, 2 threads: P = 95.0 GFLOP/s" in text
    assert "Abacus; 2 cores; caches L1 32K, L2 512K" in text
    assert "numba 0.68, numpy 2.4" in text
    assert "10.0 µs by itself, each further step 2.0 µs" in text


def test_the_gain_of_the_machine_itself_stands_under_the_threads():
    text = report.blocks(RESULTS)["threads"]
    assert "f8 P times 1.90, W times 1.00" in text


# The document


def test_what_people_wrote_survives():
    names = list(report.blocks(RESULTS))
    once = report.write_report(document(*names), RESULTS)
    assert report.write_report(once, RESULTS) == once
    for name in names:
        assert f"words on {name}\n\n<!-- generated: {name} -->\n\n" in once
    assert once.endswith("last words\n")


def test_blocks_without_results_stay():
    names = list(report.blocks(RESULTS))
    once = report.write_report(document(*names), RESULTS)
    again = report.write_report(once, without("memory"))
    block = report.blocks(RESULTS)["memory"]
    assert block in once
    assert block in again


def test_a_block_without_a_place_is_an_error():
    with pytest.raises(ValueError, match="no place for the generated compile, memory"):
        names = set(report.blocks(RESULTS)) - {"memory", "compile"}
        report.write_report(document(*names), RESULTS)


def test_the_document_has_a_place_for_every_group():
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    places = [match["name"] for match in report.BLOCK.finditer(text)]
    assert len(places) == len(set(places)) == text.count("<!-- generated:")
    wanted = {"figures", "machine", "furthest", *groups.GROUPS} - {"overhead"}
    assert set(places) == wanted


def test_commands_name_scripts_that_are_there():
    for group in groups.GROUPS.values():
        assert (BENCHMARKS / group.command[0]).is_file()


# Planning and the cost model


def test_results_networks_and_the_ranking_have_tables():
    made = report.blocks(RESULTS)
    assert row(made["planning"], "a chain")[1:] == ["99", "7", "50 ms", "2 ms", "1.00 of 3.00"]
    assert row(made["results"], "`outer`")[1:] == ["f8", "128", "170 ms", "10 ms"]
    assert row(made["ranking"], "orders")[1:] == ["90", "0.900", "1.30", "2.50"]
    assert "18 equations" in made["ranking"]
    assert "1.10 times as long" in made["ranking"]
