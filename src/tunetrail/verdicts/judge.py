"""All verdicts of a task, as ``comparison.json`` has them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from tunetrail.verdicts.decision import as_record, decide
from tunetrail.verdicts.difference import Difference, paired_difference
from tunetrail.verdicts.letters import letters
from tunetrail.verdicts.looks import Looks

#: Label → seed → value of each test row (``influence.row_values``).
Values = Mapping[str, Mapping[int, np.ndarray]]


def judge(
    values: Values, baseline: str, margin: float, rows: int, looks: Looks | None = None
) -> dict[str, Any]:
    """Judge every method against the baseline, and all other pairs.

    A pair is compared on the seeds that both have. The comparisons with the baseline are one family
    of Holm's procedure. All other pairs are a second one, for the letters and for recommendations;
    with no baseline there is that one alone.

    Args:
        values: The methods' values, in the order to give letters in.
        baseline: A label, or empty.
        margin: Difference, in raw units, that does not matter.
        rows: Number of test rows.
        looks: At how many numbers of seeds there is a look, if not at one.

    Returns:
        ``verdicts``: label → record (``decision.as_record``) of method minus baseline; ``pairs``:
        such records of the other pairs, ``of`` first minus second; ``letters``: label → letters,
        methods that share one cannot be told apart.
    """
    against = {
        label: _paired(found, values[baseline])
        for label, found in values.items()
        if baseline and label != baseline
    }
    others = {
        (one, other): _paired(values[one], values[other])
        for one, other in combinations(values, 2)
        if baseline not in (one, other)
    }
    verdicts = decide(against, margin, rows, looks)
    between = decide(others, margin, rows, looks)
    apart = {(label, baseline) for label, verdict in verdicts.items() if verdict.differs}
    apart |= {pair for pair, verdict in between.items() if verdict.differs}
    return {
        "verdicts": {
            label: as_record(difference, verdicts[label], _shared(values[label], values[baseline]))
            for label, difference in against.items()
        },
        "pairs": [
            {
                "of": [one, other],
                **as_record(others[one, other], verdict, _shared(values[one], values[other])),
            }
            for (one, other), verdict in between.items()
        ],
        "letters": letters(list(values), apart),
    }


def _shared(one: Mapping[int, np.ndarray], other: Mapping[int, np.ndarray]) -> list[int]:
    return sorted(one.keys() & other.keys())


def _paired(one: Mapping[int, np.ndarray], other: Mapping[int, np.ndarray]) -> Difference:
    seeds = _shared(one, other)
    return paired_difference(*(np.stack([of[seed] for seed in seeds]) for of in (one, other)))
