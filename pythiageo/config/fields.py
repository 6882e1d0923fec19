"""What a field of a config may hold, and how it is asked for by an option of a command."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from pythiageo.validation import matching

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def parse_size(text: str) -> int:
    """Return the bytes that ``500MB`` or ``12GB`` stand for. Raises ``ValueError`` for anything else.

    >>> parse_size("1.5GB")
    1500000000
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?B)", text.strip().upper())
    if match is None:
        raise ValueError(f"expected a size such as 500MB or 12GB, got {text!r}")
    return int(float(match[1]) * _UNITS[match[2]])


def _readable_size(text: str) -> str:
    parse_size(text)
    return text


def _regime(name: str) -> str:
    known = re.fullmatch(r"task-aligned|naturalistic|mix:(0\.\d{1,6})", name)
    if known is None or (known[1] is not None and name != f"mix:{float(known[1]):g}"):
        raise ValueError(f"expected task-aligned, naturalistic or a mixture such as mix:0.1, got {name!r}")
    return name


def _step_text(value: Any) -> Any:
    return str(value) if type(value) is int else value


Size = Annotated[str, AfterValidator(_readable_size)]
Steps = Annotated[str, BeforeValidator(_step_text)]
"""A selection of steps; of one step alone the number will do."""
RunName = Annotated[
    str,
    matching(
        r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}",
        "at most 128 letters, digits, '_', '.' and '-', the first a letter or digit",
    ),
]
Count = Annotated[int, Field(ge=1)]
Regime = Annotated[str, AfterValidator(_regime)]
"""``task-aligned``, ``naturalistic``, or ``mix:0.1``: a stream of text, a tenth of whose examples are the tasks'."""


class Table(BaseModel):
    """A table of a config: unknown keys are refused, and nothing changes after it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Option:
    """How a field is asked for: by ``--name`` of a command, and by the keyword ``name`` of a function.

    Annotate the field with it, and nothing else: ``config.options`` finds it there.

    ``name``: default the field's own. ``sets``: what the option sets a boolean field to. ``keys``: where one option
    sets several fields, the keys and values that its words stand for. ``keyword``: whether functions take it too.
    """

    help: str
    name: str | None = None
    metavar: str | None = None
    sets: bool = True
    keys: Callable[[Sequence[str]], dict[str, Any]] | None = None
    keyword: bool = False
