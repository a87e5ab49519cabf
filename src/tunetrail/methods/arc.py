"""ARC: adapters recomposed from one projection for all layers (Dong et al., arXiv 2310.06234)."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from tunetrail.errors import TuneTrailError
from tunetrail.methods import Method
from tunetrail.modeling.classifier import Classifier
from tunetrail.modeling.recomposition import RecomposedLinear, Recomposition

Position = Literal["attention", "ffn"]

#: What reads the output of the adapter at a position.
READERS: dict[Position, tuple[str, ...]] = {
    "attention": ("query", "key", "value"),
    "ffn": ("ffn_in",),
}


class ARC(Method):
    """x + (x·(W∘c))·Wᵀ + b before attention and before the FFN, whose residuals do not pass it.

    It is linear, so it merges into the projections that read it. As in the authors' code c starts
    at zero before attention and off zero before the FFN, so the start is not the base model.
    """

    title: ClassVar[str] = "ARC"
    paper: ClassVar[str] = "arXiv 2310.06234"
    verified: ClassVar[str | None] = "authors' code"
    starts_at_base: ClassVar[bool] = False

    learning_rate: float = Field(default=3e-3, gt=0, description="peak learning rate")
    rank: int = Field(default=50, ge=1, description="width of the adapters")
    positions: tuple[Position, ...] = Field(
        default=("attention", "ffn"), min_length=1, description="what the adapters stand before"
    )

    @field_validator("positions")
    @classmethod
    def _different(cls, value: tuple[Position, ...]) -> tuple[Position, ...]:
        if len(set(value)) != len(value):
            raise ValueError("a position can be named once")
        return value

    def attach(self, model: Classifier) -> None:
        """Put the adapters of all layers in front of the projections."""
        for position in self.positions:
            adapter = Recomposition(
                size=model.hidden_size,
                rank=self.rank,
                layers=len(model.sites.layers()),
                scaled=position == "ffn",
            )
            model.add_module(f"arc_{position}", adapter)
            for layer, path in self._readers(model, position):
                model.replace(path, RecomposedLinear(model.module(path), adapter, layer))

    def merge(self, model: Classifier) -> None:
        """Multiply the adapters into the projections."""
        for position in self.positions:
            for _, path in self._readers(model, position):
                model.replace(path, model.module(path).merged())
            delattr(model, f"arc_{position}")

    def _readers(self, model: Classifier, position: Position) -> Iterator[tuple[int, str]]:
        """Layer and path of every projection that reads the adapters of a position."""
        for site in READERS[position]:
            yield from enumerate(model.sites.paths(site))

    def claims(self) -> dict[str, str]:
        """The projections that read the adapters."""
        sites = [site for position in self.positions for site in READERS[position]]
        return dict.fromkeys(sites, "an adapter before it")

    def check(self, base: Mapping[str, Any], max_length: int) -> None:
        """The adapters are narrower than what they adapt."""
        if self.rank > base["hidden_size"]:
            raise TuneTrailError(
                f"arc: rank is {self.rank}, larger than the hidden size {base['hidden_size']}",
                f"give a rank of at most {base['hidden_size']} (50 is usual)",
            )
