"""A plot of runs in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pythiageo.errors import UserError
from pythiageo.events.run import Run, open_runs
from pythiageo.figures.plot import plot_runs
from pythiageo.figures.selection import Asked
from pythiageo.figures.spec import Plot

Names = str | Sequence[str] | None


def plot(
    runs: Run | str | Path | Sequence[Run | str | Path],
    measure: str | Sequence[str],
    by: str = "step",
    *,
    hue: str | None = None,
    task: Names = None,
    level: Names = None,
    readout: Names = None,
    site: Names = None,
    layers: str | None = None,
    steps: str | Sequence[int] | None = None,
    seeds: str = "separate",
    out: str | Path | Sequence[str | Path] | None = None,
    width: str | float = "column",
) -> Plot:
    """Return a plot of one or more runs; as the last line of a notebook's cell it shows itself.

    Args:
        runs: run folders, or runs that are open.
        measure: what is drawn; several have a panel each.
        by: what lies along x: ``step``, ``layer``, ``task`` or ``run``.
        hue: what a line is; by default the layers, the steps, the runs or the tasks of which there are several. What
            else there are several of has a panel each.
        task, level, readout, site, layers, steps: what of it; by default a choice that the plot's ``said`` names.
        seeds: ``band`` draws runs that differ in seed alone as their mean, with a band from the lowest to the highest.
        out: files to write, by their ending PDF, PNG, SVG or HTML; the caption goes to a ``.txt`` beside each.
        width: of a file: ``column`` (3.25 in), ``text`` (5.5 in), or inches.

    Raises:
        UserError: a name that is not there, an ambiguity, more than can be told apart, or a file that cannot be.
    """
    given = [runs] if isinstance(runs, (Run, str, Path)) else list(runs)
    open_already = [run for run in given if isinstance(run, Run)]
    opened = open_already + (
        open_runs([Path(run) for run in given if not isinstance(run, Run)]) if len(open_already) < len(given) else []
    )
    if len({run.label for run in opened}) < len(opened):
        raise UserError("two of these runs have one name: give their folders, and they are told apart")
    if seeds not in ("separate", "band"):
        raise UserError(f"seeds {seeds!r}: expected 'separate' or 'band'")
    asked = Asked(
        measures=_names(measure) or [], by=by, tasks=_names(task), levels=_names(level), readouts=_names(readout),
        sites=_names(site), layers=layers, steps=_steps(steps, opened), pooled=seeds == "band",
    )  # fmt: skip
    made = plot_runs(opened, asked, hue)
    if out is not None:
        from pythiageo.report.plot_files import write_plot  # noqa: PLC0415 - the page's library is loaded for files alone

        write_plot(made, [Path(out)] if isinstance(out, (str, Path)) else [Path(each) for each in out], width)
    return made


def _names(given: Names) -> list[str] | None:
    return None if given is None else [given] if isinstance(given, str) else list(given)


def _steps(given: str | Sequence[int] | None, runs: Sequence[Run]) -> Sequence[int] | None:
    if not isinstance(given, str):
        return given
    from pythiageo.series.steps import select  # noqa: PLC0415 - only where steps are given as a text

    return select(given, sorted({step for run in runs for step in run.distinct["step"].unique()}))
