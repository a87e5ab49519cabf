"""Reflections of what enters and leaves a linear layer, block by block."""

from __future__ import annotations

import math

import torch
from torch import nn

from tunetrail.errors import TuneTrailError


class Reflection(nn.Module):
    """H·x with H = I − 2uuᵀ in every block of x, or I − uuᵀ + vvᵀ if ``relaxed``.

    Of u and v only the direction counts. v starts at −u, so a relaxed reflection starts at exactly
    the identity.

    Args:
        size: Width of x.
        blocks: Equal parts of x that are reflected each on its own.
        relaxed: With a second vector.

    Raises:
        TuneTrailError: The blocks do not divide the size.
    """

    def __init__(self, size: int, blocks: int, *, relaxed: bool) -> None:
        super().__init__()
        check_blocks({size}, blocks, "reflection")
        self.blocks = blocks
        # Kaiming uniform with a = √5 for blocks as rows. Vectors, so that they are not decayed.
        bound = (blocks / size) ** 0.5
        self.u = nn.Parameter(torch.empty(size).uniform_(-bound, bound))
        self.v = nn.Parameter(-self.u.detach()) if relaxed else None

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """H·x − x, shape ``(…, size)`` in and out."""
        along_u = self._along(self.u, x)
        return -2 * along_u if self.v is None else self._along(self.v, x) - along_u

    def _along(self, vector: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The part of every block of ``x`` that lies along that block of ``vector``."""
        unit = nn.functional.normalize(vector.view(self.blocks, -1), dim=-1)
        parts = x.view(*x.shape[:-1], *unit.shape)
        along: torch.Tensor = (parts * unit).sum(-1, keepdim=True) * unit
        return along.flatten(-2)


class ReflectedLinear(nn.Module):
    """H'·W·H·x + b, with H or H' the identity where there is no reflection.

    H and H' never become matrices: the reflections act on the layer's inputs and outputs.
    """

    def __init__(
        self, base: nn.Linear, inputs: Reflection | None, outputs: Reflection | None = None
    ) -> None:
        super().__init__()
        self.base = base
        self.inputs = inputs
        self.outputs = outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape ``(…, in)`` to ``(…, out)``."""
        out: torch.Tensor = self.base(x if self.inputs is None else x + self.inputs.change(x))
        if self.outputs is None:
            return out
        bias = self.base.bias  # is added after H', so it is not reflected
        return out + self.outputs.change(out if bias is None else out - bias)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The base layer with H'·W·H as its weight."""
        weight = self.base.weight
        if self.inputs is not None:
            weight = weight + self.inputs.change(weight)
        if self.outputs is not None:
            weight = weight + self.outputs.change(weight.T).T
        self.base.weight.copy_(weight)
        return self.base


def check_blocks(sizes: set[int], blocks: int, method: str) -> None:
    """Refuse blocks that do not divide every size.

    Raises:
        TuneTrailError: With the numbers of blocks that do.
    """
    common = math.gcd(*sizes)
    if common % blocks:
        divisors = ", ".join(str(n) for n in range(1, common + 1) if common % n == 0)
        sides = " and ".join(map(str, sorted(sizes)))
        raise TuneTrailError(
            f"{method}: blocks is {blocks}, which does not divide {sides}, the width of what is "
            "reflected",
            f"give one of {divisors}",
        )
