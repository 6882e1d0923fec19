"""Where the weight files of a series recur, and what that says of each step: the rules of an audit.

docs/audit.md has them in words.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pythiageo.series.files.weight_files import Revision

OK, NEIGHBOUR, AMBIGUOUS, MIXED, SUSPECT, INCOMPLETE, MISSING = (
    "ok",
    "same-as-neighbour",
    "ambiguous",
    "mixed",
    "suspect",
    "incomplete",
    "missing",
)
VERDICTS = (OK, NEIGHBOUR, AMBIGUOUS, MIXED, SUSPECT, INCOMPLETE, MISSING)
"""Mildest first: of two formats that differ, the step has the worse verdict."""
SOUND = (OK, NEIGHBOUR)
"""Verdicts that need no look."""
DOUBTED = (AMBIGUOUS, MIXED, SUSPECT)
"""Verdicts on weights that are there and may not be those of their step."""
WARM_UP = 2
"""Steps up to this one may hold the initial weights: the first update has learning rate 0."""

_WARM_UP_REASON = "as they should where the first update has learning rate 0: one observation"

Key = int | None
"""A step, or ``None`` for main."""


class Finding(NamedTuple):
    """What the files of one format say of a step."""

    verdict: str
    reason: str
    shares_with: tuple[int, ...] = ()


class Recurrence:
    """Where the files of one format recur over the revisions of a series.

    ``whole`` holds, for each revision whose files are complete, their contents in the order of their names.
    """

    def __init__(self, kind: str, revisions: Iterable[Revision], last: int, main_is_last: bool) -> None:
        self.last = last
        self.main_is_last = main_is_last
        self.whole: dict[Key, tuple[str, ...]] = {}
        self.names: dict[Key, tuple[str, ...]] = {}
        self._of_whole: dict[tuple[str, ...], set[Key]] = defaultdict(set)
        self._of_file: dict[str, set[Key]] = defaultdict(set)
        for revision in revisions:
            if revision.absent is not None or kind not in revision.formats:
                continue
            for file in revision.of_format(kind):
                self._of_file[file.content].add(revision.step)
            if revision.problem(kind) is None:
                files = revision.read_files(kind)
                self.whole[revision.step] = contents = tuple(file.content for file in files)
                self.names[revision.step] = tuple(file.name for file in files)
                self._of_whole[contents].add(revision.step)

    def same(self, key: Key) -> set[Key]:
        """Return the other revisions that hold exactly these weights."""
        return self._of_whole[self.whole[key]] - {key}

    def partly(self, key: Key) -> set[Key]:
        """Return the revisions that hold some of these files, but not all."""
        sharing = {other for content in self.whole[key] for other in self._of_file[content]}
        return sharing - self.same(key) - {key}

    def distinct(self) -> int:
        """Return how many different weights the steps hold."""
        return len({contents for key, contents in self.whole.items() if key is not None})

    def find(self, step: int) -> Finding:
        """Return the verdict on a step whose files are complete."""
        same, partly = self.same(step), self.partly(step)
        shares = tuple(sorted(other for other in same | partly if other is not None))
        run = self._initial_run()
        if step in run and same <= {*run, *self._main_of(run)}:
            if partly:
                return Finding(MIXED, self._mixed(step, partly), shares)
            return Finding(NEIGHBOUR, f"{name_steps(run)} hold the same weights, {_WARM_UP_REASON}", shares)
        if step == self.last:
            return self._find_last(same, partly, shares)
        if same:
            return Finding(SUSPECT, self._suspect(same), shares)
        if partly:
            return Finding(MIXED, self._mixed(step, partly), shares)
        return Finding(OK, "its own weights")

    def _initial_run(self) -> list[int]:
        """Return steps 0 .. 2 as far as they hold the weights of step 0 without a break; none if step 0 is alone."""
        run: list[int] = []
        for step in sorted(key for key in self.whole if key is not None and key <= WARM_UP):
            if self.whole[step] != self.whole.get(0):
                break
            run.append(step)
        return run if len(run) > 1 else []

    def _main_of(self, run: list[int]) -> set[Key]:
        """Return ``main`` where the series ends within the run, so that it may share its weights."""
        return {None} if self.last in run else set()

    def _find_last(self, same: set[Key], partly: set[Key], shares: tuple[int, ...]) -> Finding:
        if self._disputed(same, partly):
            also = f"; {_others(len(same))} its weights too" if same else ""
            reason = f"main serves other weights, and both stand for the end of training{also}"
            return Finding(AMBIGUOUS, reason, shares)
        if None not in same and partly:
            return Finding(MIXED, self._mixed(self.last, partly), shares)
        reason = "the last step, the same as main" if None in same else "its own weights"
        if earlier := len(same - {None}):
            reason = f"the last step; {_others(earlier)} its weights too, and cannot hold them"
        return Finding(OK, reason, shares)

    def _disputed(self, same: set[Key], partly: set[Key]) -> bool:
        """Return whether ``main`` and the last step hold different weights and both claim the end of training.

        Where nothing says that ``main`` is the last step, weights of its own that no step shares are no claim.
        """
        if None not in self.whole or self.names[None] != self.names[self.last] or None in same:
            return False
        return self.main_is_last or bool(same or partly or self.same(None) or self.partly(None))

    def _suspect(self, same: set[Key]) -> str:
        steps = sorted(step for step in same if step is not None)
        if None in same:
            others = len(set(steps) - {self.last})
            named = "main and the last step" if self.last in same else "main"
        elif self.last in same:
            others, named = len(steps) - 1, f"the last step, {self.last}"
        else:
            others, named = 0, name_steps(steps)
        also = f", and so {'does 1 other step' if others == 1 else f'do {others} other steps'}" if others else ""
        return f"serves the weights of {named}{also}"

    def _mixed(self, step: int, partly: set[Key]) -> str:
        files = dict(zip(self.names[step], self.whole[step], strict=True))
        shared = [name for name, content in files.items() if self._of_file[content] & partly]
        steps = sorted(other for other in partly if other is not None)
        where = " and ".join([name_steps(steps)] * bool(steps) + ["main"] * (None in partly))
        own = len(files) - len(shared)
        which = shared[0] if len(shared) == 1 else f"{len(shared)} of its {len(files)} files, {shared[0]} among them,"
        rest = f"{own} of {len(files)} files {'is' if own == 1 else 'are'} its own" if own else "no file is its own"
        return f"{which} {'is' if len(shared) == 1 else 'are'} also served at {where}; {rest}"


def _others(count: int) -> str:
    return "1 earlier step serves" if count == 1 else f"{count} earlier steps serve"


def name_steps(steps: Sequence[int]) -> str:
    """Return ``step 5``, ``steps 5, 6``, or the first few and how many more."""
    if len(steps) == 1:
        return f"step {steps[0]}"
    shown = ", ".join(map(str, steps[:4]))
    return f"steps {shown}" + (f" and {len(steps) - 4} more" if len(steps) > 4 else "")
