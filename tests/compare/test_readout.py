"""The choice of a readout: the one that was planted is found, and doubt where the seeds leave it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
from planted import Plant, observation, opened, rows, table, write_run

from pythiageo.cli.app import run as command
from pythiageo.compare.readout import ReadoutChoice, choose_readout, write_choice
from pythiageo.errors import UserError
from pythiageo.observations import Observation

PUBLISHED = {"nano": (2.07, 3.03), "micro": (1.88, 3.01)}


def run(seed: int, factor: float = 1.0, size: str = "nano", **shared: object) -> pl.DataFrame:
    """Floors of MOD and MUL at the last block are the published ones times ``factor``, under answer/centred.

    Under all/centred they are a third more; at the final LayerNorm half a unit more; other measures scale.
    """
    mod, mul = (factor * floor for floor in PUBLISHED[size])
    name = f"{size}-{seed}"
    settings = {
        "run": name,
        "series": name,
        "size": size,
        "seed": seed,
        "layers": 4 if size == "micro" else 2,
        **shared,
    }
    found = rows({"MOD": Plant(low=mod), "MUL": Plant(low=mul)}, **settings)
    found += rows({"MOD": Plant(low=4 * mod / 3), "MUL": Plant(low=4 * mul / 3)}, readouts=("all/centred",), **settings)
    return table(found).unique(maintain_order=True)


def choose(choosing: Sequence[pl.DataFrame], trying: Sequence[pl.DataFrame] = ()) -> ReadoutChoice:
    return choose_readout([opened(table) for table in choosing], [opened(table) for table in trying])


def test_the_planted_readout_is_found_and_determined() -> None:
    choice = choose([run(1, 0.97), run(2, 1.0), run(3, 1.03)], [run(1, 1.1, "micro")])
    assert choice.best == {"measure": "covariance_effective_rank", "readout": "answer/centred", "place": "last-block"}
    assert choice.determined
    assert choice.verdict.startswith("determined: covariance_effective_rank of answer/centred at last-block")
    assert "sigma" in choice.excluded  # planted at 2.5 times the floors
    assert choice.verdict.endswith("comes near")
    first = choice.candidates.row(0, named=True)
    assert first["log_rmse"] == pytest.approx((-math.log(0.97) + 0 + math.log(1.03)) / 3, abs=1e-9)
    assert (first["lowest"], first["highest"]) == (pytest.approx(0, abs=1e-9), pytest.approx(-math.log(0.97)))
    by_name = {tuple(row[:3]): row for row in choice.candidates.rows()}
    other = by_name["covariance_effective_rank", "all/centred", "last-block"]
    assert other[3] == pytest.approx(math.log(4 / 3), abs=0.002)
    tried = choice.floors.filter(pl.col("use") == "tried on")
    assert tried["run"].to_list() == ["micro-1", "micro-1"]
    assert tried["log_ratio"].to_list() == pytest.approx([math.log(1.1)] * 2)
    # the planted layers lie 3 apart
    assert choice.profile["value"].to_list() == pytest.approx([1.1 * 1.88 + above for above in (9, 6, 3, 0)])
    assert choice.profile["published"].to_list() == [8.16, 8.24, 4.46, 1.67]


def test_what_the_runs_are_tried_on_does_not_choose() -> None:
    seeds = [run(1, 0.97), run(2, 1.03)]
    alone, tried = choose(seeds), choose(seeds, [run(9, 5.0, "micro")])
    assert alone.candidates.equals(tried.candidates)
    assert alone.verdict == tried.verdict


def test_seeds_that_overlap_leave_it_undetermined() -> None:
    choice = choose([run(1, 0.75), run(2, 1.0)])
    assert not choice.determined
    assert "others lie within the spread of the runs" in choice.verdict
    assert 0 < choice.rivals.height < choice.candidates.height


def test_no_run_is_looked_at_for_longer_than_the_others() -> None:
    deeper = run(1)
    low = observation(
        run="nano-1", series="nano-1", seed=1, step=2500, task="MOD", level="mixed", site="blocks.1.hook_resid_post",
        layer=1, readout="answer/centred", measure="covariance_effective_rank", value=0.1,
    )  # fmt: skip
    longer = pl.concat([deeper, table([low])])
    choice = choose([longer, run(2)])
    assert choice.last_step == 2000
    assert choice.candidates.equals(choose([deeper, run(2)]).candidates)


@pytest.mark.parametrize(
    ("chosen", "tried", "message"),
    [
        ([1], [], "two or more runs, for their spread; got 1"),
        ([1, 1], [], "nano-1 is given twice"),
        ([1, 2], [2], "nano-2 is given twice"),
    ],
)
def test_what_cannot_be_chosen_from_is_told(chosen: list[int], tried: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        choose([run(seed) for seed in chosen], [run(seed) for seed in tried])


def test_other_sizes_are_told() -> None:
    with pytest.raises(UserError, match="runs of one size, got micro, nano"):
        choose([run(1), run(2, size="micro")])
    strange = run(1).with_columns(pl.lit("huge").alias("size"))
    with pytest.raises(UserError, match="no floors are published for size 'huge'"):
        choose([strange, run(2).with_columns(pl.lit("huge").alias("size"))])
    bare = [run(seed).filter(pl.col("measure") == "accuracy") for seed in (1, 2)]
    with pytest.raises(UserError, match="0 readouts with floors of MOD and MUL in common"):
        choose(bare)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (1, 2):
        write_run(tmp_path / f"nano-{seed}", [Observation(*row) for row in run(seed, 1 + seed / 50).rows()])
    folders = [str(tmp_path / f"nano-{seed}") for seed in (1, 2)]
    assert command(["readout", *folders, "--out", str(tmp_path / "choice")]) == 0
    shown = capsys.readouterr().out
    assert "determined: covariance_effective_rank of answer/centred at last-block" in shown
    verdict = json.loads((tmp_path / "choice" / "verdict.json").read_text())
    assert verdict["best"]["place"] == "last-block"
    assert (tmp_path / "choice" / "candidates.csv").is_file()
    assert write_choice(choose([run(1), run(2)]), tmp_path / "again")
    assert command(["readout", folders[0]]) == 2
    assert "two or more runs" in capsys.readouterr().err


def test_events_stand_beside_the_published_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plants = {"MOD": Plant(acquired=1300, low=2.07), "MUL": Plant(acquired=None, low=2 * 3.03)}
    folder = write_run(tmp_path / "a", rows(plants))
    assert command(["published", str(folder), "--out", str(tmp_path / "beside.csv")]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"acquisition +MOD +L1 +1,300 +3,200 +0\.41", shown)
    assert re.search(r"acquisition +MUL +L2 +not-reached +6,900 +-", shown)
    assert re.search(r"floor +MUL +mixed +6\.06 +3\.03 +2\.00", shown)
    assert "nano-42, floor: median ratio 1.50, quartiles 1.25 to 1.75, over 2 of 2 that both found" in shown
    assert (tmp_path / "beside.csv").read_text().count("\n") == 9
    strange = write_run(tmp_path / "b", rows(plants, size="huge"))
    assert command(["published", str(strange)]) == 2
    assert "no published figures for size 'huge'" in capsys.readouterr().err
