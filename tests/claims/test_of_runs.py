"""Which readout runs are asked under: at equal rows where all have every rank so, by name at those they have."""

from __future__ import annotations

import planted
import pytest

from pythiageo.claims.of_runs import question_of

PLAIN = "answer/centred"


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([50, 100], [50, 100], 100),
        ([50, 100], [50], 50),
        ([50], [100], None),
        ([50], [], None),
        ([], [], None),
    ],
)
def test_runs_are_asked_at_the_largest_number_of_rows_that_all_have(
    first: list[int], second: list[int], expected: int | None
) -> None:
    runs = []
    for name, numbers in (("a", first), ("b", second)):
        readouts = (PLAIN, *(f"{PLAIN}/rows={number}" for number in numbers))
        runs.append(planted.opened(planted.table(planted.rows(steps=(0, 100), readouts=readouts, run=name))))
    shown = PLAIN if expected is None else f"{PLAIN}/rows={expected}"
    assert question_of(runs).specification.readout == shown
    assert question_of(runs, readout=PLAIN).specification.readout == PLAIN  # the old rule, by name


def test_a_task_with_fewer_rows_is_not_left_out() -> None:
    plants = {"MOD": planted.Plant(), "CMP": planted.Plant()}
    found = planted.rows(plants, steps=(0, 100), readouts=(PLAIN, f"{PLAIN}/rows=50"))
    few = [
        row._replace(value=None, status="undefined", reason="the readout has 20 rows, and 50 were asked for")
        if row.task == "CMP" and row.readout == f"{PLAIN}/rows=50" else row
        for row in found
    ]  # fmt: skip
    assert question_of([planted.opened(planted.table(few))]).specification.readout == PLAIN
