"""The report's tables, as plain text cells; the template escapes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from pythiageo.compare import Comparison, beside_published, published_sizes
from pythiageo.events import FOUND
from pythiageo.events.run import Run
from pythiageo.names import COVARIANCE_RANK, FINAL_NORM, RANKME
from pythiageo.observations.manifest import ModelFacts
from pythiageo.report.words import format_number, measure_title, named, readout_title

Table = dict[str, Any]
"""``head``: column names; ``rows``: lists of cells, texts or ``named``; ``text``: how many leading columns are
words, not numbers."""
_SPECTRA = {COVARIANCE_RANK: "σ²", RANKME: "RankMe (σ)"}
_NOT_OK_ROWS = 60
_CELL = 160


def run_table(runs: Sequence[Run]) -> Table:
    """Return one column a run: what was measured, on what, with what."""
    rows: dict[str, list[str]] = {}
    for run in runs:
        for name, value in _facts(run).items():
            rows.setdefault(name, []).append(value)
    return {
        "head": ["", *(run.label for run in runs)],
        "rows": [[k, *v] for k, v in rows.items()],
        "text": len(runs) + 1,
    }


def _facts(run: Run) -> dict[str, str]:
    manifest = run.manifest
    model, made = manifest.model or ModelFacts(), manifest.provenance
    steps = run.observations["step"]
    measured = run.observations.filter(pl.col("status") == "ok")["step"].n_unique()
    counts = run.observations["status"].value_counts().sort("status").rows()
    commit = _text(made.git_commit)
    dirty = " with changes" if made.git_dirty else ""
    seed = run.distinct["seed"][0]
    return {
        "Series": _text(run.distinct["series"][0]),
        "Kind": _text(manifest.kind),
        "Regime": run.regime,
        "Size": run.size,
        "Seed": "–" if seed is None else str(seed),
        "Architecture": _text(model.architecture),
        "Parameters": _number(model.parameters),
        "Blocks × width": f"{_number(model.layers)} × {_number(model.d_model)}",
        "Steps": f"{_number(steps.min())} to {_number(steps.max())}",
        "Checkpoints": f"{measured} measured of {steps.n_unique()}",
        "Distinct weights": str(run.observations["weight_sha"].drop_nulls().n_unique()),
        "Observations": ", ".join(f"{count:,} {status}" for status, count in counts),
        "Readout shown": run.readout or "–",
        "Device, dtype": f"{_text(made.device)}, {_text(made.dtype)}",
        "Weights as read": _text(made.processing),
        "pythiageo": _text(made.pythiageo),
        "Git commit": f"{commit[:12]}{dirty}",
        "Run status": _text(manifest.status),
    }


def audit_table(runs: Sequence[Run]) -> Table:
    """Return how many checkpoints of each run have which verdict or status, and why those that are not ``ok``.

    From the observations: each checkpoint that was left out has a row that says why. Checkpoints with both numbers and
    gaps are under ``ok``; the gaps are listed by themselves. Under ``note`` stands whole what the manifest remarks,
    such as revisions that were left out by name.
    """
    rows = []
    for run in runs:
        measured = run.observations.filter(pl.col("status") == "ok")["step"].unique()
        others = run.observations.filter(~pl.col("step").is_in(measured.implode()))
        if measured.len():
            rows.append([run.label, "ok", _number(measured.len()), _steps(measured), ""])
        groups = (
            others.group_by("status").agg(pl.col("step").unique(), pl.col("reason").drop_nulls().first()).sort("status")
        )
        rows += [
            [run.label, status, _number(len(steps)), _steps(pl.Series(steps)), _text(reason)]
            for status, steps, reason in groups.rows()
        ]
        rows += [[run.label, "note", "–", "–", remark] for remark in run.manifest.remarks or ()]
    return {"head": ["Run", "Verdict", "Checkpoints", "Steps", "First reason"], "rows": rows, "text": 5}


def _steps(steps: pl.Series) -> str:
    """Return the steps in few words."""
    found = [f"{step:,}" for step in steps.sort()]
    return ", ".join(found) if len(found) <= 8 else f"{found[0]}, {found[1]}, {found[2]} … {found[-1]}"


def _text(value: object) -> str:
    text = "–" if value is None else str(value)
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else _text(value)


def acquisition_table(run: Run) -> Table:
    """Return a run's acquisition steps by task and level under every protocol, beside the published steps."""
    events = run.shown_events()
    scores = events.filter(pl.col("event") == "acquisition")
    midpoint = events.filter((pl.col("event") == "log_prob_acquisition") & (pl.col("protocol") == "billa-v4"))
    figures = _published(run, events)
    columns = [("billa-v1", True), ("billa-v4", True), ("pythiageo", False)]
    head = ["Task", "Level"]
    for protocol, beside in columns:
        head += [protocol, *(["published"] if beside and figures is not None else [])]
    head += ["log-prob midpoint"]
    rows = []
    for task, level in scores.select("task", "level").unique().sort("task", "level").rows():
        here = pl.col("task").eq_missing(pl.lit(task)) & pl.col("level").eq_missing(pl.lit(level))
        cells, notes = [], []
        for protocol, beside in columns:
            event = scores.filter(here & (pl.col("protocol") == protocol)).row(0, named=True)
            cells.append(_step(event))
            notes += [f"{protocol}: {event['reason']}"] if event["reason"] else []
            if beside and figures is not None:
                cells.append(_figure(figures, protocol, "acquisition", task, level))
        log_prob = midpoint.filter(here).rows(named=True)
        cells.append(_step(log_prob[0]) if log_prob else "–")
        rows.append([task or "", level or "", *cells, "; ".join(dict.fromkeys(notes))])
    return _with_notes(head, rows, text=2)


def floor_table(run: Run) -> Table:
    """Return a run's floors by task, beside the published floors: of both spectra, or of whichever rank there is."""
    there = run.distinct.filter(pl.col("readout") == run.place.readout)["measure"].unique()
    ranks = [name for name in (COVARIANCE_RANK, RANKME) if name in there] or [run.place.measure]
    first = run.shown_events(ranks[0])
    figures = _published(run, first) if ranks[0] == COVARIANCE_RANK else None
    words = [_SPECTRA.get(name, measure_title(name)) for name in ranks]
    head = ["Task", f"{words[0]}, steps 0–200", f"{words[0]}, first 10K", "of first value", "recovery step"]
    head += ["published"] if figures is not None else []
    head += [f"{words[1]}, first 10K", "of first value"] if len(ranks) > 1 else []
    rows = []
    tasks = pl.concat([run.shown_events(name) for name in ranks]).filter(pl.col("event") == "floor")["task"]
    for task in tasks.drop_nulls().unique().sort():
        early, whole = _floor(first, "billa-v1", task), _floor(first, "billa-v4", task)
        cells = [_value(early), _value(whole), _share(whole), _step(_floor(first, "billa-v4", task, "recovery"))]
        if figures is not None:
            cells.append(_figure(figures, "billa-v4", "floor", task, "mixed"))
        same = early.get("reason") == whole.get("reason")
        notes = [None if same or not early.get("reason") else f"0–200: {early['reason']}", whole.get("reason")]
        if len(ranks) > 1:
            other = _floor(run.shown_events(ranks[1]), "billa-v4", task)
            if other.get("reason") and other["reason"] != whole.get("reason"):
                notes.append(f"σ: {other['reason']}")
            cells += [_value(other), _share(other)]
        rows.append([task, *cells, "; ".join(dict.fromkeys(note for note in notes if note))])
    return _with_notes(head, rows, text=1)


def _with_notes(head: list[str], rows: list[list[str]], text: int) -> Table:
    """Return a table whose rows end with a note; one that all rows share is said once, below the table."""
    notes = {row[-1] for row in rows}
    if len(notes) > 1:
        return {"head": [*head, "Note"], "rows": rows, "text": text, "note": ""}
    return {"head": head, "rows": [row[:-1] for row in rows], "text": text, "note": "".join(notes)}


def _floor(events: pl.DataFrame, protocol: str, task: str, event: str = "floor") -> dict[str, Any]:
    rows = events.filter((pl.col("event") == event) & (pl.col("protocol") == protocol) & (pl.col("task") == task)).rows(
        named=True
    )
    return rows[0] if rows else {}


def _step(event: Mapping[str, Any]) -> str:
    if not event:
        return "–"
    return str(event["status"]) if event["step"] is None else f"{event['step']:,}{_edge(event)}"


def _edge(event: Mapping[str, Any]) -> str:
    return "" if event["status"] == FOUND else f" ({event['status']})"


def _value(event: Mapping[str, Any]) -> str:
    if not event:
        return "–"
    if event["step"] is None:
        return str(event["status"])
    return f"{event['value']:.2f} at {event['step']:,}{_edge(event)}"


def _share(event: Mapping[str, Any]) -> str:
    depth = event.get("relative_depth")
    return "–" if depth is None else f"{100 * depth:.0f}%"


def _published(run: Run, events: pl.DataFrame) -> pl.DataFrame | None:
    """Return published figures for a run; they are of task-aligned models, and beside no others."""
    if run.regime != "task-aligned" or run.size not in published_sizes():
        return None
    return beside_published(events, run.size)


def _figure(figures: pl.DataFrame, protocol: str, event: str, task: str, level: str | None) -> str:
    same = (pl.col("protocol") == protocol) & (pl.col("event") == event)
    rows = figures.filter(
        same & pl.col("task").eq_missing(pl.lit(task)) & pl.col("level").eq_missing(pl.lit(level))
    ).rows(named=True)
    if not rows:
        return ""
    row = rows[0]
    if row["published"] is None:
        return "not acquired"
    return f"{row['published']:,.0f}" if event == "acquisition" else f"{row['published']:.2f}"


def not_ok_table(runs: Sequence[Run]) -> Table:
    """Return the observations without a value, grouped by run, step, status and reason."""
    bad = pl.concat([run.observations for run in runs]).filter(pl.col("status") != "ok")
    groups = bad.group_by("run", "step", "status", "reason", maintain_order=True).agg(
        pl.len(), pl.col("task").drop_nulls().unique().sort(), pl.col("measure").unique().sort()
    )
    rows = [
        [
            run,
            f"{step:,}",
            status,
            _text(reason),
            f"{count:,}",
            _text(", ".join(tasks)),
            _text(", ".join(measures)),
        ]
        for run, step, status, reason, count, tasks, measures in groups.head(_NOT_OK_ROWS).rows()
    ]
    return {
        "head": ["Run", "Step", "Status", "Reason", "Observations", "Tasks", "Measures"],
        "rows": rows,
        "text": 7,
        "more": max(groups.height - _NOT_OK_ROWS, 0),
    }


def aligned_table(comparison: Comparison) -> Table:
    """Return accuracy and the last block's rank at the last step that both runs of a pair have."""
    aligned = comparison.aligned
    last_block = pl.col("layer_a") == pl.col("layer_a").max().over("run_a", "run_b")
    rank = (pl.col("measure") == comparison.place.measure) & last_block & (pl.col("place") != FINAL_NORM)
    rank = rank & (pl.col("place") != "final-ln")
    kept = aligned.filter((pl.col("measure") == "accuracy") | rank)
    kept = kept.filter(pl.col("step") == pl.col("step").max().over("run_a", "run_b"))
    rows = [
        [
            row["run_a"], row["run_b"], row["task"], row["level"], named(measure_title(row["measure"]), row["measure"]),
            named(readout_title(row["readout"]), row["readout"]) if row["readout"] else "", f"{row['step']:,}",
            *(format_number(row[name]) for name in ("value_a", "value_b", "difference", "ratio")),
        ]
        for row in kept.sort("run_a", "run_b", "measure", "task", "level", "readout").iter_rows(named=True)
    ]  # fmt: skip
    head = ["A", "B", "Task", "Level", "Measure", "Readout", "Step", "A", "B", "B − A", "B / A"]
    return {"head": head, "rows": rows, "text": 6}
