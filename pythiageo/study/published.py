"""The study's published figures, read off its tables and plots."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any


@cache
def published() -> dict[str, Any]:
    """Return the figures: ``event -> protocol -> {source, sizes, task -> level -> list by size}``.

    And ``profile -> protocol -> {source, size -> task -> list by layer}``.
    """
    with Path(__file__).with_name("published.toml").open("rb") as file:
        return tomllib.load(file)


def published_sizes() -> list[str]:
    """Return the sizes that have published figures, in the order of the source."""
    return list(published()["acquisition"]["billa-v4"]["sizes"])
