"""Stochastic gradient Langevin dynamics around a point, plain and preconditioned."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pythiageo.landscape.problem import Problem, add_flat, flat

RMSPROP_DECAY = 0.99
RMSPROP_STABILITY = 1.0


@dataclass(frozen=True)
class Chain:
    """``losses`` (draw): the loss seen at each draw, burn-in first; fewer than asked where the chain diverged.

    ``baselines`` (draw): the loss of the same examples at the start. ``virials`` (draw): (x - x0) times the drift,
    whose mean is the number of parameters. ``excesses`` (draw): step / 8 times drift . G . n_beta dL, whose mean is by
    how much the step raises n_beta L where L is quadratic. ``diverged``: the loss ceased to be finite.
    """

    losses: np.ndarray
    baselines: np.ndarray
    virials: np.ndarray
    excesses: np.ndarray
    diverged: bool


@contextmanager
def walking(problem: Problem) -> Iterator[Float[Tensor, " parameter"]]:
    """Lay the chosen parameters into one flat tensor that can be moved in place; put them back at the end."""
    parameters = list(problem.parameters.values())
    own = [parameter.data for parameter in parameters]
    position = flat([tensor.to(problem.dtype) for tensor in own]).clone()
    offset = 0
    for parameter in parameters:
        parameter.data = position[offset : offset + parameter.numel()].view_as(parameter)
        offset += parameter.numel()
    try:
        with problem.evaluating():
            yield position
    finally:
        for parameter, tensor in zip(parameters, own, strict=True):
            parameter.data = tensor


def sample_chain(
    problem: Problem,
    draws: int,
    burn_in: int,
    n_beta: float,
    gamma: float,
    step: float,
    batch: int | None,
    rmsprop: bool,
    start_losses: Float[Tensor, " example"],
    seed: tuple[int, ...],
) -> Chain:
    """Run one chain from the parameters as they are, and put them back.

    A step of size e adds ``-e/2 G d + sqrt(e G) noise`` with the drift ``d = n_beta dL(x) + gamma (x - x0)``, L the
    mean loss of ``batch`` examples drawn anew (None: of all). G is 1; with ``rmsprop``, G = 1 / (1 + sqrt(V)), V the
    moving average of d^2 in burn-in, frozen afterwards, so that the target is that of plain SGLD and no correction
    term is missing (Li et al. 2016, arXiv 1512.07666, adapt throughout, and to n_beta dL alone). A draw's loss is the
    one whose gradient moves the chain on: seen before the move, on examples that the draw does not depend on.
    ``start_losses``: each example's loss at x0. Deterministic in ``seed``.
    """
    losses: list[float] = []
    baselines: list[float] = []
    virials: list[float] = []
    excesses: list[float] = []
    batches, noises = (int(word) for word in np.random.SeedSequence(seed).generate_state(2, np.uint64) >> np.uint64(1))
    chooser = torch.Generator().manual_seed(batches)
    generator = torch.Generator(problem.device).manual_seed(noises)
    with walking(problem) as x:
        whole = float(start_losses.mean())
        start = x.clone()
        gradient = torch.empty_like(x)
        noise = torch.empty_like(x)
        square = torch.zeros_like(x)
        scale: Tensor | None = None
        for number in range(burn_in + draws):
            chosen = _chosen(problem, batch, chooser)
            loss = _differentiate(problem, chosen, gradient)
            torch.sub(x, start, out=noise)
            gradient.mul_(n_beta)
            moves = gradient if scale is None else gradient * scale
            excess = step / 8 * (float(gradient @ moves) + gamma * float(noise @ moves))
            gradient.add_(noise, alpha=gamma)
            virial = float(noise @ gradient)
            if not math.isfinite(loss) or not math.isfinite(virial):
                return _chain(losses, baselines, virials, excesses, diverged=True)
            losses.append(loss)
            baselines.append(whole if chosen is None else float(start_losses[chosen].mean()))
            virials.append(virial)
            excesses.append(excess)
            noise.normal_(generator=generator)
            if rmsprop:
                if number < burn_in:
                    square.mul_(RMSPROP_DECAY).addcmul_(gradient, gradient, value=1 - RMSPROP_DECAY)
                    scale = 1 / (RMSPROP_STABILITY + (square / (1 - RMSPROP_DECAY ** (number + 1))).sqrt())
                elif scale is None:
                    scale = torch.ones_like(x)
                gradient.mul_(scale)
                noise.mul_(scale.sqrt())
            x.sub_(gradient, alpha=0.5 * step).add_(noise, alpha=step**0.5)
    return _chain(losses, baselines, virials, excesses, diverged=False)


def _chain(*columns: list[float], diverged: bool) -> Chain:
    losses, baselines, virials, excesses = map(np.array, columns)
    return Chain(losses, baselines, virials, excesses, diverged)


def _chosen(problem: Problem, batch: int | None, generator: torch.Generator) -> Int[Tensor, " chosen"] | None:
    if batch is None or batch >= problem.examples:
        return None
    return torch.randperm(problem.examples, generator=generator)[:batch].sort().values


def _differentiate(problem: Problem, chosen: Tensor | None, gradient: Tensor) -> float:
    """Write the gradient of the mean loss of the ``chosen`` examples, and return that loss."""
    parameters = list(problem.parameters.values())
    pieces = problem.pieces if chosen is None else [piece for piece, _ in problem.minibatch(chosen)]
    count = problem.examples if chosen is None else len(chosen)
    gradient.zero_()
    total = 0.0
    with torch.enable_grad():
        for piece in pieces:
            share = problem.piece_sum(piece) / count
            total += float(share.detach())
            if share.requires_grad:
                add_flat(gradient, torch.autograd.grad(share, parameters, allow_unused=True, materialize_grads=True))
    return total
