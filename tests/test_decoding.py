"""The linear probe against planted truths and plain scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from pythiageo.decoding.probe import (
    NotConvergedError,
    ProbeSettings,
    UndefinedProbeError,
    fit_probe,
    make_split,
    project,
)
from pythiageo.decoding.split import split_by_example, split_by_position

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
    with pytest.raises(NotConvergedError, match="within 2 iterations"):
        fit_probe(states, make_split(labels, owner, "example", hasty), hasty)


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
    with pytest.raises(UndefinedProbeError, match=reason):
        make_split(np.array(labels), np.array(owner), "example", SETTINGS)


def test_constant_states_are_undefined_and_nonfinite_ones_an_error():
    _, owner, labels, states = rows()
    split = make_split(labels, owner, "example", SETTINGS)
    with pytest.raises(UndefinedProbeError, match="all states are the same"):
        fit_probe(np.full_like(states, 0.1), split, SETTINGS)
    states[3, 3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        fit_probe(states, split, SETTINGS)
