"""Small models, tasks and losses with known landscapes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pythiageo.landscape.problem import Problem
from pythiageo.probes.encoding import CharacterTokenizer, encode_probe_set
from pythiageo.probes.probeset import make_probe_set
from pythiageo.probes.task import MIXED, get_task, load_tasks
from pythiageo.synthetic.model import Decoder, Shape

IGNORED = -100
VOCAB = 41


def tiny_decoder(seed: int = 0, bias: bool = True, layers: int = 2, d_model: int = 8) -> Decoder:
    """A decoder in float64, moved off its initial symmetry so that every parameter matters."""
    generator = torch.Generator().manual_seed(seed)
    decoder = Decoder(Shape(layers, d_model, 2, 2 * d_model, 48, VOCAB, bias), generator).double()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return decoder


def nano(seed: int = 0) -> Decoder:
    """The study's smallest size, in float32."""
    return Decoder(Shape(2, 128, 4, 512, 48, VOCAB, False), torch.Generator().manual_seed(seed))


def task_pieces(name: str, examples: int) -> list[tuple[Tensor, Tensor]]:
    """A task's probe set as ids and targets, in pieces of equal length."""
    task = get_task(load_tasks(None), name)
    by_length = defaultdict(list)
    for encoded in encode_probe_set(make_probe_set(task, MIXED, examples, 0), CharacterTokenizer()):
        by_length[len(encoded.ids)].append(encoded)
    pieces = []
    for _, group in sorted(by_length.items()):
        ids = torch.tensor([encoded.ids for encoded in group])
        targets = torch.full_like(ids, IGNORED)
        for row, encoded in enumerate(group):
            targets[row, list(encoded.answer_positions)] = torch.tensor(encoded.targets)
        pieces.append((ids, targets))
    return pieces


def task_problem(
    model: nn.Module, name: str = "ADD", examples: int = 12, parameters: Sequence[str] = ("*",)
) -> Problem:
    """The mean over examples of the mean cross-entropy of their answer tokens."""

    def losses(piece: tuple[Tensor, ...]) -> Tensor:
        ids, targets = piece
        each = F.cross_entropy(model(ids).flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none")
        return each.view(targets.shape).sum(1) / (targets != IGNORED).sum(1)

    return Problem(model, losses, task_pieces(name, examples), parameters)


class Point(nn.Module):
    """A vector of parameters in float64 (or another type)."""

    def __init__(self, at: Tensor) -> None:
        super().__init__()
        self.x = nn.Parameter(at.clone())


def per_example_gradients(problem: Problem) -> Tensor:
    """The oracle: one example at a time, (example, parameter)."""
    rows = []
    for piece in problem.pieces:
        for i in range(len(piece[0])):
            loss = problem.piece_losses(tuple(tensor[i : i + 1] for tensor in piece)).sum()
            grads = torch.autograd.grad(
                loss, list(problem.parameters.values()), allow_unused=True, materialize_grads=True
            )
            rows.append(torch.cat([grad.reshape(-1) for grad in grads]).double())
    return torch.stack(rows)
