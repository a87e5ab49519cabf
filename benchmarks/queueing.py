"""A queue in front of one head: workers train and evaluate, the head records and hands out.

A simulation of events: nothing is executed. Each run is a training and an evaluation; before and
after each of them the head has work, one thing at a time.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Flow:
    """What came out.

    Attributes:
        hours: From the first to the last event.
        runs_per_hour: Throughput.
        head: Share of the time in which the head was at work.
        workers: Share of the workers' time in which they trained or evaluated.
    """

    hours: float
    runs_per_hour: float
    head: float
    workers: float


def simulate(
    runs: int,
    workers: int,
    train: float,
    evaluate: float,
    hand_out: float,
    record: float,
    seed: int = 0,
) -> Flow:
    """Work ``runs`` off.

    Twice as many cells as there are workers are handed out at a time, as the flow does it, and what
    has finished is recorded before the next is handed out.

    Args:
        runs: Trainings, each followed by its evaluation.
        workers: How many work side by side.
        train: Mean seconds of a training; they are drawn from a gamma distribution with a standard
            deviation of a quarter of that.
        evaluate: The same of an evaluation.
        hand_out: The head's seconds to hand out a cell.
        record: The head's seconds to record one.
        seed: Of the durations.
    """
    chance = np.random.default_rng(seed)
    took = {
        kind: chance.gamma(16, mean / 16, runs).tolist()
        for kind, mean in (("train", train), ("evaluate", evaluate))
    }
    trainings, evaluations = runs, 0
    handed: deque[str] = deque()  # to workers, who are all busy
    finished: deque[str] = deque()  # to be recorded
    ends: list[tuple[float, int, str]] = []
    clock = busy = worked = 0.0
    idle, recorded, sequence = workers, 0, 0
    outstanding = 0

    def start(kind: str, at: float) -> None:
        nonlocal idle, sequence, worked
        seconds = took[kind].pop()
        idle, sequence, worked = idle - 1, sequence + 1, worked + seconds
        heapq.heappush(ends, (at + seconds, sequence, kind))

    def let_end(until: float) -> None:
        """Workers go on while the head is at work."""
        nonlocal idle
        while ends and ends[0][0] <= until:
            at, _, kind = heapq.heappop(ends)
            idle += 1
            finished.append(kind)
            if handed:
                start(handed.popleft(), at)

    while recorded < 2 * runs:
        # The flow fills the queue before it looks at what has happened.
        if outstanding < 2 * workers and (trainings or evaluations):
            kind = "train" if trainings else "evaluate"
            trainings, evaluations = (
                (trainings - 1, evaluations) if trainings else (trainings, evaluations - 1)
            )
            let_end(clock + hand_out)
            clock, busy, outstanding = clock + hand_out, busy + hand_out, outstanding + 1
            if idle:
                start(kind, clock)
            else:
                handed.append(kind)
        elif finished:
            kind = finished.popleft()
            let_end(clock + record)
            clock, busy = clock + record, busy + record
            recorded, outstanding = recorded + 1, outstanding - 1
            evaluations += kind == "train"
        else:
            clock = ends[0][0]
            let_end(clock)
    return Flow(
        hours=clock / 3600,
        runs_per_hour=runs / clock * 3600,
        head=busy / clock,
        workers=worked / (clock * workers),
    )
