"""Requests that wait are computed together: one model, one thread, batches as large as allowed."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tunetrail.serving.models import Model

Row = str | tuple[str, str]

#: Seconds after which a refused client may come back, at most.
_LONGEST_PAUSE = 30


class QueueFull(Exception):
    """There is no room for these rows now.

    Attributes:
        waiting: Rows that wait.
        seconds: After which there should be room.
    """

    def __init__(self, waiting: int, seconds: int) -> None:
        super().__init__(f"{waiting} rows wait")
        self.waiting = waiting
        self.seconds = seconds


@dataclass
class _Asked:
    """A request that waits: all its rows go into one batch, and to the model it was read for."""

    model: Model
    rows: Sequence[Row]
    answer: asyncio.Future[list[dict[str, Any]]]
    since: float = field(default_factory=time.monotonic)


class Batcher:
    """Rows of several requests to one model at a time.

    A batch is computed as soon as the model is free and ``most`` rows wait, or the oldest request
    has waited for ``wait`` seconds. While the model is busy requests gather by themselves.

    Args:
        most: Rows of a batch. A larger request is a batch by itself.
        wait: Seconds that a request waits for others while the model is free.
        room: Rows that may wait.
        computed: Called with model, rows and seconds of every batch.
    """

    def __init__(
        self, most: int, wait: float, room: int, computed: Callable[[Model, int, float], None]
    ) -> None:
        self._most, self._wait, self._room = most, wait, room
        self._computed = computed
        self._queue: deque[_Asked] = deque()
        self._changed = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "model")
        self._seconds_a_row = 0.0
        self.waiting = 0

    async def predict(self, model: Model, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """What ``model`` gives for ``rows``, in order, as :func:`as_json` has it.

        Raises:
            QueueFull: Too many rows wait.
        """
        if self.waiting + len(rows) > self._room:
            pause = math.ceil(self.waiting * self._seconds_a_row)
            raise QueueFull(self.waiting, min(max(1, pause), _LONGEST_PAUSE))
        asked = _Asked(model, rows, asyncio.get_running_loop().create_future())
        self._queue.append(asked)
        self.waiting += len(rows)
        self._changed.set()
        return await asked.answer

    async def run(self) -> None:
        """Compute whatever is asked, until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._filled()
            batch = self._taken()
            started = time.monotonic()
            found = await loop.run_in_executor(self._thread, _answers, batch)
            seconds = time.monotonic() - started
            count = sum(len(asked.rows) for asked in batch)
            self._seconds_a_row = seconds / count
            self._computed(batch[0].model, count, seconds)
            for asked, answer in zip(batch, found, strict=True):
                if asked.answer.cancelled():  # its client has gone
                    continue
                if isinstance(answer, Exception):
                    asked.answer.set_exception(answer)
                else:
                    asked.answer.set_result(answer)

    async def _filled(self) -> None:
        """Return when there is something to compute, and waiting for more does not pay."""
        while not self._queue:
            self._changed.clear()
            await self._changed.wait()
        until = self._queue[0].since + self._wait
        while self.waiting < self._most and (left := until - time.monotonic()) > 0:
            self._changed.clear()
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                return

    def _taken(self) -> list[_Asked]:
        """The oldest request and those that fit into its batch; other models keep their order."""
        batch = [self._queue.popleft()]
        count, left = len(batch[0].rows), deque[_Asked]()
        full = False  # a later request does not overtake one of its model
        for asked in self._queue:
            mine = asked.model is batch[0].model
            full |= mine and count + len(asked.rows) > self._most
            if mine and not full:
                batch.append(asked)
                count += len(asked.rows)
            else:
                left.append(asked)
        self._queue = left
        self.waiting -= count
        return batch


def _answers(batch: Sequence[_Asked]) -> list[list[dict[str, Any]] | Exception]:
    """The answer to each request, or what went wrong with it. Runs in the model's thread."""
    model = batch[0].model
    try:
        found = as_json(model, model.predictor([row for asked in batch for row in asked.rows]))
    except Exception as error:
        if len(batch) == 1:
            return [error]
        # The others are not to suffer for the one.
        return [answer for asked in batch for answer in _answers([asked])]
    parts = iter(found)
    return [[next(parts) for _ in asked.rows] for asked in batch]


def as_json(model: Model, columns: dict[str, Any]) -> list[dict[str, Any]]:
    """Columns of a predictor as one object a row.

    ``label`` and ``scores`` of classes; ``number``; ``answer``, ``start`` and ``score``, which is
    None where there is no answer.

    Raises:
        ValueError: The model gives something that is not a number.
    """
    if model.predicts == "answers":
        names = ("answer", "start", "score")
        rows = [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return [
            row | {"score": row["score"] if math.isfinite(row["score"]) else None} for row in rows
        ]
    labels = columns["label"]
    if model.predicts == "a number":
        return [{"number": _finite(number)} for number in labels.tolist()]
    classes = model.predictor.labels
    scores = zip(*(columns[f"score_{name}"].tolist() for name in classes), strict=True)
    return [
        {"label": label, "scores": dict(zip(classes, map(_finite, row), strict=True))}
        for label, row in zip(labels, scores, strict=True)
    ]


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError(f"the model gave {number}")
    return number
