"""Scores of a probe set from the logits at its answer positions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Score:
    """A mean over examples, its standard error, and the number of examples."""

    measure: str
    value: float
    stderr: float | None
    n: int


def score(
    logits: Float[Tensor, "answer_token vocab"],
    targets: Int[Tensor, " answer_token"],
    example: Int[Tensor, " answer_token"],
) -> list[Score]:
    """Return exact match (``accuracy``) and mean log-probability (``log_prob``) of a probe set's answers.

    ``accuracy``: share of examples of which *every* answer token is the arg max of its logits. With the right answer
    fed, this equals the exact match of greedy decoding: the first wrong token ends both.
    ``log_prob``: mean over examples of the mean over an example's answer tokens of ``log softmax(logits)[target]``,
    in nats, in float64; every example counts the same however long its answer.
    Standard errors are those of a mean of independent examples; ``None`` for a single example.

    Args:
        logits: at the answer positions, all examples after one another.
        targets: the answer tokens.
        example: which example each row belongs to, 0 .. n-1, each at least once.

    Raises:
        ValueError: logits that are not finite.
    """
    if not bool(torch.isfinite(logits).all()):
        raise ValueError("logits hold NaN or infinity")
    n = int(example.max()) + 1
    tokens = torch.zeros(n, dtype=torch.float64).index_add_(0, example, torch.ones(len(example), dtype=torch.float64))
    chosen = torch.log_softmax(logits.double(), dim=-1).gather(1, targets[:, None])[:, 0]
    log_prob = torch.zeros(n, dtype=torch.float64).index_add_(0, example, chosen) / tokens
    wrong = (logits.argmax(dim=-1) != targets).double()
    exact = (torch.zeros(n, dtype=torch.float64).index_add_(0, example, wrong) == 0).double()
    return [_mean("accuracy", exact), _mean("log_prob", log_prob)]


def _mean(measure: str, values: Float[Tensor, " example"]) -> Score:
    n = len(values)
    stderr = float(values.std(unbiased=True)) / math.sqrt(n) if n > 1 else None
    return Score(measure, float(values.mean()), stderr, n)
