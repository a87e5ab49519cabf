"""Writes verdicts.json: numbers of rliable, statsmodels and SciPy to hold TuneTrail's against.

rliable needs pandas below 3, so it has an environment of its own:

    python -m venv E && E/bin/pip install "pandas<3" rliable statsmodels
    E/bin/python tests/golden/scores/verdicts.py > tests/golden/scores/verdicts.json
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf
from rliable import library, metrics
from scipy import stats
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.multitest import multipletests

generator = np.random.default_rng(7)


def across() -> dict[str, object]:
    """Five seeds on four tasks, three methods, scores with ties."""
    centres = np.array([[0.5], [0.6], [0.52]])
    scores = np.round(generator.normal(centres[..., None], 0.08, (3, 5, 4)), 2)
    thresholds = np.linspace(0.3, 0.8, 11)
    named = {name: scores[i] for i, name in enumerate("abc")}
    np.random.seed(0)
    iqm, iqm_ends = library.get_interval_estimates(
        named, lambda x: np.array([metrics.aggregate_iqm(x)]), reps=20_000
    )
    np.random.seed(0)
    pairs = {"b,a": (named["b"], named["a"]), "c,a": (named["c"], named["a"])}
    better, better_ends = library.get_interval_estimates(
        pairs, lambda x, y: np.array([metrics.probability_of_improvement(x, y)]), reps=20_000
    )
    np.random.seed(0)
    profiles, _ = library.create_performance_profile(named, thresholds, reps=10)
    return {
        "scores": scores.tolist(),
        "thresholds": thresholds.tolist(),
        "iqm": {k: float(v[0]) for k, v in iqm.items()},
        "iqm_ends": {k: v[:, 0].tolist() for k, v in iqm_ends.items()},
        "improvement": {k: float(v[0]) for k, v in better.items()},
        "improvement_ends": {k: v[:, 0].tolist() for k, v in better_ends.items()},
        "profiles": {k: np.asarray(v).tolist() for k, v in profiles.items()},
        "ranks": stats.rankdata(-scores.mean(axis=1), axis=0).mean(axis=1).tolist(),
    }


def crossed() -> dict[str, object]:
    """Mean squares of a two-way layout of three seeds and eight rows, without replication."""
    cells = np.round(
        generator.normal(0.1, 1, (3, 8))
        + generator.normal(0, 1, (3, 1))
        + generator.normal(0, 2, (1, 8)),
        2,
    )
    frame = pd.DataFrame(
        [(s, i, cells[s, i]) for s in range(3) for i in range(8)], columns=["s", "i", "d"]
    )
    table = anova_lm(smf.ols("d ~ C(s) + C(i)", frame).fit())
    return {"cells": cells.tolist(), "mean_squares": (table["sum_sq"] / table["df"]).tolist()}


def family() -> dict[str, object]:
    """Holm's adjusted p values."""
    p = np.round(generator.uniform(0, 1, (6, 5)) ** 3, 4)
    return {
        "p": p.tolist(),
        "adjusted": [multipletests(row, method="holm")[1].tolist() for row in p],
    }


json.dump(
    {
        "source": ", ".join(f"{n} {version(n)}" for n in ("rliable", "statsmodels", "scipy")),
        "across": across(),
        "crossed": crossed(),
        "family": family(),
    },
    sys.stdout,
    indent=1,
)
sys.stdout.write("\n")
