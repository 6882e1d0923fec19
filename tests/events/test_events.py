"""Events against planted truth, and the rule of consecutive checkpoints against its definition."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import planted
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import Plant

from pythiageo.errors import UserError
from pythiageo.events import (
    EVENT_COLUMNS,
    PROTOCOLS,
    events,
    first_run,
    floors,
    get_protocol,
    layer_profile,
    trajectories,
    without_duplicates,
)
from pythiageo.events.transitions import transitions
from pythiageo.observations import Observation


def one(frame: pl.DataFrame, event: str, level: str | None = None) -> dict[str, Any]:
    """The one row of an event."""
    rows = frame.filter(pl.col("event") == event)
    rows = rows if level is None else rows.filter(pl.col("level") == level)
    assert rows.height == 1
    return rows.row(0, named=True)


def accuracies(values: list[float | None], chance: float = 0.0, majority: float = 0.0) -> pl.DataFrame:
    """A run with one accuracy every 100 steps; ``None`` is a checkpoint at which it could not be measured."""
    rows = []
    for index, value in enumerate(values):
        missing = {"status": "nonfinite", "reason": "NaN"} if value is None else {}
        rows.append(planted.observation(step=100 * index, value=value, **missing))
        for measure, known in (("chance_accuracy", chance), ("majority_rate", majority)):
            rows.append(planted.observation(step=100 * index, measure=measure, value=known))
    return planted.table(rows)


def ranks(values: list[float | None], spacing: int = 100) -> pl.DataFrame:
    """A run of one block with a rank every ``spacing`` steps."""
    place = {"level": "mixed", "layer": 0, "site": "blocks.0.hook_resid_post", "readout": "answer/centred"}
    rows = []
    for index, value in enumerate(values):
        missing = {"status": "nonfinite", "reason": "NaN"} if value is None else {}
        rows.append(
            planted.observation(
                step=spacing * index, measure="covariance_effective_rank", value=value, **place, **missing
            )
        )
    return planted.table(rows)


# ---- the rule of consecutive checkpoints


@given(st.lists(st.sampled_from([True, False, None]), max_size=30), st.integers(1, 6))
def test_first_run_is_the_definition(holds: list[bool | None], consecutive: int) -> None:
    windows = range(len(holds) - consecutive + 1)
    starts = [at for at in windows if all(holds[at + offset] is True for offset in range(consecutive))]
    assert first_run(holds, consecutive) == (min(starts) if starts else None)


def test_first_run_of_nothing_is_a_bug() -> None:
    with pytest.raises(ValueError, match="a run needs at least one entry, got 0"):
        first_run([True], 0)


@given(st.lists(st.one_of(st.none(), st.sampled_from([0.0, 0.1, 0.105, 0.49, 0.5, 0.9])), min_size=1, max_size=16))
def test_acquisition_is_the_papers_definition(values: list[float | None]) -> None:
    table = accuracies(values)
    definitions = {"billa-v1": (5, lambda a: a > 0.1), "billa-v4": (3, lambda a: a >= 0.5)}
    for name, (needed, meets) in definitions.items():
        row = one(events(table, name), "acquisition")
        starts = [
            at
            for at in range(len(values) - needed + 1)
            if all(value is not None and meets(value) for value in values[at : at + needed])
        ]
        measured = sum(value is not None for value in values)
        expected = "undefined" if measured < needed else ("found" if starts else "not-reached")
        assert (row["status"], row["step"]) == (expected, 100 * starts[0] if starts else None)
        assert row["n_checkpoints"] == measured


# ---- planted events


def test_planted_events_are_found() -> None:
    table = planted.table(planted.rows({"MOD": Plant(acquired=900, floor=300, low=2.0, start=20.0, end=14.0)}))
    for name in ("billa-v4", "pythiageo"):
        found = events(table, name)
        assert found.schema == EVENT_COLUMNS
        assert [one(found, "acquisition", level)["step"] for level in ("L1", "L2", "L3")] == [900] * 3
        assert [one(found, "log_prob_acquisition", level)["step"] for level in ("L1", "L2", "L3")] == [900] * 3
        floor, recovery = one(found, "floor"), one(found, "recovery")
        assert (floor["step"], floor["value"], floor["relative_depth"], floor["cadence"]) == (300, 2.0, 0.1, 100.0)
        assert (floor["site"], floor["layer"], floor["level"]) == ("blocks.1.hook_resid_post", 1, "mixed")
        assert (floor["reason"], floor["n_checkpoints"], floor["tokens"]) == (None, 21, 300 * 640)
        # 2 at step 300, 8 at 400, 14 at 500: the midpoint of 2 and 20 is 11
        assert (recovery["step"], recovery["threshold"], recovery["value"]) == (500, 11.0, 14.0)
    early = one(events(table, "billa-v1"), "floor")
    assert (early["step"], early["value"], early["n_checkpoints"]) == (200, 8.0, 3)
    assert early["reason"] == (
        "it is the last checkpoint of the window, so the minimum may lie outside; "
        "the minimum over all checkpoints is 2 at step 300, outside the window"
    )
    assert events(table, "billa-v1").filter(pl.col("event").str.starts_with("log_prob")).is_empty()


def test_chance_is_corrected_for() -> None:
    table = accuracies([0.5, 0.55, 0.5, 0.6, 0.6, 0.6], chance=0.2, majority=0.1)
    assert one(events(table, "billa-v4"), "acquisition")["step"] == 0
    # (0.6 - 0.2) / (1 - 0.2) is 0.5, though not in binary arithmetic
    row = one(events(table, "pythiageo"), "acquisition")
    assert (row["step"], row["value"]) == (300, pytest.approx(0.5))
    common = one(events(accuracies([0.5, 0.55, 0.5, 0.6, 0.6, 0.6], 0.2, majority=0.3), "pythiageo"), "acquisition")
    assert common["status"] == "not-reached"
    hopeless = one(events(accuracies([1.0] * 4, 0.5, majority=1.0), "pythiageo"), "acquisition")
    assert (hopeless["status"], hopeless["reason"]) == (
        "undefined",
        "one answer fits the whole probe set, so accuracy says nothing",
    )
    blind = accuracies([0.9] * 4).filter(pl.col("measure") == "accuracy")
    assert one(events(blind, "pythiageo"), "acquisition")["reason"].startswith("chance_accuracy is not in the obs")
    assert one(events(blind, "billa-v4"), "acquisition")["status"] == "found"


def test_a_gap_ends_a_run_and_is_told() -> None:
    row = one(events(accuracies([0.0, 0.9, 0.9, None, 0.9, 0.9]), "billa-v4"), "acquisition")
    assert (row["status"], row["reason"]) == (
        "not-reached",
        "it held at the end for 2 of 3 checkpoints needed; checkpoints without a value: 1",
    )
    # a checkpoint at which this task was not scored is a gap too
    table = accuracies([0.0, 0.9, 0.9, 0.9, 0.9, 0.9]).filter(
        ~((pl.col("step") == 300) & (pl.col("measure") == "accuracy"))
    )
    assert one(events(table, "billa-v4"), "acquisition")["status"] == "not-reached"
    late = accuracies([0.0, 0.9, None, 0.9, 0.9, 0.9])
    row = one(events(late, "billa-v4"), "acquisition")
    assert (row["step"], row["reason"]) == (300, "earlier checkpoints without a value: 1")


def test_an_unreadable_checkpoint_is_a_gap_for_every_quantity() -> None:
    table = pl.concat([accuracies([0.0, 0.9, 0.9]), accuracies([0.9] * 5).filter(pl.col("step") > 300)])
    lost = planted.observation(
        step=300, task=None, level=None, measure="checkpoint", value=None,
        status="unreadable", reason="truncated", weight_sha=None,
    )  # fmt: skip
    table = pl.concat([table, planted.table([lost])])
    assert [each.values for each in trajectories(table, ["accuracy"])] == [(0.0, 0.9, 0.9, None, 0.9)]
    assert one(events(table, "billa-v4"), "acquisition")["status"] == "not-reached"


def test_equal_weights_count_once() -> None:
    again = {200: "sha-100", 300: "sha-100"}
    rows = [
        row if row.step not in again else row._replace(weight_sha=again[row.step])
        for row in planted.rows(steps=range(0, 1000, 100))
    ]
    assert without_duplicates(planted.table(rows))["step"].unique().sort().to_list() == [0, 100, *range(400, 1000, 100)]
    repeated = accuracies([0.0, 0.9, 0.9, 0.9, 0.0]).with_columns(
        pl.when(pl.col("step") == 300).then(pl.lit("sha-200")).otherwise("weight_sha").alias("weight_sha")
    )
    # three steps hold, and they are two sets of weights
    assert one(events(repeated, "billa-v4"), "acquisition")["status"] == "not-reached"
    other_run = planted.table([row._replace(run="other") for row in planted.rows(steps=[0])])
    assert without_duplicates(pl.concat([planted.table(rows), other_run])).filter(pl.col("run") == "other").height > 0


def test_two_fingerprints_at_one_step_are_refused() -> None:
    rows = [planted.observation(), planted.observation(level="L2", weight_sha="another")]
    with pytest.raises(UserError, match="step 0 of run 'nano-42' has two weight fingerprints"):
        events(planted.table(rows), "billa-v4")


def test_a_changed_probe_set_makes_no_trajectory() -> None:
    table = accuracies([0.0, 0.9, 0.9, 0.9]).with_columns(
        pl.when(pl.col("step") > 100).then(pl.lit("b" * 12)).otherwise("probe_set").alias("probe_set")
    )
    row = one(events(table, "billa-v4"), "acquisition")
    assert (row["status"], row["reason"]) == (
        "undefined",
        "the probe set changed between checkpoints (a1b2c3d4e5f6, bbbbbbbbbbbb)",
    )


# ---- floors


@given(st.lists(st.one_of(st.none(), st.integers(1, 6).map(float)), min_size=1, max_size=14))
def test_floor_and_recovery_are_their_definitions(values: list[float | None]) -> None:
    found = events(ranks(values), "billa-v4")
    known = {100 * index: value for index, value in enumerate(values) if value is not None}
    floor = one(found, "floor")
    if len(known) < 3:
        assert floor["status"] == "undefined"
        return
    lowest = min(known.values())
    step = min(step for step, value in known.items() if value == lowest)
    assert (floor["step"], floor["value"]) == (step, lowest)
    assert ("may lie outside" in (floor["reason"] or "")) == (step in (min(known), max(known)))
    recovery = one(found, "recovery")
    first = values[0]
    if first is None or first == lowest:
        assert recovery["status"] == "undefined"
        return
    after = [at for at, value in known.items() if at > step and value > (first + lowest) / 2]
    assert (recovery["status"], recovery["step"]) == (("found", min(after)) if after else ("not-reached", None))


def test_the_window_is_the_protocols() -> None:
    table = ranks([9.0, 8.0, 7.0, 5.0, 6.0, 1.0, 2.0], spacing=2500)
    floor = one(events(table, "billa-v4"), "floor")
    assert (floor["step"], floor["value"], floor["n_checkpoints"]) == (7500, 5.0, 5)
    assert floor["reason"] == "the minimum over all checkpoints is 1 at step 12500, outside the window"
    # the recovery may come after the window: above (9 + 5) / 2
    late = ranks([9.0, 8.0, 7.0, 5.0, 6.0, 6.0, 7.5], spacing=2500)
    assert one(events(late, "billa-v4"), "recovery")["step"] == 15000
    short = one(events(table, "billa-v1"), "floor")
    assert (short["status"], short["reason"]) == (
        "undefined",
        "too few checkpoints with a value in steps 0-200: 1, and a floor needs 3",
    )


def test_a_gap_in_the_window_and_a_lost_start_are_told() -> None:
    floor = one(events(ranks([None, 5.0, None, 2.0, 4.0]), "billa-v4"), "floor")
    assert floor["reason"] == (
        "checkpoints of the window without a value: 2; "
        "no value at the run's first checkpoint, so the depth of the fall is not known"
    )
    assert floor["relative_depth"] is None
    nothing = events(ranks([None, None, None, None]), "billa-v4")
    assert set(nothing["status"]) == {"undefined"}


def test_floors_of_every_site_readout_and_measure() -> None:
    table = planted.table(planted.rows(layers=3, readouts=("answer/centred", "mean/uncentred")))
    frame = floors(table, "billa-v4")
    assert frame.height == 4 * 2 * 3
    assert set(frame["step"]) == {300}
    sigma = frame.filter((pl.col("measure") == "rankme") & (pl.col("readout") == "mean/uncentred"))
    assert sigma.sort("value")["site"].to_list() == [
        "blocks.2.hook_resid_post",
        "ln_final.hook_out",
        "blocks.1.hook_resid_post",
        "blocks.0.hook_resid_post",
    ]
    assert sigma["value"].sort().to_list() == [5.0, 6.25, 12.5, 20.0]
    at_norm = one(events(table, "billa-v4", site="final-ln", measure="rankme"), "floor")
    assert (at_norm["site"], at_norm["value"]) == ("ln_final.hook_out", 6.25)
    assert one(events(table, "billa-v4", site="blocks.0.hook_resid_post"), "floor")["value"] == 8.0


def test_each_run_has_its_own_last_block() -> None:
    deep = [row._replace(run="deep", size="micro") for row in planted.rows(layers=4)]
    found = events(planted.table([*planted.rows(layers=2), *deep]), "billa-v4")
    floor = found.filter(pl.col("event") == "floor")
    assert floor.select("run", "layer", "value").rows() == [("deep", 3, 2.0), ("nano-42", 1, 2.0)]


# ---- log-probability


def test_log_prob_needs_a_rise_from_end_to_end() -> None:
    def log_probs(values: list[float]) -> pl.DataFrame:
        return planted.table(
            [planted.observation(step=100 * i, measure="log_prob", value=v) for i, v in enumerate(values)]
        )

    # from -4 to 0 the shares 25, 50, 75, 90% lie at -3, -2, -1, -0.4
    found = events(log_probs([-4.0, -2.5, -2.5, -1.5, -0.9, -0.3, -0.3, 0.0]), "billa-v4")
    steps = {name: one(found, name)["step"] for name in found["event"]}
    assert steps == {
        "log_prob_acquisition_25": 100,
        "log_prob_acquisition": 300,
        "log_prob_acquisition_75": 400,
        "log_prob_acquisition_90": 500,
    }
    flat = one(events(log_probs([-2.0, -1.0, -1.0, -2.0]), "billa-v4"), "log_prob_acquisition")
    assert flat["reason"] == "the log-probability did not rise from the first to the last checkpoint"


# ---- protocols, words, profiles


def test_protocols_are_the_papers() -> None:
    assert PROTOCOLS["billa-v1"].rule == "accuracy > 0.1 at 5 checkpoints in a row"
    assert PROTOCOLS["billa-v4"].rule == "accuracy >= 0.5 at 3 checkpoints in a row"
    assert PROTOCOLS["pythiageo"].rule == "chance-corrected accuracy >= 0.5 at 3 checkpoints in a row"
    assert [each.floor_window for each in PROTOCOLS.values()] == [(0, 200), (0, 10_000), (0, 10_000)]
    own = replace(get_protocol("billa-v4"), name="mine", consecutive=1)
    assert one(events(accuracies([0.0, 0.9, 0.0, 0.0]), own), "acquisition")["step"] == 100


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"protocol": "billa-v5"}, r"unknown protocol 'billa-v5' \(did you mean 'billa-v\d'\?\)"),
        ({"readout": "answer/centered"}, r"no readout 'answer/centered' .* \(did you mean 'answer/centred'\?\)"),
        ({"measure": "rank_me"}, r"no measure 'rank_me' in these observations \(did you mean 'rankme'\?\)"),
        ({"site": "last-blok"}, r"no site 'last-blok' in these observations \(did you mean 'last-block'\?\)"),
    ],
)
def test_a_wrong_word_names_the_right_one(asked: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        events(planted.table(planted.rows()), **{"protocol": "billa-v4", **asked})


def test_scores_alone_give_acquisition_alone() -> None:
    found = events(planted.table(planted.rows(geometry=False)), "billa-v4")
    assert set(found["measure"]) == {"accuracy", "log_prob"}
    with pytest.raises(UserError, match="hold no rank measure, so there is no layer profile"):
        layer_profile(planted.table(planted.rows(geometry=False)), 300, "MOD")


def test_layer_profile_at_the_floor() -> None:
    table = planted.table(planted.rows(layers=3))
    profile = layer_profile(table, 300, "MOD")
    assert profile["value"].to_list() == [8.0, 5.0, 2.0, 2.5]
    assert profile["relative_layer"].to_list() == [0.0, 0.5, 1.0, 1.0]
    assert profile["site"].to_list()[-1] == "ln_final.hook_out"
    with pytest.raises(UserError, match=r"no checkpoint at step 310 .*; the nearest step is 300"):
        layer_profile(table, 310, "MOD")
    with pytest.raises(UserError, match=r"no task 'MOB' in these observations \(did you mean 'MOD'\?\)"):
        layer_profile(table, 300, "MOB")


def test_one_checkpoint_answers_nothing_and_says_so() -> None:
    rows: list[Observation] = planted.rows(steps=[0])
    found = events(planted.table(rows), "billa-v4").filter(~pl.col("event").str.starts_with("log_prob"))
    assert set(found["status"]) == {"undefined"}
    assert found["reason"].null_count() == 0


@pytest.mark.parametrize(("fall", "deep"), [(0.0004, False), (0.0499, False), (0.0501, True), (0.5, True)])
def test_a_fall_that_is_barely_one_is_no_collapse_of_ours(fall: float, deep: bool) -> None:
    """The studies ask for no depth, and have it counted; ours is 5% of the first value."""
    rows = planted.rows({"MOD": Plant(900, 300, low=20 * (1 - fall), start=20, end=20)}, steps=range(0, 1001, 100))
    table = planted.table(rows)
    for protocol in ("billa-v1", "billa-v4", "pythiageo"):
        counts = deep or protocol != "pythiageo"
        found = events(table, protocol).filter(pl.col("event").is_in(["floor", "recovery"]))
        last = transitions(table, protocol).filter(
            (pl.col("measure") == "covariance_effective_rank") & (pl.col("site") == "blocks.1.hook_resid_post")
        )
        for row in (*found.rows(named=True), *last.rows(named=True)):
            if protocol == "billa-v1":  # its window ends at step 200, before the floor
                assert row["status"] == "found"
            elif counts:
                assert (row["status"], row["event"]) in {("found", row["event"]), ("not-reached", "recovery")}
            else:
                assert (row["status"], row["step"], row["value"]) == ("undefined", None, None)
                assert row["reason"] == f"it fell by {100 * fall:.2f}% of its first value, and a collapse is 5% or more"
