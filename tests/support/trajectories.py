"""Weights of many trainings at their checkpoints: tiny transformers that really train, and walks that need none."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pythiageo.series.files.slices import EMBEDDING, MIDDLE, Placed, Rows, choose_matrices
from pythiageo.synthetic.model import Shape
from pythiageo.synthetic.trainable import GPT2

SHAPE = Shape(3, 64, 4, 256, 32, 400, False)
LOG = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
GRIDS = {
    "log": [*LOG, *range(1000, 10_001, 1000)],
    "even": [*range(0, 30_001, 1000)],
    "coarse": [0, *(1000 * 2**k for k in range(6))],
}
WALKS = {
    "noise": (0.0, 0.02, 0.0), "drift": (0.05, 0.002, 0.0), "both": (0.03, 0.02, 0.0), "pulled back": (0.03, 0.01, 0.3),
    "scatter": (0.03, 0.01, 1.0),
}  # fmt: skip
"""Drift, noise and pull of walks; see ``walk``."""
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


def train_every_kind(seed: int) -> dict[str, dict[int, Sample]]:
    """Return series of every kind of training that an audit must not take for a fault; about 10,000 steps."""
    even = range(0, 2001, 100)
    log = [*LOG, *range(600, 2001, 100)]
    return {
        "plain": train(Training(seed), log, lambda step: rate(step, 2000)),
        "data": train(Training(seed, order=100 + seed), log, lambda step: rate(step, 2000)),
        "hot": train(Training(seed), even, lambda step: rate(step, 2000, peak=1e-2, floor=1.0)),
        "zero": train(Training(seed), even, lambda step: rate(step, 2000, floor=0.0)),
        "spike": train(Training(seed), range(0, 1501, 50),
                       lambda step: rate(step, 1500) * (20 if 748 <= step < 752 else 1)),
        "stages": train_stages(seed),
    }  # fmt: skip


def train_stages(seed: int) -> dict[int, Sample]:
    """Return a training whose second stage has other data and a rate that begins anew, whose third begins at a soup."""
    training = Training(seed)
    found = train(training, range(0, 1001, 100), lambda step: rate(step, 1000))
    border = copy.deepcopy(training.model.module.state_dict())
    second = lambda step: rate(step - 1000, 400, warmup=20, floor=0.0)  # noqa: E731
    training.batch = batches(seed, language=7)
    found |= train(training, range(1050, 1401, 50), second, 1000)
    parallel = Training(seed + 50)
    parallel.model.module.load_state_dict(border)
    parallel.batch = batches(seed + 77, language=7)
    train(parallel, [1400], second, 1000)
    one, other = training.model.module.state_dict(), parallel.model.module.state_dict()
    last = Training(seed + 51)
    last.model.module.load_state_dict({name: (one[name] + other[name]) / 2 for name in one})
    last.batch = batches(seed, language=9)
    found[1401] = last.sample()
    third = train(last, range(1450, 1751, 50), lambda step: rate(step - 1400, 350, peak=1e-3, warmup=10), 1400)
    return {**found, **third}
