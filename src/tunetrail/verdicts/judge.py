"""All verdicts of a task, as ``comparison.json`` has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from tunetrail.verdicts.decision import as_record, decide
from tunetrail.verdicts.difference import paired_difference
from tunetrail.verdicts.letters import letters


def judge(
    values: Mapping[str, np.ndarray], baseline: str, margin: float, seeds: Sequence[int], rows: int
) -> dict[str, Any]:
    """Judge every method against the baseline, and all other pairs.

    The comparisons with the baseline are one family of Holm's procedure. All other pairs are a
    second one, for the letters and for recommendations; with no baseline there is that one alone.

    Args:
        values: Label → values of each seed and test row (``influence.row_values``), in the order to
            give letters in.
        baseline: A label, or empty.
        margin: Difference, in raw units, that does not matter.
        seeds: The seeds, in the order of the values.
        rows: Number of test rows.

    Returns:
        ``verdicts``: label → record (``decision.as_record``) of method minus baseline; ``pairs``:
        the other pairs, ``of`` first minus second; ``letters``: label → letters, methods that share
        one cannot be told apart.
    """
    against = {
        label: paired_difference(found, values[baseline])
        for label, found in values.items()
        if baseline and label != baseline
    }
    others = {
        (one, other): paired_difference(values[one], values[other])
        for one, other in combinations(values, 2)
        if baseline not in (one, other)
    }
    verdicts, between = decide(against, margin, rows), decide(others, margin, rows)
    apart = {(label, baseline) for label, verdict in verdicts.items() if verdict.differs}
    apart |= {pair for pair, verdict in between.items() if verdict.differs}
    return {
        "verdicts": {
            label: as_record(difference, verdicts[label], seeds)
            for label, difference in against.items()
        },
        "pairs": [
            {
                "of": list(pair),
                "difference": others[pair].mean,
                "low": verdict.low,
                "high": verdict.high,
                "differs": verdict.differs,
            }
            for pair, verdict in between.items()
        ],
        "letters": letters(list(values), apart),
    }
