"""The model that is trained: a pretrained trunk and a classification head."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tunetrail.errors import TuneTrailError
from tunetrail.modeling import attention
from tunetrail.modeling.projections import make_plain
from tunetrail.modeling.sites import Sites, sites_of

#: Logit of padding where every token has one: no probability is left for it.
_PADDING = -1e4


class Head(nn.Module):
    """Dropout and a linear layer on one vector per text, or per token.

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
        """``(…, size)`` to logits ``(…, classes)``, or numbers ``(…, 1)``."""
        out: torch.Tensor = self.linear(self.dropout(x))
        return out.float() * self.unit + self.middle if self.number else out


class Prompt(nn.Module):
    """Virtual tokens before those of the text; what they are is a method's business."""

    length: int

    def forward(self, embeddings: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Vectors ``(batch, length, hidden)`` to put before token embeddings of that width."""
        raise NotImplementedError


class Classifier(nn.Module):
    """Trunk → pooling → head.

    Pooling ``mean`` averages the token vectors under the mask; ``cls`` uses the trunk's pooler;
    ``last`` takes the last token, which is the only one that has seen all of a text in a decoder;
    with ``none`` the head reads every token of the text.

    Attributes:
        sites: Where methods can attach.
        prompt: Module that makes virtual tokens, or None. The head never sees them.
        mask: Attention mask of the present batch, ``(batch, length)``, virtual tokens included, for
            modules that need to tell tokens from padding.
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
        self.trunk = trunk
        self.head = Head(config.hidden_size, classes, _head_dropout(config), interval)
        self.pooling = pooling
        self.config = config
        self.hidden_size: int = config.hidden_size
        self.sites: Sites = sites_of(config)
        self.prompt: Prompt | None = None
        self.mask: torch.Tensor
        # Without embeddings of segments GPT-2 takes them for tokens and adds those.
        segments = getattr(config, "type_vocab_size", 0) > 0
        self._segments = (
            segments and "token_type_ids" in inspect.signature(trunk.forward).parameters
        )

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor,
    ) -> torch.Tensor:
        """Logits ``(batch, classes)``, or numbers ``(batch, 1)``.

        Token ids, mask and segments have the shape ``(batch, length)``. Without pooling there are
        logits for every token, ``(batch, length, classes)``, those of padding beyond any other.
        """
        virtual = 0 if self.prompt is None else self.prompt.length
        self.mask = nn.functional.pad(attention_mask, (virtual, 0), value=1)
        inputs: dict[str, torch.Tensor] = {"attention_mask": self.mask}
        if self._segments:
            inputs["token_type_ids"] = nn.functional.pad(token_type_ids, (virtual, 0))
        if self.prompt is None:
            inputs["input_ids"] = input_ids
        else:
            tokens = self.module_of_tokens()(input_ids)
            prompt = self.prompt(tokens, attention_mask)
            inputs["inputs_embeds"] = torch.cat([prompt, tokens], dim=1)
        out = self.trunk(**inputs)
        hidden = out.last_hidden_state[:, virtual:] if virtual else out.last_hidden_state
        logits: torch.Tensor = self.head(self._pooled(hidden, attention_mask))
        if self.pooling == "none":
            logits = logits.float().masked_fill(attention_mask.unsqueeze(-1) == 0, _PADDING)
        if torch.onnx.is_in_onnx_export() and not self._segments:
            # Every exported model has the same inputs, and tracing drops what is not used.
            logits = logits + 0 * token_type_ids.sum()
        return logits

    def _pooled(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.pooling == "cls":
            pooler: Any = self.trunk.pooler
            plain = isinstance(pooler, nn.Linear)  # ALBERT's; others look at the first token alone
            pooled: torch.Tensor = pooler(hidden[:, 0]).tanh() if plain else pooler(hidden)
            return pooled
        if self.pooling == "last":
            last = mask.sum(1, keepdim=True).unsqueeze(-1) - 1
            return hidden.gather(1, last.expand(-1, -1, hidden.shape[-1])).squeeze(1)
        if self.pooling == "none":
            return hidden
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1)

    def module_of_tokens(self) -> Any:
        """The embedding of token ids."""
        trunk: Any = self.trunk
        return trunk.get_input_embeddings()

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


def _head_dropout(config: Any) -> float:
    """The head's dropout by the name that the family gives it; 0 where it knows none."""
    names = ("classifier_dropout", "seq_classif_dropout", "hidden_dropout_prob", "resid_pdrop")
    found = [getattr(config, name, None) for name in names]
    return next((float(value) for value in found if value is not None), 0.0)


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
    sites = sites_of(config)
    trunk, loading = AutoModel.from_pretrained(
        base,
        local_files_only=True,
        use_safetensors=True,
        dtype=torch.float32,
        attn_implementation=attention.register() if sites.family.prefixes else "eager",
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
        if name.startswith(sites.family.layers + "."):
            raise TuneTrailError(
                f"base model: config.json in {base} has no place for the weights of '{name}'",
                "use weights and config.json of one model",
            )
    if pooling != "cls":
        trunk.pooler = None  # not used, so neither trained nor counted
    missing = {k for k in loading["missing_keys"] if pooling == "cls" or "pooler" not in k}
    if pooling == "cls" and getattr(trunk, "pooler", None) is None:
        missing.add("pooler")
    if missing:
        raise TuneTrailError(
            f"base model: the weights in {base} lack '{sorted(missing)[0]}'",
            "use complete weights; for a missing pooler, set base.pooling to 'mean'",
        )
    make_plain(trunk, sites)
    torch.manual_seed(seed)
    return Classifier(trunk, config, classes, pooling, interval)
