"""Which entries of weight matrices stand out, and which count least; updates of some entries."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

#: Entries of the sparse part, in what the low-rank part leaves of a matrix.
_THRESHOLD = 0.01
#: Rank of the low-rank part as a share of the full rank: 496 of 768 in DSEE's code.
_RANK = 0.65
_ROUNDS = 2


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
    magnitudes = torch.cat([weight.detach().abs().flatten() for weight in weights])
    count = round(share * magnitudes.numel())
    if count:
        largest = magnitudes.kthvalue(count).values
        for weight in weights:
            weight.masked_fill_(weight.abs() <= largest, 0.0)
