"""Attention as TuneTrail runs it, registered with transformers' attention interface."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

NAME = "tunetrail"


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
    Dropout is the module's own, so that a replaced dropout is used here as well.

    Args:
        module: The layer's attention module; ``module.dropout`` is applied to the weights.
        query: ``(batch, heads, length, head size)``, as are ``key`` and ``value``.
        key: See ``query``.
        value: See ``query``.
        attention_mask: Additive, broadcastable to ``(batch, heads, length, length)``, or None.
        scaling: Factor on the scores.
        dropout: Probability that transformers passes on; the module's own value is used.

    Returns:
        Output ``(batch, length, heads, head size)`` and the weights.
    """
    scores = torch.matmul(query * scaling, key.transpose(2, 3))
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = module.dropout(nn.functional.softmax(scores, dim=-1))
    output = torch.matmul(weights.to(value.dtype), value).transpose(1, 2).contiguous()
    return output, weights


def register() -> str:
    """Register the function and its mask with transformers and return the name to ask for."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, eager_mask)
    return NAME
