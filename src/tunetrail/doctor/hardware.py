"""Cores, memory, GPU, and the precision that follows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tunetrail.doctor.finding import Finding, ok, problem, warning
from tunetrail.doctor.probe import Probe

#: Memory that a worker needs for a base model of about 100 MB.
_WORKER_BYTES = 1.5e9

_CGROUP = Path("/sys/fs/cgroup")


def check(probe: Probe) -> Iterator[Finding]:
    """What the machine offers."""
    cores, allowed = os.cpu_count() or 1, usable_cores()
    if allowed < cores:
        yield warning(
            f"{cores} cores, of which this process may use {allowed:g}",
            f"tunetrail run --workers {max(1, int(allowed))}",
        )
    else:
        yield ok(f"{cores} cores: {cores} stages side by side at one thread each")
    total, free = _memory()
    workers = max(1, int(allowed))
    text = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB memory free"
    if free and free < _WORKER_BYTES * workers:
        fitting = max(1, int(free / _WORKER_BYTES))
        yield warning(
            f"{text}; {workers} workers need about {_WORKER_BYTES * workers / 1e9:.1f} GB",
            f"tunetrail run --workers {fitting}, or a smaller training.batch_size",
        )
    elif free:
        yield ok(text)
    yield from _torch(probe)


def usable_cores() -> float:
    """Cores that affinity and the container's quota leave to this process."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
    if not hasattr(os, "sched_getaffinity"):
        cores = float(os.cpu_count() or 1)
    quota = _CGROUP / "cpu.max"
    if quota.is_file():
        share, period = quota.read_text(encoding="ascii").split()
        if share != "max":
            cores = min(cores, round(int(share) / int(period), 1))
    return cores


def _memory() -> tuple[float, float]:
    """Bytes in all, and free (0 where it cannot be known)."""
    total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    info = Path("/proc/meminfo")
    if not info.is_file():
        return total, 0.0
    lines = dict(line.split(":") for line in info.read_text(encoding="ascii").splitlines())
    free = float(lines["MemAvailable"].split()[0]) * 1024
    limit, used = _CGROUP / "memory.max", _CGROUP / "memory.current"
    if limit.is_file() and (text := limit.read_text(encoding="ascii").strip()) != "max":
        total = min(total, float(text))
        free = min(free, float(text) - float(used.read_text(encoding="ascii")))
    return total, free


def _torch(probe: Probe) -> Iterator[Finding]:
    answers = probe.answers
    if "torch" not in answers:
        yield problem(
            f"torch cannot be imported: {answers.get('error', 'no answer')}",
            "install it again; on an old CPU or without a matching driver, take its CPU wheel",
        )
        return
    if answers["gpus"]:
        yield ok(
            f"torch {answers['torch']} for {answers['built_for']}: {answers['gpus'][0]}, "
            f"{answers['gpu_bytes'] / 1e9:.0f} GB"
        )
    else:
        yield ok(f"torch {answers['torch']} for {answers['built_for']}; no GPU, training on CPU")
    if "precision" not in answers:
        yield problem(
            f"the precision cannot be settled: {answers.get('error', 'no answer')}",
            "install the requirements of TuneTrail again",
        )
    elif answers["precision"] == "bf16":
        yield ok("bf16 is native: `numerics.precision: auto` trains in it, faster than fp32")
    else:
        yield ok(
            "bf16 would be emulated, slower than fp32: `numerics.precision: auto` trains in fp32. "
            "Figures of a bf16 machine differ in the last digits"
        )
