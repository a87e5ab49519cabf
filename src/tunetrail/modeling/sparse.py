"""Single entries of pretrained tensors that train while the rest stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

import torch
from torch import nn
from torch.nn.utils import parametrize


class Entries(nn.Module):
    """A frozen tensor with some entries that train: what they change by is a parameter.

    Args:
        index: Which entries of the flattened tensor, ``(entries,)``, each once.
    """

    index: torch.Tensor

    def __init__(self, index: torch.Tensor) -> None:
        super().__init__()
        # Found anew from the base weights whenever the model is built, so it need not be saved.
        self.register_buffer("index", index, persistent=False)
        self.change = nn.Parameter(torch.zeros(len(index)))

    def forward(self, original: torch.Tensor) -> torch.Tensor:
        """The tensor with its trained entries, in its own shape."""
        return original.flatten().index_add(0, self.index, self.change).view_as(original)


def pretrained(trunk: nn.Module, *, embeddings: bool) -> Iterator[tuple[nn.Module, str]]:
    """Module and name of every frozen parameter of ``trunk``, embeddings only if wanted."""
    seen: set[nn.Parameter] = set()
    for module in trunk.modules():
        if isinstance(module, nn.Embedding) and not embeddings:
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter not in seen and not parameter.requires_grad:
                seen.add(parameter)
                yield module, name


def smallest(tensors: list[torch.Tensor], share: float) -> list[torch.Tensor]:
    """Flat indices of the ``share`` of all entries that are smallest in magnitude.

    Exactly ``share`` of the entries (rounded, at least one); of equal ones the first.

    Returns:
        Indices for each tensor, in ascending order.
    """
    magnitudes = torch.cat([tensor.detach().abs().flatten() for tensor in tensors])
    count = max(1, round(share * len(magnitudes)))
    if magnitudes.is_meta:  # no numbers to compare, only entries to count
        sizes = [tensor.numel() for tensor in tensors]
        starts = accumulate(sizes, initial=0)
        return [
            torch.arange(max(0, min(size, count - start)))
            for size, start in zip(sizes, starts, strict=False)
        ]
    bound = magnitudes.kthvalue(count).values
    below = magnitudes < bound
    equal = (magnitudes == bound).nonzero().flatten()
    below[equal[: count - int(below.sum())]] = True
    parts: tuple[torch.Tensor, ...] = torch.split_with_sizes(below, [t.numel() for t in tensors])
    return [part.nonzero().flatten() for part in parts]


def train_entries(module: nn.Module, name: str, index: torch.Tensor) -> None:
    """Let the entries ``index`` of ``module``'s parameter ``name`` train."""
    parametrize.register_parametrization(module, name, Entries(index))


@torch.no_grad()
def settle_entries(trunk: nn.Module) -> None:
    """Write all trained entries into their tensors and drop what made them trainable."""
    for module in list(trunk.modules()):
        for name, steps in list(getattr(module, "parametrizations", {}).items()):
            if isinstance(steps[0], Entries):
                parametrize.remove_parametrizations(module, name)
