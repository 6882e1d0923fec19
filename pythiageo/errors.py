"""The errors a person is meant to read: one sentence, what was expected, where. No traceback is shown for them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_OK = 0
EXIT_LOOK = 1
"""The command finished, and something in its result needs a look (a checkpoint that could not be measured)."""
EXIT_USER = 2
"""The command was asked something it cannot do: a wrong name, file, key or folder."""
EXIT_MACHINE = 3
"""The machine gave up (disk full, memory, network); what was done is kept and the run can be resumed."""
EXIT_BROKEN = 70
"""A programming error of pythiageo's own ended the command; its traceback was printed."""
EXIT_INTERRUPTED = 130
"""Ctrl-C; the run can be resumed."""


class PythiageoError(Exception):
    """Base of every error that is shown as one sentence."""

    exit_code = EXIT_USER


class UserError(PythiageoError):
    """A mistake in what was asked: unknown name, malformed file, wrong folder."""


class CheckpointError(PythiageoError):
    """One checkpoint cannot be read; the rest of its series can. ``status`` is what the observations say."""

    exit_code = EXIT_LOOK

    def __init__(self, message: str, status: str = "unreadable") -> None:
        super().__init__(message)
        self.status = status


class MachineError(PythiageoError):
    """The machine failed, not the request: disk full, no permission, network gone."""

    exit_code = EXIT_MACHINE


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest known word, or an empty string."""
    options = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), list(options), n=1, cutoff=0.5)
    return f" (did you mean {options[close[0]]!r}?)" if close else ""


LONGEST = 1000
"""Characters of an error that are shown at most."""


def first_line(error: BaseException) -> str:
    """Return what another library's error says, all of its lines as one; its kind where it has no text.

    A first line alone often ends in a colon and says nothing. Of a text longer than ``LONGEST`` both ends are kept.
    """
    return shorten(str(error)) or type(error).__name__


def shorten(text: str, longest: int = LONGEST) -> str:
    """Return a text in one line, its middle left out where it is longer than ``longest``."""
    whole = " ".join(text.split())
    if len(whole) <= longest:
        return whole
    end = longest // 3
    return f"{whole[: longest - end - 3]} … {whole[-end:]}"
