"""Write the paper's figures and tables of some runs as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pythiageo.claims.of_runs import ask, claims_of_figures
from pythiageo.durable_files import replace_file
from pythiageo.errors import UserError, nearest
from pythiageo.events.run import open_runs
from pythiageo.figures.catalogue import paper_figures, paper_tables
from pythiageo.figures.draw import FORMATS, draw
from pythiageo.figures.spec import PaperFigure, PaperTable
from pythiageo.locations import check_folder, make_folder
from pythiageo.observations.export import Typeset, write_table


@dataclass(frozen=True)
class Written:
    """What became of one figure or table.

    ``lacks``: what the paper's has and this one has not; where there are no ``files``, why not.
    """

    title: str
    files: tuple[Path, ...]
    lacks: tuple[str, ...]


def write_paper(runs: Sequence[Path], out: Path, formats: Sequence[str] = FORMATS) -> list[Written]:
    """Write every figure that the runs have in each format, its caption as text, and every table as LaTeX and CSV.

    What does not apply to the runs is left out: it has no files, and ``lacks`` says why. So is a panel without anything
    to draw, which the caption names.

    Raises:
        UserError: no run folder, one that cannot be read, an unknown format, or an ``out`` that cannot be written.
        MachineError: a file could not be written.
    """
    for name in formats:
        if name not in FORMATS:
            raise UserError(f"--format: no format {name!r}{nearest(name, FORMATS)}; there are {', '.join(FORMATS)}.")
    check_folder(out)
    loaded = open_runs(runs)
    make_folder(out)
    claims = claims_of_figures(ask(loaded))
    written = [_write_figure(figure, out, tuple(dict.fromkeys(formats))) for figure in paper_figures(loaded, claims)]
    return written + [_write_table(table, out) for table in paper_tables(loaded, claims)]


def _write_figure(figure: PaperFigure, out: Path, formats: Sequence[str]) -> Written:
    """Write a figure, and beside it what print has below it."""
    if figure.left_out:
        return Written(figure.title, (), figure.left_out)
    files = draw(figure, formats)
    text = "\n".join([f"{figure.title}. {figure.caption}", *(f"Lacks: {lack}." for lack in figure.said)]) + "\n"
    contents = {**{name: files[name] for name in formats}, "txt": text.encode()}
    paths = [out / f"{figure.id}.{name}" for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        replace_file(path, content, "an earlier figure is unchanged")
    return Written(figure.title, tuple(paths), figure.said)


def _write_table(table: PaperTable, out: Path) -> Written:
    """Write a table as a LaTeX float that says what it lacks, and its cells as CSV where there are any."""
    if not table.frame.height:
        return Written(table.title, (), table.lacks)
    lacks = f" Lacks: {'; '.join(table.lacks)}." if table.lacks else ""
    caption = f"{table.title}. {table.caption}{lacks}".replace("..", ".")
    look = Typeset(caption=caption, label=f"tab:{table.id}")
    paths = [write_table(table.frame, out / f"{table.id}.tex", "latex", look)]
    return Written(table.title, (*paths, write_table(table.frame, out / f"{table.id}.csv", "csv")), table.lacks)
