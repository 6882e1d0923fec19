"""Which positions are sinks, what is measured where they are left out, and which ranks say that sinks make them."""

from __future__ import annotations

import math

import pytest
import torch

from pythiageo.geometry.bootstrap import Bootstrap
from pythiageo.geometry.dominance import find_dominance
from pythiageo.geometry.measure import load_measures
from pythiageo.geometry.readout import READOUTS, Layout, examples_of, select
from pythiageo.geometry.sinks import Sinks, spread_evenly
from pythiageo.geometry.view import SiteStates

MEASURES = load_measures()


def lay_out(lengths: list[int]) -> Layout:
    return Layout.of(lengths, [(length - 1,) for length in lengths], [length - 1 for length in lengths])


def states(norms: list[float], width: int = 8, seed: int = 0) -> torch.Tensor:
    found = torch.randn(len(norms), width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return found / found.norm(dim=1, keepdim=True) * torch.tensor(norms, dtype=torch.float64)[:, None]


def test_sinks_are_first_positions_and_those_of_more_than_five_times_the_median() -> None:
    # the median of all but the first ones is 1, however large those are
    norms = [90.0, 1, 1, 5.5, 0.5, 1, 90, 1, 1, 4.5, 60]
    layout = lay_out([6, 5])
    sinks = Sinks.of(states(norms), layout)
    assert sinks.median == pytest.approx(1)
    assert sinks.all.nonzero().flatten().tolist() == [0, 3, 6, 10]
    matrix = states(norms)
    kept = [1, 2, 4, 5, 7, 8, 9]
    assert torch.equal(select(matrix, layout, "all-but-sinks", sinks.all), matrix[kept])
    assert torch.equal(select(matrix, layout, "answer-but-sinks", sinks.all), matrix[[5]])
    means = torch.stack([matrix[kept[:4]].mean(dim=0), matrix[kept[4:]].mean(dim=0)])
    assert torch.allclose(select(matrix, layout, "mean-but-sinks", sinks.all), means, rtol=1e-14)
    assert examples_of(layout, "all-but-sinks", sinks.all).tolist() == [0, 0, 0, 0, 1, 1, 1]
    here = SiteStates(matrix, layout, False)
    said = here.describe_left_out(READOUTS["all-but-sinks/centred"])
    assert said == "4 of 11 positions left out: 2 first ones, and 2 others of more than 5 times the median norm"
    assert here.describe_left_out(READOUTS["answer-but-sinks/centred"]).startswith("1 of 2 positions left out: 0 first")


def test_an_example_that_is_all_sink_has_no_row() -> None:
    matrix, layout = states([1.0, 1, 1, 1]), lay_out([1, 3])
    sinks = Sinks.of(matrix, layout).all
    assert examples_of(layout, "mean-but-sinks", sinks).tolist() == [1]
    assert torch.allclose(select(matrix, layout, "mean-but-sinks", sinks), matrix[2:].mean(dim=0, keepdim=True))


def test_the_site_below_is_read_at_the_same_positions() -> None:
    """A position that is massive here alone is left out below, too; that which is massive below alone is in both."""
    here, below = states([1.0] * 40), states([1.0] * 40, seed=1)
    here[7] *= 100
    below[9] *= 100
    layout = lay_out([20, 20])
    both = SiteStates(here, layout, False, SiteStates(below, layout, False))
    kept = [row for row in range(40) if row not in {0, 7, 20}]
    view = both.read(READOUTS["all-but-sinks/centred"])
    assert view.below is not None
    assert torch.equal(view.rows.matrix, here[kept])
    assert torch.equal(view.below.rows.matrix, below[kept])


def test_a_bootstrap_draws_the_positions_that_are_left() -> None:
    matrix, layout = states([1.0] * 200), lay_out([10] * 20)
    matrix[13] *= 100
    view = SiteStates(matrix, layout, False).read(READOUTS["all-but-sinks/centred"])
    bootstrap = Bootstrap(layout, "abc", 40)
    for rows in bootstrap.rows("all-but-sinks", view.rows.without):
        assert int(rows.max()) < len(view.rows.matrix) == 179
    # with nothing outlying it is the bootstrap of the same rows, laid out without their first positions
    plain, short = states([1.0] * 200), lay_out([9] * 20)
    spared = SiteStates(plain, layout, False).read(READOUTS["all-but-sinks/centred"])
    alone = SiteStates(spared.rows.matrix, short, False).read(READOUTS["all/centred"])
    measures = [MEASURES["covariance_effective_rank"]]
    found = (
        bootstrap.stderrs(spared, "all-but-sinks", measures),
        Bootstrap(short, "abc", 40).stderrs(alone, "all", measures),
    )
    assert found[0] == found[1]


def test_states_that_are_not_finite_are_so_even_where_they_are_left_out() -> None:
    matrix, layout = states([1.0] * 40), lay_out([20, 20])
    matrix[0, 0] = math.inf
    here = SiteStates(matrix, layout, False)
    assert not here.rows("all-but-sinks").finite


@pytest.mark.parametrize(("ratio", "told"), [(1, False), (2.8, False), (3.5, True), (30, True)])
def test_a_rank_says_so_where_sinks_bring_more_than_a_quarter(ratio: float, told: bool) -> None:
    """One position in 30: they bring r^2 / (r^2 + 29) of uncentred states, a quarter at 3.1."""
    lengths = [30] * 50
    matrix = states([1.0] * 1500, width=32)
    matrix[::30] *= ratio
    found = find_dominance(SiteStates(matrix, lay_out(lengths), False), READOUTS["all/uncentred"])
    share = ratio**2 / (ratio**2 + 29)
    expected = f"dominated by sinks: they bring {share:.1%} of the squared norm (all-but-sinks leaves them out)"
    assert found == ([expected] if told else [])


def test_one_direction_is_told_whatever_brings_it() -> None:
    matrix = states([1.0] * 400, width=16)
    matrix[:, 0] += 10
    here = SiteStates(matrix, lay_out([20] * 20), False)
    assert [said[:26] for said in find_dominance(here, READOUTS["last/uncentred"])] == ["dominated by one direction"]
    assert find_dominance(here, READOUTS["last/centred"]) == []


def test_what_even_attention_gives_the_first_position() -> None:
    assert spread_evenly(1) == 1
    assert spread_evenly(3) == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
