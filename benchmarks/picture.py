"""The roofline plot of docs/performance.md: every measured case under the roofs of the machine."""

from __future__ import annotations

from pathlib import Path

from report import Results, measured_by_run, points

__all__ = ["draw"]

COLOURS = ("#1b6ca8", "#d1495b", "#edae49", "#3d8b5f", "#7b4f9d", "#6b6b6b")
MARKERS = {"float32": "o", "float64": "s"}


def draw(results: Results, path: Path) -> None:
    """Draw the plot, the same bytes for the same results.

    Across: operations for each byte of operands and output. Up: operations a second; where nothing
    is computed, each element moved counts as one. A roof rises with the bandwidth of memory until
    it meets the peak of arithmetic.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams |= {"svg.hashsalt": "einsumc", "svg.fonttype": "none", "font.size": 8}
    figure, axes = plt.subplots(figsize=(7, 4.4), layout="constrained")
    roofs: dict[str, tuple[float, float]] = {}
    intensities = [0.1, 1000.0]
    for name, colour in zip(measured_by_run(results), COLOURS, strict=False):
        for roof in results["groups"][name]["result"]["roofline"]:
            old = roofs.get(roof["dtype"], (0.0, 0.0))
            roofs[roof["dtype"]] = max(old[0], roof["flops"]), max(old[1], roof["bandwidth"])
        listed = points(results, name)
        for dtype, marker in MARKERS.items():
            placed = [
                (point.case["flops"] / point.case["bytes"], point.case["flops"] / point.seconds)
                for point in listed
                if point.case["dtype"] == dtype and point.case["flops"]
            ]
            if placed:
                across, up = zip(*placed, strict=True)
                intensities += across
                axes.plot(
                    across,
                    [flops / 1e9 for flops in up],
                    marker,
                    color=colour,
                    markersize=3.5,
                    markeredgewidth=0,
                    alpha=0.8,
                    label=f"{name}, {dtype}",
                )
    left, right = min(intensities), max(intensities)
    for dtype, (flops, bandwidth) in sorted(roofs.items()):
        ridge = flops / bandwidth
        axes.plot(
            [left, ridge, right],
            [left * bandwidth / 1e9, flops / 1e9, flops / 1e9],
            "-" if dtype == "float32" else "--",
            color="black",
            linewidth=0.9,
            label=f"roof, {dtype}",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations for each byte of operands and output")
    axes.set_ylabel("GFLOP/s")
    axes.grid(linewidth=0.3)
    axes.legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
