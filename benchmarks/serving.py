"""Latency and throughput of ``tunetrail serve``, with and without batching, one client and many.

A server process for each setting, on the loopback interface; clients are threads of this process,
each with a connection that stays open. The settings take turns, so that a slow minute of the
machine hits all of them.

    python -m benchmarks.serving --model runs/export/movie/lora --texts TEXTS.parquet
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tunetrail.provenance import provenance

#: Arguments of the server.
SERVERS = {"batching": [], "no batching": ["--max-batch", "1"]}
CLIENTS = (1, 16)
SETTINGS = [(name, clients) for name in SERVERS for clients in CLIENTS]


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
    port: int, texts: Sequence[str], clients: int, requests: int
) -> tuple[list[float], float]:
    """Seconds of each request, and of all of them together."""
    seconds: list[float] = []
    faults: list[int] = []

    def client(first: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for place in range(first, requests, clients):
            body = json.dumps({"rows": [{"text": texts[place % len(texts)]}]})
            begun = time.perf_counter()
            connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            seconds.append(time.perf_counter() - begun)
            if response.status != 200:
                faults.append(response.status)

    threads = [threading.Thread(target=client, args=(first,)) for first in range(clients)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = time.perf_counter() - begun
    if faults:
        raise SystemExit(f"{len(faults)} requests were refused: {sorted(set(faults))}")
    return seconds, whole


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", required=True, help="as of tunetrail serve")
    parser.add_argument("--texts", type=Path, required=True, help="Parquet with a column text")
    parser.add_argument("--requests", type=int, default=1000, help="of a setting, in each repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the result here as JSON")
    options = parser.parse_args()
    texts = pd.read_parquet(options.texts)["text"].tolist()
    processes = {name: started(options.model, arguments) for name, arguments in SERVERS.items()}
    repeats: dict[tuple[str, int], list[dict[str, float]]] = {each: [] for each in SETTINGS}
    try:
        for name, clients in SETTINGS:  # warm
            asked(processes[name][1], texts, clients, 50)
        for repeat in range(options.repeats):
            for name, clients in SETTINGS:
                seconds, whole = asked(processes[name][1], texts, clients, options.requests)
                p50, p99 = np.percentile(seconds, (50, 99)) * 1000
                found = {"p50_ms": p50, "p99_ms": p99, "per_second": len(seconds) / whole}
                repeats[name, clients].append({key: float(v) for key, v in found.items()})
                print(repeat, name, clients, {k: round(float(v), 2) for k, v in found.items()})
    finally:
        for process, _ in processes.values():
            process.terminate()
            process.wait()

    def ratio(clients: int, key: str) -> float:
        """Median over the repeats of batching relative to no batching, within a repeat."""
        pairs = zip(repeats["batching", clients], repeats["no batching", clients], strict=True)
        return round(statistics.median(one[key] / other[key] for one, other in pairs), 2)

    result: dict[str, Any] = {
        "model": options.model,
        "texts": len(texts),
        "mean_characters": round(statistics.mean(map(len, texts)), 1),
        "requests": options.requests,
        "repeats": options.repeats,
        "settings": [
            {
                "server": name,
                "clients": clients,
                **{key: round(statistics.median(r[key] for r in found), 2) for key in found[0]},
                "every_repeat": found,
            }
            for (name, clients), found in repeats.items()
        ],
        "batching_relative_to_none": {
            f"{clients} clients": {
                key: ratio(clients, key) for key in ("p50_ms", "p99_ms", "per_second")
            }
            for clients in CLIENTS
        },
        **provenance(),
    }
    print(json.dumps(result, indent=2))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
