"""Claims against planted truth: known floors, orders, leads, depths, ties, censoring, noise and cadence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import planted
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import pythiageo.claims
from pythiageo.claims import (
    SUMMARY_COLUMNS,
    Evidence,
    Specification,
    all_claims,
    claims,
    holding_shares,
    judge,
    register,
    specification_curve,
    summary_table,
    trained_tasks,
)
from pythiageo.claims.controls import controls
from pythiageo.claims.crosscorrelation import differences_correlation, interpolate, peaks_of
from pythiageo.claims.emergence import emergence
from pythiageo.claims.floor_order import floor_order
from pythiageo.claims.floors import floors
from pythiageo.claims.hierarchy import hierarchy
from pythiageo.claims.prediction import prediction, swap, tie_rates
from pythiageo.claims.probe import probe
from pythiageo.claims.recovery import recovery
from pythiageo.claims.seeds import seeds
from pythiageo.claims.topdown import top_down_profile, top_down_propagation
from pythiageo.cli.app import run as command
from pythiageo.errors import UserError
from pythiageo.events import EVENT_COLUMNS, transitions
from pythiageo.observations import COLUMNS
from pythiageo.observations.manifest import without_mistakes
from pythiageo.observations.measures import transitions_of_measures
from pythiageo.stats.resampling import kendall_scores, label_orders
from pythiageo.study.published import published
from pythiageo.study.tasks import TASKS as STUDY_TASKS

STEPS = tuple(range(0, 4001, 100))
MEASURE = "covariance_effective_rank"


def run(
    acquired: Mapping[str, int | None],
    floor_at: Mapping[str, Sequence[int]],
    low: Mapping[str, float] | None = None,
    steps: Sequence[int] = STEPS,
    noise: float = 0.0,
    **who: Any,
) -> pl.DataFrame:
    """A run of one level: accuracy jumps at ``acquired``; each layer of a task falls in a line to its floor step.

    ``floor_at`` gives a floor step a layer; every layer falls from 20 to ``low`` (2) and rises to 12 at the same pace.
    """
    rng = np.random.default_rng(0)
    rows = []
    for task, at in acquired.items():
        for step in steps:
            right = 0.95 if at is not None and step >= at else 0.0
            rows.append(planted.observation(step=step, task=task, value=right, **who))
            bottom = (low or {}).get(task, 2.0)
            for layer, floor in enumerate(floor_at[task]):
                pace = (20 - bottom) / floor
                value = 20 - pace * step if step <= floor else min(12.0, bottom + pace * (step - floor))
                rows.append(
                    planted.observation(
                        step=step,
                        task=task,
                        level="mixed",
                        layer=layer,
                        site=f"blocks.{layer}.hook_resid_post",
                        readout="answer/centred",
                        measure=MEASURE,
                        value=value + noise * rng.normal(),
                        **who,
                    )
                )
    return planted.table(rows)


def several(count: int, **planted_run: Any) -> pl.DataFrame:
    """The same run under several names, sizes alike, seeds apart."""
    return pl.concat([run(**planted_run, run=f"r{seed}", series=f"r{seed}", seed=seed) for seed in range(count)])


ORDER = {"COPY": 600, "REV": 800, "CMP": 1000, "PAR": 1200, "SORT": 1400, "ADD": 2000, "MOD": 2400, "MUL": 2800}
QUICK = Specification(resamples=199)


# ---- transitions


def test_transition_and_half_collapse_of_every_layer() -> None:
    table = run({"MOD": 900}, {"MOD": (1200, 800, 400)})
    found = transitions(table, "billa-v4")
    assert found.schema == EVENT_COLUMNS
    at = {(row["event"], row["layer"]): row["step"] for row in found.iter_rows(named=True)}
    assert [at["transition", layer] for layer in range(3)] == [1200, 800, 400]
    # a line from 20 to 2 passes 11 half way to the floor
    assert [at["half_collapse", layer] for layer in range(3)] == [600, 400, 200]
    assert set(found["status"]) == {"found"}
    assert found.filter(pl.col("event") == "half_collapse")["threshold"].unique().to_list() == [11.0]


def test_a_minimum_at_the_edge_of_the_window_counts_where_the_protocol_has_it_so_and_is_told() -> None:
    """Both tasks fall to step 12,000; the window of both protocols ends at 10,000."""
    table = several(
        3, acquired={"MOD": 900, "ADD": 900}, floor_at={task: (11_000, 12_000) for task in ("MOD", "ADD")},
        steps=range(0, 13_001, 500),
    )  # fmt: skip
    evidence = Evidence(table)
    theirs, ours = (replace(QUICK, protocol=name) for name in ("billa-v4", "pythiageo"))
    assert set(evidence.moves(theirs)["status"]) == set(evidence.moves(ours)["status"]) == {"at-edge"}
    for claim in (top_down_profile, top_down_propagation):
        counts = claim(evidence, theirs)
        assert (counts.table.height, counts.n) == (6, 6)
        assert "12 of 12 extremes lie at the edge of the window of billa-v4 and count" in str(counts.reason)
        assert claim(evidence, ours).table.height == 0
    moved = hierarchy(evidence, theirs)
    assert moved.n == 6
    assert "6 of 6 extremes lie at the edge" in str(moved.reason)
    # floors at shared steps are told apart in the same way
    sizes = pl.concat([table.with_columns(pl.lit(name).alias("size")) for name in ("nano", "micro", "small")])
    sizes = sizes.with_columns((pl.col("run") + pl.col("size")).alias("run"))
    assert "18 of 18 extremes lie at the edge" in str(floors(Evidence(sizes), theirs).reason)
    assert set(floors(Evidence(sizes), theirs).cases["status"]) == {"at-edge"}  # type: ignore[index]
    assert floors(Evidence(sizes), ours).estimate is None


def curve(values: Sequence[float | None], measure: str, spacing: int = 100) -> dict[str, Any]:
    """The transition of a measure with these values."""
    rows = []
    for index, value in enumerate(values):
        missing = {"status": "nonfinite", "reason": "NaN"} if value is None else {}
        place = {"level": "mixed", "layer": 0, "site": "blocks.0.hook_resid_post", "readout": "answer/centred"}
        rows.append(planted.observation(step=spacing * index, measure=measure, value=value, **place, **missing))
    found = transitions(planted.table(rows), "billa-v4").filter(pl.col("event") == "transition")
    assert found.height == 1
    return found.row(0, named=True)


@pytest.mark.parametrize(
    ("values", "measure", "status", "step", "reason"),
    [
        ([9.0, 5.0, 3.0, 6.0], MEASURE, "found", 200, None),
        ([9.0, 7.0, 5.0, 3.0], MEASURE, "not-reached", None, "still moving"),
        ([3.0, 5.0, 9.0, 7.0], MEASURE, "undefined", None, "never fell below its first value"),
        ([None, 5.0, 3.0, 6.0], MEASURE, "undefined", None, "no value at the run's first checkpoint"),
        ([9.0, None, 3.0, None], MEASURE, "undefined", None, "too few checkpoints with a value in steps 0-10000: 2"),
        ([1.0, 5.0, 9.0, 7.0], "hessian_top", "found", 200, None),
        ([9.0, 5.0, 3.0, 2.0], "hessian_top", "undefined", None, "never rose above"),
        # 0 to 10 and back: half of the way is 5
        ([0.0, 2.0, 6.0, 10.0, 9.0], "llc", "found", 200, None),
        ([2.0, 2.0, 2.0, 2.0], "llc", "undefined", None, "never moved"),
    ],
)
def test_transitions_of_measures(
    values: list[float | None], measure: str, status: str, step: int | None, reason: str | None
) -> None:
    row = curve(values, measure)
    assert (row["status"], row["step"], row["value"] is None) == (status, step, step is None)
    assert (row["reason"] is None) if reason is None else (reason in row["reason"])


@given(st.lists(st.floats(0.1, 50), min_size=3, max_size=25))
def test_a_minimum_is_the_definition(values: list[float]) -> None:
    row = curve(values, MEASURE)
    lowest = int(np.argmin(values))
    expected = "undefined" if values[lowest] >= values[0] else "not-reached" if lowest == len(values) - 1 else "found"
    assert row["status"] == expected
    assert row["step"] == (100 * lowest if expected == "found" else None)


def test_every_transition_has_a_known_kind() -> None:
    assert set(transitions_of_measures().values()) == {"minimum", "maximum"}


# ---- cross-correlation


def test_lag_of_a_planted_lead() -> None:
    rng = np.random.default_rng(1)
    moves = rng.normal(size=120)
    first, later = moves[5:105].cumsum(), moves[:100].cumsum()  # `first` shows at t what `later` shows at t + 5
    r, lags = peaks_of(differences_correlation(first[None], later[None]))
    assert (lags[0, 0], r[0, 0] > 0.9) == (-5, True)
    back, opposite = peaks_of(differences_correlation(later[None], -first[None]))
    assert (opposite[0, 0], back[0, 0] < -0.9) == (5, True)
    zero, _ = peaks_of(differences_correlation(np.ones((1, 100)), later[None]))
    assert zero[0, 0] == 0


def test_correlation_at_lag_zero_is_numpys() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 60)).cumsum(axis=1), rng.normal(size=(3, 60)).cumsum(axis=1)
    found = differences_correlation(a, b)
    assert np.allclose(found[20 - (20 - len(found) // 2) if len(found) // 2 < 20 else 20],
                       np.corrcoef(np.diff(a), np.diff(b))[:2, 2:])  # fmt: skip


def test_interpolation_is_a_gaussian_process() -> None:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern

    rng = np.random.default_rng(3)
    steps = np.array([0, 100, 200, 300, 500, 800, 1200, 1700, 2300, 3000], dtype=float)
    curves = np.vstack([np.sin(steps / 600), 1 / (1 + np.exp(-(steps - 900) / 150))]) + 1e-4 * rng.normal(size=(2, 10))
    grid = np.linspace(0, 3000, 31)
    ours = interpolate(steps, curves, grid)
    lengths, noises = np.geomspace(0.01, 1.0, 12), [1e-6, 1e-3, 1e-2, 1e-1]
    for curve_, found in zip(curves, ours, strict=True):
        best, expected = -np.inf, None
        centred = curve_ - curve_.mean()
        for length in lengths:
            for noise in noises:
                kernel = Matern(length, nu=2.5)
                gram = kernel((steps / 3000)[:, None]) + noise * np.eye(10)
                variance = centred @ np.linalg.solve(gram, centred) / 10
                model = GaussianProcessRegressor(
                    ConstantKernel(variance) * kernel, alpha=noise * variance, optimizer=None
                ).fit((steps / 3000)[:, None], centred)
                if model.log_marginal_likelihood_value_ > best:
                    best, expected = model.log_marginal_likelihood_value_, model.predict((grid / 3000)[:, None])
        assert expected is not None
        assert np.allclose(found, expected + curve_.mean(), atol=1e-6)


def test_kendall_is_scipys() -> None:
    rng = np.random.default_rng(4)
    for _ in range(20):
        steps = rng.integers(0, 5, 6).astype(float)
        depth = np.arange(6)
        tau = kendall_scores(depth, steps, np.arange(6)[None])[0]
        expected = stats.kendalltau(depth, steps).statistic
        assert tau == pytest.approx(0.0 if math.isnan(expected) else expected)
    orders, exact = label_orders(4, 99, rng)
    assert exact
    assert sorted(map(tuple, orders.tolist())) == sorted(permutations(range(4)))


# ---- hierarchy and its nulls


def floor_before(lead: int) -> dict[str, tuple[int]]:
    return {task: (at - lead,) for task, at in ORDER.items()}


@pytest.mark.parametrize("rule", ["v4", "ours"])
def test_a_lead_that_is_the_tasks_own_is_supported(rule: str) -> None:
    table = several(3, acquired=ORDER, floor_at=floor_before(200))
    result = hierarchy(Evidence(table), replace(QUICK, rule=rule))
    assert (result.verdict, result.estimate, result.n) == ("supported", 1.0, 24)
    # of two tasks, the later one's acquisition is led by both, the earlier one's by the other only within 200 steps
    assert 0.4 < result.null < 0.8
    assert result.p <= 0.01
    assert result.cases is not None
    assert set(result.cases["lead_steps"]) == {200.0}
    assert set(result.cases["lead_checkpoints"]) == {2.0}
    hard = result.table.filter((pl.col("class") == "hard") & (pl.col("size") == "all"))
    assert hard.select("n", "leads", "median_lead_steps").row(0) == (9, 9, 200.0)


def test_a_floor_before_everything_is_no_precursor() -> None:
    table = several(3, acquired=ORDER, floor_at={task: (300,) for task in ORDER})
    result = hierarchy(Evidence(table), QUICK)
    assert (result.estimate, result.null, result.p, result.verdict) == (1.0, 1.0, 1.0, "not decidable")
    assert "leads other tasks' acquisitions too" in result.reason


def test_relations_and_windows() -> None:
    acquired = {"COPY": 500, "REV": 500, "CMP": 500, "PAR": 500, "ADD": None}
    floor_at = {"COPY": (300,), "REV": (400,), "CMP": (500,), "PAR": (700,), "ADD": (300,)}
    evidence = Evidence(run(acquired, floor_at))

    def relations(**asked: Any) -> dict[str, str]:
        cases = hierarchy(evidence, replace(QUICK, **asked)).cases
        assert cases is not None
        return dict(cases.select("task", "relation").iter_rows())

    # ADD was not acquired: no event, neither a lead nor a miss
    v4 = {"COPY": "leads", "REV": "leads", "CMP": "synchronous", "PAR": "lags"}
    assert relations(rule="v4") == v4
    assert relations(rule="ours", k=0) == v4
    assert relations(rule="ours", k=1) == v4 | {"REV": "synchronous"}
    assert relations(rule="ours", k=2) == v4 | {"COPY": "synchronous", "REV": "synchronous", "PAR": "synchronous"}


@pytest.mark.parametrize("axis", ["checkpoints", "steps"])
def test_v1_finds_a_planted_lead(axis: str) -> None:
    rows = []
    for task, at in ORDER.items():
        for step in STEPS:
            for measure, when, extra in (
                ("accuracy", at, {}),
                (MEASURE, at - 300, {"layer": 0, "site": "blocks.0.hook_resid_post", "readout": "answer/centred"}),
            ):
                value = 1 / (1 + math.exp(-(step - when) / 60))
                value = value if measure == "accuracy" else 3 + 10 * value
                rows.append(planted.observation(step=step, task=task, measure=measure, value=value, **extra))
    result = hierarchy(Evidence(planted.table(rows)), replace(QUICK, rule="v1", axis=axis))
    assert result.cases is not None
    assert result.cases["relation"].to_list() == ["leads"] * 8
    assert result.cases["lead_steps"].to_list() == pytest.approx([300.0] * 8, abs=1e-6)
    assert result.cases["peak_r"].min() > 0.9
    nulls = controls(Evidence(planted.table(rows)), replace(QUICK, rule="v1")).table
    blocks = nulls.filter((pl.col("control") == "blocks") & (pl.col("rule") == "v1")).row(0, named=True)
    assert blocks["rate"] == 1.0
    assert blocks["null_rate"] < 0.9
    assert blocks["p"] <= 0.05


def test_untrained_tasks_are_controls() -> None:
    floor_at = floor_before(200) | {"NEVER": (1900,), "SHUFFLED": (1900,)}
    acquired = ORDER | {"NEVER": None, "SHUFFLED": None}
    trained = replace(QUICK, trained=tuple(ORDER))
    result = controls(Evidence(run(acquired, floor_at)), trained)
    row = result.table.filter((pl.col("control") == "untrained tasks") & (pl.col("rule") == "ours")).row(0, named=True)
    # acquisitions more than one checkpoint after 1900: MOD and MUL, of eight
    assert (row["rate"], row["null_rate"], row["null_pairs"]) == (1.0, 0.25, 16)
    assert result.estimate == 0.75
    assert result.verdict == "supported"
    early = floor_before(200) | {"NEVER": (300,), "SHUFFLED": (300,)}
    assert controls(Evidence(run(acquired, early)), trained).verdict == "not decidable"
    # the hierarchy leaves them out
    assert hierarchy(Evidence(run(acquired, floor_at)), trained).n == 8
    nothing = controls(Evidence(run(ORDER, floor_before(200))), QUICK)
    assert (nothing.verdict, nothing.estimate) == ("not decidable", None)


# ---- top-down


def test_top_down_in_time() -> None:
    down = {task: (1600, 1200, 800, 600, 400) for task in ORDER}
    up = {task: steps[::-1] for task, steps in down.items()}
    flat = {task: (800,) * 5 for task in ORDER}
    plans = {"down": down, "up": up, "flat": flat}
    found = {name: top_down_propagation(Evidence(several(3, acquired=ORDER, floor_at=plan)), QUICK)
             for name, plan in plans.items()}  # fmt: skip
    assert [(each.estimate, each.verdict) for each in found.values()] == [
        (1.0, "supported"), (-1.0, "contradicted"), (0.0, "not decidable"),
    ]  # fmt: skip
    # one of the 120 orders of five layers
    assert found["down"].p <= 0.01
    assert found["down"].table["p_earlier_below"].to_list() == pytest.approx([1 / 120] * 24)
    assert "24 of 24 cases have layers that fall at the same checkpoint" in str(found["flat"].reason)
    # neighbouring layers of one model are related, and its p takes them for independent
    alone = top_down_propagation(Evidence(run(ORDER, down)), QUICK)
    assert (alone.estimate, alone.verdict, alone.rests_on) == (1.0, "not decidable", "one model")
    assert alone.p == pytest.approx(1 / 120)
    assert "3 models are needed" in str(alone.reason)
    assert top_down_propagation(Evidence(run(ORDER, floor_before(200))), QUICK).estimate is None


def test_top_down_profile_takes_the_start_off() -> None:
    # every layer starts at 20, a tie, which is half; at both blocks' floors (1600, 400) the first, which falls to 12.8
    # alone, lies above
    down = {task: (1600, 400) for task in ORDER}
    late = several(3, acquired=ORDER, floor_at=down)
    shallow = pl.when(pl.col("layer") == 0).then(20 - 0.4 * (20 - pl.col("value"))).otherwise("value").alias("value")
    result = top_down_profile(Evidence(late.with_columns(shallow)), QUICK)
    assert (result.estimate, result.verdict) == (0.5, "supported")
    assert "as the study scores it: 24 of 24 in 3 models; at other blocks' floors: 24 of 24" in str(result.reason)
    # blocks that fall alike, at other times: each lies low at its own floor, and neither below the other
    timing = top_down_profile(Evidence(late), QUICK)
    assert (timing.estimate, timing.verdict) == (0.0, "not decidable")
    assert timing.table["scored"].all()
    assert timing.table.select("floors", "above", "above_at_start").unique().row(0) == (2, 0.5, 0.5)
    # the same order at the start: the first block 5 higher from the beginning
    lifted = several(3, acquired=ORDER, floor_at={task: (400, 400) for task in ORDER}).with_columns(
        pl.when(pl.col("layer") == 0).then(pl.col("value") + 5).otherwise("value").alias("value")
    )
    there = top_down_profile(Evidence(lifted), QUICK)
    assert there.table["scored"].all()
    assert (there.estimate, there.verdict) == (0.0, "not decidable")
    assert there.reason == (
        "as the study scores it: 24 of 24 in 3 models; at other blocks' floors: 24 of 24; at the first checkpoint: "
        "24 of 24"
    )


# ---- emergence, floors, recovery, seeds


def test_emergence_map_and_its_order() -> None:
    acquired: dict[str, int | None] = {**ORDER, "MUL": None}
    table = pl.concat([several(2, acquired=acquired, floor_at=floor_before(200))])
    result = emergence(Evidence(table), QUICK)
    assert (result.estimate, result.verdict) == (1.0, "supported")
    assert result.reason == "14 of 16 runs, tasks and levels acquired"
    assert result.table.filter(pl.col("task") == "MUL")["step"].to_list() == [None, None]
    backwards = {task: 3000 - at for task, at in ORDER.items()}
    turned = emergence(Evidence(run(backwards, floor_before(200))), QUICK)
    assert (turned.estimate, turned.verdict) == (0.0, "contradicted")


def by_size(low: Mapping[str, Mapping[str, float]], steps: Mapping[str, Sequence[int]] | None = None) -> pl.DataFrame:
    """A run a size, with these floors."""
    return pl.concat(
        [
            run(ORDER, {task: (400,) for task in ORDER}, low=low[size], run=size, series=size, size=size,
                steps=(steps or {}).get(size, STEPS))
            for size in low
        ]
    )  # fmt: skip


def test_floors_at_matched_cadence() -> None:
    same = {size: dict.fromkeys(ORDER, 2.0) for size in ("nano", "micro", "small")}
    assert floors(Evidence(by_size(same)), QUICK).verdict == "supported"
    # nano and micro every 100 steps, small every 500: its own floor is missed, at shared steps all are alike
    coarse = floors(Evidence(by_size(same, {"small": range(0, 4001, 500)})), QUICK)
    assert (coarse.estimate, coarse.verdict) == (pytest.approx(0.0), "supported")
    assert coarse.cases is not None
    assert coarse.cases.filter(pl.col("size") == "nano")["own_floor"].unique().to_list() == [2.0]
    assert coarse.cases.filter(pl.col("size") == "nano")["floor"].unique().to_list() == [pytest.approx(6.5)]
    growing = {size: dict.fromkeys(ORDER, low) for size, low in (("nano", 1.0), ("micro", 2.0), ("small", 6.0))}
    wide = floors(Evidence(by_size(growing)), QUICK)
    # population std of 1, 2, 6 over their mean
    assert wide.estimate == pytest.approx(np.std([1, 2, 6]) / 3)
    assert wide.verdict == "contradicted"


def test_recovery_by_layer() -> None:
    def table(middle: float, last: float) -> pl.DataFrame:
        values = {0: (20, 10, 20), 1: (20, 2, middle), 2: (20, 2, middle), 3: (20, 2, last)}
        rows = []
        for seed in range(3):
            for layer, curve_ in values.items():
                for step, value in zip((0, 100, 200, 300), (*curve_[:2], 15, curve_[2]), strict=True):
                    rows.append(
                        planted.observation(run=f"r{seed}", seed=seed, step=step, level="mixed", layer=layer,
                                            site=f"blocks.{layer}.hook_resid_post", readout="answer/centred",
                                            measure=MEASURE, value=float(value))
                    )  # fmt: skip
            rows += [planted.observation(run=f"r{seed}", seed=seed, step=s, value=0.9) for s in (0, 100, 200, 300)]
        return planted.table(rows)

    result = recovery(Evidence(table(middle=11.0, last=2.9)), QUICK)
    # (11 - 2) / 18 less (2.9 - 2) / 18
    assert result.estimate == pytest.approx(0.45)
    assert result.verdict == "supported"
    assert recovery(Evidence(table(middle=2.9, last=11.0)), QUICK).verdict == "contradicted"


def test_share_of_variance_between_seeds() -> None:
    parts = [run({task: at + shift for task, at in ORDER.items()}, floor_before(200), run=f"r{seed}", seed=seed)
             for seed, shift in enumerate((0, 0, 100))]  # fmt: skip
    result = seeds(Evidence(pl.concat(parts)), QUICK)
    values = np.log1p([[at, at, at + 100] for at in ORDER.values()])
    # components of variance: mean squares within, 8 x 2 degrees of freedom, and between, 7
    within = ((values - values.mean(axis=1, keepdims=True)) ** 2).sum() / 16
    between = (3 * (values.mean(axis=1) - values.mean()) ** 2).sum() / 7
    assert result.estimate == pytest.approx(within / (within + (between - within) / 3))
    row = result.table.filter((pl.col("quantity") == "acquisition") & (pl.col("task") == "ADD")).row(0, named=True)
    assert (row["seeds"], row["mean"], row["std"]) == (
        3,
        pytest.approx(2000 + 100 / 3),
        pytest.approx(np.std([0, 0, 100], ddof=1)),
    )
    assert row["high"] - row["mean"] == pytest.approx(stats.t.ppf(0.975, 2) * row["std"] / math.sqrt(3))


# ---- prediction


def test_floors_that_order_acquisitions() -> None:
    low = {task: 1 + index for index, task in enumerate(ORDER)}
    evidence = Evidence(several(2, acquired=ORDER, floor_at=floor_before(200), low=low))
    found = {each.name: each for each in prediction(evidence, QUICK)}
    assert {each.estimate for each in found.values()} == {1.0}
    # three hard tasks under billa-v4: one of six orders is no evidence
    assert (found["prediction-hard"].verdict, found["prediction-hard"].p) == ("not decidable", pytest.approx(1 / 6))
    assert "the floors have 6 orders, so that p is never 0.05 or less" in str(found["prediction-hard"].reason)
    assert "orders" not in str(found["prediction-easy"].reason)
    assert found["prediction-across"].n == 2 * 15
    assert found["prediction-across"].verdict == "supported"
    upside = {task: 10.0 - index for index, task in enumerate(ORDER)}
    opposite = prediction(Evidence(several(2, acquired=ORDER, floor_at=floor_before(200), low=upside)), QUICK)
    assert [each.estimate for each in opposite] == [0.0, 0.0, 0.0]
    assert opposite[0].verdict == "contradicted"
    assert opposite[0].table["opposite"].unique().to_list() == [1.0]


def test_ties_and_censoring() -> None:
    acquired = {"COPY": 600, "REV": 600, "CMP": 800, "PAR": None, "SORT": None}
    low = {"COPY": 1.0, "REV": 2.0, "CMP": 3.0, "PAR": 4.0, "SORT": 5.0}
    evidence = Evidence(run(acquired, dict.fromkeys(acquired, (300,)), low=low))
    easy = prediction(evidence, QUICK)[1].table.filter(pl.col("group") == "easy")
    # of 10 pairs COPY-REV is tied and PAR-SORT, neither acquired, is none
    assert easy.select("concordant", "discordant", "tied", "pairs").unique().row(0) == (8, 0, 1, 9)
    assert dict(easy.select("ties", "concordance").iter_rows()) == {
        "error": pytest.approx(8 / 9), "half": pytest.approx(8.5 / 9), "dropped": 1.0,
    }  # fmt: skip


def test_swap_and_floor_order() -> None:
    swapped = ORDER | {"ADD": 2400, "MOD": 2000}
    low = {task: 1.0 + index for index, task in enumerate(ORDER)}
    turned = low | {"ADD": low["MOD"], "MOD": low["ADD"]}
    a = run(ORDER, floor_before(200), low=low, run="a", size="nano")
    follows = run(swapped, floor_before(200), low=turned, run="b", size="micro")
    stays = run(swapped, floor_before(200), low=low, run="b", size="micro")
    result = swap(Evidence(pl.concat([a, follows])), QUICK)
    assert result.table.select("task_a", "task_b", "floors_swap", "predicted").rows() == [("ADD", "MOD", True, True)]
    # of all orders of eight tasks, the two that swap must stand in these two places, and rightly so: 1 in 56
    assert result.null == pytest.approx(1 / 56, abs=0.03)
    # floors of one order at both sizes can predict no swap, however they are dealt out: no evidence against the claim
    still = swap(Evidence(pl.concat([a, stays])), QUICK)
    assert (still.estimate, still.null, still.p, still.verdict) == (0.0, 0.0, 1.0, "not decidable")
    order = floor_order(Evidence(pl.concat([a, follows])), QUICK)
    expected = stats.spearmanr(list(low.values()), list(turned.values())).statistic
    assert order.estimate == pytest.approx(expected)
    assert order.verdict == "supported"


@pytest.mark.parametrize(("count", "verdict", "exact"), [(4, "not decidable", 1 / 24), (8, "contradicted", 1 / 40_320)])
def test_each_verdict_on_the_order_of_floors_may_be_wrong_in_a_fortieth_of_noise(
    count: int, verdict: str, exact: float
) -> None:
    """Floors in the reverse order: of four tasks one order in 24 is so by chance, and the interval has no width."""
    low = {task: 2.0 + index for index, task in enumerate(list(ORDER)[:count])}
    floors_at = {task: (ORDER[task] - 200, 300) for task in low}
    turned = dict(zip(low, reversed(low.values()), strict=True))
    plain, other = (
        run({task: ORDER[task] for task in low}, floors_at, low=each, run=name, size=name)
        for each, name in ((low, "nano"), (turned, "micro"))
    )
    result = floor_order(Evidence(pl.concat([plain, other])), Specification(resamples=1999))
    assert (result.estimate, result.verdict, result.p) == (pytest.approx(-1), verdict, 1)
    assert ("one of 24 orders has p > 0.025" in (result.reason or "")) == (exact > 0.025)
    # the other way round, the same counts speak for the claim: 4 standard errors of 1,999 draws
    alike = floor_order(Evidence(pl.concat([plain, other.with_columns(plain["value"])])), Specification(resamples=1999))
    assert alike.p == pytest.approx(exact, abs=4 * (exact / 1999) ** 0.5 + 1 / 1999)
    assert alike.verdict == {"contradicted": "supported"}.get(verdict, verdict)


def test_a_size_whose_floors_are_all_equal_orders_nothing() -> None:
    low = {task: 2.0 + index for index, task in enumerate(ORDER)}
    floors_at = {task: (at - 200, 300) for task, at in ORDER.items()}
    plain = run(ORDER, floors_at, low=low)
    turned = run(ORDER, floors_at, low=dict(zip(low, reversed(low.values()), strict=True)), run="b", size="micro")
    flat = run(ORDER, floors_at, low=dict.fromkeys(ORDER, 3.0), run="c", size="small")
    alone = floor_order(Evidence(pl.concat([plain, flat])), QUICK)
    assert (alone.estimate, alone.verdict) == (None, "not decidable")
    assert alone.reason == "at all but one size the floors of all tasks are equal, and order nothing"
    three = floor_order(Evidence(pl.concat([plain, turned, flat])), QUICK)
    assert three.estimate == pytest.approx(-1)
    assert three.table["spearman"].null_count() == 2
    assert three.n == 1


# ---- probe


def test_probe_like_for_like() -> None:
    rows = []
    for seed in range(3):
        who = {"run": f"r{seed}", "seed": seed}
        for step in STEPS[:20]:
            rows.append(planted.observation(step=step, value=0.9 if step >= 900 else 0.2, **who))
            place = {"level": "mixed", "step": step, **who}
            site = {"layer": 0, "site": "blocks.0.hook_resid_post", "readout": "answer"}
            rows.append(planted.observation(measure="linear_probe", value=0.8, **place, **site))
            rows.append(planted.observation(measure="linear_probe_model", value=0.7, **place))
            if seed < 2:
                rows.append(planted.observation(measure="linear_probe_answer", value=0.3, **place, **site))
                rows.append(planted.observation(measure="linear_probe_answer_model", value=0.35 - seed / 10, **place))
    result, whole = probe(Evidence(planted.table(rows)), QUICK)
    assert result.estimate == pytest.approx(0.1)
    assert result.verdict == "supported"
    # tokens against whole answers: 0.8 - 0.2
    assert result.table["unlike"].to_list() == pytest.approx([0.6] * 3)
    assert result.table["step"].to_list() == [800] * 3
    # per answer: -0.05 and 0.05 of two models, too few for an interval
    assert (whole.name, whole.n, whole.verdict) == ("probe-answer", 2, "not decidable")
    assert whole.estimate == pytest.approx(0)
    assert [
        each.verdict
        for each in probe(Evidence(run(ORDER, {task: (at - 200, 300) for task, at in ORDER.items()})), QUICK)
    ] == ["not decidable"] * 2


# ---- invariances


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000))
def test_order_of_rows_and_rescaling_change_nothing(seed: int) -> None:
    table = run(ORDER, {task: (at - 200, 300) for task, at in ORDER.items()}, noise=0.3)
    shuffled = table.sample(fraction=1, shuffle=True, seed=seed)
    # every claim but those on amounts (cv, recovery) rests on orders alone, which exp(x / 10) keeps
    grown = table.with_columns(
        pl.when(pl.col("measure") == MEASURE).then((pl.col("value") / 10).exp()).otherwise("value").alias("value")
    )
    quick = replace(QUICK, resamples=99)
    names = ["emergence", "hierarchy", "prediction", "top-down-profile"]
    expected, again, rescaled = (summary_table(all_claims(each, quick, names)) for each in (table, shuffled, grown))
    assert expected.equals(again)
    assert expected.drop("reason").equals(rescaled.drop("reason"))


def test_names_of_tasks_do_not_matter_but_their_class_does() -> None:
    table = run(ORDER, floor_before(200))
    names = {"COPY": "REV", "REV": "COPY", "ADD": "MUL", "MUL": "ADD"}
    other = table.with_columns(pl.col("task").replace(names))
    for name in ("hierarchy", "prediction", "emergence"):
        first, second = (all_claims(each, QUICK, [name]) for each in (table, other))
        assert [(a.estimate, a.null, a.n, a.verdict) for a in first] == [
            (pytest.approx(b.estimate), b.null if b.null is None else pytest.approx(b.null), b.n, b.verdict)
            for b in second
        ]


def test_noise_and_uneven_cadence() -> None:
    steps = [*range(0, 1000, 100), *range(1000, 2000, 200), *range(2000, 6001, 500)]
    table = pl.concat([
        run(ORDER, floor_before(200), steps=steps, noise=0.2, run=f"r{seed}", seed=seed) for seed in range(3)
    ])  # fmt: skip
    for name in claims():
        for result in all_claims(table, replace(QUICK, resamples=99), [name]):
            assert result.verdict in ("supported", "contradicted", "not decidable")
            assert result.estimate is None or math.isfinite(result.estimate)
            assert result.estimate is not None or result.reason


def test_a_claim_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module beside the others declares it; commands, curve and page ask it as they ask the study's."""
    (tmp_path / "added.py").write_text(
        "from pythiageo.claims.register import declare\n"
        "from pythiageo.claims.result import leave_undecided\n"
        "@declare('added', 99, ('protocol',))\n"
        "def added(evidence, asked):\n"
        "    return leave_undecided('added', 'a claim that was added', 'no rule', 'no figure', asked)\n"
    )
    monkeypatch.setattr("pythiageo.claims.__path__", [*pythiageo.claims.__path__, str(tmp_path)])
    monkeypatch.setattr(register, "_DECLARED", dict(register._DECLARED))
    claims.cache_clear()
    try:
        table = run(ORDER, floor_before(200))
        assert list(claims())[-1] == "added"
        assert all_claims(table, QUICK)[-1].claim == "a claim that was added"
        assert specification_curve(table, QUICK, ["added"])["protocol"].to_list() == [
            "billa-v1",
            "billa-v4",
            "pythiageo",
        ]
        assert command(["claims", str(planted.write_run(tmp_path / "run", planted.rows())), "--only", "added"]) == 0
    finally:
        claims.cache_clear()


# ---- the published figures as input


def from_published(protocol: str) -> pl.DataFrame:
    """Published acquisition steps and floors as runs: accuracy jumps where they say; floors are reached at step 300."""
    figures = published()
    acquired, floor = figures["acquisition"][protocol], figures["floor"]["billa-v4"]
    timeline = sorted({0, 100, 200, 300, 400, *range(60_000, 60_501, 100)})
    steps = {int(s) for task in acquired.values() if isinstance(task, dict) for level in task.values() for s in level
             if not math.isnan(s)}  # fmt: skip
    # five checkpoints follow every step, so that a run of five begins there
    timeline = sorted({*timeline, *(s + more for s in steps for more in (0, 1, 2, 3, 4)), *(s - 1 for s in steps if s)})
    rows = []
    for index, size in enumerate(acquired["sizes"]):
        who = {"run": size, "series": size, "size": size, "seed": 42}
        for task, levels in ((name, each) for name, each in acquired.items() if isinstance(each, dict)):
            for level, by_size_ in levels.items():
                at = by_size_[index]
                if math.isnan(at):
                    continue
                for s in timeline:
                    value = 0.9 if at and s >= at else 0.0
                    rows.append(planted.observation(step=s, task=task, level=level, value=value, **who))
            if task in floor and index < len(floor["sizes"]):
                low = floor[task]["mixed"][index]
                place = {"level": "mixed", "layer": 0, "site": "blocks.0.hook_resid_post", "readout": "answer/centred"}
                rows += [planted.observation(step=s, task=task, measure=MEASURE, value=low if s == 300 else low + 10,
                                             **place, **who) for s in timeline]  # fmt: skip
    return planted.table(rows)


def test_published_acquisitions() -> None:
    result = emergence(Evidence(from_published("billa-v4")), QUICK)
    assert result.reason == "142 of 144 runs, tasks and levels acquired"
    assert result.verdict == "supported"


def test_published_concordance_within_hard_is_not_that_of_the_published_floors() -> None:
    # v1's tasks and classes; floors are found in billa-v4's window, so its classes are set aside here
    from pythiageo.claims.prediction import _concordance, _floors, _orders

    evidence = Evidence(from_published("billa-v1"))
    later, tasks = _orders(evidence, Specification(protocol="billa-v1"))
    floor = _floors(evidence, Specification(protocol="billa-v4"), tasks)
    assert floor is not None
    hard = np.array([task in ("ADD", "MOD", "SORT", "MUL") for task in tasks])
    test = _concordance(later, floor, np.outer(hard, hard), "dropped", QUICK)
    counts = (test["concordant"], test["discordant"], test["tied"])
    # 27 pairs, as 0.78 = 21 / 27 needs; but by the floors read off the paper's own figure the lower one is earlier in
    # 11 and the higher one in 15: neither sign gives 21
    assert sum(counts) == 27
    assert counts == (11, 15, 1)
    assert round(0.78 * 27) == 21
    assert round(21 / 27, 2) == 0.78


def test_published_easy_concordance_and_ties() -> None:
    steps = published()["acquisition"]["billa-v1"]
    easy = [steps[task]["L2"] for task in ("COPY", "REV", "CMP", "PAR")]
    tied = sum(a == b for i, one in enumerate(easy) for other in easy[i + 1 :] for a, b in zip(one, other, strict=True))
    assert tied == 13
    # 27% of 30 pairs is 8: a tie counted as an error; of the 17 untied pairs it is 47%
    rates = tie_rates(8, 30 - 13 - 8, tied)
    assert rates == {"error": pytest.approx(8 / 30), "half": pytest.approx(14.5 / 30), "dropped": pytest.approx(8 / 17)}


# ---- specification curve, words, errors


def test_specification_curve() -> None:
    evidence = Evidence(several(3, acquired=ORDER, floor_at=floor_before(200)))
    found = specification_curve(evidence, families=["hierarchy", "emergence", "prediction"])
    assert found.schema == SUMMARY_COLUMNS
    shares = {row["name"]: row for row in holding_shares(found).iter_rows(named=True)}
    # 4 ways to acquire x 1 measure x 1 readout x 1 site x 5 ways to lead
    assert shares["hierarchy"]["specifications"] == 4 * 5
    assert shares["emergence"]["specifications"] == 4
    assert shares["prediction-hard"]["specifications"] == 4 * 3
    own = found.filter((pl.col("name") == "hierarchy") & (pl.col("protocol") == "billa-v4")
                       & (pl.col("event") == "acquisition") & (pl.col("leads") == "v4"))  # fmt: skip
    assert own["verdict"].to_list() == ["supported"]
    for row in shares.values():
        assert row["supported"] + row["contradicted"] + row["not decidable"] == row["specifications"]


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(-1, 1), st.one_of(st.none(), st.floats(0, 1)))
def test_the_verdict_is_its_rule(low: float, width: float, null: float, p: float | None) -> None:
    verdict = judge((low, low + width), null, p)
    if low > null and (p is None or p <= 0.05):
        assert verdict == "supported"
    elif low + width < null and (p is None or p >= 0.95):
        assert verdict == "contradicted"
    else:
        assert verdict == "not decidable"
    assert judge(None, null, p) == "not decidable"


@pytest.mark.parametrize(
    ("config", "tasks"),
    [
        ({"data": {"source": "tasks", "tasks": []}}, STUDY_TASKS),
        ({"data": {"source": "mix", "tasks": ["ADD"]}}, ("ADD",)),
        ({"data": {"source": "text"}}, None),
        ({"data": {"source": "tasks", "tasks": ["ADD", "MOD"], "shuffled": ["MOD"]}}, ("ADD",)),
        ("odd", None),
    ],
)
def test_what_was_trained(config: Any, tasks: tuple[str, ...] | None) -> None:
    assert trained_tasks(without_mistakes({"config": config})) == tasks


@pytest.mark.parametrize("wrong", [{"rule": "v2"}, {"ties": "drop"}, {"k": -1}, {"protocol": "billa"}, {"axis": "x"}])
def test_unknown_words_are_told(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Specification(**wrong)


def test_a_table_with_almost_nothing() -> None:
    one = run({"MOD": 0}, {"MOD": (300,)}, steps=[0])
    empty = pl.DataFrame(schema=COLUMNS)
    for table in (one, empty, one.filter(pl.col("measure") == "accuracy")):
        for result in all_claims(table, QUICK):
            assert result.verdict == "not decidable"
            assert result.reason
    with pytest.raises(UserError, match="no claim 'hierachy'"):
        all_claims(one, QUICK, ["hierachy"])
    with pytest.raises(UserError, match="no readout 'mean/centred'"):
        all_claims(run(ORDER, floor_before(200)), replace(QUICK, readout="mean/centred"), ["hierarchy", "prediction"])
