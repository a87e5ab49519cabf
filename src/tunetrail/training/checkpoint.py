"""Checkpoints that make a killed run end with the same weights.

They live outside the stage's outputs (DVC deletes those before a stage), in a folder named by the
run's digest, and are removed when the run is complete.
"""

from __future__ import annotations

import os
import shutil
import time
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tunetrail.errors import TuneTrailError
from tunetrail.files import STATE_DIR, read_json, replacing, write_json
from tunetrail.training.processes import like, whole

#: Seconds between checkpoints: how much of a run a kill can cost.
_DEFAULT_SECONDS = 30.0


class Checkpoints:
    """The checkpoint of one run.

    Args:
        run: Digest of the run.
        parameters: Name → parameter of what trains.
        optimizer: Its optimiser.
    """

    def __init__(
        self, run: str, parameters: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer
    ) -> None:
        self._folder = STATE_DIR / "checkpoints" / run
        self._parameters = parameters
        self._optimizer = optimizer
        self._seconds = float(os.environ.get("TUNETRAIL_CHECKPOINT_SECONDS", _DEFAULT_SECONDS))
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self._last >= self._seconds

    def save(
        self, progress: dict[str, Any], best: dict[str, torch.Tensor], *, writes: bool = True
    ) -> None:
        """Write parameters, optimiser, ``progress`` (JSON) and the best weights in one step.

        Where processes have parts of them all call this, and one writes.
        """
        tensors = {f"parameter/{k}": whole(v) for k, v in self._parameters.items()}
        tensors |= {f"best/{k}": v for k, v in best.items()}
        for index, state in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{k}": whole(v) for k, v in state.items()}
        self._last = time.monotonic()
        if not writes:
            return
        with replacing(self._folder) as folder:
            save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "state.safetensors")
            write_json(folder / "progress.json", progress)
        self._last = time.monotonic()

    def restore(self) -> dict[str, Any] | None:
        """Put everything back and return ``progress``; None without a checkpoint."""
        if not (self._folder / "progress.json").is_file():
            return None
        try:
            progress: dict[str, Any] = read_json(self._folder / "progress.json")
            tensors = load_file(self._folder / "state.safetensors")
        except (TuneTrailError, SafetensorError):  # a crash of the machine can leave it cut off
            forget(self._folder.name)
            return None
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(like(tensors[f"parameter/{name}"], parameter))
        state = self._optimizer.state_dict()
        trained = [p for group in self._optimizer.param_groups for p in group["params"]]
        for key, value in tensors.items():
            kind, _, rest = key.partition("/")
            if kind == "optimizer":
                index, _, name = rest.partition("/")
                of = trained[int(index)]
                part = like(value, of) if value.shape == of.shape else value  # it counts steps, too
                state["state"].setdefault(int(index), {})[name] = part
        self._optimizer.load_state_dict(state)
        return progress

    def best(self) -> dict[str, torch.Tensor]:
        """The best weights of the checkpoint; empty without them."""
        path = self._folder / "state.safetensors"
        tensors = load_file(path) if path.is_file() else {}
        return {k.removeprefix("best/"): v for k, v in tensors.items() if k.startswith("best/")}


def forget(run: str) -> None:
    """Remove the checkpoint of a run whose result is written."""
    folder = STATE_DIR / "checkpoints" / run
    shutil.rmtree(folder, ignore_errors=True)
    for half_written in folder.parent.glob(f".{run}.*"):
        shutil.rmtree(half_written, ignore_errors=True)  # a kill while saving left it
