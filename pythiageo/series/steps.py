"""Steps: their selection by a short text."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from pythiageo.errors import UserError, count_noun

PYTHIA_STEPS = (0, *(2**k for k in range(10)), *range(1000, 143_001, 1000))
"""The 154 steps of every Pythia series."""

_SELECTIONS = {"billa-2.8b": "50000-80000"}
"""Selections by name. ``billa-2.8b``: the range of the deduped 2.8b series in the study's first version; it took 17 of
these steps and does not say which, so all that there are are chosen."""
_MOST = 1_000_000
_EXPECTED = "expected all, log:N, every:K, billa-2.8b, a list like 0,1,512, or a range like 1000-20000:1000"


def left_out(names: Sequence[str], of: int, kind: str) -> tuple[str, ...]:
    """Return the sentence that says which of ``of`` revisions or folders are not read as steps; none if all are."""
    if not names:
        return ()
    how_many = f"{len(names)} of {of} {kind}" if of > len(names) else f"{len(names)} {kind}"
    are = "is" if len(names) == 1 else "are"
    return (f"{how_many} {are} left out, not named by a step that is read: {shortened(names)} (--step-pattern)",)


def shortened(names: Sequence[str]) -> str:
    """Return the first few of some names, for a sentence."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def select(text: str, available: Sequence[int], beyond: str = "error") -> list[int]:
    """Return the steps that ``text`` names, ascending, each once.

    ``all``; ``log:N``: N steps spread evenly over log(1 + step), first and last among them (fewer if there are
    fewer); ``every:K``: the multiples of K; ``0,1,2,512``; ``1000-20000:1000`` (both ends included; without ``:K``
    every available step in between); ``billa-2.8b``: 50000 to 80000, of which the study's first version took 17 without
    saying which; and unions of these by commas.

    Args:
        text: the selection.
        available: the steps there are.
        beyond: what to do with steps after the last one there is: ``error``, or ``ignore``.

    Raises:
        UserError: malformed, or a step that is not there, with the nearest that are.

    >>> select("log:4", [0, 1, 2, 4, 8, 16, 32, 64, 128])
    [0, 4, 32, 128]
    >>> select("every:32,1", [0, 1, 2, 4, 8, 16, 32, 64, 128])
    [0, 1, 32, 64, 128]
    """
    steps = sorted(set(available))
    chosen: set[int] = set()
    for part in (word.strip() for word in text.split(",")):
        chosen.update(_part(_SELECTIONS.get(part, part), steps, text, beyond))
    if not chosen:
        raise UserError(f"steps {text!r} choose none of the {len(steps)} steps there are ({_shown(steps)})")
    return sorted(chosen)


def check_selection(text: str) -> None:
    """Check that ``select`` can read ``text``, whatever steps there are.

    Raises:
        UserError: it cannot.
    """
    for part in (word.strip() for word in text.split(",")):
        if part not in _SELECTIONS and not re.fullmatch(r"all|(log:|every:)?\d+|\d+-\d+(:\d+)?", part):
            raise UserError(f"steps {text!r}: cannot read {part!r}; {_EXPECTED}")


def parse_grid(text: str) -> tuple[int, ...]:
    """Return the steps that ``text`` says a series should have, ascending.

    ``pythia``: its 154; ``none``; or lists and ranges with a stride, such as ``0,1,2,1000-143000:1000``.

    Raises:
        UserError: anything else.

    >>> parse_grid("0,1,1000-3000:1000")
    (0, 1, 1000, 2000, 3000)
    >>> len(parse_grid("pythia"))
    154
    """
    if text in {"pythia", "none"}:
        return PYTHIA_STEPS if text == "pythia" else ()
    chosen: set[int] = set()
    for part in (word.strip() for word in text.split(",")):
        match = re.fullmatch(r"(\d{1,12})(?:-(\d{1,12}):(\d{1,12}))?", part)
        if match is None:
            raise UserError(
                f"expected steps {text!r}: cannot read {part!r}; expected pythia, none, or a list like "
                f"0,1,2,1000-143000:1000"
            )
        low = int(match[1])
        wanted = range(low, int(match[2] or low) + 1, _positive(match[3] or "1", text))
        if not wanted or len(wanted) > _MOST:
            raise UserError(f"expected steps {text!r}: the range {part!r} has {len(wanted):,} steps")
        chosen.update(wanted)
    return tuple(sorted(chosen))


def _part(part: str, steps: list[int], text: str, beyond: str) -> list[int]:
    if part == "all":
        return steps
    if match := re.fullmatch(r"log:(\d+)", part):
        return _spread(steps, _positive(match[1], text))
    if match := re.fullmatch(r"every:(\d+)", part):
        every = _positive(match[1], text)
        return [step for step in steps if step % every == 0]
    if match := re.fullmatch(r"(\d+)-(\d+)(?::(\d+))?", part):
        low, high = int(match[1]), int(match[2])
        if low > high:
            raise UserError(f"steps {text!r}: the range {part!r} ends before it begins")
        inside = [step for step in steps if low <= step <= high]
        if match[3] is None:
            return inside
        every = _positive(match[3], text)
        last = min(high, steps[-1]) if beyond == "ignore" and steps else high
        wanted = range(low, last + 1, every)
        if len(wanted) > _MOST:
            raise UserError(f"steps {text!r}: the range {part!r} has {len(wanted):,} steps")
        return _there(list(wanted), steps)
    if part.isdecimal():
        step = int(part)
        return [] if beyond == "ignore" and steps and step > steps[-1] else _there([step], steps)
    raise UserError(f"steps {text!r}: cannot read {part!r}; {_EXPECTED}")


def _positive(digits: str, text: str) -> int:
    if int(digits) < 1:
        raise UserError(f"steps {text!r}: expected a number of at least 1, got {digits}")
    return int(digits)


def _there(wanted: list[int], steps: list[int]) -> list[int]:
    missing = sorted(set(wanted) - set(steps))
    if missing:
        near = sorted(sorted(steps, key=lambda step: abs(step - missing[0]))[:2])
        others = f", nor are {len(missing) - 1} others" if len(missing) > 1 else ""
        raise UserError(
            f"step {missing[0]} is not there{others}; the nearest are {', '.join(map(str, near))} of {_shown(steps)}"
        )
    return wanted


def _spread(steps: list[int], count: int) -> list[int]:
    """Pick ``count`` of ``steps``: for each evenly spaced point of log(1 + step) the nearest one still free."""
    if count >= len(steps):
        return steps
    if count == 1:
        return steps[-1:]
    logs = [math.log1p(step) for step in steps]
    free = set(range(len(steps))) - {0, len(steps) - 1}
    chosen = [0, len(steps) - 1]
    for k in range(1, count - 1):
        target = logs[0] + (logs[-1] - logs[0]) * k / (count - 1)
        nearest = min(free, key=lambda i: (abs(logs[i] - target), i))
        free.remove(nearest)
        chosen.append(nearest)
    return [steps[i] for i in chosen]


def _shown(steps: list[int]) -> str:
    if len(steps) <= 12:
        return ", ".join(map(str, steps)) or "none"
    return f"{', '.join(map(str, steps[:3]))} .. {steps[-1]} ({count_noun(len(steps), 'step')})"
