"""What float32 states cannot hold is withheld, what they can is right: against the same states in float64."""

from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pythiageo.geometry.bootstrap import Bootstrap
from pythiageo.geometry.measure import load_measures
from pythiageo.geometry.measures.two_nn import two_nn
from pythiageo.geometry.readout import READOUTS, Layout
from pythiageo.geometry.rounding import Rounding, unit_of
from pythiageo.geometry.view import Rows, SiteStates, View
from pythiageo.measurement.geometry import Origin, _measure_readout
from pythiageo.no_value import NoValueError

MEASURES = load_measures()
OF_A_MATRIX = [name for name in MEASURES if name != "dataset_entropy_skean"]
"""The others need several prompts: tests/geometry/test_prompts.py."""
RIGHT = 0.01
"""How near to the truth a value must be that is not withheld."""


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def decaying(rows: int, columns: int, decades: float, seed: int = 0) -> torch.Tensor:
    """Rows that vary along every direction, by less and less over so many powers of ten; no axis is special."""
    scale = 10.0 ** -torch.linspace(0, decades, columns, dtype=torch.float64)
    return normal(rows, columns, seed=seed) * scale @ torch.linalg.qr(normal(columns, columns, seed=seed + 1)).Q


def take(name: str, states: torch.Tensor, centred: bool, below: torch.Tensor) -> float | str:
    view = View(Rows(states, every_value=True), centred, View(Rows(below, every_value=True), centred))
    try:
        return MEASURES[name].take(view).value
    except NoValueError as error:
        return str(error)


def check(name: str, states: torch.Tensor, centred: bool, below: torch.Tensor) -> str:
    """Compare float32 states with float64 ones: within the tolerance, or no value and why."""
    truth, found = take(name, states, centred, below), take(name, states.float(), centred, below.float())
    if isinstance(found, str):
        return "withheld"
    assert isinstance(truth, float), (name, truth)
    # of centred rows the mean cosine is -1 / (n - 1) and rounding; an entropy of a prompt is known to 5e-9 nats
    known = {"mean_cosine": 1e-4, "prompt_entropy": 1e-8, "prompt_entropy_normalised": 1e-8}
    assert found == pytest.approx(truth, rel=RIGHT, abs=known.get(name, 0)), (name, centred)
    return "ok"


@pytest.mark.parametrize("name", list(MEASURES))
@given(
    size=st.floats(2, 6),
    shape=st.sampled_from([(150, 30), (40, 60), (90, 90)]),
    decades=st.floats(0, 2.5),
    centred=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=12)
def test_a_massive_constant_dimension_decides_nothing(
    name: str, size: float, shape: tuple[int, int], decades: float, centred: bool, seed: int
) -> None:
    states, below = decaying(*shape, decades, seed), normal(*shape, seed=seed + 2)
    massive = states.clone()
    massive[:, seed % shape[1]] += 10**size
    outcome = check(name, massive, centred, below)
    if size < 4:
        assert outcome == "ok" or isinstance(take(name, massive, centred, below), str)
    if centred or name in {"two_nn", "cka_below"}:  # blind to it where the states hold their digits
        alone = take(name, states, True, below)
        if isinstance(alone, float):
            assert take(name, massive, centred, below) == pytest.approx(alone, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", OF_A_MATRIX)
@given(size=st.floats(0, 8), decades=st.floats(0, 2.5), centred=st.booleans(), seed=st.integers(0, 1000))
@settings(max_examples=12)
def test_nearly_constant_rows_are_right_or_withheld(
    name: str, size: float, decades: float, centred: bool, seed: int
) -> None:
    states = decaying(120, 40, decades, seed) + 10**size * normal(40, seed=seed)
    outcome = check(name, states, centred, normal(120, 40, seed=seed + 2))
    if size < 1:
        assert outcome == "ok"


@pytest.mark.parametrize("name", [name for name in OF_A_MATRIX if name != "cka_below"])
def test_the_reason_gives_the_numbers(name: str) -> None:
    states = (normal(80, 40) + 3e7 * normal(40)).float()
    with pytest.raises(NoValueError, match=r"rows of size 1\.\d+e\+08 vary by .* and are rounded by 1\d"):
        MEASURES[name].take(View(Rows(states, every_value=True), True))


def test_lost_digits_are_imprecise_and_two_points_are_not() -> None:
    states = (normal(80, 40) + 3e7 * normal(40)).float()
    for name in ("rankme", "participation_ratio", "mean_cosine"):
        with pytest.raises(NoValueError, match="rounding of the states may make") as error:
            MEASURES[name].take(View(Rows(states, every_value=True), True))
        assert error.value.no_value.status == "imprecise"
    assert MEASURES["rankme"].value(View(Rows(states), True)).value > 1
    with pytest.raises(NoValueError, match=r"need 3 different points, there are 2$") as error:
        two_nn(normal(2, 6).repeat(20, 1))
    assert error.value.no_value.status == "undefined"


def test_a_dominating_dimension_merges_no_points() -> None:
    """Of uncentred and centred rows the number is the same, and one large offset does not bring points together."""
    states = normal(300, 6)
    alone = two_nn(states).value
    for size in (1e3, 1e5, 1e7):
        offset = states.clone()
        offset[:, 2] += size
        shared = Rounding(offset, unit_of(torch.float64))
        assert two_nn(offset, shared).value == pytest.approx(alone, rel=1e-6)
        assert two_nn(offset - offset.mean(0), shared).value == pytest.approx(alone, rel=1e-6)
    # equal prompts of other batches: one point each, massive dimension or not
    offset = states.clone()
    offset[:, 2] += 1e4
    noisy = offset * (1 + 1e-7 * normal(300, 6, seed=5))
    assert two_nn(torch.cat([offset, noisy[:100]]).float().double()).value == pytest.approx(alone, rel=0.01)


def test_equal_rows_are_found_whatever_their_number() -> None:
    states = normal(40, 12)
    assert two_nn(states.repeat(40, 1)).value == pytest.approx(two_nn(states).value)


def test_states_of_fewer_digits_are_held_to_theirs() -> None:
    """Means of float32 states are float64 numbers with the digits of float32; bfloat16 ones come as float32."""
    states = (normal(60, 16) + 2e6).float()
    layout = Layout.of([3] * 20, [(1, 2)] * 20, [0] * 20)
    for unit in (None, unit_of(torch.float32)):
        site = SiteStates(states, layout, True, unit=unit)
        assert site.rows("mean").matrix.dtype == torch.float64
        with pytest.raises(NoValueError, match="rounding of the states may make"):
            MEASURES["rankme"].take(site.read(READOUTS["mean/centred"]))
    rough = SiteStates((normal(60, 16) + 20).bfloat16().float(), layout, True, unit=unit_of(torch.bfloat16))
    with pytest.raises(NoValueError, match="rounding of the states may make"):
        MEASURES["two_nn"].take(rough.read(READOUTS["all/centred"]))
    assert math.isfinite(
        MEASURES["two_nn"].take(SiteStates(normal(60, 16), layout, True).read(READOUTS["all/centred"])).value
    )


def test_rounding_is_about_what_happens() -> None:
    """The rounding of a conversion to float32 lies within the estimate, and not far within."""
    states = normal(200, 30) * torch.logspace(0, 5, 30, dtype=torch.float64)
    happened = states.float().double() - states
    rounding = Rounding(states, unit_of(torch.float32))
    for axis, estimate in ((1, rounding.rows), (0, rounding.columns)):
        share = happened.norm(dim=axis) / estimate
        assert 0.3 < float(share.mean()) <= float(share.max()) < 1
    assert float(torch.linalg.matrix_norm(happened, 2)) < rounding.spectral


def test_no_alarm_on_ordinary_states() -> None:
    """Means far from zero, decays over three powers of ten, equal rows: every measure has a value."""
    read = partial(take, below=normal(150, 30, seed=7).float())
    for decades in (0.0, 1.5, 3.0):
        for mean in (0.0, 10.0, 300.0):
            states = (decaying(150, 30, decades) + mean * normal(30) / 30**0.5).float()
            for name in set(OF_A_MATRIX) - ({"alpha_req"} if mean > 10 else set()):
                for centred in (True, False):
                    assert isinstance(read(name, torch.cat([states[:100], states[:50]]), centred), float), name


def test_an_observation_says_imprecise() -> None:
    origin = Origin("r", "s", "naturalistic", "own", None, 0, None, None)
    layout = Layout.of([1] * 80, [(0,)] * 80, [0] * 80)
    readout = READOUTS["all/centred"]
    here = SiteStates((normal(80, 40) + 3e7).float(), layout, True)
    measures = [measure for measure in MEASURES.values() if measure.needs not in {"layers", "prompts"}]
    rows = list(
        _measure_readout(SimpleNamespace(origin=origin), here, readout, measures, Bootstrap(layout, "abc", 3), {})
    )
    assert {row.measure for row in rows} == {measure.name for measure in measures}
    assert all((row.value, row.stderr) == (None, None) and "are rounded by" in str(row.reason) for row in rows)
    assert {row.status for row in rows if row.measure != "two_nn"} == {"imprecise"}


def test_rounding_of_the_decomposition_resolves_nothing() -> None:
    """Of 26 centred rows one direction holds nothing; in float64 what the decomposition leaves there must not count."""
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        states = torch.randn(26, 26, generator=generator, dtype=torch.float64)
        rotation = torch.linalg.qr(torch.randn(26, 26, generator=generator, dtype=torch.float64)).Q
        views = [View(Rows(each, every_value=True), True) for each in (states, states @ rotation)]
        plain, rotated = (MEASURES["alpha_req"].take(view).value for view in views)
        assert rotated == pytest.approx(plain, rel=1e-6)
