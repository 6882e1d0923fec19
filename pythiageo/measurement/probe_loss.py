"""The loss of a probe set as a landscape problem of a plain module."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from pythiageo.landscape.problem import Piece, Problem
from pythiageo.probes.encoding import Encoded
from pythiageo.synthetic.trainable import Trainable

_IGNORED = -100
_LOGITS = 2048
"""Greatest number of positions with logits in one piece: 50,304 columns of them take 0.4 GB, and their gradient too."""

_PASS = 256
"""What a pass costs beside its tokens, in tokens of all examples: a draw takes a part of them, and every pass."""

Cut = Callable[[Int[Tensor, "example position"], Bool[Tensor, "example position"]], list[Int[Tensor, " _"]]]
"""Which examples, by number, go through a model together."""
Logits = Callable[[Int[Tensor, "example position"], Int[Tensor, " scored"]], Float[Tensor, "example scored vocab"]]
"""A model's logits at some positions, with gradient."""
ScoredLogits = Callable[
    [Int[Tensor, "example position"], Bool[Tensor, "example position"]], Float[Tensor, "answer vocab"]
]
"""A model's logits at the scored positions, example by example, with gradient; what examples share is computed once."""


def logits_of(model: nn.Module) -> Callable[..., Tensor]:
    """Return how to ask a transformers model for logits (``Logits``): where it can, at the wanted positions only.

    What is given by name besides, such as a mask, is handed on to the model.
    """
    keeps = "logits_to_keep" in inspect.signature(model.forward).parameters

    def logits(ids: Tensor, positions: Tensor, **further: Tensor) -> Tensor:
        if keeps:
            return model(ids, use_cache=False, logits_to_keep=positions, **further).logits
        return model(ids, use_cache=False, **further).logits[:, positions]

    return logits


def live_logits(trainable: Trainable) -> Logits:
    """Return how to ask a model in training for logits: from its states, at the wanted positions only."""

    def logits(ids: Tensor, positions: Tensor) -> Tensor:
        normed = trainable.final_norm(trainable.residual_stream(ids)[-1])
        return trainable.unembed(normed[:, positions])

    return logits


def problem_of(
    module: nn.Module, logits: Logits, encoded: Sequence[Encoded], parameters: Sequence[str] = ("*",)
) -> Problem:
    """Return the loss of ``encoded`` examples as a landscape problem.

    L is the mean over examples of the mean cross-entropy (nats) of an example's answer tokens, so a long answer weighs
    as much as a short one. Examples of similar length make a piece, padded at the end, which no earlier position of a
    causal model can see: a draw of a few examples then takes a few passes and not one for each length.

    Raises:
        UserError: no example, or a pattern that matches no parameter.
    """
    device = next(module.parameters()).device
    groups = list(_groups(encoded))
    places: dict[int, list[int]] = defaultdict(list)  # by width, which vmap knows; a number in the piece it would not
    for group in groups:
        scored = {p for example in group for p in example.answer_positions}
        places[_width(group)] = sorted(scored.union(places[_width(group)]))
    pieces: list[Piece] = []
    for group in groups:
        column = {position: k for k, position in enumerate(places[_width(group)])}
        targets = torch.full((len(group), len(column)), _IGNORED)
        ids = torch.zeros(len(group), _width(group), dtype=torch.long)
        for row, example in enumerate(group):
            targets[row, [column[p] for p in example.answer_positions]] = torch.tensor(example.targets)
            ids[row, : len(example.ids)] = torch.tensor(example.ids)
        pieces.append((ids.to(device), targets.to(device)))

    def losses(piece: Piece) -> Tensor:
        ids, targets = piece
        flat = logits(ids, torch.tensor(places[ids.shape[1]], device=ids.device)).flatten(0, 1)
        each = functional.cross_entropy(flat, targets.flatten(), ignore_index=_IGNORED, reduction="none")
        return each.view(targets.shape).sum(1) / (targets != _IGNORED).sum(1)

    return Problem(module, losses, pieces, parameters)


def shared_problem_of(
    module: nn.Module,
    scored: ScoredLogits,
    encoded: Sequence[Encoded],
    parameters: Sequence[str] = ("*",),
    cut: Cut | None = None,
) -> Problem:
    """Return the problem of ``problem_of``, its examples by the same numbers, with what they share computed once.

    For whatever needs the loss as a whole; gradients of single examples cannot be told apart where they are shared. The
    pieces, one unless ``cut`` says more, stay on the CPU, where ``scored`` takes them.

    Raises:
        UserError: no example, or a pattern that matches no parameter.
    """
    ordered = [example for group in _groups(encoded) for example in group]
    width = max((len(example.ids) for example in ordered), default=0)
    ids, targets = torch.zeros(len(ordered), width, dtype=torch.long), torch.full((len(ordered), width), _IGNORED)
    for row, example in enumerate(ordered):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        targets[row, list(example.answer_positions)] = torch.tensor(example.targets)

    def losses(piece: Piece) -> Tensor:
        ids, targets = piece
        wanted = targets != _IGNORED
        logits = scored(ids, wanted)
        each = functional.cross_entropy(logits, targets[wanted].to(logits.device), reduction="none")
        counts = wanted.sum(1)
        rows = torch.repeat_interleave(torch.arange(len(ids)), counts).to(logits.device)
        return each.new_zeros(len(ids)).index_add(0, rows, each) / counts.to(logits.device)

    numbers = [torch.arange(len(ids))] if cut is None else cut(ids, targets != _IGNORED)
    return Problem(module, losses, [(ids[some], targets[some]) for some in numbers], parameters, numbers)


def _groups(encoded: Sequence[Encoded]) -> Iterator[list[Encoded]]:
    """Cut the examples, by length, where padding and passes together cost least."""
    by_length: dict[int, list[Encoded]] = defaultdict(list)
    for example in encoded:
        by_length[len(example.ids)].append(example)
    lengths = sorted(by_length)
    best: list[tuple[float, int]] = [(0.0, 0)]  # of the first k lengths: the cost, and where the last piece begins
    for last in range(1, len(lengths) + 1):
        options = []
        for first in range(last):
            group = [example for length in lengths[first:last] for example in by_length[length]]
            options.append((best[first][0] + _cost(group), first))
        best.append(min(options))
    cuts, last = [], len(lengths)
    while last:
        cuts.append((best[last][1], last))
        last = best[last][1]
    for first, last in reversed(cuts):
        group = [example for length in lengths[first:last] for example in by_length[length]]
        size = max(1, _LOGITS // _scored(group))
        yield from (group[start : start + size] for start in range(0, len(group), size))


def _cost(group: Sequence[Encoded]) -> float:
    """Return what passes over a piece cost, in tokens; a position with logits costs about half a token more."""
    return _PASS + len(group) * (_width(group) + 0.5 * _scored(group))


def _width(group: Sequence[Encoded]) -> int:
    return max(len(example.ids) for example in group)


def _scored(group: Sequence[Encoded]) -> int:
    return len({p for example in group for p in example.answer_positions})
