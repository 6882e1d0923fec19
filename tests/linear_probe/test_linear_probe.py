"""The linear probe against planted truths and plain scikit-learn."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import LogisticRegression

from pythiageo.config.runs import make_config
from pythiageo.config.tables import MeasureConfig
from pythiageo.errors import UserError
from pythiageo.linear_probe.fit import (
    ProbeSettings,
    Split,
    fit_probe,
    make_split,
    project,
)
from pythiageo.linear_probe.split import split_by_example, split_by_position
from pythiageo.measurement.forward import Reading
from pythiageo.measurement.geometry import observe
from pythiageo.measurement.geometry_plan import GeometryPlan
from pythiageo.measurement.probe_sets import GEOMETRY, Probe, prepare
from pythiageo.measurement.result import Origin
from pythiageo.no_value import NoValueError
from pythiageo.probes.encoding import CharacterTokenizer
from pythiageo.probes.probeset import Example, ProbeSet
from pythiageo.probes.tokenizer import EOS, VOCAB_SIZE
from pythiageo.stats.rates import Z, wilson_half_width

SETTINGS = ProbeSettings()


def rows(examples: int = 60, each: int = 5, classes: int = 4, d_model: int = 24, seed: int = 0):
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(examples), each)
    return rng, owner, rng.integers(0, classes, len(owner)), rng.standard_normal((len(owner), d_model))


@pytest.mark.parametrize("by", ["example", "position"])
def test_planted_classes_are_read_without_a_fault_and_the_control_is_near_chance(by):
    rng, owner, labels, noise = rows()
    states = 0.1 * noise + rng.standard_normal((4, 24))[labels] * 3
    result = fit_probe(states, make_split(labels, owner, by, SETTINGS), SETTINGS)
    assert result.accuracy.value == 1.0
    assert abs(result.control.value - 0.25) < 0.2
    assert result.selectivity.value == pytest.approx(1 - result.control.value)


def test_states_that_know_nothing_score_near_the_majority():
    _, owner, labels, states = rows(examples=400, d_model=6)
    labels = np.where(labels > 0, 0, 1)  # three quarters are class 0
    split = make_split(labels, owner, "example", SETTINGS)
    result = fit_probe(states, split, SETTINGS)
    assert result.accuracy.value == pytest.approx(split.majority().value, abs=0.02)
    assert split.majority().value == pytest.approx(0.75, abs=0.06)
    assert abs(result.selectivity.value) < 0.06


def test_the_row_space_gives_the_probabilities_of_all_features():
    _, _, labels, states = rows(examples=12, d_model=150)
    fitted, judged = states[:45], states[45:]
    settings = {"tol": 1e-12, "max_iter": 10000}
    plain = LogisticRegression(**settings).fit(fitted, labels[:45])
    small_fitted, small_judged = project(fitted, judged)
    assert small_fitted.shape == (45, 45)
    small = LogisticRegression(**settings).fit(small_fitted, labels[:45])
    np.testing.assert_allclose(small.predict_proba(small_judged), plain.predict_proba(judged), atol=1e-6)


def test_a_signature_of_the_example_leaks_through_a_split_by_position_only():
    rng, owner, _, noise = rows(examples=40, each=10, d_model=60)
    answers = rng.integers(0, 4, 40)  # each example's positions have one class, which nothing but its identity tells
    states = 3 * rng.standard_normal((40, 60))[owner] + 0.3 * noise
    labels = answers[owner]
    leaked, held = (
        fit_probe(states, make_split(labels, owner, by, SETTINGS), SETTINGS).accuracy.value
        for by in ("position", "example")
    )
    assert leaked == 1.0
    assert held < 0.6


def test_no_example_is_on_both_sides():
    rng, owner, _, _ = rows()
    held_out = split_by_example(owner, 0.2, rng)
    assert not set(owner[held_out]) & set(owner[~held_out])
    assert len(set(owner[held_out])) == 12


def test_each_class_is_held_out_in_its_share_to_within_one():
    rng = np.random.default_rng(1)
    labels = rng.permutation(np.repeat([3, 5, 8, 9], [100, 33, 7, 1]))
    held_out = split_by_position(labels, 0.2, rng)
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        assert abs(held_out[labels == label].sum() - 0.2 * count) < 1
    assert abs(held_out.sum() - 0.2 * 141) < 1


def test_a_class_that_is_only_held_out_counts_as_wrong():
    _, owner, _, _ = rows(each=1)
    split = make_split(np.arange(60) % 2, owner, "example", SETTINGS)
    labels = split.labels.copy()
    labels[np.flatnonzero(split.held_out)[:3]] = 7
    split = make_split(labels, owner, "example", SETTINGS)
    states = np.eye(8)[labels]
    assert split.unseen == 3
    assert fit_probe(states, split, SETTINGS).accuracy.value == pytest.approx(9 / 12)


def test_the_standard_error_takes_the_positions_of_an_example_together():
    _, owner, labels, _ = rows()
    split = make_split(labels, owner, "example", SETTINGS)
    per_example = np.arange(12) % 3 == 0
    rate = split.rate(np.repeat(per_example, 5).astype(float))
    assert rate.stderr == pytest.approx(per_example.std(ddof=1) / np.sqrt(12))
    assert rate.n == 60


def test_rounding_of_a_massive_constant_feature_is_no_feature():
    """In float32 a dimension of a million varies by its last digit; scaled like the others it would count."""
    rng, owner, labels, states = rows()
    split = make_split(labels, owner, "example", SETTINGS)
    massive = np.column_stack([states, 1e6 + 0.03 * rng.standard_normal(len(owner))]).astype(np.float32)
    constant = np.column_stack([states, np.full(len(owner), 1e6)]).astype(np.float32)
    assert massive[:, -1].std() > 0
    assert fit_probe(massive, split, SETTINGS) == fit_probe(constant, split, SETTINGS)


def test_the_same_settings_give_the_same_bits_and_another_seed_another_split():
    _, owner, labels, states = rows(d_model=300)
    first, second = (fit_probe(states, make_split(labels, owner, "example", SETTINGS), SETTINGS) for _ in range(2))
    assert first == second
    other = make_split(labels, owner, "example", ProbeSettings(seed=1))
    assert (other.held_out != make_split(labels, owner, "example", SETTINGS).held_out).any()


def test_shifts_and_scales_of_features_change_nothing():
    rng, owner, labels, noise = rows()
    states = noise + rng.standard_normal((4, 24))[labels]
    split = make_split(labels, owner, "example", SETTINGS)
    moved = states * 2.0 ** rng.integers(-8, 8, 24) + 16 * np.arange(24)
    assert fit_probe(moved, split, SETTINGS).accuracy == fit_probe(states, split, SETTINGS).accuracy


def test_a_solver_that_is_stopped_says_so():
    _, owner, labels, states = rows()
    hasty = ProbeSettings(iterations=2)
    with pytest.raises(NoValueError, match="within 2 iterations") as error:
        fit_probe(states, make_split(labels, owner, "example", hasty), hasty)
    assert error.value.no_value.status == "not_converged"


@pytest.mark.parametrize(
    ("labels", "owner", "reason"),
    [
        ([1, 1, 1, 1], [0, 1, 2, 3], "same next token"),
        ([1, 2, 1, 2], [0, 0, 0, 0], "at least two examples"),
        (list(range(300)), list(range(300)), "max_classes"),
        ([1, 2], [0, 1], "to be fitted all have the same"),
    ],
)
def test_what_cannot_be_fitted_is_undefined(labels, owner, reason):
    with pytest.raises(NoValueError, match=reason):
        make_split(np.array(labels), np.array(owner), "example", SETTINGS)


def test_constant_states_are_undefined_and_nonfinite_ones_an_error():
    _, owner, labels, states = rows()
    split = make_split(labels, owner, "example", SETTINGS)
    with pytest.raises(NoValueError, match="all states are the same"):
        fit_probe(np.full_like(states, 0.1), split, SETTINGS)
    states[3, 3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        fit_probe(states, split, SETTINGS)


class Echo:
    """Its states hold each example's first letter and the token at hand; its logits say that the text ends."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def sites(self) -> dict[str, int]:
        return {"blocks.0.hook_resid_post": 0, "ln_final.hook_out": 0}

    def hooks(self) -> dict[str, str]:
        return {site: site for site in self.sites()}

    def read(self, ids, sites, logit_positions):
        one_hot = torch.nn.functional.one_hot(ids, VOCAB_SIZE).float() * self.scale
        states = torch.cat([one_hot[:, 1:2].expand_as(one_hot), one_hot], dim=2)
        logits = None
        if logit_positions is not None:
            logits = torch.zeros(len(ids), len(logit_positions), VOCAB_SIZE)
            logits[:, :, EOS] = self.scale
        return dict.fromkeys(sites, states), logits


def observed(reader: Echo, examples, nonfinite: str | None = None, **settings):
    probe_set = ProbeSet("T", "L1", "exact", tuple(examples), 0.0, "0" * 12)
    prepared = prepare([Probe(probe_set, GEOMETRY)], CharacterTokenizer(), None)
    config = MeasureConfig.model_validate({"geometry": [], "linear_probe": settings or True})
    origin = Origin("r", "s", "task-aligned", "nano", 0, 0, None, None)
    reading = Reading(reader, {**reader.sites()}, 4096, 2**30)
    return observe(reading, prepared, GeometryPlan.of(config), origin, nonfinite)


ECHOES = [Example(f"{letter} = ", letter) for letter in "ABCD" * 10]
NAMES = {"linear_probe", "linear_probe_control", "linear_probe_selectivity"}
BASELINES = {"linear_probe_model", "linear_probe_majority"}
WHOLE = {"example": ({"linear_probe_answer"}, {"linear_probe_answer_model"}), "position": (set(), set())}


@pytest.mark.parametrize(("by", "suffix"), [("example", ""), ("position", "_by_position")])
def test_a_run_has_the_probe_at_each_site_and_what_it_is_compared_with_once(by, suffix):
    found = {(row.measure, row.site): row for row in observed(Echo(), ECHOES, splits=[by])}
    sites = Echo().sites()
    expected = {(name + suffix, site) for name in NAMES | WHOLE[by][0] for site in sites}
    expected |= {(name + suffix, None) for name in BASELINES | WHOLE[by][1]}
    assert set(found) == expected
    assert {row.status for row in found.values()} == {"ok"}
    assert all(found["linear_probe" + suffix, site].value == 1.0 for site in sites)
    # half of the answer tokens are ends
    assert found["linear_probe_model" + suffix, None].value == 0.5
    assert found["linear_probe_majority" + suffix, None].value == 0.5
    # eight examples of two tokens are held out; every one has a token that the model gets wrong
    whole = WHOLE[by][0] | WHOLE[by][1]
    assert {row.n for row in found.values() if row.measure not in whole} == {16}
    assert {row.n for row in found.values() if row.measure in whole} == ({8} if by == "example" else set())
    if by == "example":
        assert all(found["linear_probe_answer", site].value == 1.0 for site in sites)
        assert found["linear_probe_answer_model", None].value == 0.0


@given(rights=st.lists(st.lists(st.booleans(), min_size=1, max_size=5), min_size=2, max_size=12))
def test_an_answer_is_right_where_every_token_of_it_is(rights: list[list[bool]]) -> None:
    """Against a loop over examples, in any order of their rows; one more answer is fitted and does not count."""
    owner = np.repeat(np.arange(len(rights) + 1), [*map(len, rights), 2])
    held_out = owner < len(rights)
    split = Split(np.zeros(len(owner), int), owner, held_out, np.zeros(len(owner), int))
    flat = np.array([right for row in rights for right in row], dtype=float)
    rate = split.answer_rate(flat)
    whole = [all(row) for row in rights]
    assert (rate.value, rate.n) == (pytest.approx(np.mean(whole)), len(rights))
    # where all answers are alike their spread is no error: see test_rates.py
    expected = stats.sem(whole) if len(set(whole)) > 1 else wilson_half_width(np.mean(whole), len(whole)) / Z
    assert rate.stderr == pytest.approx(expected)


class Nothing(Echo):
    """Its states hold noise that is an example's own, drawn from its first letter alone: nothing of any answer."""

    def read(self, ids, sites, logit_positions):
        generator = torch.Generator().manual_seed(int(self.scale))
        codes, noise = (
            torch.randn(VOCAB_SIZE, 40, generator=generator),
            torch.randn(*ids.shape, 40, generator=generator),
        )
        _, logits = super().read(ids, sites, logit_positions)
        return dict.fromkeys(sites, 3 * codes[ids[:, 1:2]].expand_as(noise) + noise), logits


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_with_nothing_planted_the_split_by_position_has_selectivity_and_its_rows_say_why(seed):
    rng = np.random.default_rng(seed)
    named = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    # an answer repeats a letter, as COPY's and SORT's often do; which letter has to do with nothing
    examples = [
        Example(f"{name} = ", letter * 4) for name, letter in zip(named, rng.choice([*"WXYZ"], 36), strict=True)
    ]
    rows = observed(Nothing(seed), examples, splits=["example", "position"])
    found = {row.measure: row for row in rows if row.site != "ln_final.hook_out"}
    assert found["linear_probe_selectivity_by_position"].value > 0.2
    assert abs(found["linear_probe_selectivity"].value) < 0.2
    for name in ("linear_probe", "linear_probe_selectivity"):
        assert "positions of one example are on both sides of the split" in str(found[f"{name}_by_position"].reason)
        assert "both sides" not in str(found[name].reason)
    assert found["linear_probe_control_by_position"].reason is None


def test_a_row_says_how_many_tokens_were_never_fitted():
    rows = observed(Echo(), [Example(f"{letter} = ", letter) for letter in "ABCDEFGHIJ"])
    probe = next(row for row in rows if row.measure == "linear_probe")
    assert probe.value == 0.5
    assert probe.reason == "2 held-out positions of tokens that were never fitted count as wrong"


@pytest.mark.parametrize(
    ("reader", "examples", "nonfinite", "settings", "status"),
    [
        (Echo(), ECHOES, "weights hold NaN", {}, "nonfinite"),
        (Echo(math.nan), ECHOES, None, {}, "nonfinite"),
        (Echo(), ECHOES, None, {"iterations": 1}, "not_converged"),
        (Echo(), ECHOES, None, {"max_classes": 3}, "undefined"),
        (Echo(), ECHOES[:1], None, {}, "undefined"),
    ],
)
def test_what_cannot_be_read_has_a_status_and_a_reason(reader, examples, nonfinite, settings, status):
    names = NAMES | {"linear_probe_answer"}
    rows = [row for row in observed(reader, examples, nonfinite, **settings) if row.measure in names]
    assert len(rows) == 8
    assert {row.status for row in rows} == {status}
    assert all(row.reason and row.value is None for row in rows)


def test_a_config_switches_the_probe_on_by_true_or_a_table():
    base = {"name": "x", "target": "y"}
    assert make_config(dict(base), [], "analyze", "here").measures.linear_probe is None
    on = make_config(dict(base), ["measures.linear_probe=true"], "analyze", "here")
    assert on.measures.linear_probe.splits == ("example",)
    both = make_config(dict(base), ['measures.linear_probe.splits=["example", "position"]'], "analyze", "here")
    assert both.measures.linear_probe.splits == ("example", "position")
    with pytest.raises(UserError, match="inverse_penalty"):
        make_config(dict(base), ["measures.linear_probe.inverse_penalty=0"], "analyze", "here")
