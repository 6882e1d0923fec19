"""Spectra and measures against closed forms, planted spectra, and declared invariances."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pythiageo.errors import UserError
from pythiageo.geometry.measure import get_measures, load_measures
from pythiageo.geometry.readout import READOUTS, Layout, get_readouts, select
from pythiageo.geometry.spectrum import Spectrum, spectrum
from pythiageo.geometry.view import Rows, View
from pythiageo.no_value import NoValueError

MEASURES = load_measures()


RANKS = [name for name, measure in MEASURES.items() if measure.greatest == "values"]


def value(name: str, states: torch.Tensor, centred: bool = False) -> float:
    """The measure of ``states``; where it compares with a site below, of the states' square roots there."""
    return MEASURES[name].take(pair(states, states.sign() * states.abs().sqrt(), centred)).value


def pair(states: torch.Tensor, below: torch.Tensor, centred: bool) -> View:
    return View(Rows(states, every_value=True), centred, View(Rows(below, every_value=True), centred))


def planted(rows: int, columns: int, sigma: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """A matrix with these singular values, in float64."""
    generator = torch.Generator().manual_seed(seed)
    k = len(sigma)
    left = torch.linalg.qr(torch.randn(rows, k, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(columns, k, generator=generator, dtype=torch.float64)).Q
    return left @ torch.diag(sigma) @ right.T


def entropy_rank(weights: list[float]) -> float:
    total = math.fsum(weights)
    return math.exp(-math.fsum(w / total * math.log(w / total) for w in weights if w > 0))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("rankme", 3.117), ("covariance_effective_rank", 2.063), ("participation_ratio", 1.654)],
)
def test_three_ranks_of_one_spectrum_are_three_numbers(name: str, expected: float) -> None:
    states = planted(40, 12, torch.tensor([1, 0.5, 0.25, 0.125], dtype=torch.float64))
    assert value(name, states) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("shape", [(300, 64), (64, 300), (50, 50)])
@pytest.mark.parametrize(
    ("kind", "sigma"),
    [
        ("flat", torch.ones(40, dtype=torch.float64)),
        ("decaying", 10.0 ** -torch.linspace(0, 12, 40, dtype=torch.float64)),
        ("power law", torch.arange(1, 41, dtype=torch.float64) ** -1.5),
        ("spiked", torch.cat([torch.tensor([1e6]), torch.full((39,), 1e-3)]).double()),
        ("rank-deficient", torch.cat([torch.linspace(1, 2, 5), torch.zeros(35)]).double()),
        ("clusters", torch.cat([torch.ones(3), torch.full((20,), 1e-7), torch.full((17,), 1e-9)]).double()),
    ],
)
def test_planted_spectra_are_met_to_one_in_a_million(shape: tuple[int, int], kind: str, sigma: torch.Tensor) -> None:
    states = planted(*shape, sigma)
    weights = sigma.tolist()
    squares = [s * s for s in weights]
    assert value("rankme", states) == pytest.approx(entropy_rank(weights), rel=1e-6)
    assert value("covariance_effective_rank", states) == pytest.approx(entropy_rank(squares), rel=1e-6)
    participation = sum(squares) ** 2 / sum(s * s for s in squares)
    assert value("participation_ratio", states) == pytest.approx(participation, rel=1e-6)


def test_the_gram_matrix_is_left_where_its_rounding_would_show() -> None:
    flat = planted(300, 64, torch.linspace(1, 2, 64, dtype=torch.float64))
    steep = planted(300, 64, 10.0 ** -torch.linspace(0, 12, 64, dtype=torch.float64))
    assert spectrum(flat, centred=False).method == "gram"
    assert spectrum(steep, centred=False).method == "svd"
    # the shortcut really would be wrong there: this is what the bound protects from
    gram = torch.linalg.eigvalsh(steep.T @ steep).clamp_min(0).sqrt()
    exact = torch.linalg.svdvals(steep)
    assert abs(float(gram.sum() / exact.sum()) - 1) > 1e-9
    assert MEASURES["rankme"].function(Spectrum(gram, 300, 64, "gram")) != pytest.approx(
        MEASURES["rankme"].function(Spectrum(exact, 300, 64, "svd")), rel=1e-8
    )


def test_centring_is_not_swamped_by_a_massive_mean() -> None:
    sigma = torch.linspace(0.5, 1, 8, dtype=torch.float64)
    states = planted(200, 16, sigma)
    states = states - states.mean(dim=0)
    shifted = states + 1e6 * torch.eye(16, dtype=torch.float64)[0]
    assert value("rankme", shifted, centred=True) == pytest.approx(value("rankme", states, centred=True), rel=1e-6)
    assert value("rankme", shifted, centred=False) < 1.01


@pytest.mark.parametrize("name", list(MEASURES))
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(2, 60),
    columns=st.integers(1, 40),
    scale=st.floats(1e-12, 1e12),
    centred=st.booleans(),
)
def test_measures_keep_to_their_ranges_and_declared_invariances(
    name: str, seed: int, rows: int, columns: int, scale: float, centred: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    measure = MEASURES[name]
    states, below = random(rows, columns), random(rows, columns)

    def take(states: torch.Tensor, below: torch.Tensor, centred: bool = centred) -> float | str:
        try:
            return measure.take(pair(states, below, centred)).value
        except NoValueError as error:
            return str(error)

    base = take(states, below)
    same = base if isinstance(base, str) else pytest.approx(base, rel=1e-6, abs=1e-9)
    if not isinstance(base, str):
        greatest = min(rows - centred, columns) if measure.greatest == "values" else measure.greatest
        assert measure.least - 1e-9 <= base <= greatest * (1 + 1e-9)
    rotation = torch.linalg.qr(random(columns, columns)).Q
    order = torch.randperm(rows, generator=generator)
    changed = {
        "scale": (scale * states, below, centred),
        "rotation": (states @ rotation, below, centred),
        "order": (states[order], below[order], centred),
        "centring": (states + random(columns), below, centred),
    }
    for invariance in measure.invariances:
        assert take(*changed[invariance]) == same, invariance
    if "centring" in measure.invariances:
        assert take(states, below, not centred) == same


def test_what_is_not_declared_does_not_hold() -> None:
    """The declarations are whole: what a measure does not name, it is not blind to."""
    states = torch.randn(60, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shifted = states + 10
    for name, measure in MEASURES.items():
        if "centring" not in measure.invariances and name != "alpha_req":
            assert value(name, shifted) != pytest.approx(value(name, states), rel=1e-3), name


@given(seed=st.integers(0, 10**6))
def test_the_three_ranks_are_ordered(seed: int) -> None:
    states = torch.randn(30, 10, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    states = states * torch.logspace(0, -4, 10, dtype=torch.float64)
    participation, covariance, rankme = (
        value(n, states) for n in ("participation_ratio", "covariance_effective_rank", "rankme")
    )
    assert participation <= covariance + 1e-9
    assert covariance <= rankme + 1e-9


@pytest.mark.parametrize("name", RANKS)
@pytest.mark.parametrize("constant", [0.0, 1.0, 1 / 3, 1e20, 1e-20])
def test_states_that_do_not_vary_have_no_rank(name: str, constant: float) -> None:
    states = torch.full((17, 5), constant)
    with pytest.raises(NoValueError, match="do not vary"):
        value(name, states, centred=True)
    with pytest.raises(NoValueError, match="do not vary"):
        value(name, states[:1], centred=True)
    if constant:
        assert value(name, states, centred=False) == pytest.approx(1, abs=1e-6)


def test_bad_states_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        spectrum(torch.tensor([[1.0, math.nan]]), centred=False)
    with pytest.raises(ValueError, match="at least one row"):
        spectrum(torch.zeros(0, 3), centred=False)


def test_readouts_pick_the_rows_they_name() -> None:
    # two examples: lengths 4 and 3, answers predicted from (2, 3) and (1, 2), `=` at 1 and 0
    states = torch.arange(7.0)[:, None]
    layout = Layout.of([4, 3], [(2, 3), (1, 2)], [1, 0])
    rows = {name: select(states, layout, name)[:, 0].tolist() for name in ("answer", "equals", "all", "mean", "last")}
    assert rows == {
        "answer": [2, 3, 5, 6],
        "equals": [1, 4],
        "all": [0, 1, 2, 3, 4, 5, 6],
        "mean": [1.5, 5.0],
        "last": [3, 6],
    }


def test_readout_names_round_trip_and_mistakes_are_named() -> None:
    assert [r.name for r in get_readouts(["all"])] == [name for name in READOUTS if "-but-sinks" not in name]
    assert len(get_readouts(["all"])) == 10
    with pytest.raises(UserError, match=r"no readout 'answer/centered' \(did you mean 'answer/centred'\?\)"):
        get_readouts(["answer/centered"])
    with pytest.raises(UserError, match=r"no measure 'rank_me' \(did you mean 'rankme'\?\)"):
        get_measures(["rank_me"])


def test_adding_a_measure_takes_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pythiageo.geometry import measures

    (tmp_path / "stable_rank_example.py").write_text(
        "from pythiageo.geometry.measure import Measure\n"
        "def stable_rank(spectrum):\n"
        "    return float(spectrum.sigma.square().sum() / spectrum.sigma.max().square())\n"
        "MEASURE = Measure('stable_rank_example', 'stable rank', 'sigma^2', 'f', 's', stable_rank,\n"
        "    needs='spectrum', cost='vector', invariances=frozenset({'scale', 'rotation', 'order'}))\n"
    )
    monkeypatch.setattr(measures, "__path__", [*measures.__path__, str(tmp_path)])
    try:
        found = load_measures()
        states = planted(10, 4, torch.tensor([2.0, 1.0], dtype=torch.float64))
        assert found["stable_rank_example"].function(spectrum(states, False)) == pytest.approx(1.25)
    finally:
        sys.modules.pop("pythiageo.geometry.measures.stable_rank_example", None)
