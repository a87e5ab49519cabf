"""Any adapter of the peft library (an overview of such methods: arXiv 2303.15647)."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator

from tunetrail.methods import Method
from tunetrail.modeling import peft_bridge
from tunetrail.modeling.classifier import Classifier
from tunetrail.modeling.sites import PROJECTIONS

Site = Literal[
    "query", "key", "value", "attention_dense", "ffn_in", "ffn_out", "attention_norm", "ffn_norm"
]
_SITES: dict[str, tuple[Site, ...]] = {
    "IA3": ("key", "value", "ffn_out"),
    "LN_TUNING": ("attention_norm", "ffn_norm"),
}


class PeftAdapter(Method):
    """One of peft's own kinds of adapter, such as DORA, VERA, OFT, BOFT, ADALORA, LOHA or HRA.

    ``config`` is peft's own. Kinds that add tokens are methods here. Most others start at the base.
    """

    title: ClassVar[str] = "peft adapter"
    paper: ClassVar[str] = "arXiv 2303.15647"
    verified: ClassVar[str | None] = "peft"
    not_shardable: ClassVar[str | None] = "layers of peft may share or move whole tensors"

    learning_rate: float = Field(default=1e-3, gt=0, description="peak learning rate")
    config: dict[str, Any] = Field(
        default={"peft_type": "DORA"}, description="peft_type, and settings as peft names them"
    )
    sites: tuple[Site, ...] | None = Field(
        default=None,
        min_length=1,
        description="layers to adapt; default: query and value, or what suits the kind",
    )

    @field_validator("config")
    @classmethod
    def _known(cls, value: dict[str, Any]) -> dict[str, Any]:
        peft_bridge.config_of(value)
        if "layers_to_transform" in value and "target_modules" not in value:
            raise ValueError("layers_to_transform counts layers of target_modules: give both")
        return value

    @field_validator("sites")
    @classmethod
    def _once(cls, value: tuple[Site, ...] | None, info: Any) -> tuple[Site, ...] | None:
        if value is not None and len(set(value)) != len(value):
            raise ValueError("a site can be named once")
        if value is not None and "target_modules" in info.data.get("config", {}):
            raise ValueError("config.target_modules says already which layers are adapted")
        return value

    def chosen(self) -> tuple[Site, ...]:
        """Sites to adapt; none where the configuration names modules itself."""
        if "target_modules" in self.config:
            return ()
        return self.sites or _SITES.get(peft_bridge.kind_of(self.config), ("query", "value"))

    def attach(self, model: Classifier) -> None:
        """Let peft put its layers into the trunk."""
        trunk, sites = model.trunk, self.chosen()
        names = {s: peft_bridge.short_names(trunk, model.sites.paths(s)) for s in sites}
        every = [name for found in names.values() for name in found]
        config = peft_bridge.config_of(self.config, every, names.get("ffn_out", ()))
        model.add_module("peft", peft_bridge.PeftTuner(config, trunk))

    def merge(self, model: Classifier) -> None:
        """Let peft fold its layers into the base model's."""
        peft_bridge.tuner_of(model).merge()
        del model.peft

    def merge_obstacle(self) -> str | None:
        """Few kinds have one."""
        return peft_bridge.obstacle(self.config)

    def claims(self) -> dict[str, str]:
        """Its sites, all of them if it names modules itself; a trunk has one tuner of peft."""
        return dict.fromkeys(("peft", "weights", *(self.chosen() or PROJECTIONS)), "a peft adapter")

    def check(self, base: Mapping[str, Any], max_length: int) -> None:
        """Settings must fit the sizes of the layers."""
        if sites := self.chosen():
            config = peft_bridge.config_of(self.config, sites, ["ffn_out"])
            peft_bridge.check_sizes(config, sites, base)

    def before_step(self, model: Classifier, share: float) -> None:
        """Kinds that move rank between layers do so between steps."""
        peft_bridge.tuner_of(model).before_step(share)

    def penalty(self, model: Classifier) -> torch.Tensor | None:
        """The kind's own, where it has one."""
        return peft_bridge.tuner_of(model).penalty()
