"""One HTML file that holds everything: findings, figures, tables and what the numbers mean. It works
offline."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup

from pythiageo.claims import ClaimResult
from pythiageo.claims.of_runs import ask, ask_under_every_specification, claims_of_figures
from pythiageo.compare import Comparison, compare
from pythiageo.compare.claims import side_by_side, tabulate_answers
from pythiageo.durable_files import replace_file
from pythiageo.errors import UserError, nearest
from pythiageo.events import PROTOCOLS
from pythiageo.events.run import Run, open_runs
from pythiageo.figures import PaperFigure, PaperTable, paper_figures, paper_tables
from pythiageo.locations import check_file, make_folder
from pythiageo.names import BLOCK_END
from pythiageo.observations.measures import axis_title, declared_measures, find_declared, rank_measures
from pythiageo.report.claims import case_tables, claim_rules, claims_table, specification_curve
from pythiageo.report.columns import Column, columns, floor_steps, pack_columns
from pythiageo.report.embedding import drawing_library, page_scripts, page_style, page_template, security_policy
from pythiageo.report.findings import describe_site, findings
from pythiageo.report.summary import decided_claims, summary_figure
from pythiageo.report.tables import acquisition_table, aligned_table, audit_table, floor_table, not_ok_table, run_table
from pythiageo.report.words import measure_title, named, readout_title

_SCRIPTS = ("inflate", "data", "theme", "panels", "save", "print", "explorer", "link", "page")
_MANIFEST = 20_000
"""Characters of a manifest shown."""
_BY_POSITION = (
    "Split by position: positions of one example are on both sides of the split, so a state can be told by its "
    "example; that alone gives accuracy above the control."
)
_TERMS = {
    "recovery step": "The first checkpoint after the floor above the midpoint between the floor and the first value.",
    "of first value": "The floor as a share of the value at the run's first checkpoint.",
    "log-prob midpoint": "The first of three checkpoints in a row above the midpoint of the first and last value.",
    "σ², steps 0–200": "Floor of the covariance effective rank in billa-v1's window.",
    "σ², first 10K": "Floor of the covariance effective rank in the window of billa-v4 and pythiageo.",
    "RankMe (σ), first 10K": "Floor of RankMe in the window of billa-v4 and pythiageo.",
    "Readout": "Which positions' states form the rows of the matrix, and whether their mean is removed first.",
}


def build_report(
    runs: list[Path],
    out: Path,
    measures: Sequence[str] | None = None,
    readouts: Sequence[str] | None = None,
    everywhere: bool = False,
    progress: Callable[[str, int], None] | None = None,
) -> Path:
    """Write the report of one or more run folders to ``out`` and return it.

    The file needs no network and asks for none: scripts and styles are inside, its security policy forbids
    every request, and only the scripts named there by their hash may run. Names and reasons come from
    strangers' files, so every one is escaped, in the page, in its data and in the labels of its figures.

    ``measures`` and ``readouts`` choose the curves that go in, all of them as far as the page stays small; tables and
    findings do not depend on it. Every claim is asked of the runs of a regime together; ``everywhere`` asks it under
    every specification too, which takes minutes, and draws the curves; ``progress`` is called with each claim's name
    and its count of specifications before it is asked.

    Raises:
        UserError: no run folder, one that cannot be read, a measure or readout that no run has, or an ``out`` that no
            file can be put at.
        MachineError: ``out`` could not be written.
    """
    out = Path(out)
    check_file(out)
    loaded = open_runs(runs)
    make_folder(out.parent)
    specifications = ask_under_every_specification(loaded, progress) if everywhere else None
    page = _render(loaded, measures, readouts, ask(loaded), specifications)
    replace_file(out, page.encode("utf-8"), "an earlier report is unchanged")
    return out


def _render(
    runs: Sequence[Run],
    measures: Sequence[str] | None,
    readouts: Sequence[str] | None,
    claims: Mapping[str, Sequence[ClaimResult]],
    specifications: pl.DataFrame | None,
) -> str:
    every = columns(runs)
    entries, blocks, left_out = pack_columns(_chosen(every, measures, readouts))
    # the script that a page inserts itself must be the one its policy names, so both are hashed as they will run
    library, packed_library = drawing_library()
    script = page_scripts(_SCRIPTS)
    definitions = {**measure_definitions(), **_of_ranges(entry["measure"] for entry in entries)}
    of_figures = claims_of_figures(claims)
    comparison = compare(runs) if len(runs) > 1 else None
    by_run = comparison.claims if comparison else tabulate_answers({runs[0]: claims[runs[0].regime]})
    summaries = [summary_figure(run, number) for number, run in enumerate(runs)]
    figures = paper_figures(runs, of_figures)
    curve = None if specifications is None else specification_curve(specifications)
    shown = {entry["measure"] for entry in entries}
    tasks = sorted({line[1] for column in every for line in column.lines}, key=lambda task: (task is None, task))
    return page_template("report.html.j2").render(
        policy=security_policy([library, script]),
        style=Markup(page_style()),
        script=Markup(script),
        plotly=packed_library,
        blocks=blocks,
        left_out=left_out,
        has_layers=any(entry["layered"] for entry in entries),
        has_scores=not all(entry["layered"] for entry in entries),
        tasks=tasks,
        data={
            "runs": [_timeline(run) for run in runs],
            "tasks": tasks,
            "columns": entries,
            "floors": floor_steps(runs),
            "ranks": rank_measures(),
            "summaries": [each.as_json() for each in summaries],
            "paper": [each.as_json() for each in (*figures, *([curve] if curve else [])) if not each.left_out],
            "titles": {name: axis_title(name) for name in shown},
            "names": {name: measure_title(name) for name in shown}
            | {entry["readout"]: readout_title(entry["readout"]) for entry in entries if entry["readout"]},
            "definitions": {name: definitions[name] for name in shown if name in definitions},
        },
        runs=[_section(run, by_run.filter(run=run.label), figure) for run, figure in zip(runs, summaries, strict=True)],
        run_table=run_table(runs),
        audit_table=audit_table(runs),
        paper_figures=[_captions(figure) for figure in figures if not figure.left_out],
        left_out_figures=[f"{figure.title}: {'; '.join(figure.left_out)}" for figure in figures if figure.left_out],
        paper_tables=[_paper_table(table) for table in paper_tables(runs, of_figures)],
        claims=claims_table(claims),
        claim_cases=case_tables(claims),
        claim_rules=claim_rules(claims),
        specifications=_captions(curve) if curve else None,
        comparison=_comparison(comparison) if comparison else None,
        not_ok=not_ok_table(runs),
        protocols=list(PROTOCOLS.values()),
        terms={protocol.name: f"{protocol.rule} ({protocol.origin})" for protocol in PROTOCOLS.values()} | _TERMS,
        definitions=definitions,
        shown_measures=shown,
        measure_title=measure_title,
        regimes=len(claims),
    )


def _chosen(every: Sequence[Column], measures: Sequence[str] | None, readouts: Sequence[str] | None) -> list[Column]:
    """Return the columns of these measures and readouts (``None``: all); scores have no readout and stay.

    Raises:
        UserError: a measure or readout that no run has.
    """
    for word, wanted, known in (
        ("measure", measures, {column.measure for column in every}),
        ("readout", readouts, {column.readout for column in every if column.readout}),
    ):
        for name in wanted or ():
            if name not in known:
                raise UserError(
                    f"no run has {word} {name!r}{nearest(name, known)}; there are {', '.join(sorted(known))}."
                )
    return [
        column
        for column in every
        if (measures is None or column.measure in measures)
        and (readouts is None or column.readout is None or column.readout in readouts)
    ]


@cache
def measure_definitions() -> dict[str, str]:
    """Return what each measure is, in a sentence."""
    found = {name: measure.definition for name, measure in declared_measures().items()}
    for name in [each for each in found if each.startswith("linear_probe") and "_answer" not in each]:
        found[f"{name}_by_position"] = f"{found[name]} {_BY_POSITION}"
    return found


def _of_ranges(names: Iterable[str]) -> dict[str, str]:
    """Return what measures are whose names say the ranks that they are fitted over."""
    known = declared_measures()
    return {name: found.definition for name in names if name not in known and (found := find_declared(name))}


def _timeline(run: Run) -> dict[str, Any]:
    layers = run.distinct.select("site", "layer").unique()
    ends = layers.filter(pl.col("site").str.ends_with(BLOCK_END))
    block = (ends if ends.height else layers)["layer"].max()
    return {
        "label": run.label,
        "steps": run.distinct["step"].unique().sort().to_list(),
        "depth": None if block is None else int(block) + 1,  # type: ignore[arg-type]
    }


def _section(run: Run, answers: pl.DataFrame, figure: PaperFigure) -> dict[str, Any]:
    decided, undecided = decided_claims(answers)
    return {
        "label": run.label,
        "regime": run.regime,
        "size": run.size,
        "findings": findings(run),
        "decided": decided,
        "undecided": undecided,
        "figure": figure,
        "where": describe_site(run),
        "acquisition": acquisition_table(run),
        "floors": floor_table(run),
        "manifest": _manifest(run),
    }


def _captions(figure: PaperFigure) -> dict[str, Any]:
    shape = " wide tall" if any(panel.cells for panel in figure.panels) else ""
    shape = " wide" if any(panel.y.kind == "names" for panel in figure.panels) and not shape else shape
    return {"id": figure.id, "title": figure.title, "caption": figure.caption, "lacks": figure.lacks, "shape": shape}


def _paper_table(table: PaperTable) -> dict[str, Any]:
    grid = {"head": table.frame.columns, "rows": table.frame.rows(), "text": table.frame.width}
    return {"title": table.title, "caption": table.caption, "lacks": table.lacks, "grid": grid}


def _manifest(run: Run) -> str:
    """Return the manifest as text, less its lists of checkpoints and probe sets, which may be long."""
    short = {
        key: value for key, value in run.manifest.as_json().items() if key not in ("checkpoints", "probe_sets", "audit")
    }
    text = json.dumps(short, indent=2, ensure_ascii=False)
    return text if len(text) <= _MANIFEST else text[:_MANIFEST] + "\n…"


def _comparison(found: Comparison) -> dict[str, Any]:
    names, claims = side_by_side(found.claims)
    sentences = dict(found.claims.select("name", "claim").unique().iter_rows())
    missing = found.missing.group_by("run", "not_in", "why", maintain_order=True).agg(pl.col("count").sum())
    return {
        "warnings": found.warnings,
        "aligned": aligned_table(found),
        "rows": found.aligned.height,
        "claims": {
            "head": ["Claim", *names],
            "rows": [[named(sentences[name], name), *cells] for name, *cells in claims],
            "text": len(names) + 1,
        },
        "missing": [
            f"{count:,} observations of {run} have no partner in {other}: {why}."
            for run, other, why, count in missing.rows()
        ],
    }
