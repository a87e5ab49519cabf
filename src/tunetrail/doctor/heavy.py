"""A program that imports what is heavy and prints what it finds, a JSON object a line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def _tell(**answers: Any) -> None:
    sys.stdout.write(json.dumps(answers) + "\n")
    sys.stdout.flush()


def _machine() -> None:
    import torch

    gpu = torch.cuda.is_available()
    _tell(
        torch=torch.__version__,
        built_for=torch.version.cuda or torch.version.hip or "CPU",
        gpus=[torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        gpu_bytes=torch.cuda.get_device_properties(0).total_memory if gpu else 0,
    )
    from tunetrail.training.numerics import best_precision

    _tell(precision=best_precision())


def _parameters() -> None:
    from tunetrail.errors import TuneTrailError
    from tunetrail.params import check_sources, read_params

    path = Path("params.yaml")
    try:
        params = read_params(path)
        check_sources(params, path)
    except TuneTrailError as error:
        _tell(params_problem=error.problem, params_fix=error.fix)
    else:
        _tell(params=True)


if __name__ == "__main__":
    _machine()
    if Path("params.yaml").exists():
        _parameters()
