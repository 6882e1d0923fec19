"""TOML files that people write: read, checked against a model, and what is wrong said in one sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import AfterValidator, BaseModel, ValidationError

from pythiageo.errors import UserError, nearest
from pythiageo.locations import packaged_folder
from pythiageo.untrusted_files import BadFileError, is_plain, read_toml

Model = TypeVar("Model", bound=BaseModel)


def matching(pattern: str, expected: str) -> AfterValidator:
    """Return a check of a text against a regular expression; ``expected`` says in words what it allows."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"expected {expected}, got {text[:80]!r}")
        return text

    return AfterValidator(check)


def read_table(path: Path, what: str, shipped: bool = False) -> dict[str, Any]:
    """Return what a TOML file holds; ``what`` it is stands in the sentence where it is missing: "task file".

    ``shipped``: where there is none, ``path`` may name one that came with pythiageo, such as ``demo/tasks.toml``.

    Raises:
        UserError: no such file, or not TOML.
    """
    own = packaged_folder("configs") / path
    file = own if shipped and not is_plain(path) and is_plain(own) else path
    try:
        return read_toml(file)
    except FileNotFoundError:
        raise UserError(f"{path}: no such {what}" + ", here or among pythiageo's own" * shipped) from None
    except BadFileError as error:
        raise UserError(f"{path}: not a TOML file: it {error}") from None


def check_table(
    data: Mapping[str, Any],
    model: type[Model],
    origin: Path | str,
    renamed: Mapping[str, str] = MappingProxyType({}),
    context: Mapping[str, Any] | None = None,
) -> Model:
    """Return ``data`` as a model; ``origin`` is the file that errors name, ``renamed`` as for ``describe_problem``.

    Raises:
        UserError: an unknown or missing key, a wrong value; the sentence names origin, key and expectation.
    """
    try:
        return model.model_validate(data, context=context)
    except ValidationError as error:
        raise UserError(f"{origin}: {describe_problem(error, model, renamed)}") from None


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
