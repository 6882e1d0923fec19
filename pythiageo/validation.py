"""What pydantic finds wrong with a file, as one sentence for people."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ValidationError

from pythiageo.errors import nearest


def describe_problem(
    error: ValidationError, model: type[BaseModel], renamed: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Return one sentence for the first problem in ``error``: key, what is wrong, the nearest right key.

    ``renamed``: keys of earlier releases, and what they are called now.
    """
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "file"
    known = _fields_at(model, first["loc"][:-1])
    if first["type"] == "extra_forbidden":
        if key in renamed:
            return f"{key} is called {renamed[key]} now"
        word = str(first["loc"][-1])
        options = f"; expected one of {', '.join(known)}" if known else ""
        return f"unknown key {key!r}{nearest(word, known)}{options}"
    if first["type"] == "missing":
        return f"missing key {key!r}"
    message = first["msg"].removeprefix("Value error, ")
    shown = repr(first["input"])
    return f"{key}: {message}" + (f" (got {shown})" if len(shown) < 80 and first["type"] != "value_error" else "")


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    current: Any = model
    for part in location:
        field = current.model_fields.get(part) if isinstance(part, str) and hasattr(current, "model_fields") else None
        if field is None:
            return []
        current = field.annotation
    return list(getattr(current, "model_fields", {}))
