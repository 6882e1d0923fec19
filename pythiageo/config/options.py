"""What a person asks for by a command's options or a function's keywords, in the words of a config."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pythiageo.errors import UserError
from pythiageo.landscape.measures import LANDSCAPE_GROUPS, LANDSCAPE_MEASURES

LINEAR_PROBE = "linear_probe"
_KEYWORDS = {
    "tasks": "probes.tasks",
    "readouts": "measures.readouts",
    "sites": "measures.sites",
    "layers": "measures.layers",
    "device": "compute.device",
    "dtype": "compute.dtype",
    "threads": "compute.threads",
}
"""Keywords of functions, and the config's keys that they set; ``measures`` sets several, see ``measure_keys``."""
_LISTS = {"tasks", "measures", "readouts", "sites"}


def measure_keys(names: Sequence[str]) -> dict[str, Any]:
    """Return the config's keys for measures that are named together: geometry, landscape and the linear probe."""
    dear = [name for name in names if name in {*LANDSCAPE_MEASURES, *LANDSCAPE_GROUPS}]
    keys: dict[str, Any] = {
        "measures.geometry": [name for name in names if name not in {*dear, LINEAR_PROBE}],
        "measures.landscape.measures": dear,
    }
    if LINEAR_PROBE in names:
        keys["measures.linear_probe"] = True
    return keys


def overrides(values: Mapping[str, Any]) -> list[str]:
    """Return ``key=value`` texts as ``--set`` takes them: JSON's strings, numbers, lists and booleans are TOML too.

    Raises:
        UserError: a value that is none of these.
    """
    found = []
    for key, value in values.items():
        try:
            if value is None:  # TOML has no such thing
                raise TypeError
            found.append(f"{key}={json.dumps(value, ensure_ascii=False, allow_nan=False)}")
        except (TypeError, ValueError):
            raise UserError(f"{key}: expected a text, number, boolean or a list of them, got {value!r}") from None
    return found


def keyword_overrides(keywords: Mapping[str, Any], settings: Mapping[str, Any] | None) -> list[str]:
    """Return ``overrides`` for a function's keywords, of which those that are ``None`` are left out, and ``settings``.

    Raises:
        UserError: as ``overrides``; a setting that a keyword sets too.
    """
    values: dict[str, Any] = {}
    for keyword, value in keywords.items():
        if value is None:
            continue
        listed = keyword in _LISTS
        found = [value] if listed and isinstance(value, str) else list(value) if listed else value
        values |= measure_keys(found) if keyword == "measures" else {_KEYWORDS[keyword]: found}
    for key in settings or {}:
        if key in values:
            keyword = next((word for word, known in _KEYWORDS.items() if known == key), "measures")
            raise UserError(f"settings: {key!r} is set by the keyword {keyword} already")
    return overrides({**values, **(settings or {})})
