"""Which prompts of the evaluation training has met, and when first; and which are kept from it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from jaxtyping import Int
from torch import Tensor

NEVER = -1


class Exposure:
    """The optimiser step at which training first drew each of some prompts, ``NEVER`` where it has not yet.

    It holds those prompts and a number for each, however long training is. Prompts are compared as whole texts, solved
    examples before the question included.
    """

    def __init__(self, prompts: Iterable[str]) -> None:
        self._first = dict.fromkeys(prompts, NEVER)

    def note(self, prompts: Iterable[str], step: int) -> None:
        """Note the prompts of the batch of a step; steps come in order."""
        for prompt in prompts:
            if self._first.get(prompt) == NEVER:
                self._first[prompt] = step

    def met(self) -> frozenset[str]:
        """Return the prompts that training has met."""
        return frozenset(prompt for prompt, step in self._first.items() if step != NEVER)

    def steps(self) -> Int[Tensor, " prompt"]:
        """Return the step of each prompt, in the order in which they were given."""
        return torch.tensor(list(self._first.values()), dtype=torch.int64)

    def restore(self, steps: Int[Tensor, " prompt"]) -> None:
        """Go back to what ``steps`` gave.

        Raises:
            ValueError: it was of another number of prompts.
        """
        self._first = dict(zip(self._first, steps.tolist(), strict=True))


def is_held_out(prompt: str, share: float) -> bool:
    """Return whether a prompt is among the ``share`` of all prompts that training never draws.

    By the first 8 bytes of sha256 of its text: the same in every run, and what a smaller share holds out a larger one
    does too.
    """
    return share > 0 and int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big") < share * 2.0**64
