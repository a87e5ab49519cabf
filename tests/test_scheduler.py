"""The order in which cells are handed out."""

from __future__ import annotations

import random
import time

import networkx
import pytest

from pipelines.scheduler import Scheduler
from tunetrail.dag import Cell


def cells(edges: dict[str, tuple[str, ...]], alone: tuple[str, ...] = ()) -> dict[str, Cell]:
    return {name: Cell(name, "", frozenset(above), name in alone) for name, above in edges.items()}


def test_trainings_come_first_and_what_measures_time_last_and_alone() -> None:
    edges = {"cost@a": (), "validate": (), "train@a": (), "train@b": (), "evaluate": ("train@a",)}
    scheduler = Scheduler(cells(edges, alone=("cost@a",)), 2)
    first, second = scheduler.next(), scheduler.next()
    assert first is not None
    assert second is not None
    assert [first.name, second.name] == ["train@a", "train@b"]
    assert scheduler.next() is None, "no wider than two"
    order = []
    for name in ("train@a", "train@b"):
        scheduler.finish(name)
    while (cell := scheduler.next()) is not None:
        order.append(cell.name)
    assert order == ["validate", "evaluate"]
    scheduler.finish("validate")
    assert scheduler.next() is None, "it measures time: nothing beside it"
    scheduler.finish("evaluate")
    last = scheduler.next()
    assert last is not None
    assert last.name == "cost@a"
    assert scheduler.busy
    scheduler.finish("cost@a")
    assert not scheduler.busy


@pytest.mark.parametrize("seed", range(5))
def test_any_graph_is_worked_off_once_and_in_order(seed: int) -> None:
    chance = random.Random(seed)
    names = [f"{chance.choice(['train', 'evaluate', 'cost'])}@{i}" for i in range(60)]
    edges = {
        name: tuple(chance.sample(names[:i], min(i, chance.randrange(4))))
        for i, name in enumerate(names)
    }
    found = cells(edges, tuple(chance.sample(names, 6)))
    graph = networkx.DiGraph([(up, name) for name, above in edges.items() for up in above])
    graph.add_nodes_from(names)
    scheduler = Scheduler(found, 4)
    running: list[str] = []
    done: list[str] = []
    failed: set[str] = set()
    lost: list[str] = []
    while scheduler.busy:
        while (cell := scheduler.next()) is not None:
            assert networkx.ancestors(graph, cell.name) <= set(done)
            running.append(cell.name)
            alone = [name for name in running if found[name].alone]
            assert len(running) <= 4
            assert not alone or running == alone
            assert len(alone) <= 1
        assert running, "nothing runs and something waits"
        name = running.pop(chance.randrange(len(running)))
        if chance.random() < 0.1:
            failed.add(name)
            given_up = scheduler.fail(name)
            assert given_up == sorted(given_up, key=names.index), "upstream first"
            lost += given_up
        else:
            scheduler.finish(name)
            done.append(name)
    assert sorted([*done, *failed, *lost]) == sorted(names)
    below = set().union(*(networkx.descendants(graph, name) for name in failed))
    assert set(lost) == below


def test_twenty_thousand_cells_take_no_longer_each_than_two_thousand() -> None:
    def seconds(runs: int) -> float:
        edges: dict[str, tuple[str, ...]] = {f"train@{i}": () for i in range(runs)}
        edges |= {f"evaluate@{i}": (f"train@{i}",) for i in range(runs)}
        scheduler = Scheduler(cells(edges), 8)
        started = time.process_time()
        while scheduler.busy:
            handed = []
            while (cell := scheduler.next()) is not None:
                handed.append(cell.name)
            for name in handed:
                scheduler.finish(name)
        return (time.process_time() - started) / runs

    seconds(100)
    assert seconds(10_000) < 4 * seconds(1_000)
