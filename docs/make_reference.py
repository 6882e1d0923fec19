"""The pages of reference that are made from the code: config.md, measures.md and table.md, beside this file.

``python docs/make_reference.py`` writes them; ``tests/docs/test_made_pages.py`` holds them against the code.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from pythiageo import errors
from pythiageo.config.options import options_of
from pythiageo.config.runs import AnalyzeConfig, FollowConfig, TrainConfig
from pythiageo.geometry.measure import COSTS, INVARIANCES, NEEDS, load_measures
from pythiageo.geometry.sinks import SINK_MEASURES
from pythiageo.landscape.measures import LANDSCAPE_MEASURES
from pythiageo.observations.measures import declared_measures
from pythiageo.observations.schema import COLUMNS, STATUSES, Observation
from pythiageo.study.protocols import EVENT_STATUSES, PROTOCOLS

FOLDER = Path(__file__).parent
MADE = "<!-- made by docs/make_reference.py: change the code, then run it -->\n"
CONFIGS = {"train": TrainConfig, "analyze": AnalyzeConfig, "follow": FollowConfig}


def comments(owner: Any) -> dict[str, str]:
    """Return what stands as a string below each name that a class or module assigns."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
    body = tree.body if inspect.ismodule(owner) else tree.body[0].body  # type: ignore[attr-defined]
    found = {}
    for before, after in pairwise(body):
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            target = before.targets[0] if isinstance(before, ast.Assign) else getattr(before, "target", None)
            if isinstance(target, ast.Name):
                found[target.id] = " ".join(str(after.value.value).split()).replace("``", "`")
    return found


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in lines)


def code(text: object) -> str:
    """Return a text as code."""
    return f"`{text}`"


def config_page() -> str:
    """Return every table and key of a config, from the models that check it."""
    parts = [
        MADE,
        "# Configs: every key\n",
        "A run is asked for by a TOML file, by options, or by both: `--set table.key=value` sets any key, and\n"
        "options lie over the file. `pythiageo train` and `analyze` read files; `pythiageo.measure` and\n"
        "`MeasureCallback` take the same keys as `settings`. An unknown key is refused, with the nearest right one.\n"
        "Files to copy are in `configs/`.\n",
    ]
    shared: dict[str, tuple[type, list[str]]] = {}
    for kind, config in CONFIGS.items():
        for name, model in tables_of(config):
            shared.setdefault(f"{model.__name__} {name}", (model, []))[1].append(kind)
    for key, (model, kinds) in shared.items():
        name = key.split(" ", 1)[1]
        title = f"[{name}]" if name else f"The top of a config of {kinds[0]}"
        said = "" if not name or len(kinds) == len(CONFIGS) else f" In configs of {' and '.join(kinds)}."
        first = (model.__doc__ or "").replace("``", "`").strip()
        parts.append(f"## {title}\n{first}{said}\n")
        parts.append(table(["key", "value", "default", "option", "is"], list(keys_of(name, model, kinds[0]))))
    return "\n".join(parts)


def tables_of(model: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield a config's tables by dotted name, itself first."""
    yield name, model
    for key, field in model.model_fields.items():
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if hasattr(part, "model_fields"):
                yield from tables_of(part, f"{name}.{key}" if name else key)


def keys_of(table_name: str, model: Any, kind: str) -> Iterator[list[str]]:
    """Yield a row for every key of a table that is not a table itself."""
    said = comments(model)
    options = {option.key: option for option in options_of(CONFIGS[kind])}
    schema = model.model_json_schema()["properties"]
    for key, field in model.model_fields.items():
        dotted = f"{table_name}.{key}" if table_name else key
        if "$ref" in schema[key]:
            continue
        option = options.get(dotted)
        default = "required" if field.is_required() else shown(field.default)
        name = code("--" + option.name.replace("_", "-")) if option else ""
        yield [code(key), values(schema[key]), default, name, said.get(key, option.option.help if option else "")]


def shown(default: Any) -> str:
    """Return a default as TOML has it; nothing for none."""
    if default is None:
        return ""
    if isinstance(default, tuple):
        return code("[" + ", ".join(shown(part).strip("`") for part in default) + "]")
    if isinstance(default, bool):
        return code(str(default).lower())
    return code(f'"{default}"' if isinstance(default, str) else default)


def values(schema: dict[str, Any]) -> str:
    """Return in words what a key may hold, from its JSON schema."""
    if "anyOf" in schema:
        return " or ".join(values(part) for part in schema["anyOf"] if part.get("type") != "null")
    if "enum" in schema or "const" in schema:
        return ", ".join(code(value) for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        if "prefixItems" in schema:
            return f"list of {len(schema['prefixItems'])}: {values(schema['prefixItems'][0])}"
        return f"list of {values(schema['items'])}"
    if "$ref" in schema:
        return "`true` or a table"
    word = {"integer": "whole number", "number": "number", "boolean": "`true`, `false`", "string": "text"}
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[name]:,}" for name, sign in bounds.items() if name in schema]
    return " ".join([word[schema["type"]], ", ".join(limits)]).strip()


def measures_page() -> str:
    """Return every measure that a table may hold, from the files that declare them."""
    parts = [
        MADE,
        "# Every measure\n",
        "What the column `measure` of a table may say. `pythiageo measures` lists what can be asked for by\n"
        "`--measures`, with measures of installed packages; scores and their controls are always taken.\n"
        "[readouts.md](readouts.md) has the readouts.\n",
    ]
    measures = declared_measures().values()
    sinks = {measure.name: measure for measure in SINK_MEASURES}
    taken: dict[str, Any] = {**load_measures(), **LANDSCAPE_MEASURES, **sinks}
    titles = {
        "rank": "Ranks\nThey have a collapse floor. [geometry.md](geometry.md) says how they are taken.",
        "geometry": "Other geometry and sinks\n[geometry.md](geometry.md) says how they are taken.",
        "landscape": "Loss landscape\n[landscape.md](landscape.md) says how they are taken.",
        "score": "Scores and what stands beside them\n[scores.md](scores.md#rules-and-scores) has the rules.",
        "linear probe": "Linear probe\n[scores.md](scores.md#linear-probe) has the settings.",
        "diagnostic": "Diagnostics of the LLC\nRows beside `llc`: [landscape.md](landscape.md) says how to read them.",
        "weights": "Weights\nOf an audit by value: [audit.md](audit.md#by-value).",
    }
    for kind, title in titles.items():
        rows = []
        for measure in (one for one in measures if one.kind == kind):
            own = taken.get(measure.name)
            formula, needs, cost, source = (getattr(own, name, "") for name in ("formula", "needs", "cost", "source"))
            # a bar in a code span of a table: no two renderers agree on how it is escaped
            formula = code(formula.replace("|", "∣")) if formula else ""
            rows.append([code(measure.name), measure.definition, measure.unit, formula, needs, cost, source])
        full = any(row[3] for row in rows)
        head = ["name", "is", "unit", *(["formula", "needs", "cost", "source"] if full else [])]
        parts.append(f"## {title}\n")
        parts.append(table(head, [row[: len(head)] for row in rows]))
    for title, words in (("Needs", NEEDS), ("Cost classes", COSTS), ("Invariances", INVARIANCES)):
        parts.append(f"## {title} of geometry measures\n")
        parts.append(table(["word", "is"], [[code(word), meaning] for word, meaning in words.items()]))
    blind = [[code(name), ", ".join(sorted(one.invariances))] for name, one in load_measures().items()]
    parts.append("## What a geometry measure is blind to\n")
    parts.append(table(["measure", "invariant to"], blind))
    return "\n".join(parts)


def table_page() -> str:
    """Return columns, statuses, events and exit codes."""
    said = comments(Observation)
    columns = [[code(name), str(kind), said.get(name, "")] for name, kind in COLUMNS.items()]
    told = comments(errors)
    exits = [[str(getattr(errors, name)), meaning] for name, meaning in told.items() if name.startswith("EXIT_")]
    protocols = [
        [code(one.name), one.rule, f"{one.floor_window[0]:,} to {one.floor_window[1]:,}", f"{one.least_fall:.0%}",
         "counts" if one.edge_counts else "does not count", one.origin]
        for one in PROTOCOLS.values()
    ]  # fmt: skip
    return "\n".join(
        [
            MADE,
            "# The table, its statuses, exit codes\n",
            "A run is one table: one row a number, or one reason why there is none. It is `observations.parquet` in\n"
            "the run folder, and `pythiageo.open_run(RUN).observations` in Python.\n",
            "## Columns\n",
            table(["column", "type", "is"], columns),
            "## Statuses\nWhat to do about each: [faq.md](faq.md).\n",
            table(["status", "means"], [[code(name), meaning] for name, meaning in STATUSES.items()]),
            "## Statuses of events\nAcquisition, floor, recovery, transition, half-collapse: "
            "[claims.md](claims.md#events).\n",
            table(["status", "means"], [[code(name), meaning] for name, meaning in EVENT_STATUSES.items()]),
            "## Protocols\nThe definitions that an event is read under.\n",
            table(
                ["protocol", "acquired", "steps of the floor", "least fall", "a floor at the edge", "from"], protocols
            ),
            "## Exit codes\n",
            table(["code", "means"], exits),
        ]
    )


PAGES: dict[str, Callable[[], str]] = {"config.md": config_page, "measures.md": measures_page, "table.md": table_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")
