"""The options that parts share."""

from __future__ import annotations

import argparse
from pathlib import Path


def parse(description: str | None) -> argparse.Namespace:
    """Return ``device``, ``out``, ``work`` and ``rehearse``."""
    given = argparse.ArgumentParser(description=description)
    given.add_argument("--device", required=True)
    given.add_argument("--out", type=Path, required=True)
    given.add_argument("--work", type=Path, required=True)
    given.add_argument("--rehearse", action="store_true")
    return given.parse_args()
