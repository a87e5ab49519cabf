"""ETHER: hyperplane reflections of weight matrices (Bini et al., arXiv 2405.20271)."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

from pydantic import Field
from torch import nn

from tunetrail.methods import Method
from tunetrail.methods.lora import Site, Sites
from tunetrail.modeling.classifier import Classifier
from tunetrail.modeling.reflections import ReflectedLinear, Reflection, check_blocks


class ETHER(Method):
    """W·H with H = I − 2uuᵀ, which is never near the identity, so training starts elsewhere.

    With two sides H'·W·H. In blocks H is block-diagonal, as in the paper; the authors' code mixes
    the rows of W when there are several blocks on the input side.
    """

    title: ClassVar[str] = "ETHER"
    paper: ClassVar[str] = "arXiv 2405.20271"
    verified: ClassVar[str | None] = "authors' code"
    starts_at_base: ClassVar[bool] = False
    #: With a second vector, as ETHER+ has it.
    relaxed: ClassVar[bool] = False

    learning_rate: float = Field(default=3e-3, gt=0, description="peak learning rate")
    sides: Literal["one", "two"] = Field(
        default="one", description="one: what a matrix takes in is reflected; two: its output too"
    )
    blocks: int = Field(default=1, ge=1, description="equal parts that are reflected on their own")
    sites: Sites = Field(default=get_args(Site), description="matrices that are reflected")

    def attach(self, model: Classifier) -> None:
        """Wrap the chosen matrices of every layer."""
        for path in (path for site in self.sites for path in model.sites.paths(site)):
            base: nn.Linear = model.module(path)
            widths = [base.in_features, base.out_features][: 1 if self.sides == "one" else 2]
            sides = [Reflection(w, self.blocks, relaxed=self.relaxed) for w in widths]
            model.replace(path, ReflectedLinear(base, *sides))

    def merge(self, model: Classifier) -> None:
        """Reflect every matrix."""
        for path in (path for site in self.sites for path in model.sites.paths(site)):
            model.replace(path, model.module(path).merged())

    def claims(self) -> dict[str, str]:
        """The chosen matrices."""
        return dict.fromkeys(self.sites, "a reflection")

    def check(self, base: Mapping[str, Any], max_length: int) -> None:
        """The blocks must divide every side that is reflected."""
        hidden, wide = base["hidden_size"], base["ffn_size"]
        sizes = {wide if site == "ffn_out" else hidden for site in self.sites}
        if self.sides == "two":
            sizes |= {wide if site == "ffn_in" else hidden for site in self.sites}
        check_blocks(sizes, self.blocks, self.title)
