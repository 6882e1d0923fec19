"""``pythiageo series``: list, show, check."""

from __future__ import annotations

import shlex
from typing import Annotated, Any

import typer

from pythiageo.cli import display
from pythiageo.cli.options import with_options_of
from pythiageo.config.options import overrides
from pythiageo.config.runs import AnalyzeConfig, make_config
from pythiageo.errors import EXIT_LOOK, EXIT_OK, UserError, count_noun, nearest
from pythiageo.series.layout import Layout
from pythiageo.series.registry import Entry, load_entries

app = typer.Typer(
    help="Public series: which are known by name, how their checkpoints are laid out, what is read of one.",
    no_args_is_help=True,
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@app.command("list")
@with_options_of(AnalyzeConfig, (), {"series.folder"})
def list_series(given: dict[str, Any], as_json: JsonOption = False) -> None:
    """List the series that are known by name. Others are read too, where their names say a step.

    Example: pythiageo series list
    """
    entries = _entries(given)
    if as_json:
        display.print_json([entry.model_dump(mode="json", by_alias=True) for entry in entries.values()])
        return
    display.print_table(
        "series",
        ("series", "title", "layout", "names count", "stages"),
        [
            (entry.name, entry.title, entry.layout, entry.unit, ", ".join(stage.name for stage in entry.stages))
            for entry in entries.values()
        ],
    )
    display.say_next(f"series show {next(iter(entries), 'NAME')}")


@app.command("show")
@with_options_of(AnalyzeConfig, (), {"series.folder"})
def show_series(
    name: Annotated[str, typer.Argument(help="Name of a series.")], given: dict[str, Any], as_json: JsonOption = False
) -> None:
    """Show what is known of a series: its repositories, stages, tokens a step, and where these facts are from.

    Example: pythiageo series show pythia
    """
    entries = _entries(given)
    if name not in entries:
        raise UserError(f"no series {name!r}{nearest(name, entries)}; pythiageo series list lists what is known")
    entry = entries[name]
    if as_json:
        display.print_json(entry.model_dump(mode="json", by_alias=True))
        return
    facts = entry.model_dump(mode="json", exclude={"stages"}, exclude_none=True)
    rows = [(key, ", ".join(value) if isinstance(value, list) else value) for key, value in facts.items()]
    display.print_table(entry.title, ("what", "value"), rows)
    if entry.stages:
        display.print_table(
            "stages",
            ("stage", "names", "begins", "steps", "tokens a step", "read"),
            [
                (
                    stage.name,
                    stage.pattern or ", ".join(stage.names),
                    "at step 0" if stage.follows is None else f"after {stage.follows}",
                    stage.steps or "",
                    stage.tokens_per_step or entry.tokens_per_step or "",
                    "if asked for" if stage.optional else "always",
                )
                for stage in entry.stages
            ],
        )


@app.command("check")
@with_options_of(AnalyzeConfig, {"series"}, {"step_pattern"})
def check_series(
    target: Annotated[str, typer.Argument(metavar="REPO", help="Hub repository, or a folder of checkpoints.")],
    given: dict[str, Any],
    as_json: JsonOption = False,
) -> int:
    """Say which checkpoints of a series are read, in which order, and what is left out.

    Nothing but the list of revisions is asked of the Hub. Exit code 1 if something is not read.

    Example: pythiageo series check EleutherAI/pythia-160m
    """
    from pythiageo.series import open_series

    config = make_config({"name": "check", "target": target}, overrides(given), "analyze", "check")
    assert isinstance(config, AnalyzeConfig)
    series = open_series(target, config.naming)
    steps = series.steps()
    layout: Layout | None = getattr(series, "layout", None)
    if layout is None:
        raise UserError(
            f"{target}: {count_noun(len(steps), 'step')}; this kind of series does not say how they are laid out"
        )
    places = list(layout.places.values())
    if as_json:
        display.print_json(
            {
                "series": series.name,
                "unit": layout.unit,
                "checkpoints": [vars(place) for place in places],
                "unread": layout.unread,
                "remarks": series.remarks,
            }
        )
    else:
        _print_stages(series.name, layout, steps)
        for remark in series.remarks:
            display.say(remark)
        display.say_next(f"plan {shlex.join([target])} --steps log:12")
    return EXIT_LOOK if layout.unread or layout.left_out else EXIT_OK


def _print_stages(name: str, layout: Layout, steps: list[int]) -> None:
    """Print a row a stage: how many checkpoints, from which name to which, and where they lie."""
    stages: dict[str, list[Any]] = {}
    for place in layout.places.values():
        stages.setdefault(place.stage or "", []).append(place)
    display.print_table(
        f"{name}: {count_noun(len(steps), 'checkpoint')}",
        ("stage", "n", "first", "last", layout.unit, "tokens"),
        [
            (
                stage,
                len(places),
                places[0].name,
                places[-1].name,
                f"{places[0].step:,} .. {places[-1].step:,}",
                "unknown" if places[-1].tokens is None else f"{places[0].tokens:,} .. {places[-1].tokens:,}",
            )
            for stage, places in stages.items()
        ],
    )


def _entries(given: dict[str, Any]) -> dict[str, Entry]:
    config = make_config({"name": "series", "target": "series"}, overrides(given), "analyze", "series")
    assert isinstance(config, AnalyzeConfig)
    return load_entries(config.series.folder)
