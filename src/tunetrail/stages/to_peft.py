"""A trained run's adapter in peft's format. No stage of the pipeline: for use elsewhere."""

from __future__ import annotations

from pathlib import Path

from tunetrail.errors import TuneTrailError
from tunetrail.layout import RUN
from tunetrail.modeling.peft_format import WRITERS
from tunetrail.run import read_run
from tunetrail.stages.evaluate import trained_model


def to_peft(selected: Path, base: Path, out: Path) -> None:
    """Write the adapter so that ``PeftModel.from_pretrained`` gives the same hidden states.

    The head has no place in that format.

    Args:
        selected: The method's folder that the select stage wrote.
        base: What the base stage wrote.
        out: Folder to write.

    Raises:
        TuneTrailError: The method has no form in peft's format.
    """
    spec = read_run(selected / RUN)
    if spec.method.name not in WRITERS:
        raise TuneTrailError(
            f"{selected} is a run of '{spec.method.name}', which has no form in peft's format here",
            f"choose a run of {' or '.join(sorted(WRITERS))}",
        )
    model = trained_model(spec, base, selected / "adapter")
    WRITERS[spec.method.name](model, out, spec.method.options)
