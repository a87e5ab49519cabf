"""``kill -9`` of services while a schedule retrains: the end state of an undisturbed project."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.service_kills import (
    IMPATIENT,
    Services,
    differences,
    end_state,
    first_version,
    kill_series,
    prepared,
    undisturbed,
)
from tests.conftest import Project
from tests.postgres import postgres_server

pytestmark = pytest.mark.services

#: What is killed; `python -m benchmarks.service_kills` kills everything else, too.
THREE = ["worker and flow", "prefect-server", "database"]


@pytest.mark.timeout(3600)  # minutes, and much more beside other work
def test_three_kills_leave_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in IMPATIENT.items():
        monkeypatch.setenv(name, value)
    with postgres_server() as database:
        services = Services(prepared(tmp_path / "disturbed"), tmp_path / "services.txt", database)
        try:
            services.start()
            usual = first_version(services, tmp_path / "calm")
            chance = random.Random(7)
            kills = list(kill_series(services, [THREE], usual / 2, chance, print))
            found, flows = end_state(services)
            expected = undisturbed(Project(tmp_path / "calm"), 1, services.prefect)
        finally:
            services.stop()
    wrong = differences(expected, found)
    assert not wrong, "\n".join(wrong)
    assert all(kill.killed for kill in kills), "nothing was there to be killed"
    assert flows["Completed"] > 3
