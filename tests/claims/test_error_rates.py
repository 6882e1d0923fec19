"""Verdicts on noise and on planted truth: rates of a small harness, and each known fault at its right value."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import planted
import polars as pl
import pytest
from scipy import stats

from pythiageo.claims import Evidence, Specification
from pythiageo.claims.error_rates import COUNTS, LIMIT, TRUTH, Plan, error_rates, pooled
from pythiageo.claims.hierarchy import hierarchy
from pythiageo.claims.noise import ALIKE, DEPTH, REVERTING, TREND, WALK, design, noise_table
from pythiageo.claims.noise_curve import design_of
from pythiageo.claims.prediction import swap
from pythiageo.claims.rates_page import rate_text
from pythiageo.claims.recovery import recovery
from pythiageo.cli.app import run as command
from pythiageo.observations import COLUMNS

MEASURE = "covariance_effective_rank"


def supported(tables: int, kinds: Sequence[str], *families: str, shape: tuple[int, int] = (3, 1)) -> dict[str, Any]:
    """The counts of each claim under billa-v4, of all these kinds of tables."""
    plan = Plan(tables, tuple(kinds), (shape,), ("billa-v4",), families or None)
    return {row["claim"]: row for row in pooled(error_rates(plan), ["claim"]).to_dicts()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tables", "kinds", "families"),
    [
        # on such tables of three runs the choice of the step alone supported 23% to 45%
        (25, (WALK, REVERTING, DEPTH), ("top-down-profile", "top-down-in-time", "recovery")),
        (12, (WALK, ALIKE), ("controls", "hierarchy", "emergence")),
        # a share of the sums of squares supported half of these
        (25, (LIMIT,), ("seeds",)),
    ],
)
def test_noise_is_seldom_supported(tables: int, kinds: tuple[str, ...], families: tuple[str, ...]) -> None:
    """At most so many of n as 5% give in 999 of 1,000 such tests."""
    for name, row in supported(tables, kinds, *families).items():
        n = row["decidable"]
        assert n >= 20, name
        assert row["supported"] <= stats.binom.ppf(0.999, n, 0.05), name
        assert row["contradicted"] <= stats.binom.ppf(0.999, n, 0.05), name


@pytest.mark.slow
def test_noise_of_three_sizes_is_seldom_supported() -> None:
    """The null of swaps counted a missing floor as a miss and the estimate did not: 18 to 22% were supported."""
    found = supported(20, (WALK, TREND), "prediction-swap", "floor-order", shape=(1, 3)) | supported(
        20, (LIMIT,), "floors", shape=(1, 3)
    )
    for name, row in found.items():
        assert row["decidable"] >= 18, name
        assert row["supported"] <= stats.binom.ppf(0.999, row["decidable"], 0.05), name


def test_planted_truth_is_found() -> None:
    found = supported(4, (TRUTH,))
    for name in ("emergence", "recovery", "top-down-in-time", "hierarchy", "prediction-across"):
        assert found[name]["supported"] >= 3, name
    # one size: neither floors over sizes nor their order can be asked, and that is no verdict
    for name in ("floors", "floor-order", "prediction-swap"):
        assert (found[name]["tables"], found[name]["decidable"], found[name]["supported"]) == (4, 0, 0)


def test_the_same_plan_gives_the_same_counts_and_more_tables_add_to_them() -> None:
    plan = Plan(2, (WALK,), ((1, 1),), ("billa-v4",), ("emergence", "hierarchy"))
    counts = error_rates(plan)
    assert counts.schema == COUNTS
    assert counts.equals(error_rates(plan))
    one, three = (error_rates(Plan(n, plan.kinds, plan.shapes, plan.protocols, plan.families)) for n in (1, 3))
    assert (one["supported"] <= counts["supported"]).all()
    assert (counts["supported"] <= three["supported"]).all()
    assert three["tables"].to_list() == [3, 3]
    # a claim is not asked of what is no noise to it
    assert not error_rates(Plan(1, (ALIKE,), ((1, 1),), ("billa-v4",), ("probe",))).height


def test_a_table_of_noise_is_an_observation_table_of_its_design() -> None:
    asked = design(2, 2)
    table = noise_table(WALK, asked, np.random.default_rng(0))
    assert table.schema == COLUMNS
    assert table["run"].unique().sort().to_list() == ["micro-0", "micro-1", "small-0", "small-1"]
    assert table.group_by("size").agg(pl.col("layer").max()).sort("size")["layer"].to_list() == [3, 5]
    assert table["value"].is_finite().all()
    assert not table.select("run", "step", "task", "level", "site", "readout", "measure").is_duplicated().any()
    again = design_of(table, Specification())
    assert (set(again.runs), set(again.tasks)) == (set(asked.runs), set(asked.tasks))


def test_exact_intervals_of_a_share() -> None:
    low, high = stats.beta.ppf(0.025, 5, 96), stats.beta.ppf(0.975, 6, 95)
    assert rate_text(5, 100) == f"5.0% ({100 * low:.1f} to {100 * high:.1f})"
    assert rate_text(0, 0) == "-"


def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rates.md"
    arguments = ["error-rates", "--tables", "1", "--only", "top-down-profile", "--protocol", "billa-v4", "--seed", "7"]
    assert command([*arguments, "--curves", "1", "--out", str(out)]) == 0
    page = out.read_text(encoding="utf-8")
    assert "pythiageo error-rates --tables 1 --only top-down-profile --protocol billa-v4" in page
    assert "1 tables of each kind and number of runs, seed 7" in page
    assert "| top-down-profile | billa-v4 | 15 |" in page
    assert "## Specification curves" in page
    assert "supported where it holds" in capsys.readouterr().out
    assert command([*arguments, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["counts"]) == 5 * 4 + 4
    for wrong in (["--only", "top-down"], ["--protocol", "billa"], ["--out", str(tmp_path)]):
        assert command(["error-rates", "--tables", "1", *wrong]) == 2


# ---- each known fault at its right value


def curves(of: dict[str, tuple[int | None, Sequence[float]]], steps: Sequence[int], **who: Any) -> list[Any]:
    """A run of one block: for each task the step of acquisition and the ranks."""
    place = {"level": "mixed", "layer": 0, "site": "blocks.0.hook_resid_post", "readout": "answer/centred"}
    rows = []
    for task, (acquired, ranks) in of.items():
        for step, rank in zip(steps, ranks, strict=True):
            right = 0.9 if acquired is not None and step >= acquired else 0.0
            rows.append(planted.observation(step=step, task=task, value=right, **who))
            rows.append(planted.observation(step=step, task=task, measure=MEASURE, value=rank, **place, **who))
    return rows


STEPS = range(0, 800, 100)
FALLS = {
    "early": (9.0, 3.0, 4.0, 5.0, 6.0, 6.0, 6.0, 6.0),  # lowest at 100
    "end": (9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0),  # lowest at the last checkpoint: still moving
    "never": (2.0, 3.0, 4.0, 5.0, 6.0, 6.0, 6.0, 6.0),  # never below its first value
}


def test_a_minimum_at_the_runs_end_is_no_lead_and_the_null_has_the_acquisitions_of_the_rate() -> None:
    of = {
        "COPY": (300, FALLS["early"]), "REV": (300, FALLS["end"]), "ADD": (400, FALLS["early"]),
        "MOD": (400, FALLS["never"]),
    }  # fmt: skip
    result = hierarchy(Evidence(planted.table(curves(of, STEPS))), Specification(rule="v4"))
    assert result.cases is not None
    # MOD has no transition at all, so its acquisition is no case
    assert dict(result.cases.select("task", "relation").rows()) == {"ADD": "leads", "COPY": "leads", "REV": "lags"}
    assert result.cases.filter(pl.col("task") == "REV")["lead_steps"].to_list() == [None]
    assert result.estimate == pytest.approx(2 / 3)
    # the other two measures at each of the three acquisitions, and none at MOD's: led in 1 + 2 + 1 of 6
    assert (result.null, result.table["null_pairs"][0]) == (pytest.approx(4 / 6), 6)
    # six orders of three tasks, each with two leads of three
    assert (result.p, result.verdict) == (1.0, "not decidable")


def test_the_null_of_swaps_drops_a_missing_floor_as_the_estimate_does() -> None:
    tasks = ("COPY", "REV", "CMP", "ADD")
    low = {"COPY": 2.0, "REV": 3.0, "CMP": 4.0, "ADD": None}  # ADD never falls
    turned = {"COPY": 3.0, "REV": 2.0, "CMP": 4.0, "ADD": None}
    acquired = dict(zip(tasks, (200, 300, 400, 500), strict=True))
    swapped = acquired | {"COPY": 300, "REV": 200}

    def falls(floor: float | None) -> Sequence[float]:
        return FALLS["never"] if floor is None else (9.0, floor, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0)

    rows = []
    for size, steps, floors in (("nano", acquired, low), ("micro", swapped, turned)):
        of = {task: (steps[task], falls(floors[task])) for task in tasks}
        rows += curves(of, STEPS, run=size, series=size, size=size)
    result = swap(Evidence(planted.table(rows)), Specification())
    assert (result.estimate, result.n, result.rests_on) == (1.0, 1, "one pair of models, one pair of tasks")
    # COPY and REV swap; of the orders of four floors those count that give both of them one
    shares = []
    for order in permutations(range(4)):
        a, b = ([floors[tasks[place]] for place in order[:2]] for floors in (low, turned))
        if None not in (*a, *b):
            shares.append(a[0] < a[1] and b[0] > b[1])
    assert len(shares) == 12
    assert result.null == pytest.approx(np.mean(shares))


def test_a_tiny_fall_has_no_recovery() -> None:
    def block(layer: int, low: float, end: float) -> list[Any]:
        place = {"level": "mixed", "layer": layer, "site": f"blocks.{layer}.hook_resid_post"}
        values = (20.0, low, 15.0 if low < 19 else 20.0, end)
        return [
            planted.observation(
                run=f"r{seed}", seed=seed, step=100 * index, readout="answer/centred", measure=MEASURE, value=value,
                **place,
            )
            for seed in range(3)
            for index, value in enumerate(values)
        ]  # fmt: skip

    # blocks 1 and 2 are the middle; block 2 falls by 0.01 and ends 1 higher: 101 times its fall
    rows = [*block(0, 10.0, 20.0), *block(1, 2.0, 11.0), *block(2, 19.99, 21.0), *block(3, 2.0, 2.9)]
    result = recovery(Evidence(planted.table(rows)), Specification())
    # (11 - 2) / 18 less (2.9 - 2) / 18, of the block that fell
    assert (result.estimate, result.verdict) == (pytest.approx(0.45), "supported")
    assert "3 of 12 falls are of less than 5% and have no recovery" in str(result.reason)
