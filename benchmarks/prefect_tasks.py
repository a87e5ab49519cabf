"""What Prefect costs the head of a run for a task that does nothing.

python -m benchmarks.prefect_tasks FOLDER TASKS
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from pipelines.environment import configure_prefect
from tunetrail.files import STATE_DIR


def tasks(count: int) -> float:
    """Processor seconds of this process for ``count`` tasks in one flow, the flow included."""
    from prefect import flow, task
    from prefect.cache_policies import NO_CACHE
    from prefect.task_runners import ThreadPoolTaskRunner

    @task(task_run_name="{name}", retries=2, cache_policy=NO_CACHE, persist_result=False)
    def execute(name: str) -> None:
        time.sleep(0.01)

    runner: Any = ThreadPoolTaskRunner(max_workers=4)

    @flow(task_runner=runner)
    def work() -> None:
        for future in [execute.submit(str(number)) for number in range(count)]:
            future.result()

    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    """Measure the difference between many tasks and one."""
    os.chdir(Path(sys.argv[1]))
    count = int(sys.argv[2])
    STATE_DIR.mkdir(exist_ok=True)
    configure_prefect()
    from pipelines.server import _own, connect, wait_until_ready

    connect()
    wait_until_ready()
    tasks(1)  # what is done once
    server = psutil.Process(_own[0].pid)
    one, before = tasks(1), sum(server.cpu_times()[:2])
    many, after = tasks(count + 1), sum(server.cpu_times()[:2])
    found = {"tasks": count, "head": (many - one) / count, "server": (after - before) / count}
    found = {key: round(value, 4) for key, value in found.items()}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
