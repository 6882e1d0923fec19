"""What ``pythiageo show`` prints of a run, before it is printed."""

from __future__ import annotations

import planted
import pytest
from planted import Plant, observation

from pythiageo.errors import UserError
from pythiageo.events import Run
from pythiageo.figures.overview import MOST_ROWS, columns_of, draw_curve, look_over, main_measures


def run_of(rows: list[planted.Observation]) -> Run:
    return Run(None, planted.table(rows))


def test_a_curve_has_its_scale_and_its_gaps() -> None:
    steps = [0, 1, 2, 3]
    assert draw_curve({0: 0.0, 1: 2.0, 3: 4.0}, steps) == "▁▅ █"  # from 0 to its highest
    assert draw_curve({0: 0.0, 1: 2.0, 3: 4.0}, steps, (0.0, 8.0)) == "▁▃ ▅"
    assert draw_curve({0: -3.0, 1: -1.0, 2: -2.0}, steps) == "▁█▅ "  # of logarithms, from its lowest
    assert draw_curve({0: 20.0, 1: 20.0}, steps) == "██  "  # what does not change is no wave
    assert draw_curve({}, steps) == "    "
    assert draw_curve({0: 0.0}, steps) == "▁   "


def test_values_are_those_of_the_table() -> None:
    run = run_of(planted.rows({"ADD": Plant(acquired=900, floor=300), "MOD": Plant(acquired=None)}, layers=3))
    assert main_measures(run) == ["accuracy", "rankme"]
    accuracy, ranks, by_block = look_over(run, ["accuracy", "rankme"])
    plant = Plant(acquired=900)
    assert [row.name for row in accuracy.rows] == ["ADD", "MOD"]
    assert accuracy.rows[0].values == pytest.approx({step: plant.accuracy(step) for step in planted.STEPS})
    assert accuracy.rows[0].chance == pytest.approx(plant.chance)
    assert accuracy.title == "accuracy, mean of L1, L2, L3"
    # rankme is planted as 2.5 times the rank; blocks lie 3 above the next, the final norm 0.5 above the last
    assert ranks.rows[0].values == pytest.approx({step: 2.5 * plant.rank(step) for step in planted.STEPS})
    assert ranks.title == "rankme, block 2, the last, answer/centred"
    assert [row.name for row in by_block.rows] == ["0", "1", "2", "LN"]
    assert [row.values[300] for row in by_block.rows] == pytest.approx([2.5 * (2 + more) for more in (6, 3, 0, 0.5)])


def test_a_mean_of_fewer_levels_is_none() -> None:
    rows = [observation(level=level, step=step, value=value) for level, step, value in
            (("L1", 0, 0.2), ("L2", 0, 0.4), ("L1", 10, 0.9))]  # fmt: skip
    rows.append(observation(level="L2", step=10, value=None, status="undefined", reason="no"))
    [accuracy] = look_over(run_of(rows), ["accuracy"])
    assert accuracy.rows[0].values == pytest.approx({0: 0.3})
    assert any("1 of 4 observations have no value (1 undefined)" in line for line in accuracy.said)


def test_many_tasks_and_blocks_are_counted() -> None:
    plants = {f"T{number:02}": Plant() for number in range(20)}
    accuracy, ranks, by_block = look_over(run_of(planted.rows(plants, steps=[0, 1], layers=40)), ["accuracy", "rankme"])
    assert len(accuracy.rows) == len(ranks.rows) == len(by_block.rows) == MOST_ROWS
    assert f"tasks: {MOST_ROWS} of 20 (--task)" in accuracy.said
    assert by_block.said[0] == f"blocks: {MOST_ROWS - 1} of 40 (plot has all)"
    assert [by_block.rows[index].name for index in (0, -2, -1)] == ["0", "39", "LN"]


def test_steps_are_spread_over_the_training() -> None:
    [accuracy, *_] = look_over(run_of(planted.rows()), ["accuracy"])
    assert columns_of(accuracy, 100) == list(planted.STEPS)
    few = columns_of(accuracy, 4)
    assert len(few) <= 4
    assert (few[0], few[-1]) == (0, 2000)


def test_what_is_not_there_and_what_is_ambiguous_is_said() -> None:
    run = run_of(planted.rows(readouts=("last/centred", "mean/centred")))
    with pytest.raises(UserError, match="no measure 'rankm' here"):
        look_over(run, ["rankm"])
    with pytest.raises(UserError, match="taken under last/centred, mean/centred: say which"):
        look_over(run, ["rankme"])
    [ranks, by_block] = look_over(run, ["rankme"], readouts=["mean/centred"])
    assert "mean/centred" in ranks.title
    [final] = look_over(run, ["rankme"], readouts=["mean/centred"], site="final-ln")
    assert final.rows[0].values == pytest.approx(by_block.rows[-1].values)
