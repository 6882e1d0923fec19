"""Tables as LaTeX: booktabs rules, heads for people, never wider than the line."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import polars as pl

from pythiageo.untrusted_text import visible

LINE = 345.0
"""Points of the line that widths are reckoned for: article at 10pt. On a narrower one words may not fit."""
LONG = 40
"""Printed lines from which on a table runs over pages."""
PACKAGES = ("array", "booktabs", "longtable")
_CHARACTER, _CAPITAL, _SEPARATION = 4.6, 6.3, 6.0
"""Points of a character of 8pt type, of a wide one, and between columns; on the large side."""
_WIDEST = 110.0
"""Points of a column of text beside others; longer text is folded."""
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "[": "{[}",
    "]": "{]}",
    "_": r"\_\allowbreak{}",
    "/": r"/\allowbreak{}",
    "²": r"\textsuperscript{2}",
    "…": r"\ldots{}",
    **{character: f"\\{character}" for character in "&%$#{}"},
    **{character: rf"\ensuremath{{{name}}}" for character, name in (
        ("σ", r"\sigma"), ("Σ", r"\Sigma"), ("β", r"\beta"), ("λ", r"\lambda"), ("ᵀ", r"^\top"), ("₀", "_0"),
        ("≥", r"\geq"), ("≤", r"\leq"), ("−", "-"), ("×", r"\times"), ("·", r"\cdot"), ("√", r"\surd"), ("±", r"\pm"),
    )},
}  # fmt: skip
_NO_LABEL = re.compile(r"[^A-Za-z0-9:.-]+")
_WORD = re.compile(r"[^\s_/-]+[_/-]?")


def latex_text(text: str) -> str:
    """Return text that LaTeX shows as it is, and may break after ``_`` and ``/`` as it does after a hyphen."""
    return "".join(_SPECIAL.get(character, character) for character in visible(" ".join(text.split())))


def latex_table(
    frame: pl.DataFrame, caption: str, label: str, digits: int = 6, heads: Sequence[str] | None = None
) -> str:
    """Return a table as LaTeX that is at most ``\\linewidth`` wide, with ``PACKAGES``.

    Text that is longer than its column is folded. Columns that do not fit side by side follow in further parts, each
    with the leading columns of text again. More than ``LONG`` lines run over pages (``longtable``); a shorter table
    floats.

    Args:
        frame: the cells; numbers stand at the right.
        caption, label: of the table; text as it is to be read. Without a caption it does not float.
        digits: significant digits of numbers.
        heads: names of the columns; by default those of the frame.
    """
    cells = [[_cell(value, digits) for value in row] for row in frame.rows()]
    names = list(heads or frame.columns)
    numeric = [dtype.is_numeric() for dtype in frame.dtypes]
    columns = [[names[index], *(row[index] for row in cells)] for index in range(len(names))]
    natural = [min(max(map(_width, column)), _WIDEST) for column in columns]
    least = [max(_widest_word(text) for text in column) for column in columns]
    laid = [(places, _shares([natural[place] for place in places], [least[place] for place in places]))
            for places in _split(least, numeric)]  # fmt: skip
    is_long = sum(_lines(cells, places, shares) for places, shares in laid) > LONG
    named = rf"\caption{{{latex_text(caption)}}}\label{{{_NO_LABEL.sub('-', label)}}}" if caption else ""
    parts = []
    for number, (places, shares) in enumerate(laid):
        form = "".join(
            rf">{{\{'raggedleft' if numeric[place] else 'raggedright'}\arraybackslash}}"
            rf"p{{\dimexpr {share:.4f}\linewidth-2\tabcolsep\relax}}"
            for place, share in zip(places, shares, strict=True)
        )
        head = " & ".join(latex_text(names[place]) for place in places) + r" \\"
        body = [" & ".join(latex_text(row[place]) for place in places) + r" \\" for row in cells]
        parts.append(_long(form, head, body, "" if number else named, number) if is_long else _short(form, head, body))
    style = [r"\footnotesize", r"\setlength{\tabcolsep}{3pt}"]
    if is_long:
        return "\n".join([r"\begingroup", *style, *parts, r"\endgroup", ""])
    between = "\n" + r"\par\medskip" + "\n"
    if not caption:
        return "\n".join([r"\begingroup", *style, between.join(parts), r"\endgroup", ""])
    top = [r"\begin{table}", r"\centering", named, *style]
    return "\n".join([*top, between.join(parts), r"\end{table}", ""])


def _lines(cells: Sequence[Sequence[str]], places: Sequence[int], shares: Sequence[float]) -> int:
    """Return about how many printed lines the rows of a part take, folded text counted."""
    room = {place: share * LINE - _SEPARATION for place, share in zip(places, shares, strict=True)}
    return sum(max(math.ceil(_width(row[place]) / room[place]) for place in places) for row in cells)


def _short(form: str, head: str, body: Sequence[str]) -> str:
    return "\n".join([rf"\begin{{tabular}}{{@{{}}{form}@{{}}}}", r"\toprule", head, r"\midrule", *body,
                      r"\bottomrule", r"\end{tabular}"])  # fmt: skip


def _long(form: str, head: str, body: Sequence[str], named: str, number: int) -> str:
    first = [named + r" \\"] if named else []
    again = [] if number == 0 else [r"\addtocounter{table}{-1}"]  # a part is no table of its own
    return "\n".join([*again, rf"\begin{{longtable}}{{@{{}}{form}@{{}}}}", *first, r"\toprule", head, r"\midrule",
                      r"\endfirsthead", r"\toprule", head, r"\midrule", r"\endhead", r"\bottomrule", r"\endfoot",
                      *body, r"\end{longtable}"])  # fmt: skip


def _split(least: Sequence[float], numeric: Sequence[bool]) -> list[list[int]]:
    """Return the columns of every part: the leading ones of text, at most three and half the line, are in each."""
    keys: list[int] = []
    for place, number in enumerate(numeric[:3]):
        if number or sum(least[key] + _SEPARATION for key in [*keys, place]) > LINE / 2:
            break
        keys.append(place)
    base = sum(least[key] + _SEPARATION for key in keys)
    parts, used = [list(keys)], base
    for place in range(len(keys), len(least)):
        width = least[place] + _SEPARATION
        if used + width > LINE and len(parts[-1]) > len(keys):
            parts.append(list(keys))
            used = base
        parts[-1].append(place)
        used += width
    return parts


def _shares(natural: Sequence[float], least: Sequence[float]) -> list[float]:
    """Return the share of the line that each column takes: what it would like, or more than its longest word needs."""
    need = [low + _SEPARATION for low in least]
    wish = [max(high, low) + _SEPARATION for high, low in zip(natural, least, strict=True)]
    over = sum(wish) - LINE
    if over > 0:
        slack = [high - low for high, low in zip(wish, need, strict=True)]
        give = min(over / sum(slack), 1.0) if sum(slack) > 0 else 0.0
        wish = [high - give * room for high, room in zip(wish, slack, strict=True)]
    scale = min(1.0, LINE / sum(wish))
    return [width * scale / LINE for width in wish]


def _width(text: str) -> float:
    return sum(_CAPITAL if character.isupper() or character in "mwMW%@—" else _CHARACTER for character in text)


def _widest_word(text: str) -> float:
    return max((_width(word) for word in _WORD.findall(text)), default=_CHARACTER) + 1.0


def _cell(value: object, digits: int) -> str:
    if value is None:
        return ""
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)
