"""Precision, threads and seeds: what decides the last digits of a run."""

from __future__ import annotations

import hashlib
from typing import Literal

import torch

from tunetrail.run import Numerics


def best_precision() -> Literal["bf16", "fp32"]:
    """bf16 where the hardware computes in it, else fp32 (emulated bf16 is slower than fp32)."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    capabilities = torch.cpu.get_capabilities()
    native = any(capabilities.get(f) for f in ("avx512_bf16", "amx_bf16", "bf16"))
    return "bf16" if native else "fp32"


def settled(
    precision: Literal["auto", "bf16", "fp32"],
    threads: int,
    processes: int = 1,
    sharding: Literal["none", "fsdp"] = "none",
) -> Numerics:
    """Numerics as asked for, with ``auto`` decided by this machine."""
    return Numerics(
        precision=best_precision() if precision == "auto" else precision,
        threads=threads,
        processes=processes,
        sharding=sharding,
    )


def apply(numerics: Numerics) -> None:
    """Set the CPU threads of this process and pick the faster exact float32 kernels."""
    torch.set_num_threads(numerics.threads)
    torch.set_float32_matmul_precision("medium" if _medium_is_exact() else "highest")


def _medium_is_exact() -> bool:
    """Whether precision ``medium`` still computes in float32 on this machine.

    On CPUs without matrix units it only selects the faster oneDNN kernels; with them, and on GPUs,
    it means lower precision, which only a run that asks for bf16 may use.
    """
    if torch.cuda.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(128, 384, generator=generator)
    b = torch.randn(384, 256, generator=generator)
    exact = a.double() @ b.double()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    error = ((a @ b).double() - exact).abs().max() / exact.abs().max()
    torch.set_float32_matmul_precision(before)
    return bool(error < 1e-6)


def derived_seed(seed: int, purpose: str) -> int:
    """A seed for one purpose, so that one use of randomness never shifts another."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{purpose}".encode()).digest()[:4], "big")
