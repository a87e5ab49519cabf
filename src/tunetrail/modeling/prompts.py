"""Virtual tokens before the text: at the embeddings, and renewed in every layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from tunetrail.errors import TuneTrailError
from tunetrail.modeling.classifier import Classifier, Prompt
from tunetrail.modeling.gates import Gate


class SoftPrompt(Prompt):
    """The same vectors before every text, behind a gate of its token embeddings if there is one.

    Args:
        vectors: How they start, ``(length, embedding size)``.
        gate: Multiplies them, text by text.
    """

    def __init__(self, vectors: torch.Tensor, gate: Gate | None = None) -> None:
        super().__init__()
        self.length = len(vectors)
        self.vectors = nn.Parameter(vectors)
        self.gate = gate

    def forward(self, embeddings: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """``(batch, length, embedding size)``."""
        prompt = self.vectors.to(embeddings.dtype).expand(embeddings.shape[0], -1, -1)
        return prompt if self.gate is None else prompt * self.gate(embeddings)


class LayerPrompts(nn.Module):
    """New vectors in the place of the virtual tokens, at the entrance of every layer but the first.

    Args:
        vectors: How they start, ``(layers - 1, length, hidden)``.
    """

    def __init__(self, vectors: torch.Tensor) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors)

    def enter(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states ``(batch, length, hidden)`` with their first ones replaced."""
        new = self.vectors[index].to(hidden.dtype).expand(hidden.shape[0], -1, -1)
        return torch.cat([new, hidden[:, self.vectors.shape[1] :]], dim=1)


class Fourier(nn.Module):
    """Parametrisation of vectors ``(…, length, size)``: of the first ``count`` of them, what is
    seen is the real part of their Fourier transform over ``tokens``, ``features`` or ``both``.
    """

    def __init__(self, count: int, over: str) -> None:
        super().__init__()
        self.count = count
        self.dimensions = {"tokens": (-2,), "features": (-1,), "both": (-2, -1)}[over]

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """The same shape."""
        first, others = vectors[..., : self.count, :], vectors[..., self.count :, :]
        return torch.cat([torch.fft.fftn(first, dim=self.dimensions).real, others], dim=-2)


def renew_in_layers(model: Classifier, vectors: torch.Tensor) -> None:
    """Give a model that has a prompt new virtual tokens in every layer but the first."""
    prompts = LayerPrompts(vectors)
    model.add_module("layer_prompts", prompts)
    for index, path in enumerate(model.sites.layers()[1:]):

        def before(_: nn.Module, args: Any, index: int = index) -> Any:
            return (prompts.enter(index, args[0]), *args[1:])

        model.module(path).register_forward_pre_hook(before)


#: Between ±0.5, or the vectors of tokens drawn from the vocabulary.
Init = Literal["uniform", "vocabulary"]


def first_vectors(model: Classifier, length: int, init: Init) -> torch.Tensor:
    """How virtual tokens at the embeddings start, ``(length, embedding size)``."""
    tokens = model.module_of_tokens()
    if init == "uniform":
        return uniform(length, tokens.embedding_dim)
    drawn = torch.randint(tokens.num_embeddings, (length,), device="cpu")
    vectors: torch.Tensor = tokens.weight.detach()[drawn.to(tokens.weight.device)].clone()
    return vectors


def uniform(*shape: int) -> torch.Tensor:
    """Uniform between ±0.5."""
    return torch.empty(*shape).uniform_(-0.5, 0.5)


def check_positions(option: str, length: int, base: Mapping[str, Any], max_length: int) -> None:
    """Refuse virtual tokens that, together with a text, need more positions than there are.

    Raises:
        TuneTrailError: With ``option`` (method and name) and its value.
    """
    if length + max_length > base["max_positions"]:
        raise TuneTrailError(
            f"{option} is {length}, and with base.max_length {max_length} "
            f"that is more than the model's {base['max_positions']} positions",
            f"lower base.max_length to {base['max_positions'] - length}, or the length",
        )
