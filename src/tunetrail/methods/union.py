"""A union of methods, trained together (He et al., arXiv 2110.04366, compare such mixtures)."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from pydantic import Field, field_validator

from tunetrail.code import code_digest
from tunetrail.methods import Method
from tunetrail.methods._parts import refuse_shared, resolved
from tunetrail.modeling.classifier import Classifier


class Union(Method):
    """``parts`` are attached in their order, each with its own options.

    They train with the union's learning rate. It merges if all of them do, and starts at the base
    model if all of them do.
    """

    title: ClassVar[str] = "union of methods"
    paper: ClassVar[str] = "arXiv 2110.04366"

    learning_rate: float = Field(default=1e-3, gt=0, description="peak learning rate of all parts")
    parts: tuple[dict[str, Any], ...] = Field(
        default=({"method": "lora"}, {"method": "bitfit"}),
        min_length=2,
        validate_default=True,
        description="what to unite: the key method, and that method's options",
    )
    code: str = Field(default="", validate_default=True, description="of the parts: filled in")

    @field_validator("parts")
    @classmethod
    def _spelled_out(cls, value: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        parts = resolved(value)
        refuse_shared(parts)
        dumped = [method.model_dump(mode="json", exclude={"learning_rate"}) for _, method in parts]
        return tuple({"method": n} | d for (n, _), d in zip(parts, dumped, strict=True))

    @field_validator("code")
    @classmethod
    def _filled_in(cls, value: str, info: Any) -> str:
        names = [part["method"] for part in info.data.get("parts", ())]
        return value or code_digest(*(f"tunetrail.methods.{name}" for name in names))

    @cached_property
    def methods(self) -> list[tuple[str, Method]]:
        """Name and method of every part."""
        return resolved(self.parts)

    def attach(self, model: Classifier) -> None:
        """Attach one part after the other."""
        for _, method in self.methods:
            method.attach(model)

    def fold(self, model: Classifier) -> None:
        """Fold every part."""
        for _, method in self.methods:
            method.fold(model)

    def merge(self, model: Classifier) -> None:
        """Merge every part, if all of them can be."""
        for _, method in self.methods if self.merge_obstacle() is None else ():
            method.merge(model)

    def merge_obstacle(self) -> str | None:
        """The first one of a part."""
        return next((f"{n}: {why}" for n, m in self.methods if (why := m.merge_obstacle())), None)

    def shard_obstacle(self) -> str | None:
        """The first one of a part."""
        return next((f"{n}: {why}" for n, m in self.methods if (why := m.shard_obstacle())), None)

    def claims(self) -> dict[str, str]:
        """Those of all parts."""
        return {place: what for _, m in self.methods for place, what in m.claims().items()}

    def check(self, base: Mapping[str, Any], max_length: int) -> None:
        """Every part must fit, and so must they together: two sites can be one module."""
        refuse_shared(self.methods, base["architecture"])
        for _, method in self.methods:
            method.check(base, max_length)

    def before_step(self, model: Classifier, share: float) -> None:
        """Every part may act."""
        for _, method in self.methods:
            method.before_step(model, share)

    def penalty(self, model: Classifier) -> torch.Tensor | None:
        """The sum of the parts'."""
        found = [method.penalty(model) for _, method in self.methods]
        terms = [term for term in found if term is not None]
        return torch.stack(terms).sum() if terms else None

    def observe(self, model: Classifier) -> dict[str, float]:
        """What every part observes."""
        return {k: v for _, method in self.methods for k, v in method.observe(model).items()}
