"""What serving takes: time with and without batching, memory of models that share a base.

In a project that has run. Servers are processes on the loopback interface; clients are threads of
this process, each with a connection that stays open. What is compared takes turns, so that a slow
minute of the machine hits all of it, and ratios are taken within a turn.

    python -m benchmarks.serving
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tunetrail.cli import execute
from tunetrail.files import read_json, write_json
from tunetrail.layout import SHARED
from tunetrail.provenance import provenance
from tunetrail.serving.models import open_model, open_models
from tunetrail.serving.sharing import part_of, share

#: Arguments of the server.
SERVERS = {"batching": [], "no batching": ["--max-batch", "1"]}
CLIENTS = (1, 16)
SETTINGS = [(name, clients) for name in SERVERS for clients in CLIENTS]
#: One in ten requests of the mixed load.
MALFORMED = [
    '{"rows": [',
    "{}",
    '{"rows": []}',
    '{"rows": [{"text": 1}]}',
    '{"rows": [{"a": "b"}]}',
]
COUNTS = (1, 2, 4, 8, 16)
#: Rows of a small and of a large file, with so many more characters in another column.
FILES, NOTE = (1_000, 20_000), 10_000


def started(model: str, arguments: Sequence[str]) -> tuple[subprocess.Popen[str], int]:
    """A server that is ready, and its port."""
    command = [sys.executable, "-m", "tunetrail.cli", "serve", model, "--port", "0", "--json"]
    process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(process.wait())
    return process, int(json.loads(line)["url"].rpartition(":")[2])


def asked(
    port: int, bodies: Sequence[str], clients: int, requests: int
) -> tuple[list[tuple[int, float]], float]:
    """Status and seconds of each request, and seconds of all of them together."""
    found: list[tuple[int, float]] = []

    def client(first: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for place in range(first, requests, clients):
            body = bodies[place % len(bodies)]
            begun = time.perf_counter()
            connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            found.append((response.status, time.perf_counter() - begun))

    threads = [threading.Thread(target=client, args=(first,)) for first in range(clients)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found, time.perf_counter() - begun


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Milliseconds of a request."""
    p50, p99 = np.percentile(seconds, (50, 99)) * 1000
    return {"p50_ms": round(float(p50), 2), "p99_ms": round(float(p99), 2)}


def batching(model: str, bodies: Sequence[str], requests: int, repeats: int) -> dict[str, Any]:
    """A server that batches beside one that does not; then one in ten requests malformed."""
    processes = {name: started(model, arguments) for name, arguments in SERVERS.items()}
    found: dict[tuple[str, int], list[dict[str, float]]] = {each: [] for each in SETTINGS}
    try:
        for name, clients in SETTINGS:  # warm
            asked(processes[name][1], bodies, clients, 50)
        for repeat in range(repeats):
            for name, clients in SETTINGS:
                answers, whole = asked(processes[name][1], bodies, clients, requests)
                statuses = Counter(status for status, _ in answers)
                if set(statuses) != {200}:
                    raise SystemExit(f"requests were refused: {statuses}")
                seconds = [each for _, each in answers]
                found[name, clients].append(summary(seconds) | {"per_second": requests / whole})
                print(repeat, name, clients, found[name, clients][-1])
        mixed = [
            MALFORMED[place // 10 % len(MALFORMED)] if place % 10 == 0 else body
            for place, body in enumerate(bodies[:1000])
        ]
        answers, _ = asked(processes["batching"][1], mixed, 16, 1000)
    finally:
        for process, _ in processes.values():
            process.terminate()
            process.wait()

    def ratio(clients: int, key: str) -> float:
        pairs = zip(found["batching", clients], found["no batching", clients], strict=True)
        return round(statistics.median(one[key] / other[key] for one, other in pairs), 2)

    return {
        "requests": requests,
        "settings": [
            {
                "server": name,
                "clients": clients,
                **{key: round(statistics.median(r[key] for r in each), 2) for key in each[0]},
                "every_repeat": each,
            }
            for (name, clients), each in found.items()
        ],
        "batching_relative_to_none": {
            f"{clients} clients": {
                key: ratio(clients, key) for key in ("p50_ms", "p99_ms", "per_second")
            }
            for clients in CLIENTS
        },
        "one_in_ten_malformed": {
            "requests": len(answers),
            "clients": 16,
            "statuses": dict(sorted(Counter(str(status) for status, _ in answers).items())),
            **summary([seconds for status, seconds in answers if status == 200]),
        },
    }


def copies(shared: Path, count: int, out: Path) -> Path:
    """So many models on the base: those of a folder, over and over under other names."""
    told = read_json(shared / SHARED)
    names = [model["name"] for model in told["models"]]
    files = {n: d for n, d in told["files"].items() if "/" not in n}
    out.mkdir()
    for name in files:
        shutil.copyfile(shared / name, out / name)
    models = []
    for place in range(count):
        name = f"{names[place % len(names)]}-{place}"
        source = told["models"][place % len(names)]
        shutil.copytree(shared / source["name"], out / name)
        models.append(source | {"name": name})
        files |= {
            n.replace(source["name"], name, 1): d
            for n, d in told["files"].items()
            if n.startswith(source["name"] + "/")
        }
    write_json(out / SHARED, told | {"files": files, "models": models})
    return out


def resident() -> float:
    """Megabytes of this process in memory now."""
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1000


def opened(references: Sequence[str]) -> float:
    """Megabytes that the models take in this process, beyond the first import of everything."""
    from tunetrail.tracking.registry import predictor_class

    predictor_class()
    before = resident()
    models = [model for reference in references for model in open_models(reference, 1)]
    grown = resident() - before
    print(len(models), "models", round(grown), "MB")
    return round(grown, 1)


def predicted(path: str, model: str) -> float:
    """Megabytes at the peak of `tunetrail predict`."""
    execute(["predict", path, "--model", model])
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return round(int(found[1]) / 1000, 1)


def fresh(call: Callable[..., float], *arguments: Any) -> float:
    """What a function gives in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()


def sharing(
    models: Sequence[str], texts: Sequence[str], repeats: int, scratch: Path
) -> dict[str, Any]:
    """Memory and time of models with a session each, and of the same on one session."""
    shared = scratch / "shared"
    told = share([part_of(model) for model in models], shared)
    memory: dict[str, dict[int, float]] = {"a session each": {}, "one session": {}}
    for count in COUNTS:
        each = [models[place % len(models)] for place in range(count)]
        many = copies(shared, count, scratch / str(count))
        memory["a session each"][count] = fresh(opened, each)
        memory["one session"][count] = fresh(opened, [str(many)])
    first, last = COUNTS[0], COUNTS[-1]
    own = {one.sha256: one.predictor for one in map(open_model, models)}
    ratios = []
    for _ in range(repeats):
        seconds: dict[str, list[float]] = {"own": [], "shared": []}
        for model in open_models(str(shared)):
            for text in texts[:200]:
                for name, ask in (("own", own[model.sha256]), ("shared", model.predictor)):
                    begun = time.perf_counter()
                    ask([text])
                    seconds[name].append(time.perf_counter() - begun)
        ratios.append(statistics.median(seconds["shared"]) / statistics.median(seconds["own"]))
    return {
        "megabytes": memory,
        "megabytes_a_further_model": {
            name: round((found[last] - found[first]) / (last - first), 1)
            for name, found in memory.items()
        },
        "largest_logit_difference": {m.name: m.largest_logit_difference for m in told.models},
        "adapter_bytes": {m.name: m.adapter_bytes for m in told.models},
        "seconds_a_text_relative_to_own_session": round(statistics.median(ratios), 2),
        "every_ratio": ratios,
    }


def files(model: str, texts: Sequence[str], scratch: Path) -> dict[str, Any]:
    """Peak memory of `tunetrail predict` on a small and on a large file."""
    found: dict[str, Any] = {}
    for rows in FILES:
        path = scratch / f"{rows}.csv"
        notes = [os.urandom(NOTE // 2).hex() for _ in range(rows)]
        pd.DataFrame({"text": [texts[i % len(texts)] for i in range(rows)], "note": notes}).to_csv(
            path, index=False
        )
        found[f"{rows} rows"] = {
            "file_megabytes": round(path.stat().st_size / 1e6, 1),
            "peak_megabytes": fresh(predicted, str(path), model),
        }
    return found


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "models",
        nargs="*",
        default=["runs/export/movie/lora", "runs/export/amazon/lora"],
        help="folders of the export stage that can share a base (default: the two of LoRA)",
    )
    parser.add_argument(
        "--texts", type=Path, default=Path("data/canonical/movie/data.parquet"), help="rows to ask"
    )
    parser.add_argument("--requests", type=int, default=1000, help="of a setting, in each repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/serving.json"))
    options = parser.parse_args()
    if not options.texts.is_file():
        print(f"skipped: '{options.texts}' is missing; run the pipeline first (make run)")
        return
    texts = pd.read_parquet(options.texts)["text"].tolist()
    bodies = [json.dumps({"rows": [{"text": text}]}) for text in texts]
    with tempfile.TemporaryDirectory() as folder:
        result: dict[str, Any] = {
            "models": options.models,
            "texts": len(texts),
            "mean_characters": round(statistics.mean(map(len, texts)), 1),
            "repeats": options.repeats,
            "http": batching(options.models[0], bodies, options.requests, options.repeats),
            "sharing": sharing(options.models, texts, options.repeats, Path(folder)),
            "files": files(options.models[0], texts, Path(folder)),
            **provenance(),
        }
    print(json.dumps(result, indent=2))
    write_json(options.out, result)


if __name__ == "__main__":
    main()
