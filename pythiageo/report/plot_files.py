"""Write a plot as files: PDF, PNG or SVG by matplotlib, HTML by the page's own scripts, and its caption beside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from pythiageo.durable_files import replace_file
from pythiageo.errors import UserError, nearest
from pythiageo.figures.draw import FORMATS, WIDTHS, draw
from pythiageo.figures.spec import Plot
from pythiageo.locations import check_file, make_folder

HTML = "html"
ENDINGS = (*FORMATS, HTML)
_SCRIPTS = ("inflate", "data", "theme", "panels", "save", "print", "plot")
_INCHES = (1.0, 40.0)
_KEPT = "an earlier plot is unchanged"


def check_plot_files(out: Sequence[Path]) -> None:
    """Look whether plots can be written to these files, before anything is drawn.

    Raises:
        UserError: an ending that stands for no format, or a place that cannot be written to.
    """
    for path in out:
        ending = path.suffix.removeprefix(".").lower()
        if ending not in ENDINGS:
            known = ", ".join(f".{name}" for name in ENDINGS)
            raise UserError(f"--out {path}: no format {path.suffix!r}{nearest(ending, ENDINGS)}; there are {known}")
        check_file(path)


def width_in_inches(width: str | float) -> float:
    """Return the width that a name (``column``, ``text``) or a number of inches says.

    Raises:
        UserError: neither, or too small or too large for a page.

    >>> width_in_inches("column"), width_in_inches("6.75")
    (3.25, 6.75)
    """
    if width in WIDTHS:
        return WIDTHS[str(width)]
    try:
        inches = float(width)
    except ValueError:
        inches = 0.0
    if not _INCHES[0] <= inches <= _INCHES[1]:
        names = ", ".join(f"{name} ({value} in)" for name, value in WIDTHS.items())
        raise UserError(f"--width {width}: expected {names}, or {_INCHES[0]:g} to {_INCHES[1]:g} inches")
    return inches


def write_plot(plot: Plot, out: Sequence[Path], width: str | float = "column") -> list[Path]:
    """Write a plot to each of the files, in the format that its ending says, and its text to a ``.txt`` beside each.

    ``width``: ``column``, ``text`` or inches; a page has the browser's. Equal plots give equal files.

    Raises:
        UserError: as ``check_plot_files`` and ``width_in_inches``.
        MachineError: a file could not be written.
    """
    check_plot_files(out)
    inches = width_in_inches(width)
    formats = {path: path.suffix.removeprefix(".").lower() for path in out}
    drawn = draw(plot, [name for name in dict.fromkeys(formats.values()) if name != HTML], inches)
    written: list[Path] = []
    for path, name in formats.items():
        make_folder(path.parent)
        replace_file(path, _page(plot).encode() if name == HTML else drawn[name], _KEPT)
        beside = path.with_suffix(".txt")
        if beside not in written:
            replace_file(beside, (plot.text + "\n").encode(), _KEPT)
        written += [path, beside]
    return list(dict.fromkeys(written))


def _page(plot: Plot) -> str:
    from pythiageo.report.embedding import (  # noqa: PLC0415 - plotly brings pandas, which takes a second, for pages alone
        drawing_library,
        page_scripts,
        page_style,
        page_template,
        security_policy,
    )

    library, packed = drawing_library()
    script = page_scripts(_SCRIPTS)
    return page_template("plot.html.j2").render(
        policy=security_policy([library, script]),
        style=Markup(page_style()),
        script=Markup(script),
        plotly=packed,
        data={"runs": [], "columns": [], "plot": plot.as_json()},
        caption=plot.caption,
        said=plot.said,
    )
