"""Tokens that skip the feed-forward sublayer, by a gate that is learned, and an adapter for all."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from tunetrail.modeling.across import several, summed, summed_numbers
from tunetrail.modeling.bottleneck import Bottleneck
from tunetrail.modeling.classifier import Classifier


def hard_gate(logits: torch.Tensor, tau: float, noise: torch.Tensor | None) -> torch.Tensor:
    """1 where the sigmoid of ``logits`` is above one half, else 0, with the sigmoid's gradient.

    With noise, as in training, the sigmoid is that of (logits + noise) / tau.
    """
    soft = torch.sigmoid(logits if noise is None else (logits + noise) / tau)
    hard = (soft > 0.5).to(soft.dtype)
    if not torch.is_grad_enabled() or torch.onnx.is_in_onnx_export():
        return hard
    return hard + (soft - soft.detach())


def gumbel_noise(logits: torch.Tensor) -> torch.Tensor:
    """Difference of two Gumbel variables for each of ``logits``, from torch's generator."""
    one, two = (-torch.empty_like(logits).exponential_().log() for _ in range(2))
    return one - two


class Router(nn.Module):
    """Decides for each token whether it enters a feed-forward sublayer, and adapts every token.

    Args:
        adapter: What it gives is added for every token.
        size: Width of the hidden states.
        tau: Temperature of the gate in training.
        tokens: Called for the attention mask ``(batch, length)`` and the place of the first token
            of a text; that one always enters.
        skips: Whether, in prediction, tokens that do not enter are left out of the computation
            instead of being multiplied by zero.

    Attributes:
        share: Of the tokens of the last batch, those that entered: a scalar with a gradient.
    """

    def __init__(
        self,
        adapter: Bottleneck,
        size: int,
        tau: float,
        tokens: Callable[[], tuple[torch.Tensor, int]],
        skips: bool,
    ) -> None:
        super().__init__()
        self.adapter = adapter
        self.gate = nn.Linear(size, 1)
        nn.init.trunc_normal_(self.gate.weight, std=0.02)
        nn.init.zeros_(self.gate.bias)
        self.tau = tau
        self.skips = skips
        self._tokens = tokens
        self._seen = [0.0, 0.0]
        self._open: torch.Tensor
        self._added: torch.Tensor
        self.share: torch.Tensor

    def enter(self, x: torch.Tensor) -> torch.Tensor:
        """What enters: ``x`` of shape ``(batch, length, size)``, or its chosen ``(tokens, size)``.

        The gate and the adapter read ``x`` as well.
        """
        mask, first = self._tokens()
        logits = self.gate(x)
        gate = hard_gate(logits, self.tau, gumbel_noise(logits) if self.training else None)
        always = torch.ones_like(gate[:, first : first + 1])
        self._open = torch.cat([gate[:, :first], always, gate[:, first + 1 :]], dim=1)
        self._added = self.adapter.delta(x)
        if torch.onnx.is_in_onnx_export():
            return x
        counted = mask.unsqueeze(-1).to(gate.dtype)
        counted[:, first] = 0
        entered, all_ = (self._open * counted).sum(), counted.sum()
        if self.training and several():  # the share is that of the batch, of which this is a part
            entered, all_ = summed(torch.stack([entered, all_]).float())
        all_ = all_.clamp(min=1)
        self.share = entered / all_
        if not self.training:
            self._seen = [self._seen[0] + float(entered.detach()), self._seen[1] + float(all_)]
        if not self._skipping():
            return x
        self._open = (self._open * mask.unsqueeze(-1)).squeeze(-1).bool()
        return x[self._open]

    def leave(self, out: torch.Tensor) -> torch.Tensor:
        """The sublayer's output: ``out`` where a token entered, and the adapter's part."""
        if not self._skipping():
            return out * self._open + self._added
        whole = out.new_zeros(self._added.shape)
        whole[self._open] = out
        return whole + self._added

    def _skipping(self) -> bool:
        idle = not self.training and not torch.is_grad_enabled()
        return self.skips and idle and not torch.onnx.is_in_onnx_export()

    def mean(self) -> float:
        """Share of the tokens that entered since the last call, in prediction."""
        entered, all_ = summed_numbers(self._seen, self.gate.weight)
        self._seen = [0.0, 0.0]
        return entered / max(all_, 1.0)


class Entrance(nn.Module):
    """The first module of a sublayer behind a router."""

    def __init__(self, base: nn.Module, router: Router) -> None:
        super().__init__()
        self.base = base
        self.router = router

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape ``(batch, length, size)`` to what the module gives for the tokens that enter."""
        out: torch.Tensor = self.base(self.router.enter(x))
        return out


class Exit(nn.Module):
    """The last module of a sublayer before the residual."""

    def __init__(self, base: nn.Module, router: Router) -> None:
        super().__init__()
        self.base = base
        self._shared = (router,)  # a submodule of the entrance

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the module gives for the tokens that entered, to ``(batch, length, size)``."""
        return self._shared[0].leave(self.base(x))


def add_routers(model: Classifier, width: int, dropout: float, tau: float, skip: bool) -> None:
    """Put a router with an adapter of ``width`` around the feed-forward sublayer of every layer."""

    def tokens() -> tuple[torch.Tensor, int]:
        return model.mask, 0 if model.prompt is None else model.prompt.length

    size = model.hidden_size
    skips = skip and not model.sites.family.gated_ffn
    ends = zip(model.sites.paths("ffn_in"), model.sites.paths("ffn_output"), strict=True)
    for first, last in ends:
        activation = nn.Sequential(nn.ReLU(), nn.Dropout(dropout))
        adapter = Bottleneck(size=size, bottleneck=width, activation=activation)
        adapter.start_at_zero()
        router = Router(adapter, size, tau, tokens, skips)
        model.replace(first, Entrance(model.module(first), router))
        model.replace(last, Exit(model.module(last), router))


def routers(model: nn.Module) -> dict[str, Router]:
    """Every router of a model by its place."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Router)}
