"""Attention as TuneTrail runs it, registered with transformers' attention interface."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

NAME = "tunetrail"

#: Where modules keep the dropout of their attention weights.
_DROPOUTS = ("attention_dropout", "attn_dropout", "dropout")


def attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """softmax(q·kᵀ·scaling + mask)·v with every step spelled out.

    On CPU this is faster than the fused kernels in training, and its ONNX graph is the faster one.
    Dropout is the module's own where it has one, so that a replaced dropout is used here as well.

    Args:
        module: The layer's attention module. A module ``prefix`` of it may add keys and values
            before all others.
        query: ``(batch, heads, length, head size)``.
        key: As ``query``; fewer heads are shared by groups of query heads.
        value: As ``key``.
        attention_mask: Additive, broadcastable to ``(batch, heads, length, length)``, or None.
        scaling: Factor on the scores.
        dropout: Probability, where the module has no dropout of its own.

    Returns:
        Output ``(batch, length, heads, head size)`` and the weights.
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    prefix = getattr(module, "prefix", None)
    if prefix is not None:
        key, value, attention_mask = prefix(key, value, attention_mask)
    scores = torch.matmul(query * scaling, key.transpose(2, 3))
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = _dropped(module, nn.functional.softmax(scores, dim=-1), dropout)
    output = torch.matmul(weights.to(value.dtype), value).transpose(1, 2).contiguous()
    return output, weights


def _dropped(module: Any, weights: torch.Tensor, dropout: float) -> torch.Tensor:
    for name in _DROPOUTS:
        own = getattr(module, name, None)
        if isinstance(own, nn.Module):
            dropped: torch.Tensor = own(weights)
            return dropped
    return nn.functional.dropout(weights, dropout, training=dropout > 0)


def register() -> str:
    """Register the function and its mask with transformers and return the name to ask for."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, eager_mask)
    return NAME
