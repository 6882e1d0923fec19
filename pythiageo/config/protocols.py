"""Measurement protocols laid under a config: a study's settings, where the run's own config says nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from pythiageo.study.measurement_protocols import MeasurementProtocol, get_measurement_protocol

KEYS = {
    "measures": "measures.geometry",
    "readouts": "measures.readouts",
    "sites": "measures.sites",
    "tasks": "probes.tasks",
    "examples": "probes.geometry_examples",
    "long_texts": "probes.long_texts",
    "text_tokens": "probes.text_tokens",
    "alpha_range": "measures.alpha_range",
    "sinks": "measures.sinks",
}
"""The key of a config that each field of a protocol sets."""


def lay_under(data: dict[str, Any], name: str) -> None:
    """Give the keys of a config that it does not say the values of a protocol.

    Raises:
        UserError: no such protocol; the message names those there are.
    """
    for key, value in _settings(get_measurement_protocol(name)):
        table, _, field = key.partition(".")
        inner = data.setdefault(table, {})
        if isinstance(inner, dict):  # what it is otherwise is refused where the whole is checked
            inner.setdefault(field, list(value) if isinstance(value, tuple) else value)


def describe_protocol(config: BaseModel, name: str | None) -> list[str]:
    """Return what to know of a run under a protocol, a sentence each: which it is, and which values are others.

    None of a run without a protocol.
    """
    if name is None:
        return []
    protocol = get_measurement_protocol(name)
    said = [f"measured under protocol {name}: {protocol.origin}", *protocol.differs]
    for key, value in _settings(protocol):
        found: Any = config
        for part in key.split("."):
            found = getattr(found, part)
        if found != value:
            said.append(f"protocol {name} has {key} = {_show(value)}, and this run {_show(found)}")
    return said


def _settings(protocol: MeasurementProtocol) -> Iterator[tuple[str, Any]]:
    for field, key in KEYS.items():
        value = getattr(protocol, field)
        if value not in ((), None, False):
            yield key, value


def _show(value: Any) -> str:
    if value is None or value == ():
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
