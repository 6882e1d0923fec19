"""Words of earlier releases, and what they are called now."""

from __future__ import annotations

from typing import Any

RENAMED_KEYS = {"training.precision": "training.dtype"}
"""Keys of configs."""
RENAMED_OPTIONS = {
    "train": {"--precision": "--dtype"},
    "price": {"--precision": "--dtype", "--sizes": "--size", "--dear": "--expensive"},
}
"""Options, by command."""


def with_new_keys(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config that an earlier release wrote, its keys as they are called now; what is not nested is left."""
    renamed = {key: dict(value) if isinstance(value, dict) else value for key, value in config.items()}
    for old, new in RENAMED_KEYS.items():
        table, _, name = old.partition(".")
        if isinstance(renamed.get(table), dict) and name in renamed[table]:
            renamed[table][new.partition(".")[2]] = renamed[table].pop(name)
    return renamed
