"""What is known of every measure that a table may hold, from the files that declare them.

A measure is declared once, where it is computed. Rooms that read the table need its kind, its transition and its
definition, and must not import torch for them: so declarations are read from the source, as literals, and nothing
is run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from pythiageo import extensions
from pythiageo.names import split_ranks

RANK, GEOMETRY, LANDSCAPE, SCORE, LINEAR_PROBE, WEIGHTS, DIAGNOSTIC = (
    "rank", "geometry", "landscape", "score", "linear probe", "weights", "diagnostic",
)  # fmt: skip
MINIMUM, MAXIMUM, HALF_WAY = "minimum", "maximum", "half-way"
DECLARED_IN = {
    "pythiageo.geometry.measures": GEOMETRY,
    "pythiageo.geometry.sinks": GEOMETRY,
    "pythiageo.landscape.measures": LANDSCAPE,
    "pythiageo.landscape.llc_diagnostics": DIAGNOSTIC,
    "pythiageo.probes.measures": SCORE,
    "pythiageo.linear_probe.measures": LINEAR_PROBE,
    "pythiageo.series.audit.weights": WEIGHTS,
}
"""Modules that declare measures, and the kind of those that name none."""
_OTHERS = {"entropy_dataset": MINIMUM, "entropy_sentence": MINIMUM}
"""Measures that only other studies take: matrix entropies are logarithms of a rank."""


@dataclass(frozen=True)
class DeclaredMeasure:
    """A measure's name, in a sentence what it is, its kind, and what counts as the step of its change.

    ``transition``: ``minimum``, ``maximum`` or ``half-way``; ``None`` for what has none (scores, linear probes,
    weights, diagnostics of an estimate).
    ``title`` and ``unit``: what an axis calls it, and what it counts; a unit may be empty.
    """

    name: str
    definition: str
    kind: str
    transition: str | None
    title: str
    unit: str = ""

    @property
    def is_rank(self) -> bool:
        """Whether it has a collapse floor."""
        return self.kind == RANK


@cache
def declared_measures() -> dict[str, DeclaredMeasure]:
    """Return every measure that is declared here or by an installed package, by name."""
    found: dict[str, DeclaredMeasure] = {}
    modules = {**DECLARED_IN, **dict.fromkeys(extensions.named_modules(extensions.MEASURES), GEOMETRY)}
    for module, kind in modules.items():
        for path in _sources(module):
            found.update({measure.name: measure for measure in read_declarations(path, kind)})
    return found


def read_declarations(path: Path, kind: str) -> Iterator[DeclaredMeasure]:
    """Yield the measures that a source file declares: calls with the literal keywords ``name`` and ``definition``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if not isinstance(node, ast.Call):
            continue
        given = {
            keyword.arg: keyword.value.value
            for keyword in node.keywords
            if isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, str)
        }
        if {"name", "definition"} <= given.keys():
            own = given.get("kind", kind)
            default = None if own in {SCORE, LINEAR_PROBE, WEIGHTS, DIAGNOSTIC} else HALF_WAY
            transition, title = given.get("transition", default), given.get("title", given["name"])
            yield DeclaredMeasure(given["name"], given["definition"], own, transition, title, given.get("unit", ""))


def _sources(module: str) -> list[Path]:
    """Return the source files of a module, or of every module of a package, without importing them."""
    try:
        spec = find_spec(module)
    except ImportError:  # of an installed package; whoever wants to measure with it is told
        spec = None
    if spec is None:
        return []
    if spec.submodule_search_locations:
        return sorted(path for folder in spec.submodule_search_locations for path in Path(folder).glob("[!_]*.py"))
    return [Path(spec.origin)] if spec.origin else []


def find_declared(name: str) -> DeclaredMeasure | None:
    """Return a measure by its name, or by a name that says the ranks it is fitted over; ``None``: nobody declared it.

    >>> find_declared("alpha_req_12_100").title
    'alpha-ReQ, ranks 12 to 100'
    """
    known = declared_measures()
    fitted = split_ranks(name)
    if name in known or fitted is None or fitted[0] not in known:
        return known.get(name)
    base, first, last = known[fitted[0]], *fitted[1:]
    definition = re.sub(r"j = \d+ to \d+", f"j = {first} to {last}", base.definition)
    return replace(base, name=name, title=f"{base.title}, ranks {first} to {last}", definition=definition)


def axis_title(measure: str) -> str:
    """Return a measure's name and unit as an axis shows them; a name that nobody declared as it is.

    >>> axis_title("log_prob")
    'mean log-probability (nats a token)'
    """
    known = find_declared(measure)
    if known is None:
        return measure.replace("_", " ")
    return f"{known.title} ({known.unit})" if known.unit else known.title


@cache
def rank_measures() -> tuple[str, ...]:
    """Return the names of the ranks: the measures that have a collapse floor."""
    return tuple(name for name, measure in declared_measures().items() if measure.is_rank)


@cache
def score_measures() -> tuple[str, ...]:
    """Return the names of the scores and of what stands beside them, and ``checkpoint``, the row of a whole one."""
    return (*(name for name, measure in declared_measures().items() if measure.kind == SCORE), "checkpoint")


@cache
def unmoving_measures() -> tuple[str, ...]:
    """Return the names of ``score_measures``, and of what is beside an estimate: none of these has a transition."""
    beside = (name for name, measure in declared_measures().items() if measure.kind == DIAGNOSTIC)
    return (*score_measures(), *beside)


@cache
def transitions_of_measures() -> dict[str, str]:
    """Return what the transition of each measure is, for those that have one other than ``half-way``."""
    known = {name: measure.transition for name, measure in declared_measures().items()}
    return {**_OTHERS, **{name: found for name, found in known.items() if found in {MINIMUM, MAXIMUM}}}
