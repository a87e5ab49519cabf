"""Selection scores by epoch of every method, from what `benchmarks.all_methods` wrote.

Coloured are the methods that end no better than the head alone; the others are grey.

    python -m benchmarks.learning_curves benchmarks/results/methods_*.json --out docs/FILE.svg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tunetrail.report.style import style as report_style


def _curve(method: dict[str, Any], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Optimiser steps, and the mean over seeds of the score after each epoch."""
    seeds = list(method["selection"].values())
    steps = np.array([step for step, _ in seeds[0]])
    return steps, np.mean([[scores[metric] for _, scores in seed] for seed in seeds], axis=0)


def _draw(axes: Axes, names: Axes, task: dict[str, Any]) -> None:
    metric, methods = task["primary"], task["methods"]
    head = methods["head"]["scores"][metric]["mean"]
    for place, (label, method) in enumerate(methods.items()):
        steps, scores = _curve(method, metric)
        weak = method["scores"][metric]["mean"] <= head
        name = f"{method['title']} (test {method['scores'][metric]['mean']:.2f})"
        style: dict[str, Any] = {"color": "0.8", "linewidth": 1}
        if weak:
            drawn = report_style(place)
            style = {"color": drawn.colour, "marker": drawn.marker, "linestyle": drawn.dash}
            style |= {"markersize": 5, "label": name, "zorder": 3}
        if label == "head":
            style |= {"color": "black", "linestyle": "--"}
        axes.plot(steps, scores, **style)
    axes.set_title(task["title"], loc="left", fontsize=10)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel(f"{metric} on selection")
    axes.spines[["top", "right"]].set_visible(False)
    names.axis("off")
    names.legend(*axes.get_legend_handles_labels(), frameon=False, fontsize=8, loc="upper left")


def main() -> None:
    """Draw one panel a file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    count = len(options.results)
    figure = Figure(figsize=(4.2 * count, 5.6), layout="constrained")
    upper, lower = figure.subplots(2, count, squeeze=False, height_ratios=(3, 2))
    for axes, names, path in zip(upper, lower, options.results, strict=True):
        _draw(axes, names, json.loads(path.read_text()))
    figure.savefig(options.out, metadata={"Date": None})


if __name__ == "__main__":
    main()
