"""Options of commands and keywords of functions, made from the fields of a config: each is written once, there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from pythiageo.config.fields import Option, Table
from pythiageo.errors import UserError


@dataclass(frozen=True)
class ConfigOption:
    """An option, and the field that it sets.

    ``kind``: ``str``, ``bool``, ``int``, ``Path`` or ``list`` (words separated by commas). ``table``: the part of the
    config that the field lies in, empty at the top.
    """

    name: str
    key: str
    table: str
    kind: type
    option: Option

    def keys(self, value: Any) -> dict[str, Any]:
        """Return the config's keys and values that this option's value stands for."""
        if self.kind is bool:
            return {self.key: self.option.sets} if value else {}
        if self.kind is list:
            given = value.split(",") if isinstance(value, str) else value
            value = [word.strip() for word in given if word.strip()]
        if self.option.keys is not None:
            return {} if value == [] else self.option.keys(value)
        return {self.key: str(value) if self.kind is Path else value}


def options_of(config: type[Table], prefix: str = "") -> Iterator[ConfigOption]:
    """Yield the options of a config in the order of its fields, those of its tables where the table stands."""
    for name, field in config.model_fields.items():
        key = f"{prefix}.{name}" if prefix else name
        inner = _plain(field.annotation)
        if isinstance(inner, type) and issubclass(inner, Table):
            yield from options_of(inner, key)
        for option in field.metadata:
            if isinstance(option, Option):
                yield ConfigOption(option.name or name, key, prefix.split(".", maxsplit=1)[0], _kind(field), option)


def _kind(field: FieldInfo) -> type:
    inner = _plain(field.annotation)
    if get_origin(inner) is tuple:
        return list
    return inner if inner in {bool, int, Path} else str


def _plain(annotation: Any) -> Any:
    """Return a type without ``None``."""
    if get_origin(annotation) in {Union, UnionType}:
        return next(part for part in get_args(annotation) if part is not type(None))
    return annotation


def option_keys(options: Sequence[ConfigOption], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config's keys and values for options by name; those that are ``None`` were not given."""
    keys: dict[str, Any] = {}
    for option in options:
        if given.get(option.name) is not None:
            keys |= option.keys(given[option.name])
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


def keyword_overrides(
    config: type[Table], keywords: Mapping[str, Any], settings: Mapping[str, Any] | None
) -> list[str]:
    """Return ``overrides`` for a function's keywords, of which those that are ``None`` are left out, and ``settings``.

    Raises:
        UserError: as ``overrides``; a setting that a keyword sets too.
    """
    options = [option for option in options_of(config) if option.option.keyword]
    words = {key: option.name for option in options for key in option.keys(keywords.get(option.name) or ["x"])}
    values = option_keys(options, keywords)
    for key in settings or {}:
        if key in values:
            raise UserError(f"settings: {key!r} is set by the keyword {words.get(key, 'measures')} already")
    return overrides({**values, **(settings or {})})
