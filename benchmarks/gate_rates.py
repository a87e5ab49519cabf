"""How often the gate promotes a model that is worse by the margin, and one that is not.

Rows are simulated: how often two models disagree, and by how much one is ahead. Accuracy is a mean
over rows; macro-F1 is not, and a tenth of its rows have the rarer class.

    python -m benchmarks.gate_rates --out benchmarks/results/gate_rates.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from tunetrail.metrics import find
from tunetrail.provenance import provenance
from tunetrail.verdicts.influence import row_values
from tunetrail.verdicts.shipped import lower_bound

MARGIN = 0.02
ROWS = (100, 200, 500, 1000, 3000)
DISAGREE = (0.03, 0.1, 0.3)
#: Accuracy of the challenger minus the champion's.
AHEAD = (-MARGIN, 0.0, 0.02, 0.05)


def accuracy_rates(
    rows: int, disagree: float, ahead: float, times: int, generator: np.random.Generator
) -> tuple[float, float]:
    """Share promoted by the rule, and by the plain t bound."""
    won, lost = (disagree + ahead) / 2, (disagree - ahead) / 2
    passed = plain = 0
    for _ in range(times):
        draw = generator.random(rows)
        cells = np.where(draw < won, 1.0, np.where(draw < won + lost, -1.0, 0.0))
        passed += lower_bound(1 + cells, np.ones(rows), np.arange(rows), MARGIN).low > -MARGIN
        error = cells.std(ddof=1) / np.sqrt(rows)
        plain += cells.mean() - 1.645 * error > -MARGIN
    return passed / times, plain / times


def f1_rates(rows: int, ahead: float, times: int, generator: np.random.Generator) -> float:
    """Share promoted by macro-F1; both models find 80 % or less of the rarer class."""
    metric = find("f1_macro")
    size = 400_000

    def predicted(truth: np.ndarray, recall: float) -> np.ndarray:
        right = generator.random(len(truth)) < np.where(truth == 1, recall, 0.95)
        return np.where(right, truth, 1 - truth)

    # The recall at which the true difference is `ahead`, by bisection on one large sample.
    truth = (generator.random(size) < 0.1).astype(np.int64)
    goal = metric.score(truth, predicted(truth, 0.6), 2) + ahead
    low, high = 0.0, 1.0
    for _ in range(25):
        middle = (low + high) / 2
        below = metric.score(truth, predicted(truth, middle), 2) < goal
        low, high = (middle, high) if below else (low, middle)
    passed = 0
    for _ in range(times):
        truth = (generator.random(rows) < 0.1).astype(np.int64)
        new, old = (
            row_values(lambda a, b: metric.score(a, b, 2), truth, predicted(truth, recall))
            for recall in (low, 0.6)
        )
        passed += lower_bound(new, old, np.arange(rows), MARGIN).low > -MARGIN
    return passed / times


def main() -> None:
    """Simulate, print a table and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=4000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    found = []
    for rows in ROWS:
        for disagree in DISAGREE:
            for ahead in AHEAD:
                if abs(ahead) > disagree:
                    continue
                rule, plain = accuracy_rates(rows, disagree, ahead, options.times, generator)
                case = {"metric": "accuracy", "rows": rows, "disagree": disagree, "ahead": ahead}
                found.append({**case, "promoted": rule, "plain": plain})
                print(
                    f"accuracy {rows:5} rows, {disagree:4.0%} disagree, {ahead:+.2f}: "
                    f"{rule:6.1%} (plain t {plain:6.1%})"
                )
    for rows in (300, 1000):
        for ahead in (-MARGIN, 0.0, 0.05):
            rate = f1_rates(rows, ahead, options.times // 10, generator)
            found.append({"metric": "f1_macro", "rows": rows, "ahead": ahead, "promoted": rate})
            print(f"macro-F1 {rows:5} rows, {ahead:+.2f}: {rate:6.1%}")
    if options.out:
        result = {"margin": MARGIN, "times": options.times, "rates": found, **provenance()}
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
