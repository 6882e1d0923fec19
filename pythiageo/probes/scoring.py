"""Scores of a probe set, by the rule of its task, from what the logits say of each answer token."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pythiageo.probes.kinds import CHOICE, EXACT, MINIMAL_PAIR, NEXT_TOKEN, TEXT
from pythiageo.stats.rates import rate_stderr

ACCURACY, NORMALISED, LOG_PROB, PERPLEXITY = "accuracy", "accuracy_normalised", "log_prob", "perplexity"
MEASURES: dict[str, tuple[str, ...]] = {
    EXACT: (ACCURACY, LOG_PROB),
    NEXT_TOKEN: (ACCURACY, LOG_PROB),
    MINIMAL_PAIR: (ACCURACY, LOG_PROB),
    CHOICE: (ACCURACY, NORMALISED, LOG_PROB),
    TEXT: (LOG_PROB, PERPLEXITY),
}
"""The scores that each rule gives."""
PIECE = 2**20
"""Logits that are worked on at a time on a CPU: 20 rows of 50,304 columns, which stay near the cache."""


class NonfiniteLogitsError(ValueError):
    """Logits hold NaN or infinity, so that nothing can be scored."""


@dataclass(frozen=True)
class Score:
    """A mean over examples, its standard error, and the number of examples."""

    measure: str
    value: float
    stderr: float | None
    n: int


@dataclass(frozen=True)
class Predictions:
    """What the logits say of the answer tokens of some continuations, one continuation after another.

    ``log_prob`` (token): ``log softmax(logits)[target]`` in nats. ``hit`` (token): whether the target is the arg max.
    ``owner`` (token): which continuation the token belongs to, 0 .. n-1, each at least once.
    """

    log_prob: Float[Tensor, " token"]
    hit: Bool[Tensor, " token"]
    owner: Int[Tensor, " token"]

    @property
    def count(self) -> int:
        """Number of continuations."""
        return int(self.owner.max()) + 1

    def per_owner(self, values: Tensor) -> Float[Tensor, " continuation"]:
        """Return the sum of a value over each continuation's tokens, in float64."""
        return torch.zeros(self.count, dtype=torch.float64).index_add_(0, self.owner, values.double())

    def select(self, chosen: Sequence[int]) -> Predictions:
        """Return the predictions of the continuations of these numbers, which become 0, 1 and so on."""
        place = torch.full((self.count,), -1)
        place[list(chosen)] = torch.arange(len(chosen))
        kept = place[self.owner] >= 0
        return Predictions(self.log_prob[kept], self.hit[kept], place[self.owner][kept])

    @property
    def tokens(self) -> Float[Tensor, " continuation"]:
        """Number of answer tokens of each continuation."""
        return self.per_owner(torch.ones(len(self.owner)))


@dataclass(frozen=True)
class Options:
    """The wrong continuations of a probe set's examples, and the lengths that normalise.

    ``example`` (option): which example each wrong option belongs to. ``characters`` (option) and
    ``right_characters`` (example): the length of each continuation's text, white space around it left out.
    """

    predictions: Predictions
    example: Int[Tensor, " option"]
    characters: Float[Tensor, " option"]
    right_characters: Float[Tensor, " example"]


def predict(
    logits: Float[Tensor, "row vocab"], targets: Int[Tensor, " token"], rows: Int[Tensor, " token"] | None = None
) -> tuple[Float[Tensor, " token"], Bool[Tensor, " token"]]:
    """Return each target's log-probability (float64, nats) and whether it is the arg max of its logits, on the CPU.

    ``rows``: the row of ``logits`` that each target is looked up in; by default they are a row each, in order.

    ``logits[target] - max - log sum exp(logits - max)``, exponentials in the logits' own precision, at least float32,
    their sum in float64. A difference d is rounded by d 2^-24 at most, and the mean of d is below log vocab, so this
    is within 1e-6 nats of float64 throughout (1e-8 as measured on 50,304 columns).

    Raises:
        NonfiniteLogitsError: logits that are not finite.
    """
    place, length = logits.device, max(1, len(logits))
    length = length if place.type != "cpu" else min(length, max(16, PIECE // logits.shape[-1]))
    offsets = torch.empty(len(logits), dtype=torch.float64, device=place)
    largest = torch.empty(len(logits), dtype=torch.long, device=place)
    for start in range(0, len(logits), length):
        part = logits[start : start + length].to(torch.promote_types(logits.dtype, torch.float32))
        (most, where), least = part.max(dim=-1), part.amin(dim=-1)
        if not bool((most.isfinite() & least.isfinite()).all()):  # both of them carry NaN on
            raise NonfiniteLogitsError("logits hold NaN or infinity")
        total = (part - most[:, None]).exp_().sum(dim=-1, dtype=torch.float64)
        offsets[start : start + length] = most.double() + total.log()
        largest[start : start + length] = where
    rows = torch.arange(len(targets)) if rows is None else rows
    rows, targets = rows.to(place), targets.to(place)
    return (logits[rows, targets].double() - offsets[rows]).cpu(), (largest[rows] == targets).cpu()


def score(rule: str, right: Predictions, options: Options | None = None) -> list[Score]:
    """Return the scores of a probe set, in the order of ``MEASURES[rule]``.

    ``accuracy``, a share of examples.
      ``exact``: *every* answer token is the arg max of its logits. With the right answer fed, this equals the exact
      match of greedy decoding: the first wrong token ends both. ``next-token``: the same of the first answer token.
      ``choice``, ``minimal-pair``: the right continuation's log-probability, summed over its tokens, is the highest;
      where k continuations share it, the example counts 1/k, as if one of them were drawn.
    ``accuracy_normalised``, for ``choice``: the same of log-probability divided by length in characters.
    ``log_prob``, nats per token: mean over examples of the mean over the right answer's tokens; every example counts
      the same however long its answer. For ``text``, the mean over all tokens of all examples.
    ``perplexity``, for ``text``: exp(-``log_prob``), from 1 up; infinite where that is beyond float64.

    Standard errors are those of a mean of independent examples (for ``text`` of a ratio of means, by the first-order
    rule; for ``perplexity`` that times the perplexity); of accuracies with no or every example right see
    ``rates.rate_stderr``; ``None`` for a single example.

    Args:
        rule: one of ``kinds.RULES``.
        right: of the right answers, one an example.
        options: the wrong continuations, for ``choice`` and ``minimal-pair``.
    """
    return _SCORES[rule](right, options)


def _exact(right: Predictions, options: Options | None) -> list[Score]:
    exact = (right.per_owner(~right.hit) == 0).double()
    return [_rate(ACCURACY, exact), _log_prob(right)]


def _choice(right: Predictions, options: Options | None) -> list[Score]:
    return [_compared(ACCURACY, right, options, False), _compared(NORMALISED, right, options, True), _log_prob(right)]


def _pair(right: Predictions, options: Options | None) -> list[Score]:
    return [_compared(ACCURACY, right, options, False), _log_prob(right)]


def _text(right: Predictions, options: Options | None) -> list[Score]:
    sums, tokens = right.per_owner(right.log_prob), right.tokens
    n = len(sums)
    value = float(sums.sum() / tokens.sum())
    stderr = None
    if n > 1:
        residuals = sums - value * tokens
        stderr = math.sqrt(float(residuals.square().sum()) / (n - 1) / n) / float(tokens.mean())
    perplexity = math.exp(-value) if -value < math.log(torch.finfo(torch.float64).max) else math.inf
    spread = None if stderr is None else perplexity * stderr
    return [Score(LOG_PROB, value, stderr, n), Score(PERPLEXITY, perplexity, spread, n)]


_SCORES: dict[str, Callable[[Predictions, Options | None], list[Score]]] = {
    EXACT: _exact,
    NEXT_TOKEN: _exact,
    CHOICE: _choice,
    MINIMAL_PAIR: _pair,
    TEXT: _text,
}


def _compared(measure: str, right: Predictions, options: Options | None, normalised: bool) -> Score:
    """Return the share of examples whose right continuation comes out highest."""
    assert options is not None
    ours, theirs = right.per_owner(right.log_prob), options.predictions.per_owner(options.predictions.log_prob)
    if normalised:
        ours, theirs = ours / options.right_characters, theirs / options.characters
    difference = theirs - ours[options.example]
    zeros = torch.zeros(len(ours), dtype=torch.float64)
    better = zeros.index_add(0, options.example, (difference > 0).double())
    equal = zeros.index_add(0, options.example, (difference == 0).double())
    return _rate(measure, (better == 0).double() / (1 + equal))


def _log_prob(right: Predictions) -> Score:
    return _mean(LOG_PROB, right.per_owner(right.log_prob) / right.tokens)


def _rate(measure: str, shares: Float[Tensor, " example"]) -> Score:
    mean = _mean(measure, shares)
    stderr = None if mean.stderr is None else rate_stderr(mean.value, mean.stderr, mean.n)
    return Score(measure, mean.value, stderr, mean.n)


def _mean(measure: str, values: Float[Tensor, " example"]) -> Score:
    n = len(values)
    stderr = float(values.std(unbiased=True)) / math.sqrt(n) if n > 1 else None
    return Score(measure, float(values.mean()), stderr, n)
