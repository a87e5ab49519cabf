"""How often verdicts are right: simulated comparisons with a known answer.

Right and wrong predictions are drawn from a model with effects of seeds (of each method, and shared
by all), of test rows (shared by all, and of each method) and of both together; what differs between
scenarios is how much of the noise is whose. Each candidate rule is held against the truth.

    python -m benchmarks.verdicts --out benchmarks/results/verdicts.json
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from tunetrail.provenance import provenance
from tunetrail.verdicts.decision import decide
from tunetrail.verdicts.difference import (
    Parts,
    half_width,
    p_value,
    paired_difference,
    variance_parts,
)
from tunetrail.verdicts.family import holm
from tunetrail.verdicts.influence import row_values

SEEDS = (3, 5, 8, 10, 20)
LEVEL = 0.95
_BATCH = 100  # comparisons in memory at once
_RESAMPLES = 500


@dataclass(frozen=True)
class Scenario:
    """Variances of what decides, on the scale of a normal quantile, whether a row is right.

    A prediction is right where ``quantile(accuracy) · total + effects > 0``; ``total`` is the
    standard deviation of all effects together, so ``accuracy`` is exactly the expected one.

    Attributes:
        seed: Of a seed, in each method by itself.
        shared_seed: Of a seed, in all methods: pairing removes it.
        row: Of a test row, in all methods: how hard it is.
        row_method: Of a test row in each method, whatever the seed.
        both: Of seed and row together.
        rows: Number of test rows.
        unsteady: Factor of ``seed`` for the first method after the baseline.
    """

    seed: float
    shared_seed: float
    row: float
    row_method: float
    both: float
    rows: int = 400
    unsteady: float = 1.0


SCENARIOS = {
    "rows alone": Scenario(0.0, 0.0, 1.0, 0.6, 0.0),
    "mostly rows": Scenario(0.001, 0.001, 1.0, 0.3, 0.1),
    "rows and seeds": Scenario(0.006, 0.002, 1.0, 0.2, 0.2),
    "mostly seeds": Scenario(0.05, 0.02, 1.0, 0.1, 0.2),
    "seeds alone": Scenario(0.2, 0.0, 1.0, 0.0, 0.0, 2000),
    "mostly their interaction": Scenario(0.0, 0.0, 1.0, 0.02, 0.6),
    "few rows": Scenario(0.01, 0.002, 1.0, 0.2, 0.2, 60),
    "many rows": Scenario(0.003, 0.001, 1.0, 0.2, 0.2, 3000),
    "nearly equal methods": Scenario(0.0002, 0.001, 1.0, 0.01, 0.01),
    "one unsteady method": Scenario(0.004, 0.002, 1.0, 0.1, 0.1, 1000, 20.0),
}
#: Its variances are those of the shipped comparison, or near them (``std_seeds``, ``std_rows``).
TYPICAL = "mostly rows"


def draw(
    scenario: Scenario,
    accuracies: np.ndarray,
    seeds: int,
    count: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """Right (1) and wrong (0) predictions of several methods.

    Args:
        scenario: The variances.
        accuracies: Expected accuracy of each method, ``(methods,)``.
        seeds: Number of seeds.
        count: Number of comparisons.
        generator: Source of randomness.

    Returns:
        Shape ``(count, methods, seeds, rows)``.
    """

    def effect(variance: float, *shape: int) -> np.ndarray:
        drawn = generator.standard_normal((count, *shape), dtype=np.float32)
        return math.sqrt(variance) * drawn

    s, methods = scenario, len(accuracies)
    own = np.full(methods, s.seed)
    own[1] *= s.unsteady
    total = np.sqrt(own + s.shared_seed + s.row + s.row_method + s.both)
    latent = effect(s.both, methods, seeds, s.rows)
    latent += effect(s.row, 1, 1, s.rows) + effect(s.row_method, methods, 1, s.rows)
    latent += effect(1.0, methods, seeds, 1) * np.sqrt(own, dtype=np.float32)[:, None, None]
    latent += effect(s.shared_seed, 1, seeds, 1)
    latent += (stats.norm.ppf(accuracies) * total).astype(np.float32)[:, None, None]
    right: np.ndarray = (latent > 0).astype(np.float32)
    return right


def batches(
    scenario: Scenario, effects: np.ndarray, seeds: int, count: int, generator: np.random.Generator
) -> Iterator[np.ndarray]:
    """Differences of methods to a baseline with accuracy 0.78, in batches.

    Yields:
        Shape ``(batch, comparisons, seeds, rows)``.
    """
    accuracies = 0.78 + np.concatenate([[0.0], effects])
    for start in range(0, count, _BATCH):
        right = draw(scenario, accuracies, seeds, min(_BATCH, count - start), generator)
        yield right[:, 1:] - right[:, :1]


def estimates(
    scenario: Scenario, effects: np.ndarray, seeds: int, count: int, generator: np.random.Generator
) -> tuple[np.ndarray, Parts]:
    """Mean differences and their variances, each ``(count, comparisons)``."""
    means, parts = [], []
    for cells in batches(scenario, effects, seeds, count, generator):
        means.append(cells.mean(axis=(-2, -1), dtype=np.float64))
        parts.append(variance_parts(cells.astype(np.float64)))
    return np.concatenate(means), Parts(*(np.concatenate(p) for p in zip(*parts, strict=True)))


# Candidates: half-widths, or ends of the interval ------------------------------------------------


def analytic(parts: Parts, seeds: int, rows: int) -> dict[str, np.ndarray]:
    """Half-widths of the rules that need the variances alone."""
    both = (seeds - 1) * (rows - 1)
    of_seeds, of_rows = parts.seeds, parts.rows + parts.both
    variance = np.maximum(of_seeds + parts.rows, 1e-12)
    spread = of_seeds**2 / (seeds - 1) + of_rows**2 / (rows - 1) + parts.both**2 / both
    freedom = variance**2 / np.maximum(spread, 1e-300)
    upper = 0.5 + LEVEL / 2
    return {
        "seeds and rows, each with its own t": half_width(parts, seeds, rows, LEVEL),
        "seeds and rows, Satterthwaite": stats.t.ppf(upper, freedom) * np.sqrt(variance),
        "seeds and rows, t of the seeds": stats.t.ppf(upper, seeds - 1) * np.sqrt(variance),
        "t over seeds": stats.t.ppf(upper, seeds - 1) * np.sqrt(of_seeds),
        "t over rows": stats.t.ppf(upper, rows - 1) * np.sqrt(of_rows),
        # The seeds' variance taken as the same for all methods, and pooled.
        "seeds and rows, pooled over methods": np.sqrt(
            stats.t.ppf(upper, (seeds - 1) * of_seeds.shape[1]) ** 2
            * of_seeds.mean(axis=1, keepdims=True)
            + stats.t.ppf(upper, rows - 1) ** 2 * parts.rows
        ),
    }


def resampled(cells: np.ndarray, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Ends of bootstrap intervals, each ``(2, comparisons)``.

    Args:
        cells: Differences, ``(comparisons, seeds, rows)``.
        generator: Source of randomness.
    """
    _, seeds, rows = cells.shape
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    of_seeds = generator.multinomial(seeds, np.full(seeds, 1 / seeds), _RESAMPLES) / seeds
    of_rows = generator.multinomial(rows, np.full(rows, 1 / rows), _RESAMPLES) / rows
    by_seed = cells.mean(axis=-1)
    crossed = np.einsum("bs,csb->cb", of_seeds, cells @ of_rows.T.astype(cells.dtype))
    drawn = by_seed @ of_seeds.T
    mean, error = by_seed.mean(axis=1), by_seed.std(axis=1, ddof=1) / math.sqrt(seeds)
    squares = np.square(by_seed) @ of_seeds.T
    drawn_error = np.sqrt(np.maximum(squares - drawn**2, 0) / (seeds - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (drawn - mean[:, None]) / np.where(drawn_error > 1e-12, drawn_error, 0.0)
    ratios = np.where(np.isnan(ratios), np.inf, ratios)  # a resample without spread
    low, high = np.quantile(np.nan_to_num(ratios, posinf=1e9, neginf=-1e9), tails, axis=1)
    return {
        "bootstrap of seeds and rows": np.quantile(crossed, tails, axis=1),
        "bootstrap of seeds": np.quantile(drawn, tails, axis=1),
        "bootstrap of seeds, studentised": np.stack([mean - high * error, mean - low * error]),
    }


def bca(by_seed: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Ends of SciPy's BCa interval over seeds; the mean twice where all of them are equal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it says of equal seeds
        found = stats.bootstrap(
            (by_seed,), np.mean, axis=-1, n_resamples=_RESAMPLES, method="BCa", rng=generator
        ).confidence_interval
    ends = np.stack([found.low, found.high])
    return np.where(np.isnan(ends), by_seed.mean(axis=-1), ends)


# What is measured --------------------------------------------------------------------------------


def coverage(
    scenario: Scenario, seeds: int, count: int, generator: np.random.Generator, bootstraps: int = 0
) -> dict[str, dict[str, float]]:
    """Share of intervals that contain the true difference of two methods, and their mean width.

    Differences are 0 and 0.03, half of the comparisons each. As 0 lies outside an interval as often
    as any other truth, one minus the coverage is the rate of false positives.
    """
    effects = np.array([0.0, -0.03])
    means, parts = estimates(scenario, effects, seeds, count // 2, generator)
    found = {
        name: {
            "covered": float((np.abs(means - effects) <= half).mean()),
            "false_positives": float((np.abs(means[:, 0]) > half[:, 0]).mean()),
            "width": float(2 * half.mean()),
        }
        for name, half in analytic(parts, seeds, scenario.rows).items()
    }
    ends: dict[str, list[np.ndarray]] = {}
    for cells in batches(scenario, effects, seeds, bootstraps // 2, generator):
        for one in cells:
            for name, limits in resampled(one, generator).items():
                ends.setdefault(name, []).append(limits)
            ends.setdefault("bootstrap of seeds, BCa", []).append(bca(one.mean(-1), generator))
    for name, intervals in ends.items():
        low, high = np.stack(intervals, axis=1)
        inside = (low <= effects) & (effects <= high)
        found[name] = {
            "covered": float(inside.mean()),
            "false_positives": float(1 - inside[:, 0].mean()),
            "width": float(np.minimum(high - low, 2).mean()),
        }
    return found


def families(
    scenario: Scenario, seeds: int, count: int, generator: np.random.Generator
) -> dict[str, dict[str, float]]:
    """Five methods against one baseline: three equal to it, two of them 0.06 worse.

    Returns:
        For each handling: ``any_false``, the share of families with a difference claimed that is
        not there; ``found``, the share of the real ones that are claimed; ``covered``, the share of
        intervals that contain the truth; ``all_covered``, of families in which all do.
    """
    effects = np.array([0.0, 0.0, 0.0, -0.06, -0.06])
    means, parts = estimates(scenario, effects, seeds, count, generator)
    p = p_value(means, parts, seeds, scenario.rows)
    _, steps = holm(p, 1 - LEVEL)
    equal = effects == 0
    found = {}
    levels: dict[str, float | np.ndarray] = {
        "none": LEVEL,
        "Bonferroni": 1 - (1 - LEVEL) / len(effects),
        "Holm": steps,
    }
    for name, level in levels.items():
        half = half_width(parts, seeds, scenario.rows, level)
        claimed, covered = np.abs(means) > half, np.abs(means - effects) <= half
        found[name] = {
            "any_false": float(claimed[:, equal].any(axis=1).mean()),
            "found": float(claimed[:, ~equal].mean()),
            "covered": float(covered.mean()),
            "all_covered": float(covered.all(axis=1).mean()),
        }
    return found


def power(
    scenario: Scenario, seeds: int, count: int, generator: np.random.Generator
) -> dict[str, float]:
    """Share of single comparisons settled as a win or a loss, by the true difference."""
    found = {}
    for effect in (0.0, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1):
        means, parts = estimates(scenario, np.array([-effect]), seeds, count, generator)
        half = half_width(parts, seeds, scenario.rows, LEVEL)
        found[f"{effect:.2f}"] = float((np.abs(means) > half).mean())
    return found


def macro_f1(seeds: int, count: int, generator: np.random.Generator) -> dict[str, float]:
    """Coverage for macro-F1 of three unequal classes, by the jackknife over rows."""

    def score(labels: np.ndarray, predictions: np.ndarray) -> float:
        table = np.bincount(3 * labels + predictions, minlength=9).reshape(3, 3)
        sums = table.sum(axis=0) + table.sum(axis=1)
        return float((2 * np.diag(table)[sums > 0] / sums[sums > 0]).mean())

    def predict(seeds: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        labels = generator.choice(3, rows, p=[0.6, 0.3, 0.1])
        hard = generator.standard_normal((rows, 3))
        predictions = []
        for clearness in (1.7, 1.5):
            own = hard + 0.3 * generator.standard_normal((rows, 3)) + clearness * np.eye(3)[labels]
            seed = 0.1 * generator.standard_normal((seeds, 1, 3))
            noise = 0.4 * generator.standard_normal((seeds, rows, 3))
            predictions.append((own + seed + noise).argmax(axis=-1))
        return labels, np.stack(predictions)

    # Its mean over seeds in a population of texts: many seeds, many rows.
    truths = []
    for _ in range(40):
        labels, found = predict(10, 20_000)
        truths.append([[score(labels, p) for p in method] for method in found])
    truth = float(np.mean(truths, axis=(0, 2)) @ [-1, 1])
    covered, rejected = [], []
    for _ in range(count):
        labels, found = predict(seeds, 400)
        one, other = (np.stack([row_values(score, labels, p) for p in m]) for m in found)
        difference = paired_difference(other, one)
        half = difference.half_width(LEVEL) or 0.0
        covered.append(abs(difference.mean - truth) <= half)
        rejected.append(abs(difference.mean) > half)
    return {
        "truth": truth,
        "covered": float(np.mean(covered)),
        "settled": float(np.mean(rejected)),
    }


def sent_for_more(
    scenario: Scenario, count: int, generator: np.random.Generator
) -> dict[str, float]:
    """What became of open comparisons with three seeds that were sent for N more (17 at most).

    The true difference is 0.06. The seeds that are there stay.
    """
    most, sent, settled, asked = 20, 0, 0, []
    for cells in batches(scenario, np.array([-0.06]), most, count, generator):
        for runs in cells[:, 0].astype(np.float64):
            first = paired_difference(runs[:3], np.zeros_like(runs[:3]))
            verdict = decide({"it": first}, 0.01, scenario.rows)["it"]
            if verdict.needs is None or not 0 < verdict.needs.seeds <= most - 3:
                continue
            now = runs[: 3 + verdict.needs.seeds]
            sent += 1
            asked.append(verdict.needs.seeds)
            again = decide({"it": paired_difference(now, np.zeros_like(now))}, 0.01, scenario.rows)
            settled += again["it"].outcome != "open"
    return {
        "open_and_sent": sent / count,
        "median_asked": float(np.median(asked)),
        "then_settled": settled / max(sent, 1),
    }


def main() -> None:
    """Simulate, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--comparisons", type=int, default=4000, help="of each kind")
    parser.add_argument("--bootstraps", type=int, default=1000, help="of them with a bootstrap")
    parser.add_argument("--out", type=Path, help="write the result here as JSON")
    options = parser.parse_args()
    started = time.perf_counter()
    result: dict[str, Any] = {
        "comparisons": options.comparisons,
        "bootstraps": options.bootstraps,
        "coverage": {},
        "families": {},
        "power": {},
    }
    for number, (name, scenario) in enumerate(SCENARIOS.items()):
        for seeds in SEEDS:
            generator = np.random.default_rng([number, seeds])
            count = options.comparisons
            # A bootstrap of thousands of rows takes long, and shows the same.
            bootstraps = options.bootstraps if scenario.rows <= 400 and seeds <= 10 else 0
            found = coverage(scenario, seeds, count, generator, bootstraps)
            result["coverage"].setdefault(name, {})[str(seeds)] = found
            found = families(scenario, seeds, count // 2, generator)
            result["families"].setdefault(name, {})[str(seeds)] = found
            print(f"{name}, {seeds} seeds: {time.perf_counter() - started:.0f} s", flush=True)
    result["macro_f1"] = {
        str(seeds): macro_f1(seeds, options.comparisons // 4, np.random.default_rng(seeds))
        for seeds in SEEDS
    }
    result["needs"] = {
        str(rows): sent_for_more(
            replace(SCENARIOS[TYPICAL], rows=rows), options.comparisons, np.random.default_rng(rows)
        )
        for rows in (400, 2000)
    }
    for rows in (400, 2000):
        scenario = replace(SCENARIOS[TYPICAL], rows=rows)
        for seeds in SEEDS:
            generator = np.random.default_rng([rows, seeds])
            found_power = power(scenario, seeds, options.comparisons // 2, generator)
            result["power"].setdefault(str(rows), {})[str(seeds)] = found_power
    result |= {"seconds": round(time.perf_counter() - started), **provenance()}
    if options.out:
        options.out.write_text(json.dumps(_rounded(result), indent=2) + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
