"""Experiments of published papers as comparisons that are run one after the other, and judged."""

from typing import Literal

#: Sizes that a recipe comes in.
Scale = Literal["laptop", "full"]
