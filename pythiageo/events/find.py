"""Events: acquisition, collapse floor and recovery, read from the observation table under a protocol."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from pythiageo.events.trajectory import RUN_KEY, Trajectory, at_site, is_at_edge, select_rows, trajectories
from pythiageo.names import LAST_BLOCK, READOUT
from pythiageo.observations.measures import rank_measures
from pythiageo.observations.schema import COLUMNS
from pythiageo.study.protocols import AT_EDGE, FOUND, NOT_REACHED, UNDEFINED, Protocol, get_protocol

MIN_FLOOR_CHECKPOINTS = 3
"""A minimum of fewer values than this says nothing about a fall and a rise."""

EVENT_COLUMNS: dict[str, pl.DataType] = {
    **{name: COLUMNS[name] for name in RUN_KEY},
    "protocol": pl.String(),
    "event": pl.String(),
    **{name: COLUMNS[name] for name in ("task", "level", "layer", "site", "readout", "measure")},
    "step": pl.Int64(),
    "tokens": pl.Int64(),
    "value": pl.Float64(),
    "status": pl.String(),
    "reason": pl.String(),
    "n_checkpoints": pl.Int64(),
    "cadence": pl.Float64(),
    "threshold": pl.Float64(),
    "first_value": pl.Float64(),
    "relative_depth": pl.Float64(),
}
"""Columns of an event table.

``step``, ``tokens``, ``value``: the checkpoint of the event and the quantity there; null unless ``status`` is
``found`` or ``at-edge``. ``n_checkpoints``: checkpoints with a value in the window searched; ``cadence``: their
median distance in steps. ``threshold``: what the quantity had to pass. ``first_value``: the quantity at the run's
first checkpoint. ``relative_depth``: floor over first value, for floors."""


def first_run(holds: Sequence[bool | None], consecutive: int) -> int | None:
    """Return the index at which the first run of at least ``consecutive`` true entries begins, or ``None``.

    ``None`` entries (no observation) end a run just as false ones do.

    >>> first_run([True, False, None, True, True, True], consecutive=2)
    3
    """
    if consecutive < 1:
        raise ValueError(f"a run needs at least one entry, got {consecutive}")
    length = 0
    for index, held in enumerate(holds):
        length = length + 1 if held else 0
        if length == consecutive:
            return index - consecutive + 1
    return None


def events(
    observations: pl.DataFrame,
    protocol: Protocol | str,
    readout: str = READOUT,
    measure: str = "covariance_effective_rank",
    site: str = LAST_BLOCK,
) -> pl.DataFrame:
    """Return the events of every run in ``observations``, one row an event (columns: ``EVENT_COLUMNS``).

    - ``acquisition``, for each task and level: the first checkpoint of the first run of
      ``protocol.consecutive`` checkpoints whose accuracy meets the protocol's threshold. A checkpoint
      without an ``ok`` observation ends a run; nothing is interpolated.
    - ``log_prob_acquisition`` (the midpoint), and ``..._25``, ``..._75``, ``..._90``: the same for the mean
      log-probability lying above that share of the way from its value at the first to that at the last
      checkpoint.
    - ``floor``, for each task: the smallest value of ``measure`` in the protocol's window at ``site`` under
      ``readout``; of equal values the first. Undefined where it lies less than ``protocol.least_fall`` below the value
      at the run's first checkpoint.
      It is ``at-edge`` where it is the first or the last value of the window, or where a smaller one follows after the
      window before the measure has recovered: the fall was not over.
    - ``recovery``: the first checkpoint after the floor whose value lies above the midpoint between the
      floor and the value at the run's first checkpoint; ``at-edge`` if the floor is.

    Every row has a status: ``found``, ``at-edge`` (there is a value, and the true one may lie outside the window;
    whether it counts is the protocol's, see ``Protocol.edge_counts``), ``not-reached`` (the checkpoints there are do
    not show it) or ``undefined`` (the question has no answer on this run), ``at-edge`` and ``undefined`` with a reason.
    A ``found`` row may have a reason too: what a reader should know before quoting it. Weights that occur at two steps
    count once, at the first.

    Args:
        observations: the table of one or more runs.
        protocol: a protocol or its name.
        readout: readout of the floors, ``positions/centring``.
        measure: rank measure of the floors.
        site: ``last-block``, ``final-ln`` or a hook name.

    Raises:
        UserError: unknown protocol; or a readout, measure or site that a table with geometry does not hold.
    """
    protocol = get_protocol(protocol) if isinstance(protocol, str) else protocol
    rows = [*_acquisitions(observations, protocol), *_log_prob_acquisitions(observations, protocol)]
    geometry = observations.filter(pl.col("measure").is_in(rank_measures()))
    if geometry.height:
        selected = select_rows(select_rows(at_site(geometry, site), "measure", measure), "readout", readout)
        selected = pl.concat([selected, timeline_rows(observations)])
        for trajectory in trajectories(selected, [measure]):
            rows += _floor_and_recovery(trajectory, protocol)
    return _frame(rows)


def floors(
    observations: pl.DataFrame, protocol: Protocol | str, measures: Sequence[str] = rank_measures()
) -> pl.DataFrame:
    """Return the floor of every task at every layer, site, readout and rank measure (columns:
    ``EVENT_COLUMNS``)."""
    protocol = get_protocol(protocol) if isinstance(protocol, str) else protocol
    return _frame(_floor_and_recovery(each, protocol)[0] for each in trajectories(observations, measures))


def timeline_rows(observations: pl.DataFrame) -> pl.DataFrame:
    """Return one row a checkpoint, of no measure, so that a selection keeps all checkpoints of its run."""
    return (
        observations.sort("weight_sha", nulls_last=True)
        .unique([*RUN_KEY, "step"], keep="first", maintain_order=True)
        .with_columns(pl.lit("checkpoint").alias("measure"))
    )


def _frame(rows: Iterable[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=EVENT_COLUMNS, orient="row")


def _row(window: Trajectory, protocol: Protocol, event: str, **found: Any) -> dict[str, Any]:
    """Return one row; ``found`` holds ``status`` and whatever else is known."""
    row: dict[str, Any] = dict.fromkeys(EVENT_COLUMNS)
    row |= window.key | {"protocol": protocol.name, "event": event}
    return row | {"n_checkpoints": window.measured, "cadence": window.cadence} | found


def _at(window: Trajectory, index: int) -> dict[str, Any]:
    return {"step": window.steps[index], "tokens": window.tokens[index], "value": window.values[index]}


def _acquisitions(observations: pl.DataFrame, protocol: Protocol) -> list[dict[str, Any]]:
    scores = trajectories(observations, ["accuracy", "chance_accuracy", "majority_rate"])
    by_key: dict[tuple[Any, ...], dict[str, Trajectory]] = {}
    for each in scores:
        place = tuple(each.key[name] for name in (*RUN_KEY, "task", "level"))
        by_key.setdefault(place, {})[each.key["measure"]] = each
    return [_acquisition(found, protocol) for found in by_key.values() if "accuracy" in found]


def _acquisition(scores: dict[str, Trajectory], protocol: Protocol) -> dict[str, Any]:
    accuracy = scores["accuracy"]
    levels: tuple[float | None, ...] = accuracy.values
    problem = accuracy.problem
    if protocol.chance_corrected and problem is None:
        levels, problem = _corrected(scores)
    window = Trajectory(accuracy.key, accuracy.steps, accuracy.tokens, levels, problem)
    holds = [None if level is None else protocol.acquired(level) for level in levels]
    return _first_hold(window, protocol, "acquisition", holds) | {"threshold": protocol.accuracy_threshold}


def _corrected(scores: dict[str, Trajectory]) -> tuple[tuple[float | None, ...], str | None]:
    """Return chance-corrected accuracies ``(a - c) / (1 - c)``, or why they cannot be made."""
    for name in ("chance_accuracy", "majority_rate"):
        if name not in scores or not scores[name].measured:
            return scores["accuracy"].values, f"{name} is not in the observations, so chance is not known"
    chance, majority = scores["chance_accuracy"].values, scores["majority_rate"].values
    result: list[float | None] = []
    for accuracy, declared, common in zip(scores["accuracy"].values, chance, majority, strict=True):
        if accuracy is None or declared is None or common is None:
            result.append(None)
            continue
        guess = max(declared, common)
        if guess >= 1:
            return scores["accuracy"].values, "one answer fits the whole probe set, so accuracy says nothing"
        result.append((accuracy - guess) / (1 - guess))
    return tuple(result), None


def _log_prob_acquisitions(observations: pl.DataFrame, protocol: Protocol) -> list[dict[str, Any]]:
    rows = []
    for window in trajectories(observations, ["log_prob"]) if protocol.log_prob_shares else ():
        for share in protocol.log_prob_shares:
            name = "log_prob_acquisition" + ("" if share == 0.5 else f"_{round(100 * share)}")
            rows.append(_log_prob_acquisition(window, protocol, name, share))
    return rows


def _log_prob_acquisition(window: Trajectory, protocol: Protocol, name: str, share: float) -> dict[str, Any]:
    first, last = window.values[0], window.values[-1]
    problem = window.problem
    if problem is None and (first is None or last is None):
        problem = f"no log-probability at the run's {'first' if first is None else 'last'} checkpoint"
    if problem is None and first is not None and last is not None and last <= first:
        problem = "the log-probability did not rise from the first to the last checkpoint"
    if problem is not None or first is None or last is None:
        return _row(window, protocol, name, status=UNDEFINED, reason=problem, first_value=first)
    threshold = first + share * (last - first)
    holds = [None if value is None else value > threshold for value in window.values]
    return _first_hold(window, protocol, name, holds) | {"threshold": threshold, "first_value": first}


def _first_hold(window: Trajectory, protocol: Protocol, event: str, holds: Sequence[bool | None]) -> dict[str, Any]:
    """Return the row of the first run of checkpoints that fulfil a condition."""
    needed = protocol.consecutive
    gaps = len(window.values) - window.measured
    problem = window.problem
    if problem is None and window.measured < needed:
        problem = f"too few checkpoints with a value: {window.measured}, and the rule needs {needed} in a row"
    if problem is not None:
        return _row(window, protocol, event, status=UNDEFINED, reason=problem)
    index = first_run(holds, needed)
    if index is not None:
        earlier = sum(value is None for value in window.values[:index])
        notes = [f"earlier checkpoints without a value: {earlier}"] if earlier else []
        if index == 0:
            held = "it held at step 0, before any training"
            notes.append("it held at the first checkpoint, so it may be earlier" if window.steps[0] else held)
        return _row(window, protocol, event, status=FOUND, reason="; ".join(notes) or None, **_at(window, index))
    open_end = next((count for count, held in enumerate(reversed(holds)) if not held), len(holds))
    notes = [f"it held at the end for {open_end} of {needed} checkpoints needed"] if open_end else []
    notes += [f"checkpoints without a value: {gaps}"] if gaps else []
    return _row(window, protocol, event, status=NOT_REACHED, reason="; ".join(notes) or None)


def _floor_and_recovery(whole: Trajectory, protocol: Protocol) -> list[dict[str, Any]]:
    """Return the row of the floor and the row of the recovery from it."""
    window = whole.window(*protocol.floor_window)
    low, high = protocol.floor_window
    first = whole.values[0]
    problem = whole.problem
    if problem is None and window.measured < MIN_FLOOR_CHECKPOINTS:
        problem = (
            f"too few checkpoints with a value in steps {low}-{high}: {window.measured}, "
            f"and a floor needs {MIN_FLOOR_CHECKPOINTS}"
        )
    if problem is not None:
        rows = [_row(window, protocol, name, status=UNDEFINED, reason=problem) for name in ("floor", "recovery")]
        return [row | {"first_value": first} for row in rows]
    value, index = min((value, index) for index, value in enumerate(window.values) if value is not None)
    if first is not None and (shallow := protocol.too_shallow(first, value)):
        return [
            _row(window, protocol, name, status=UNDEFINED, reason=shallow, first_value=first)
            for name in ("floor", "recovery")
        ]
    status = AT_EDGE if is_at_edge(whole, window, index) else FOUND
    floor = _row(window, protocol, "floor", status=status, first_value=first, **_at(window, index))
    floor["reason"] = "; ".join(_floor_notes(whole, window, index, value)) or None
    floor["relative_depth"] = value / first if first else None
    recovery = _recovery(whole, window, protocol, window.steps[index], value)
    if status == AT_EDGE and recovery["status"] == FOUND:
        notes = ["it is the recovery from a floor at the edge of the window", recovery["reason"]]
        recovery |= {"status": AT_EDGE, "reason": "; ".join(note for note in notes if note)}
    return [floor, recovery]


def _floor_notes(whole: Trajectory, window: Trajectory, index: int, value: float) -> list[str]:
    """Return what a reader should know before quoting a floor."""
    notes = []
    measured = [place for place, each in enumerate(window.values) if each is not None]
    if index in (measured[0], measured[-1]):
        end = "first" if index == measured[0] else "last"
        unseen = "no fall was seen and " if index == measured[0] else ""
        notes.append(f"it is the {end} checkpoint of the window, so {unseen}the minimum may lie outside")
    lowest, step = min((each, step) for each, step in zip(whole.values, whole.steps, strict=True) if each is not None)
    if lowest < value:
        notes.append(f"the minimum over all checkpoints is {lowest:.4g} at step {step}, outside the window")
    if gaps := len(window.values) - window.measured:
        notes.append(f"checkpoints of the window without a value: {gaps}")
    if whole.values[0] is None:
        notes.append("no value at the run's first checkpoint, so the depth of the fall is not known")
    return notes


def _recovery(
    whole: Trajectory, window: Trajectory, protocol: Protocol, floor_step: int, floor: float
) -> dict[str, Any]:
    first = whole.values[0]
    after = whole.window(floor_step + 1, max(whole.steps))
    if first is None or first <= floor:
        reason = "no value at the run's first checkpoint" if first is None else "the measure never fell"
        return _row(after, protocol, "recovery", status=UNDEFINED, reason=reason, first_value=first)
    midpoint = (floor + first) / 2
    known = {"threshold": midpoint, "first_value": first}
    index = first_run([None if value is None else value > midpoint for value in after.values], 1)
    gaps = sum(value is None for value in after.values[:index])
    note = f"checkpoints after the floor without a value: {gaps}" if gaps else None
    if index is None:
        return _row(after, protocol, "recovery", status=NOT_REACHED, reason=note, **known)
    return _row(after, protocol, "recovery", status=FOUND, reason=note, **known, **_at(after, index))
