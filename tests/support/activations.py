"""States as trained decoders have them: content of a low rank, noise, a common mean, massive activations."""

from __future__ import annotations

import torch
from torch import Tensor


def plant_states(rows: int, width: int, massive: float = 0.0, seed: int = 0) -> Tensor:
    """Return float32 states; ``massive``: how many times the norm of the others one row in thirty has.

    It lies in two dimensions and varies by 3%; one row in ninety has a third of it in another dimension.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    states = normal(rows, 64) @ normal(64, width) / 8 + 0.01 * normal(rows, width) + 10 * normal(width)
    if massive:
        size = massive * float(states.norm(dim=1).median())
        for first, every, share, dimensions in ((0, 30, 1.0, (7, 11)), (7, 90, 0.3, (width // 3,))):
            chosen = torch.arange(first, rows, every)
            for number, dimension in enumerate(dimensions):
                states[chosen, dimension] += share * size * 0.5**number * (1 + 0.03 * normal(len(chosen)))
    return states
