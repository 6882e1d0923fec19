"""What the kit found as a table, each row under the heading of docs/gpu.md that it fills."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Line = dict[str, Any]
Row = tuple[str, str, str]
HEADINGS = {
    "card": "Measured",
    "product": "The card", "copy": "The card",
    "spectra": "Both spectra of one matrix",
    "step": "A training step",
    "cheap": "A checkpoint's scores and geometry in training",
    "study_hours": "The whole study",
    "shape": "An analysis",
    "error": "A training step",
    "ended": "Not measured on a card",
}  # fmt: skip
"""The heading or bold beginning in docs/gpu.md for each kind of line, by the key that tells the kind."""


def summarize(lines: list[Line]) -> list[Row]:
    """Return where in docs/gpu.md a figure belongs, what it is of, and the figure; of what was found twice the last."""
    found: dict[tuple[str, str], str] = {}
    for line in lines:
        for kind, describe in _KINDS.items():
            if kind in line and not (kind == "error" and "shape" in line):
                what, figure = describe(line)
                found[HEADINGS[kind], what] = figure
    order = list(dict.fromkeys(HEADINGS.values()))
    return [
        (heading, what, figure)
        for (heading, what), figure in sorted(found.items(), key=lambda item: order.index(item[0][0]))
    ]


def as_text(rows: list[Row]) -> str:
    """Return rows in columns."""
    head = ("in docs/gpu.md", "what", "found")
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(2)]
    return "".join(f"{one:<{widths[0]}}  {two:<{widths[1]}}  {three}\n" for one, two, three in [head, *rows])


def _machine(line: Line) -> tuple[str, str]:
    return "machine", f"{line.get('card') or 'no card'}, torch {line.get('torch')}, {line.get('cores')} cores"


def _spectra(line: Line) -> tuple[str, str]:
    rows, width = line["spectra"]
    massive = ", massive" if line["massive"] else ""
    return f"{rows} x {width}{massive}", f"{line['device']:.3f} s on the card, {line['core']:.3f} on one core"


def _step(line: Line) -> tuple[str, str]:
    recorded = "recorded" if line["cuda_graphs"] else "not recorded"
    return f"{line['size']}, {line['dtype']}, {recorded}", f"{1000 * line['step']:.2f} ms"


def _cheap(line: Line) -> tuple[str, str]:
    return str(line["size"]), f"{line['cheap']:.1f} s"


def _study(line: Line) -> tuple[str, str]:
    return f"{line['dtype']}, {', '.join(line['sizes'])}", f"{line['study_hours']:.1f} hours"


def _shape(line: Line) -> tuple[str, str]:
    if "error" in line:
        return str(line["shape"]), f"failed: {line['error']}"
    planned = (line.get("plan") or {}).get("checkpoint_seconds")
    memory = "" if line["gpu_peak"] is None else f", {line['gpu_peak'] / 1e9:.2f} GB of the card"
    said = "no plan" if planned is None else f"plan {planned:.1f}"
    return str(line["shape"]), f"{line['seconds']:.1f} s ({said}){memory}, {line['not_ok']} rows without a value"


def _failed(line: Line) -> tuple[str, str]:
    return f"{line['size']}, {line.get('dtype', 'measures')}", f"failed: {line['error']}"


def _ended(line: Line) -> tuple[str, str]:
    how = line["ended"]
    seconds = f" in {line['seconds']:.0f} s" if "seconds" in line else ""
    return f"part {line['part']}", (how if isinstance(how, str) else "ok" if how == 0 else f"failed, {how}") + seconds


_KINDS: dict[str, Callable[[Line], tuple[str, str]]] = {
    "card": _machine,
    "product": lambda line: (str(line["product"]), f"{line['tflops']:.1f} TFLOP/s"),
    "copy": lambda line: (f"copies {line['copy']}", f"{line['gb_per_second']:.1f} GB/s"),
    "spectra": _spectra,
    "step": _step,
    "cheap": _cheap,
    "study_hours": _study,
    "shape": _shape,
    "error": _failed,
    "ended": _ended,
}
