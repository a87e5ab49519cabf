"""Gates: one factor between 0 and 1 for each text, computed from its hidden states."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from tunetrail.modeling.across import summed_numbers
from tunetrail.modeling.classifier import Classifier


class Gate(nn.Module):
    """sigmoid(w·x + b), averaged over the tokens of a text.

    Starts at N(0, 0.02) and zero, so near one half.

    Args:
        size: Width of the hidden states.
        mask: Called for the attention mask, ``(batch, length)``, if padding is left out of the
            average; None averages over padding too, as the authors' code does, and then a text has
            another gate in another batch.
        of: What it lets through, for people.
    """

    def __init__(
        self, size: int, mask: Callable[[], torch.Tensor] | None, of: str = "gate"
    ) -> None:
        super().__init__()
        self.of = of
        self.linear = nn.Linear(size, 1)
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)
        self._mask = mask
        self._sum, self._count = 0.0, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(batch, length, size)`` to ``(batch, 1, 1)``."""
        open_ = torch.sigmoid(self.linear(x))
        if self._mask is None:
            gate = open_.mean(dim=1, keepdim=True)
        else:
            weights = self._mask().unsqueeze(-1).to(open_.dtype)
            gate = (open_ * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True)
        if not self.training and not torch.onnx.is_in_onnx_export():
            self._sum += float(gate.detach().sum())
            self._count += len(gate)
        return gate

    def mean(self) -> float:
        """Mean over the texts that were predicted since the last call."""
        total, count = summed_numbers([self._sum, float(self._count)], self.linear.weight)
        mean = total / max(count, 1)
        self._sum, self._count = 0.0, 0
        return mean


class GatedInput(nn.Module):
    """A layer whose input decides the gate of something else, such as a prefix."""

    def __init__(self, base: nn.Module, gate: Gate) -> None:
        super().__init__()
        self.base = base
        self.gate = gate
        self._value: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the layer computes; the gate is kept for :meth:`value`."""
        self._value = self.gate(x).unsqueeze(-1)
        out: torch.Tensor = self.base(x)
        return out

    def value(self) -> torch.Tensor:
        """The gate of the present batch, ``(batch, 1, 1, 1)``."""
        if self._value is None:
            raise RuntimeError("the gate is asked for before its input was seen")
        return self._value


def gate_means(model: Classifier) -> dict[str, float]:
    """Mean of every gate since the last call, by ``LAYER WHAT``, or ``WHAT`` outside the layers."""
    return {
        " ".join([*layer_of(model, name), gate.of]): gate.mean()
        for name, gate in model.named_modules()
        if isinstance(gate, Gate)
    }


def layer_of(model: Classifier, name: str) -> list[str]:
    """The number of the layer that a module of ``model`` is in, if it is in one."""
    layers = enumerate(model.sites.layers())
    return [str(index) for index, path in layers if f"{name}.".startswith(f"trunk.{path}.")]
