"""Names for people: what the page calls measures and readouts, and how it writes numbers."""

from __future__ import annotations

import math
from typing import Any

from pythiageo.names import AT_ROWS, BUT_SINKS
from pythiageo.observations.measures import find_declared

_POSITIONS = {
    "answer": "answer positions",
    "equals": "end of the prompt",
    "all": "all positions",
    "mean": "mean over positions",
    "last": "last position",
}


def measure_title(measure: str) -> str:
    """Return a measure's name in words.

    >>> measure_title("covariance_effective_rank")
    'covariance effective rank'
    """
    known = find_declared(measure)
    return (known.title if known else measure).replace("_", " ")


def readout_title(readout: str) -> str:
    """Return a readout in words; one that is not ``positions/centring`` as it is.

    >>> readout_title("answer-but-sinks/centred/rows=200")
    'answer positions without sinks, centred, at 200 rows'
    """
    kind, _, rows = readout.partition(AT_ROWS)
    positions, _, centring = kind.partition("/")
    known = _POSITIONS.get(positions.removesuffix(BUT_SINKS))
    if known is None or centring not in {"centred", "uncentred"}:
        return readout
    sinks = " without sinks" if positions.endswith(BUT_SINKS) else ""
    return f"{known}{sinks}, {centring}" + (f", at {rows} rows" if rows else "")


def named(text: str, name: str) -> dict[str, str]:
    """Return a cell that shows ``text``, and ``name`` when it is pointed at."""
    return {"text": text, "name": name}


def format_number(value: float | None) -> str:
    """Return a number for people: whole ones whole, others with two decimals, or two significant ones below 0.1.

    >>> [format_number(value) for value in (None, 300.0, 12345.678, 0.6912, 0.01234, -0.00098)]
    ['–', '300', '12,345.68', '0.69', '0.012', '-0.00098']
    """
    if value is not None and math.isfinite(value) and value == int(value):
        return f"{int(value):,}"
    return format_estimate(value)


def format_estimate(value: float | None) -> str:
    """Return an estimate for people: two decimals, or two significant ones below 0.1, whole numbers too.

    >>> [format_estimate(value) for value in (None, 1.0, 0.6912, 0.01234)]
    ['–', '1.00', '0.69', '0.012']
    """
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"


def format_interval(low: float | None, high: float | None) -> str:
    """Return an interval as ``low to high``, and no interval as a dash."""
    return "–" if low is None or high is None else f"{format_estimate(low)} to {format_estimate(high)}"


def format_cell(value: Any) -> str:
    """Return a table's cell: numbers by ``format_number``, intervals as ``low to high``, nothing as a dash."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return format_number(value)
    if isinstance(value, (tuple, list)):
        return (" to " if len(value) == 2 else ", ").join(format_cell(each) for each in value)
    return str(value)
