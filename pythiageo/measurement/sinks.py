"""Rows of the sinks: what they hold of each site, and how many heads attend to the first position."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from pythiageo.geometry.sinks import HEAD, SINK_MEASURES, measure_sinks, spread_evenly
from pythiageo.geometry.view import SiteStates
from pythiageo.measurement.subject import Subject, columns_of
from pythiageo.no_value import NoValue, NoValueError
from pythiageo.observations import Observation

SINK_RATE = "sink_rate"
OF_SITES = tuple(measure.name for measure in SINK_MEASURES if measure.name != SINK_RATE)
EXAMPLES = 50
"""Examples at most whose attention patterns are read, in plain passes: in a pass over a prefix forest the columns of a
pattern are nodes of many prompts."""
SITE = "blocks.{layer}.attn.hook_pattern"


def site_rows(subject: Subject, here: SiteStates, **columns: Any) -> Iterator[Observation]:
    """Yield what the sinks of one site hold of it. ``n`` counts positions, of the first one's norms examples."""
    found = measure_sinks(here.states, here.sinks, here.layout) if here.sinks.finite else None
    for name in OF_SITES:
        value = found[name] if found else None
        if value is None:
            why = ("undefined", "the states are zero") if found else ("nonfinite", "states hold NaN or infinity")
            yield subject.origin.failed(name, *why, **columns)
            continue
        n = len(here.layout.lengths) if name.startswith("first_norm") else len(here.states)
        yield subject.origin.row(measure=name, value=value, n=n, **columns)


def head_rows(subject: Subject) -> Iterator[Observation]:
    """Yield the sink rate of each block whose sites are measured; ``n`` counts the examples that were read."""
    layers = sorted({layer for layer in subject.reading.sites.values() if layer is not None})
    columns = columns_of(subject.prepared)
    rates: dict[int, np.ndarray] = {}
    no_value, note, count = subject.no_value, "", 0
    if no_value is None:
        try:
            rates, note, count = _take(subject, layers)
        except NoValueError as error:
            no_value = error.no_value
    for layer in layers:
        place = {"layer": layer, "site": SITE.format(layer=layer), **columns}
        if no_value is not None:
            yield subject.failed(SINK_RATE, no_value, **place)
        elif not np.isfinite(rates[layer]).all():
            yield subject.failed(SINK_RATE, NoValue("nonfinite", "attention holds NaN"), **place)
        else:
            of_examples = (rates[layer] > HEAD).mean(axis=1)
            stderr = float(of_examples.std(ddof=1)) / count**0.5 if count > 1 else None
            found = {"value": float(of_examples.mean()), "stderr": stderr, "n": count, "reason": note}
            yield subject.origin.row(measure=SINK_RATE, **found, **place)


def _take(subject: Subject, layers: list[int]) -> tuple[dict[int, np.ndarray], str, int]:
    """Return each layer's mean attention to the first position (example, head), what to know of it, and of how many.

    Raises:
        NoValueError: all examples are short, or the model gives no patterns.
    """
    encoded = subject.prepared.encoded
    long = [one for one in encoded if spread_evenly(len(one.ids)) < HEAD]
    if not long:
        longest = max(len(one.ids) for one in encoded)
        raise NoValueError(
            f"examples of {longest} positions at most are too short: attention that is spread evenly gives the first "
            f"position {spread_evenly(longest):.2f} of it, and {HEAD:g} makes a sink"
        )
    places = np.unique(np.linspace(0, len(long) - 1, min(EXAMPLES, len(long))).round().astype(int))
    chosen = [long[place] for place in places]
    found = subject.reading.attention_to_first(chosen, layers)
    evenly = np.mean([spread_evenly(len(one.ids)) for one in chosen])
    note = (
        f"of {len(chosen)} of {len(encoded)} examples, in plain passes; attention spread evenly would give {evenly:.2f}"
    )
    if len(long) < len(encoded):
        note += f"; {len(encoded) - len(long)} are too short to tell a sink"
    return {layer: torch.stack([one[layer] for one in found]).numpy() for layer in layers}, note, len(chosen)
