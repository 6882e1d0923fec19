"""One HTML file that holds everything: findings, figures, tables and what the numbers mean. It works
offline."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from pythiageo.anatomy import PROTOCOLS
from pythiageo.compare import Comparison, compare
from pythiageo.observations.store import replace_file
from pythiageo.report.findings import findings
from pythiageo.report.loaded import LoadedRun, load_runs
from pythiageo.report.panels import figures, tasks_of
from pythiageo.report.tables import acquisition_table, aligned_table, floor_table, not_ok_table, run_table

_HERE = Path(__file__).parent
_DRAWN = ("id", "x", "panels")
"""What the page's script needs of a figure; the template shows the rest."""


def build_report(runs: list[Path], out: Path) -> Path:
    """Write the report of one or more run folders to ``out`` and return it.

    The file needs no network and asks for none: scripts and styles are inside, its security policy forbids
    every request, and only the scripts named there by their hash may run. Names and reasons come from
    strangers' files, so every one is escaped, in the page, in its data and in the labels of its figures.

    Raises:
        UserError: no run folder, or one that cannot be read.
        MachineError: ``out`` could not be written.
    """
    loaded = load_runs(runs)
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, _render(loaded).encode("utf-8"), "an earlier report is unchanged")
    return out


def _render(runs: Sequence[LoadedRun]) -> str:
    drawn = figures(runs)
    sources = [get_plotlyjs(), (_HERE / "report.js").read_text(encoding="utf-8")] if drawn else []
    # "</script" would end the block early; both hold it, if at all, inside strings, where this is the same
    scripts = [source.replace("</script", "<\\/script") for source in sources]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((_HERE / "report.html.j2").read_text(encoding="utf-8"))
    return template.render(
        policy=_policy(scripts),
        style=Markup((_HERE / "report.css").read_text(encoding="utf-8")),
        scripts=[Markup(source) for source in scripts],
        figures=drawn,
        tasks=tasks_of(runs),
        data={"figures": [{name: figure[name] for name in _DRAWN} for figure in drawn]},
        runs=[_section(run) for run in runs],
        run_table=run_table(runs),
        comparison=_comparison(runs),
        not_ok=not_ok_table(runs),
        protocols=list(PROTOCOLS.values()),
    )


def _section(run: LoadedRun) -> dict[str, Any]:
    return {
        "label": run.label,
        "regime": run.regime,
        "size": run.size,
        "findings": findings(run),
        "acquisition": acquisition_table(run),
        "floors": floor_table(run),
    }


def _comparison(runs: Sequence[LoadedRun]) -> dict[str, Any] | None:
    if len(runs) < 2:
        return None
    found: Comparison = compare([run.table for run in runs], manifests=[run.manifest for run in runs])
    missing = found.missing.group_by("run", "not_in", "why", maintain_order=True).agg(pl.col("count").sum())
    return {
        "warnings": found.warnings,
        "aligned": aligned_table(found),
        "rows": found.aligned.height,
        "missing": [
            f"{count:,} observations of {run} have no partner in {other}: {why}."
            for run, other, why, count in missing.rows()
        ],
    }


def _policy(scripts: Sequence[str]) -> str:
    """Return a content security policy under which only these scripts run, and nothing is fetched or sent."""
    digests = (base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "connect-src 'none'; base-uri 'none'; form-action 'none'"
    )
