"""Text that may be a stranger's, made safe to show: nothing in it moves a cursor, or turns what stands beside it."""

from __future__ import annotations

import re
from typing import Any

UNSAFE = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
"""Control characters but tab and newline, what turns the direction of writing, and line ends that are no newline."""
_UNSAFE = re.compile(UNSAFE + "|[\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Return text with such characters spelt out: an escape becomes ``\x1b``."""
    return _UNSAFE.sub(_spelt, text)


def escaped(json_text: str) -> str:
    """Return a JSON text that says the same in characters that a terminal shows as they are."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", json_text)


def visible_all(value: Any) -> Any:
    """Return plain values with every text in them, keys too, made visible."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible_all(key): visible_all(one) for key, one in value.items()}
    return [visible_all(one) for one in value] if isinstance(value, list) else value


def _spelt(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
