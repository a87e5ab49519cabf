"""ETHER+: the relaxed reflections of ETHER, on both sides (Bini et al., arXiv 2405.20271)."""

from typing import ClassVar, Literal

from pydantic import Field

from tunetrail.methods.ether import ETHER


class ETHERPlus(ETHER):
    """H'·W·H with H = I − uuᵀ + vvᵀ and v = −u at the start, so training starts at the base model.

    Sites, blocks and the way to merge are those of ETHER.
    """

    title: ClassVar[str] = "ETHER+"
    starts_at_base: ClassVar[bool] = True
    relaxed: ClassVar[bool] = True

    sides: Literal["one", "two"] = Field(
        default="two", description="two: what a matrix takes in and gives out; one: only the former"
    )
