"""CPU time of full fine-tuning with and without kept memory, as workers keep it.

Glibc gives large blocks back to the system at once, which clears their pages when they are taken
again. Seconds are CPU time, and the two take turns, so other work beside them matters little.

    python -m benchmarks.allocator
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from tunetrail.files import write_json
from tunetrail.provenance import provenance

#: Rows of a batch, tokens of a row: short sentences, and pairs.
_SHAPES = ((8, 12), (16, 55))
_STEPS = 20


def step_cost(rows: int, tokens: int, keep: bool) -> dict[str, float]:
    """Milliseconds of CPU time of a step, page faults of a step, and peak memory in MiB."""
    import torch
    from transformers import BertConfig, BertModel

    from tunetrail.allocator import keep_freed_memory

    if keep:
        keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape = {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}
    model = BertModel(BertConfig(**shape)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step() -> None:
        ids = torch.randint(0, model.config.vocab_size, (rows, tokens))
        with torch.autocast("cpu", torch.bfloat16):
            states = model(ids).last_hidden_state
        states.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(3):
        step()
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(_STEPS):
        step()
    after = resource.getrusage(resource.RUSAGE_SELF)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "cpu_ms": 1e3 * seconds / _STEPS,
        "faults": (after.ru_minflt - before.ru_minflt) / _STEPS,
        "peak_mib": after.ru_maxrss / 1024,
    }


def _in_a_process_of_its_own(rows: int, tokens: int, keep: bool) -> dict[str, float]:
    call = f"step_cost({rows}, {tokens}, {keep})"
    code = f"import json; from benchmarks.allocator import step_cost; print(json.dumps({call}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure, print and, with ``--out``, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    for rows, tokens in _SHAPES:
        turns = [
            {keep: _in_a_process_of_its_own(rows, tokens, keep) for keep in (False, True)}
            for _ in range(options.repeats)
        ]
        found: dict[str, Any] = {"rows": rows, "tokens": tokens}
        for keep, name in ((False, "given_back"), (True, "kept")):
            keys = turns[0][keep]
            found[name] = {
                key: statistics.median(turn[keep][key] for turn in turns) for key in keys
            }
        found["ratio"] = found["given_back"]["cpu_ms"] / found["kept"]["cpu_ms"]
        results.append(found)
        print(json.dumps(found))
    if options.out:
        write_json(options.out, {"results": results, "provenance": provenance()})


if __name__ == "__main__":
    main()
