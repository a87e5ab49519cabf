"""What ``params.yaml`` says under ``gate``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunetrail.settings import Settings

#: What rows can be put together by.
SliceBy = Literal["label", "length", "domain"]

Drop = Annotated[float, Field(ge=0, lt=1)]


class Gate(Settings):
    """What a challenger must show before it replaces the champion."""

    margin: float = Field(
        default=0.02,
        gt=0,
        lt=1,
        description="how much worse it may be by the first metric, in raw units: the lower end of "
        "its interval must lie above this, below the champion",
    )
    slices: dict[SliceBy, Drop] = Field(
        default={"label": 0.1, "length": 0.1},
        description="most that any slice of the gate's rows may drop: by true class, by length of "
        "the text (thirds), by the column that `columns.domain` names",
    )
    slice_rows: int = Field(
        default=30, ge=2, description="slices with fewer rows are shown, not judged"
    )
    latency: float | None = Field(
        default=1.5, gt=0, description="most times the champion's latency; null: any"
    )
    size: float | None = Field(
        default=1.5, gt=0, description="most times the size of the champion's ONNX file; null: any"
    )
    uses: int = Field(
        default=20, ge=1, description="decisions on one set of rows from which it counts as worn"
    )
    generation: int = Field(default=1, ge=1, description="raise it by one to take new rows")
