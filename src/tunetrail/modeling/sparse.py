"""Single entries of weights: which count least or stand out, and updates of those alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import accumulate

import torch
from torch import nn
from torch.nn.utils import parametrize

#: Entries of the sparse part, in what the low-rank part leaves of a matrix.
_THRESHOLD = 0.01
#: Rank of the low-rank part as a share of the full rank: 496 of 768 in DSEE's code.
_RANK = 0.65
_ROUNDS = 2


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


def outstanding(weight: torch.Tensor, count: int) -> torch.Tensor:
    """Flat indices of the ``count`` largest entries of the sparse part of ``weight``, sorted.

    The matrix is decomposed into a low-rank and a sparse part, each in turn fitted to what the
    other leaves (GoDec). DSEE's code grows the low-rank part greedily from random vectors
    (GreBsmo): its choice depends on the draw and, through the last digits, on the number of
    threads, so it cannot be repeated from the weights. This one can, and costs a hundredth.

    Args:
        weight: ``(out, in)``.
        count: Entries to choose.
    """
    if weight.is_meta:  # no numbers to choose by, only entries to count
        return torch.arange(count, device="cpu")
    matrix = weight.detach().double()
    sparse = torch.zeros_like(matrix)
    for _ in range(_ROUNDS):
        rest = matrix - _low_rank(matrix - sparse, round(_RANK * min(matrix.shape)))
        sparse = torch.where(rest.abs() < _THRESHOLD, 0.0, rest)
    order = rest.abs().flatten().argsort(descending=True, stable=True)
    return torch.sort(order[:count]).values


def _low_rank(matrix: torch.Tensor, rank: int) -> torch.Tensor:
    """The nearest matrix of ``rank``."""
    if matrix.shape[0] < matrix.shape[1]:
        return _low_rank(matrix.T, rank).T
    _, vectors = torch.linalg.eigh(matrix.T @ matrix)  # in ascending order of the eigenvalues
    leading = vectors[:, -rank:]
    nearest: torch.Tensor = matrix @ leading @ leading.T
    return nearest


class SparseUpdate(nn.Module):
    """A matrix with trained values at fixed places and zeros elsewhere; starts at zero.

    Places are not saved. Their digest is in the parameter's name, so that saved values can never be
    put at other places.

    Args:
        places: Flat indices, sorted.
        width: Columns of the matrix.
    """

    def __init__(self, places: torch.Tensor, width: int) -> None:
        super().__init__()
        self.rows: torch.Tensor
        self.columns: torch.Tensor
        self.register_buffer("rows", places // width, persistent=False)
        self.register_buffer("columns", places % width, persistent=False)
        self._name = "at_" + hashlib.sha256(places.numpy().tobytes()).hexdigest()[:16]
        self.register_parameter(self._name, nn.Parameter(torch.zeros(len(places))))

    def values(self) -> torch.Tensor:
        """The values, in the order of their places."""
        return self.get_parameter(self._name)

    def add_to(self, out: torch.Tensor, x: torch.Tensor, scale: float) -> torch.Tensor:
        """``out`` plus what the matrix makes of ``x``, scaled: ``(…, in)`` to ``(…, out)``."""
        products = x[..., self.columns] * (self.values() * scale)
        return out.index_add(-1, self.rows, products.to(out.dtype))


@torch.no_grad()
def zero_smallest(weights: list[torch.Tensor], share: float) -> None:
    """Set the ``share`` of all entries of ``weights`` with the smallest magnitude to zero."""
    if share > 0:
        for weight, index in zip(weights, smallest(weights, share), strict=True):
            weight.view(-1)[index] = 0.0
