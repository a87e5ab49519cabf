"""What looking after every further seed costs and brings, on simulated comparisons.

Five methods against one baseline, three of them equal to it and two 0.06 worse, looked at with
three seeds, then four, up to ten (benchmarks.verdicts has the scenarios). A method whose verdict is
settled gets no further seed.

    python -m benchmarks.looks --out benchmarks/results/looks.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from benchmarks.verdicts import SCENARIOS, Scenario, batches
from tunetrail.provenance import provenance
from tunetrail.verdicts.decision import ERROR
from tunetrail.verdicts.difference import p_value, variance_parts
from tunetrail.verdicts.family import holm
from tunetrail.verdicts.looks import Looks

EFFECTS = np.array([0.0, 0.0, 0.0, -0.06, -0.06])


def looked_at(
    scenario: Scenario,
    looks: Looks,
    count: int,
    generator: np.random.Generator,
    effects: np.ndarray = EFFECTS,
    careful: bool = True,
) -> dict[str, float]:
    """Families of comparisons, looked at until all is settled or the last look is over.

    Args:
        scenario: Whose noise it is.
        looks: When they are looked at.
        count: Number of families.
        generator: Source of randomness.
        effects: True difference of each method.
        careful: Whether each look has its share of the error; else it is taken for the only one.

    Returns:
        ``any_false``: share of families in which a difference that is not there was claimed at any
        look; ``found``: share of the real ones claimed at the last; ``seeds``: mean seeds of one
        method at the end.
    """
    equal = effects == 0
    false, found, used = [], [], []
    for cells in batches(scenario, effects, looks.last, count, generator):
        families, methods = cells.shape[:2]
        p = np.ones((families, methods))
        seeds = np.zeros((families, methods))
        claimed = np.zeros((families, methods), dtype=bool)
        wrong = np.zeros(families, dtype=bool)
        for number in range(looks.first, looks.last + 1):
            now = cells[:, :, :number].astype(np.float64)
            latest = p_value(now.mean(axis=(-2, -1)), variance_parts(now), number, scenario.rows)
            latest /= looks.share(number, methods) if careful else 1.0
            p = np.where(claimed, p, latest)  # a settled pair keeps what it has
            seeds = np.where(claimed, seeds, number)
            claimed = holm(p, ERROR)[0] <= ERROR
            wrong |= claimed[:, equal].any(axis=1)
        false.append(wrong)
        found.append(claimed[:, ~equal])
        used.append(seeds)
    return {
        "any_false": float(np.concatenate(false).mean()),
        "found": float(np.concatenate(found).mean()) if not equal.all() else 0.0,
        "seeds": float(np.concatenate(used).mean()),
    }


def main() -> None:
    """Simulate, print a table and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--families", type=int, default=2000, help="of each scenario")
    parser.add_argument("--out", type=Path, help="write the result here as JSON")
    options = parser.parse_args()
    started = time.perf_counter()
    looks = Looks(3, 10)
    ways = {
        "every seed from three to ten": (looks, True),
        "the same, each look taken for the only one": (looks, False),
        "ten seeds at once": (Looks(10, 10), True),
        "three seeds at once": (Looks(3, 3), True),
    }
    scenarios: dict[str, dict[str, dict[str, float]]] = {}
    print("| scenario | " + " | ".join(ways) + " |\n|---|" + "---:|" * len(ways))
    for number, (name, scenario) in enumerate(SCENARIOS.items()):
        scenarios[name] = {}
        for way, (when, careful) in ways.items():
            generator = np.random.default_rng([number, 77])
            found = looked_at(scenario, when, options.families, generator, careful=careful)
            scenarios[name][way] = {key: round(value, 4) for key, value in found.items()}
        cells = (
            f"{f['any_false']:.1%} / {f['found']:.0%} / {f['seeds']:.1f}"
            for f in scenarios[name].values()
        )
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    result = {
        "families": options.families,
        "error_of_each_look": {
            str(seeds): round(ERROR * looks.share(seeds, len(EFFECTS)), 5)
            for seeds in range(looks.first, looks.last + 1)
        },
        "scenarios": scenarios,
        "seconds": round(time.perf_counter() - started),
        **provenance(),
    }
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
