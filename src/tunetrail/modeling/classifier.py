"""The model that is trained: a pretrained trunk and a classification head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from tunetrail.errors import TuneTrailError
from tunetrail.modeling import attention
from tunetrail.modeling.sites import Sites, sites_of


class Head(nn.Module):
    """Dropout and a linear layer on one vector per text.

    Args:
        size: Width of the vector.
        classes: Logits to give; 0 for one number.
        dropout: Probability.
        interval: Lowest and highest label of a number. The layer then works in units of half that
            interval around its middle, so that learning rates mean the same whatever the scale.
    """

    def __init__(
        self, size: int, classes: int, dropout: float, interval: tuple[float, float] | None = None
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(size, classes or 1)
        low, high = interval or (-1.0, 1.0)
        self.number = interval is not None
        self.middle, self.unit = (low + high) / 2, (high - low) / 2
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(batch, size)`` to logits ``(batch, classes)``, or numbers ``(batch, 1)``."""
        out: torch.Tensor = self.linear(self.dropout(x))
        return out.float() * self.unit + self.middle if self.number else out


class Classifier(nn.Module):
    """Trunk → pooling → head.

    Pooling ``mean`` averages the token vectors under the mask; ``cls`` uses the trunk's pooler.
    """

    def __init__(
        self,
        trunk: nn.Module,
        config: Any,
        classes: int,
        pooling: str,
        interval: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        dropout = getattr(config, "classifier_dropout", None)
        self.trunk = trunk
        self.head = Head(
            config.hidden_size,
            classes,
            config.hidden_dropout_prob if dropout is None else dropout,
            interval,
        )
        self.pooling = pooling
        self.hidden_size: int = config.hidden_size
        self.sites: Sites = sites_of(config.model_type, config.num_hidden_layers)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor,
    ) -> torch.Tensor:
        """Logits ``(batch, classes)``, or numbers ``(batch, 1)``.

        Token ids, mask and segments have the shape ``(batch, length)``.
        """
        out = self.trunk(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        )
        if self.pooling == "cls":
            pooled = out.pooler_output
        else:
            weights = attention_mask.unsqueeze(-1).to(out.last_hidden_state.dtype)
            pooled = (out.last_hidden_state * weights).sum(1) / weights.sum(1)
        logits: torch.Tensor = self.head(pooled)
        return logits

    def module(self, path: str) -> Any:
        """The module at ``path`` of the trunk."""
        return self.trunk.get_submodule(path)

    def replace(self, path: str, module: nn.Module) -> None:
        """Put ``module`` at ``path`` of the trunk."""
        parent, _, name = path.rpartition(".")
        setattr(self.trunk.get_submodule(parent), name, module)

    def trained(self) -> dict[str, torch.Tensor]:
        """Name → parameter of everything that trains, head included."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}


def build_classifier(
    base: Path,
    classes: int,
    pooling: str,
    seed: int,
    interval: tuple[float, float] | None = None,
) -> Classifier:
    """Load the trunk from a model folder (safetensors only) and start a head from ``seed``.

    The head depends on the seed alone, so runs of one seed start with the same head whatever the
    method.

    Raises:
        TuneTrailError: The folder holds no model, or one that TuneTrail cannot use.
    """
    # Imported here: it takes seconds, and listing methods should not.
    from transformers import AutoConfig, AutoModel
    from transformers.utils import logging

    # The head is new by intention: the report of missing and unexpected weights is no news.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    config = AutoConfig.from_pretrained(base, local_files_only=True)
    sites = sites_of(config.model_type, config.num_hidden_layers)
    trunk, loading = AutoModel.from_pretrained(
        base,
        local_files_only=True,
        use_safetensors=True,
        dtype=torch.float32,
        attn_implementation=attention.register(),
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # refused below, with names and sizes
    )
    for name, stored, wanted in sorted(loading["mismatched_keys"]):
        raise TuneTrailError(
            f"base model: '{name}' is {tuple(stored)} in the weights in {base} and {tuple(wanted)} "
            "by config.json",
            "use weights and config.json of one model",
        )
    for name in sorted(loading["unexpected_keys"]):
        if name.startswith(sites.layers):
            raise TuneTrailError(
                f"base model: config.json in {base} has no place for the weights of '{name}'",
                "use weights and config.json of one model",
            )
    if pooling == "mean":
        trunk.pooler = None  # not used, so neither trained nor counted
    missing = {k for k in loading["missing_keys"] if pooling != "mean" or "pooler" not in k}
    if pooling == "cls" and getattr(trunk, "pooler", None) is None:
        missing.add("pooler")
    if missing:
        raise TuneTrailError(
            f"base model: the weights in {base} lack '{sorted(missing)[0]}'",
            "use complete weights; for a missing pooler, set base.pooling to 'mean'",
        )
    torch.manual_seed(seed)
    return Classifier(trunk, config, classes, pooling, interval)
