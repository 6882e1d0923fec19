"""The standard error of a rate, of none and of all too, against scipy's interval."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pythiageo.linear_probe.fit import Split
from pythiageo.probes.scoring import Options, Predictions, score
from pythiageo.stats.rates import Z, rate_stderr, wilson_half_width


@given(n=st.integers(1, 5000), share=st.floats(0, 1))
def test_the_half_width_is_scipys(n: int, share: float) -> None:
    right = round(n * share)
    interval = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert wilson_half_width(right / n, n) == pytest.approx((interval.high - interval.low) / 2, rel=1e-9)


def predictions(hits: list[bool]) -> Predictions:
    return Predictions(torch.full((len(hits),), -1.0).double(), torch.tensor(hits), torch.arange(len(hits)))


@pytest.mark.parametrize("right", [0, 40])
@pytest.mark.parametrize("rule", ["exact", "next-token", "choice", "minimal-pair"])
def test_no_accuracy_has_an_error_of_zero(rule: str, right: int) -> None:
    hits = [index < right for index in range(40)]
    wrong = torch.full((40,), -2.0 if right else -0.5).double()
    other = Predictions(wrong, torch.zeros(40, dtype=torch.bool), torch.arange(40))
    options = Options(other, torch.arange(40), torch.ones(40).double(), torch.ones(40).double())
    for found in score(rule, predictions(hits), options):
        if found.measure == "log_prob":  # no rate: alike is alike
            assert found.stderr == 0
        else:
            assert (found.value, found.n) == (right / 40, 40)
            assert found.stderr == pytest.approx(Z / (2 * (40 + Z**2)))


def test_other_rates_are_as_they_were() -> None:
    hits = [True, True, False, True, False]
    assert score("exact", predictions(hits))[0].stderr == torch.tensor(hits).double().std().item() / math.sqrt(5)
    assert rate_stderr(0.3, 0.02, 50) == 0.02
    assert score("exact", predictions([True]))[0].stderr is None


def test_the_rates_of_a_linear_probe_count_examples() -> None:
    """Five rows an example, all wrong: no more is known than of as many examples."""
    owner = np.repeat(np.arange(12), 5)
    split = Split(np.zeros(60, int), owner, np.ones(60, bool), np.zeros(60, int))
    of_examples = wilson_half_width(0, 12) / Z
    for right in (np.zeros(60), np.ones(60)):
        assert split.rate(right).stderr == pytest.approx(of_examples)
        assert split.answer_rate(right).stderr == pytest.approx(of_examples)
    assert split.rate(np.zeros(60) - np.zeros(60)).stderr == pytest.approx(of_examples)  # selectivity
