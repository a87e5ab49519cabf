"""Tables and the figure of docs/verdicts.md, from what benchmarks.verdicts measured.

python -m benchmarks.verdicts_report benchmarks/results/verdicts.json --plot docs/verdicts.svg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.verdicts import SCENARIOS, SEEDS

#: In the order of the table.
RULES = (
    "seeds and rows, each with its own t",
    "seeds and rows, Satterthwaite",
    "seeds and rows, pooled over methods",
    "seeds and rows, t of the seeds",
    "t over seeds",
    "t over rows",
    "bootstrap of seeds and rows",
    "bootstrap of seeds",
    "bootstrap of seeds, BCa",
    "bootstrap of seeds, studentised",
)
#: Seeds drawn in the figure, with their colours.
_DRAWN = {3: "#5d56e7", 5: "#bd830d", 10: "#24a16d", 20: "#c73238"}


def coverage_table(measured: dict[str, Any]) -> str:
    """A row a rule: lowest coverage over the scenarios, by number of seeds."""
    lines = ["| rule | " + " | ".join(f"{s} seeds" for s in SEEDS) + " |"]
    lines.append("|---|" + "---:|" * len(SEEDS))
    for rule in RULES:
        cells = []
        for seeds in SEEDS:
            found = [
                by_seeds[str(seeds)][rule]["covered"]
                for by_seeds in measured["coverage"].values()
                if rule in by_seeds[str(seeds)]
            ]
            cells.append(f"{min(found):.1%}" if found else "–")
        lines.append(f"| {rule} | {' | '.join(cells)} |")
    return "\n".join(lines)


def scenario_table(measured: dict[str, Any]) -> str:
    """A row a scenario: coverage and rate of false positives of the rule, by number of seeds."""
    lines = ["| scenario | " + " | ".join(f"{s} seeds" for s in SEEDS) + " |"]
    lines.append("|---|" + "---:|" * len(SEEDS))
    for name in SCENARIOS:
        cells = [
            f"{found['covered']:.1%} / {found['false_positives']:.1%}"
            for found in (measured["coverage"][name][str(s)][RULES[0]] for s in SEEDS)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def family_table(measured: dict[str, Any], scenario: str) -> str:
    """A row a handling of five comparisons: worst rate of any false claim, and real ones found."""
    lines = ["| handling | " + " | ".join(f"{s} seeds" for s in SEEDS) + " |"]
    lines.append("|---|" + "---:|" * len(SEEDS))
    for name in ("none", "Bonferroni", "Holm"):
        cells = []
        for seeds in SEEDS:
            worst = max(f[str(seeds)][name]["any_false"] for f in measured["families"].values())
            found = measured["families"][scenario][str(seeds)][name]["found"]
            cells.append(f"{worst:.1%} / {found:.0%}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(measured: dict[str, Any], path: Path) -> None:
    """Lowest coverage of the rules over seeds, and power of the chosen one over the difference."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for rule, dash in zip(
        RULES[:2] + RULES[4:6] + RULES[7:9], ("-", "--", "-.", ":") * 2, strict=False
    ):
        points = [
            (
                s,
                min(
                    b[str(s)][rule]["covered"]
                    for b in measured["coverage"].values()
                    if rule in b[str(s)]
                ),
            )
            for s in SEEDS
            if any(rule in b[str(s)] for b in measured["coverage"].values())
        ]
        left.plot(*zip(*points, strict=True), dash, marker="o", markersize=3, label=rule)
    left.axhline(0.95, color="black", linewidth=0.6)
    left.set_xlabel("seeds")
    left.set_ylabel("lowest coverage of a 95% interval")
    left.legend(fontsize=7, frameon=False)
    for rows, dash in (("400", "-"), ("2000", "--")):
        for seeds, colour in _DRAWN.items():
            found = measured["power"][rows][str(seeds)]
            right.plot(
                [float(effect) for effect in found], list(found.values()), dash, color=colour,
                label=f"{seeds} seeds, {rows} rows",
            )  # fmt: skip
    right.set_xlabel("true difference in accuracy")
    right.set_ylabel("share settled as win or lose")
    right.legend(fontsize=7, frameon=False)
    for axes in (left, right):
        axes.set_ylim(0, 1.02)
        axes.grid(alpha=0.2)
    figure.savefig(path, metadata={"Date": None, "Creator": None})


def main() -> None:
    """Print the tables and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("measured", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    measured = json.loads(options.measured.read_text())
    print(coverage_table(measured), scenario_table(measured), sep="\n\n")
    print(family_table(measured, "mostly rows"), sep="\n\n")
    if options.plot:
        draw(measured, options.plot)


if __name__ == "__main__":
    main()
