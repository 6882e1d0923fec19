"""The errors a person is meant to read: one sentence, what was expected, where. No traceback is shown for them."""

from __future__ import annotations

import difflib
import errno
import math
import os
import re
from collections.abc import Iterable

EXIT_OK = 0
"""The command did what was asked."""
EXIT_LOOK = 1
"""The command finished, and something in its result needs a look (a checkpoint, or a measure of one, that
could not be taken or is in doubt)."""
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


MEMORY = "memory ran out"
_MACHINE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file system does not take a file of this size",
    errno.EROFS: "the file system is read-only",
    errno.EIO: "the disk reports an input/output error",
    errno.ENOMEM: MEMORY,
}
_CODE = re.compile(r"\(os error (\d+)\)")
"""How libraries written in Rust (safetensors, tokenizers, polars, hf_xet) tell the system's error, in text alone."""
_NO_MEMORY = ("allocate memory", "bad_alloc")
"""What other allocators say, torch's on the CPU in a plain ``RuntimeError``."""

_ASKED = re.compile(r"allocate (\d+) bytes")


def machine_trouble(error: BaseException | None) -> str | None:
    """Return what of the machine gave up, disk or memory, by an error of any library; ``None`` if it was neither."""
    while error is not None:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return MEMORY
        text = str(error)
        told = _CODE.search(text)
        number = error.errno if isinstance(error, OSError) else int(told[1]) if told else None
        if number in _MACHINE:
            return _MACHINE[number]
        if any(words in text for words in _NO_MEMORY):
            return MEMORY
        error = error.__cause__
    return None


def raise_if_memory(error: BaseException, doing: str) -> None:
    """Raise ``MachineError`` if memory ran out: that says nothing of what was read, and it may fit the next time.

    A single tensor that is larger than all memory of this machine is the file's or config's own fault.
    """
    asked = _ASKED.search(str(error))
    if machine_trouble(error) == MEMORY and (asked is None or int(asked[1]) <= _all_memory()):
        raise MachineError(f"{MEMORY} while {doing}; what was measured is kept: free memory, then --resume") from None


def _all_memory() -> float:
    """Return the bytes of memory of this machine, infinity where it does not say."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return math.inf


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest known word, or an empty string."""
    options = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), list(options), n=1, cutoff=0.5)
    return f" (did you mean {options[close[0]]!r}?)" if close else ""


LONGEST = 1000
"""Characters of an error that are shown at most."""


def count_noun(number: int, noun: str) -> str:
    """Return a number of things in words.

    >>> count_noun(1, "step"), count_noun(1447, "step")
    ('1 step', '1,447 steps')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def quote_error(error: BaseException) -> str:
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
