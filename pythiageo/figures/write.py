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
from pythiageo.figures.draw import draw
from pythiageo.figures.spec import PaperTable
from pythiageo.locations import check_folder, make_folder
from pythiageo.observations.export import latex_text, write_table

FORMATS = ("png", "svg", "pdf")


@dataclass(frozen=True)
class Written:
    """A figure or table that was written: its files, and what it lacks."""

    title: str
    files: tuple[Path, ...]
    lacks: tuple[str, ...]
    empty: bool
    """Whether there is nothing but a sentence in it."""


def write_paper(runs: Sequence[Path], out: Path, formats: Sequence[str] = FORMATS) -> list[Written]:
    """Write every figure in each format, and every table as LaTeX and CSV, into ``out``; return what was written.

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
    written = []
    for figure in paper_figures(loaded, claims):
        files = draw(figure, tuple(dict.fromkeys(formats)))
        paths = [out / f"{figure.id}.{name}" for name in files]
        for path, content in zip(paths, files.values(), strict=True):
            replace_file(path, content, "an earlier figure is unchanged")
        written.append(Written(figure.title, tuple(paths), figure.lacks, all(panel.lack for panel in figure.panels)))
    for table in paper_tables(loaded, claims):
        written.append(_write_table(table, out))
    return written


def _write_table(table: PaperTable, out: Path) -> Written:
    """Write a table as a LaTeX float that says what it lacks, and its cells as CSV where there are any."""
    tex, paths = out / f"{table.id}.tex", [out / f"{table.id}.tex"]
    body = r"\emph{not estimable}" + "\n"
    if table.frame.height:
        body = write_table(table.frame, tex, "latex").read_text(encoding="utf-8")
        paths.append(write_table(table.frame, out / f"{table.id}.csv", "csv"))
    lacks = f" Lacks: {'; '.join(table.lacks)}." if table.lacks else ""
    title = latex_text(f"{table.title}. {table.caption}{lacks}".replace("..", "."))
    lines = [r"\begin{table}", r"\centering", r"\caption{" + title + "}", body.rstrip(), r"\end{table}", ""]
    replace_file(tex, "\n".join(lines).encode("utf-8"), "an earlier table is unchanged")
    return Written(table.title, tuple(paths), table.lacks, not table.frame.height)
