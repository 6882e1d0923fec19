"""An error over one checkpoint or one measure: its row says what it was, the run's log has the traceback, and the rest
goes on."""

from __future__ import annotations

import errno
import traceback

from pythiageo.errors import MEMORY, CheckpointError, MachineError, PythiageoError, UserError, machine_trouble, shorten

FAILED = "failed"
"""Status of a measure that ended in an error, and of a checkpoint that lacks such measures."""
_KEPT = 20
"""Different tracebacks of one checkpoint that are kept."""
_LONGEST = 20_000
"""Characters of one, the end of it."""


class Failures:
    """The errors that were met while one checkpoint was measured."""

    def __init__(self) -> None:
        self.tracebacks: list[str] = []
        """Of the errors that were not foreseen, each once."""
        self.lost: dict[str, str] = {}
        """The measures that lost a row to them, each with the reason that its first row gives."""

    def reason(self, error: BaseException, expensive: bool = False) -> str:
        """Return what a row says of an error, and keep its traceback.

        ``expensive``: it is of a measure that takes far more memory than all else, which says nothing of the rest.

        Raises:
            BaseException: the error itself, where it concerns more than this one checkpoint: a mistake in what was
                asked, the machine, an interruption.
        """
        if concerns_all(error) and not (expensive and out_of_memory(error)):
            raise error
        if not isinstance(error, CheckpointError) or error.__cause__ is not None:
            text = "".join(traceback.format_exception(error))[-_LONGEST:]
            if text not in self.tracebacks and len(self.tracebacks) < _KEPT:
                self.tracebacks.append(text)
        return shorten(str(error)) if isinstance(error, PythiageoError) else describe_error(error)

    def note_lost(self, measure: str, reason: str) -> None:
        """Note that an error cost ``measure`` a row."""
        self.lost.setdefault(measure, reason)

    def of_checkpoint(self, error: BaseException, label: str) -> tuple[str, str]:
        """Return status and reason of a checkpoint that could not be measured. Raises as ``reason``."""
        reason = self.reason(error)
        if isinstance(error, CheckpointError):
            return error.status, reason
        return "unreadable", f"{label}: {reason}"

    def outcome(self, nonfinite: str | None) -> tuple[str, str | None]:
        """Return status and reason of a checkpoint that was measured; ``nonfinite``: why its weights could not be."""
        if nonfinite is not None or not self.lost:
            return "ok" if nonfinite is None else "nonfinite", nonfinite
        measure, reason = next(iter(self.lost.items()))
        others = sorted(self.lost.keys() - {measure})
        return FAILED, shorten(f"{measure}: {reason}" + (f"; errors over {', '.join(others)} too" if others else ""))


def describe_error(error: BaseException) -> str:
    """Return an error's kind and what it says; where it says nothing, where in the code it was raised."""
    kind, text = type(error).__name__, shorten(str(error))
    if text:
        return f"{kind}: {text}"
    frames = traceback.extract_tb(error.__traceback__)
    place = "/".join(frames[-1].filename.replace("\\", "/").split("/")[-2:]) if frames else ""
    return f"{kind} in {place}, line {frames[-1].lineno}" if frames else kind


def concerns_all(error: BaseException) -> bool:
    """Return whether an error says nothing of one checkpoint: the next would meet it too, or should not be begun.

    tokenizers' own panics are no ``Exception``, though they are of one file.
    """
    if not isinstance(error, Exception):
        return type(error).__name__ != "PanicException"
    if isinstance(error, OSError) and error.errno == errno.EIO:  # one file that cannot be read
        return False
    return isinstance(error, (UserError, MachineError)) or machine_trouble(error) is not None or _lost_device(error)


def out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, on the CPU or a GPU."""
    return machine_trouble(error) == MEMORY


def _lost_device(error: BaseException) -> bool:
    """Return whether a GPU takes no more work from this process: after such an error every later call raises it too."""
    return isinstance(error, RuntimeError) and "CUDA error" in str(error)
