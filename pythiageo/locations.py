"""Where pythiageo's own task and run files lie: in the checkout, or inside the installed wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def packaged_folder(name: str) -> Path:
    """Return the folder ``tasks`` or ``configs`` that came with this installation."""
    installed = _PACKAGE / "_data" / name
    return installed if installed.is_dir() else _PACKAGE.parent / name
