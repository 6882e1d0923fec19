"""Ranks at a stated number of rows: what draws hold, and their mean, with its error, against ranks of fresh samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pythiageo.geometry.measure import load_measures
from pythiageo.geometry.rarefaction import Rarefaction
from pythiageo.geometry.view import View, single
from pythiageo.no_value import NoValueError

RANK = load_measures()["covariance_effective_rank"]
RANKS = [measure for measure in load_measures().values() if measure.kind == "rank"]


def sample(examples: int, of_each: int, seed: int, width: int = 64) -> tuple[View, torch.Tensor]:
    """Rows of variances 1/j; half of each row is its example's own, shared by all its rows."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, width + 1, dtype=torch.float64) ** -0.5
    shared, own = (
        torch.randn(n, width, generator=generator, dtype=torch.float64) for n in (examples, examples * of_each)
    )
    rows = (shared.repeat_interleave(of_each, dim=0) + own) * scale
    return single(rows, centred=True), torch.arange(examples).repeat_interleave(of_each)


def test_the_mean_over_draws_is_the_rank_of_as_many_fresh_rows_with_its_standard_error() -> None:
    """Over 60 samples of 80 examples the means lie at the mean rank of samples of 20 examples, to 4 standard errors.

    The told error is the spread of these means, to a third: 60 values give a spread to 9%, and an estimate of 40 draws
    scatters by a ninth of itself.
    """
    rarefaction = Rarefaction(80, "abc", rows=60, draws=40)
    found = [rarefaction.take(*sample(80, 3, seed), [RANK])[RANK.name] for seed in range(60)]
    fresh = [RANK.value(sample(20, 3, 1000 + seed)[0]).value for seed in range(200)]
    values = np.array([one.value for one in found])
    error = (np.var(values) / len(values) + np.var(fresh) / len(fresh)) ** 0.5
    assert abs(values.mean() - np.mean(fresh)) < 4 * error
    assert np.mean([one.stderr for one in found]) == pytest.approx(values.std(ddof=1), rel=1 / 3)
    whole = [RANK.value(sample(80, 3, seed)[0]).value for seed in range(20)]
    assert np.mean(whole) > 1.2 * values.mean()  # what is taken of all rows is another number


def test_all_rows_are_the_rank_itself_and_more_are_none() -> None:
    view, examples = sample(10, 3, 0)
    for measure in RANKS:
        estimate = Rarefaction(10, "abc", 30, 20).take(view, examples, [measure])[measure.name]
        assert estimate.value == pytest.approx(measure.value(view).value, rel=1e-9)
        assert estimate.stderr is None
    with pytest.raises(NoValueError, match="the readout has 30 rows, and 31 were asked for"):
        Rarefaction(10, "abc", 31, 20).take(view, examples, RANKS)


def test_draws_hold_whole_examples_the_last_in_part_and_levels_in_equal_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[np.ndarray] = []

    def note(view: View, rows: torch.Tensor) -> View:
        drawn.append(rows.numpy())
        return view

    monkeypatch.setattr("pythiageo.geometry.rarefaction.resample", note)
    view, examples = sample(40, 4, 0)
    levels = ["L1"] * 20 + ["L2"] * 20
    for _ in range(2):
        Rarefaction(40, "abc", 42, 30, levels).take(view, examples, [RANK])
    assert len(drawn) == 60
    for rows, again in zip(drawn[:30], drawn[30:], strict=True):
        assert np.array_equal(rows, again)  # the same draws at every site
        assert len(set(rows)) == 42
        own, counts = np.unique(examples.numpy()[rows], return_counts=True)
        assert sorted(counts) == [2] + [4] * 10
        assert abs((own < 20).sum() - 5.5) < 1
    assert len({tuple(sorted(rows)) for rows in drawn}) == 30
