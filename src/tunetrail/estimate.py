"""How long stages take: learned from earlier executions here, and from the cost stage.

Only ever shown to people. No result depends on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any, Literal

from tunetrail.files import STATE_DIR, read_json, write_json
from tunetrail.layout import CARD
from tunetrail.params import Params
from tunetrail.run import Budget, Training

#: Where the flow keeps the seconds that each cell took last time.
DURATIONS = STATE_DIR / "durations.json"

#: Seconds before anything is known of this machine; only their ratios matter once a stage is done.
_FIRST_GUESS = {
    "dapt": 120.0,
    "tapt": 60.0,
    "tune": 100.0,
    "train": 20.0,
    "cost": 8.0,
    "export": 6.0,
    "validate": 5.0,
    "base": 5.0,
}
_SHORT = 2.0


#: The cell itself was measured here; others like it were; neither.
Basis = Literal["measured", "similar", "guess"]


class Estimator:
    """Expected seconds of cells.

    What is known of a cell itself counts most, then of other seeds of its method in its task, of
    the method in other tasks, of the stage, and then a guess in proportion to what was seen.

    Args:
        known: Cell name → seconds it took, or is known to take.
    """

    def __init__(self, known: Mapping[str, float]) -> None:
        self._known: dict[str, float] = {}
        #: What cells have in common → their seconds summed up, and how many they are.
        self._alike: dict[tuple[str, ...], tuple[float, int]] = {}
        self._seconds = self._guessed = 0.0
        for name, seconds in known.items():
            self.took(name, seconds)

    def took(self, name: str, seconds: float) -> None:
        """Learn how long a cell took just now."""
        before, new = self._known.get(name, 0.0), name not in self._known
        self._known[name] = seconds
        self._seconds += seconds - before
        self._guessed += _guess(_parts(name)[0]) if new else 0.0
        for key in _likenesses(name):
            total, count = self._alike.get(key, (0.0, 0))
            self._alike[key] = total + seconds - before, count + new

    def seconds(self, name: str) -> float:
        """Expected seconds of one cell."""
        return self._expected(name)[0]

    def basis(self, name: str) -> Basis:
        """What the expectation for a cell rests on."""
        return self._expected(name)[1]

    def _expected(self, name: str) -> tuple[float, Basis]:
        if name in self._known:
            return self._known[name], "measured"
        for key in _likenesses(name):
            if key in self._alike:
                total, count = self._alike[key]
                return total / count, "similar"
        return _guess(_parts(name)[0]) * self._pace(), "guess"

    def left(
        self, waiting: Iterable[str], running: Mapping[str, float], alone: set[str], width: int
    ) -> float:
        """Seconds until all is done.

        Args:
            waiting: Cells that have not started.
            running: Started cell → share of it that is done (0 … 1).
            alone: Cells that run with nothing beside them.
            width: Cells side by side.
        """
        rest = {name: self.seconds(name) for name in waiting}
        rest |= {name: self.seconds(name) * (1 - done) for name, done in running.items()}
        serial = sum(seconds for name, seconds in rest.items() if name in alone)
        side_by_side = [seconds for name, seconds in rest.items() if name not in alone]
        return serial + max(sum(side_by_side) / width, max(side_by_side, default=0.0))

    def _pace(self) -> float:
        """Seconds here for a guessed second."""
        return self._seconds / self._guessed if self._guessed else 1.0


def known_durations(root: Path, params: Params) -> dict[str, float]:
    """Cell name → seconds, of cells that can be told before anything runs.

    Trainings come from the rates that the cost stage measured and the budget of now, where there
    are rates; everything else from the last time.
    """
    path = root / DURATIONS
    known: dict[str, float] = read_json(path) if path.is_file() else {}
    for task in params.tasks:
        card = root / "data" / "prepared" / task / "fit" / CARD
        if not card.is_file():
            continue
        train = read_json(card)["sets"]["train"]
        for method, (label, budget) in product(params.methods, params.budgets.items()):
            cost = root / "runs" / "cost" / task / f"{method}.json"
            if cost.is_file():
                rows = _rows_seen(train, budget, params.training)
                rate = read_json(cost)["tokens_per_second"]
                minutes = budget.minutes or 0.0
                seconds = minutes * 60 or rows * float(train["tokens"]["mean"]) / rate
                known |= {f"train@{task}-{method}-{label}-{seed}": seconds for seed in params.seeds}
                trials = params.tuning.trials.get(label, 0)
                known |= {f"tune@{task}-{method}-{label}": trials * seconds} if trials else {}
    return known


def _rows_seen(train: dict[str, Any], budget: Budget, training: Training) -> float:
    """Rows that one run trains on, counting repetitions."""
    if budget.steps is not None:
        return float(budget.steps * training.batch_size * training.accumulate)
    counts = train["labels"].values()
    drawn = sum(min(budget.shots, n) for n in counts) if budget.shots else train["rows"]
    return float(drawn * budget.fraction * (budget.epochs or 1))


def remember(root: Path, seconds: Mapping[str, float]) -> None:
    """Keep what cells took, for the next time."""
    path = root / DURATIONS
    before: dict[str, Any] = read_json(path) if path.is_file() else {}
    write_json(path, before | {name: round(value, 2) for name, value in seconds.items()})


def _guess(stage: str) -> float:
    return _FIRST_GUESS.get(stage, _SHORT)


def _likenesses(name: str) -> list[tuple[str, ...]]:
    """What other cells may have in common with this one, the closest first."""
    stage, task, method = _parts(name)
    of_method = [("method", stage, method)] if method else []
    return [("cell", stage, task, method), *of_method, ("stage", stage)]


def _parts(name: str) -> tuple[str, str, str]:
    """Stage, task and method of a cell's name (empty where it has none)."""
    stage, _, rest = name.partition("@")
    task, _, more = rest.partition("-")
    return stage.removesuffix("_more"), task, more.partition("-")[0]
