"""What the name of a revision, tag, folder or commit says of a checkpoint: step, tokens, stage of training, seed."""

from __future__ import annotations

import re
from typing import NamedTuple

from pythiageo.errors import UserError

MOST = 2**53
"""No step and no count of tokens is as large: up to it, tables and pages hold whole numbers as they are."""
STEPS, TOKENS, WORDS, PHASES, NUMBERS = "steps", "tokens", "words", "phases", "checkpoints"
"""What the numbers of names can count: optimiser steps, training tokens or words, phases by order, checkpoints."""

_AMOUNT = r"\d{1,15}(?:\.\d+)?[KMBT]?"
_KNOWN = (
    # step1000, step-480k-token-1007B, stage2-ingredient1+2-step23842, lc-4k-to-32k-step-4000, step69-seed-large-aux-2
    r"(?:(?!step\d)(?P<stage>[\w.+-]*?[a-z0-9+])[-_])??(?:(?:global_)?step|iter|iteration)[-_]?(?P<step>\d{1,15}[KM]?)"
    rf"(?:[-_]tokens?[-_]?(?P<tokens>{_AMOUNT})|-(?P<short>\d{{1,15}}(?:\.\d+)?[BT])T)?(?:-seed-(?P<seed>[\w.+-]+))?",
    # checkpoint-500, CrystalCoder_phase1_checkpoint_000500
    r"(?:(?P<stage>[\w.+-]*?[a-z0-9+])[-_])?checkpoint[-_]?(?P<step>\d{1,15}[KM]?)",
    # ckpt_000, chck_1M
    r"(?:ckpt|chck)[-_]?(?P<number>\d{1,15}[KM]?)",
    # titles of commits: "Training in progress, step 500"
    r"(?:.*\W)?step (?P<step>\d{1,15})",
    # 7b-tokens160B, 240b_tokens
    rf"(?:(?P<seed>[\w.+-]*?[a-z0-9])-)?tokens?-?(?P<tokens>{_AMOUNT})",
    r"(?P<tokens>\d{1,15}(?:\.\d+)?[BT])[-_]tokens",
)
_DEFAULT = tuple(re.compile(pattern, re.IGNORECASE) for pattern in _KNOWN)
_SCALE = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


class Named(NamedTuple):
    """What a name says: the number it counts by, the tokens seen (as rounded as it says them), stage and seed."""

    step: int
    tokens: int | None
    stage: str | None = None
    seed: str | None = None
    unit: str = STEPS


class StepNames:
    """Reads steps from the names of revisions, tags, folders and commits.

    By default ``step1000``, ``checkpoint-1000`` (transformers' Trainer), ``stage1-step1000-tokens3B`` (OLMo) and their
    like are known. ``pattern`` is a regular expression that names must match whole instead, with a group ``step`` and,
    if it likes, groups ``tokens`` (a number with K, M, B or T), ``stage`` and ``seed``. ``names_per_step``: how much a
    name advances in one optimiser step, for series whose names count otherwise. ``unit``: what the numbers count.

    Raises:
        UserError: a pattern that is no regular expression, or has no group ``step``.
    """

    def __init__(
        self, pattern: str | None = None, names_per_step: int = 1, unit: str = STEPS, what: str = "--step-pattern"
    ) -> None:
        self._names_per_step = names_per_step
        self._unit = unit
        self._what = what
        self._patterns = _DEFAULT
        if pattern is None:
            return
        try:
            self._patterns = (re.compile(pattern),)
        except re.error as error:
            raise UserError(f"{what} {pattern!r}: not a regular expression: {error}") from None
        if "step" not in self._patterns[0].groupindex and not (unit == TOKENS and "tokens" in pattern):
            raise UserError(f"{what} {pattern!r}: expected a group (?P<step>...) for the step")

    def parse(self, name: str) -> Named | None:
        """Return what ``name`` says, ``None`` if it is not named by step.

        Raises:
            UserError: a step that is no number, or falls between two optimiser steps.
        """
        match = next((found for pattern in self._patterns if (found := pattern.fullmatch(name))), None)
        if match is None:
            return None
        groups = match.groupdict()
        tokens = _count(groups.get("tokens") or groups.get("short"))
        unit = self._unit
        if groups.get("number"):
            number, unit = self._number(groups["number"], name), NUMBERS
        elif groups.get("step") is None:  # the name counts tokens alone
            if tokens is None:
                return None
            number, unit = tokens, TOKENS
        else:
            number = self._number(groups["step"], name)
        return Named(number, tokens, groups.get("stage"), groups.get("seed"), unit)

    def _number(self, text: str, name: str) -> int:
        amount = re.fullmatch(r"(\d+)([KMBT]?)", text.upper())
        if amount is None:
            raise UserError(f"{self._what}: the step of {name[:80]!r} is {text[:80]!r}, which is no number")
        number = int(amount[1]) * _SCALE[amount[2]] if len(amount[1]) <= 15 else MOST
        if number >= MOST:
            raise UserError(f"{self._what}: the step of {name[:80]!r} has more than 15 digits")
        step, rest = divmod(number, self._names_per_step)
        if rest:
            raise UserError(
                f"{name!r} falls between two steps: in this series names count {self._names_per_step} a step; "
                f"--step-pattern takes names as they are"
            )
        return step


def _count(text: str | None) -> int | None:
    match = re.fullmatch(r"(\d{1,15}(?:\.\d+)?)([KMBT]?)", (text or "").upper())
    count = round(float(match[1]) * _SCALE[match[2]]) if match else MOST
    return count if count < MOST else None


def parse_step(name: str) -> int | None:
    """Return the step that a revision or folder name says, or ``None``; see ``StepNames``."""
    named = StepNames().parse(name)
    return None if named is None or named.unit != STEPS else named.step
