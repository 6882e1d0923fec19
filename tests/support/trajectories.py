"""Weights of many trainings at their checkpoints: tiny transformers that really train, and walks that need none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pythiageo.series.files.slices import EMBEDDING, MIDDLE, Placed, Rows, choose_matrices
from pythiageo.synthetic.model import Shape
from pythiageo.synthetic.trainable import GPT2

SHAPE = Shape(3, 64, 4, 256, 32, 400, False)
LOG = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
Sample = dict[str, Rows]


def batches(seed: int, language: int = 0) -> Callable[[], Tensor]:
    """Return a source of batches of a Markov language: a fixed successor in half of all cases, else Zipf's law."""
    chooser, draw = torch.Generator().manual_seed(language), torch.Generator().manual_seed(seed)
    successor = torch.randperm(SHAPE.vocab, generator=chooser)
    weights = 1 / torch.arange(1, SHAPE.vocab + 1).float()

    def batch() -> Tensor:
        ids = torch.multinomial(weights, 16 * 32, replacement=True, generator=draw).reshape(16, 32)
        follow = torch.rand(16, 32, generator=draw) < 0.5
        for at in range(1, 32):
            ids[:, at] = torch.where(follow[:, at], successor[ids[:, at - 1]], ids[:, at])
        return ids

    return batch


class Training:
    """A tiny transformer under AdamW; ``go`` trains on, ``sample`` looks at what an audit by value looks at."""

    def __init__(self, seed: int, order: int | None = None) -> None:
        self.model = GPT2(SHAPE, seed)
        self.optimiser = torch.optim.AdamW(self.model.module.parameters(), betas=(0.9, 0.95), weight_decay=0.1)
        self.batch = batches(seed if order is None else order)

    def go(self, rates: Sequence[float]) -> None:
        """Take a step at each of these learning rates."""
        for rate in rates:
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            ids = self.batch()
            scored = torch.ones(ids.shape, dtype=torch.bool)
            scored[:, -1] = False
            loss = torch.nn.functional.cross_entropy(self.model.scored_logits(ids, scored), ids[:, 1:].flatten())
            self.optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.module.parameters(), 1.0)
            self.optimiser.step()

    def sample(self, dtype: torch.dtype = torch.float32) -> Sample:
        return sample(self.model.export()[1], dtype)


def sample(tensors: dict[str, Tensor], dtype: torch.dtype = torch.float32, most: int = 256) -> Sample:
    """Return the rows that an audit by value would read of these tensors, stored in ``dtype``."""
    placed = [Placed(name, "", 0, "F32", tuple(tensor.shape)) for name, tensor in tensors.items()]
    found = {}
    for role, one in choose_matrices(placed).items():
        count = min(one.shape[0], most)
        first = (one.shape[0] - count) // 2
        values = tensors[one.name].detach()[first : first + count].to(dtype, copy=True)
        found[role] = Rows(one.name, one.shape, first, values)
    return found


def rate(step: int, steps: int, peak: float = 2e-3, warmup: int = 100, floor: float = 0.1) -> float:
    """Return a learning rate that warms up and falls in a straight line to ``floor`` of its peak."""
    if step < warmup:
        return peak * step / warmup
    return peak * (1 - (1 - floor) * (step - warmup) / max(1, steps - warmup))


def train(training: Training, steps: Sequence[int], rates: Callable[[int], float], begin: int = 0) -> dict[int, Sample]:
    """Train from ``begin`` on and return a sample at each of ``steps``."""
    found, at = {}, begin
    for step in sorted(steps):
        training.go([rates(one) for one in range(at, step)])
        at = step
        found[step] = training.sample()
    return found


def walk(
    steps: Sequence[int],
    generator: torch.Generator,
    drift: float,
    noise: float,
    pull: float = 0.0,
    shape: tuple[int, int] = (64, 128),
) -> dict[int, Sample]:
    """Return a walk from an initialisation: a straight drift, noise that grows with the root of the steps, and a
    ``pull`` back towards the path without noise (1: every checkpoint has noise of its own)."""
    draw = lambda: torch.randn(shape, generator=generator)  # noqa: E731
    start = {role: draw() * 0.02 for role in (EMBEDDING, MIDDLE)}
    toward = {role: draw() for role in start}
    off = {role: torch.zeros(shape) for role in start}
    found, before = {}, steps[0]
    last = steps[-1]
    for step in steps:
        gap = (step - before) / last
        scale = noise * (1.0 if pull else gap**0.5) * (step > 0)
        off = {role: (1 - pull) * there + scale * draw() for role, there in off.items()}
        before = step
        found[step] = {
            role: Rows(role, shape, 0, start[role] + drift * toward[role] * (step / last) ** 0.5 + off[role])
            for role in start
        }
    return found
