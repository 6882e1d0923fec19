"""How commands explain themselves: what stands for a value in their help, and under which heading an option stands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import typer

PATH, NAMES = "PATH", "NAME,..."
METAVARS = {
    **dict.fromkeys(("measure", "measures", "sites", "only", "hue"), NAMES),
    **dict.fromkeys(("readout", "readouts"), "READOUT,..."),
    **dict.fromkeys(("task", "tasks", "trained"), "TASK,..."),
    **dict.fromkeys(("level", "levels"), "LEVEL,..."),
    **dict.fromkeys(("tasks_folder", "series_folder"), "FOLDER"),
    **dict.fromkeys(("steps", "checkpoints", "expect"), "STEPS"),
    **dict.fromkeys(("layers",), "LAYERS"),
    **dict.fromkeys(("step", "last_step"), "STEP"),
    **dict.fromkeys(("size",), "SIZE,..."),
    **dict.fromkeys(("formats",), "FORMAT,..."),
    "site": "SITE",
    "stage": "STAGE,...",
    "name": "NAME",
    "repo": "OWNER/NAME",
    "target": "TARGET",
    "regime": "REGIME",
    "protocol": "PROTOCOL",
    "engine": "local|ray",
    "address": "HOST:PORT",
    "device": "cpu|cuda|auto",
    "dtype": "float32|bfloat16",
    "disk_budget": "BYTES",
    "step_pattern": "REGEX",
    "align": "steps|tokens|fraction",
    "rule": "v1|v4|ours",
    "ties": "error|half|dropped",
    "event": "EVENT",
    "by": "step|layer|task|run",
    "seeds": "separate|band",
    "width": "column|text|INCHES",
    "tokenizer": "REPO|FOLDER",
    "step_sizes": "X,...",
    "gammas": "X,...",
    "threads": "N",
    "tokens_per_step": "N",
    "weights": "keep|measure-only",
}
"""What stands for a value, by the name of the parameter: one word one idea, in every command."""
_BY_KIND = {Path: PATH, int: "N", float: "X", str: "TEXT", bool: ""}
_OUTPUT, _PART, _FOLDER, _COMPUTING = "Output", "Which part of it", "The run folder", "Computing"
PANELS = {
    **dict.fromkeys(("as_json", "quiet", "out", "formats", "digits", "width", "wide", "show_page"), _OUTPUT),
    **dict.fromkeys(("measures", "measure", "readouts", "readout", "tasks", "task", "levels", "level", "site", "layers",
                     "steps", "last_step", "where", "only", "trained"), _PART),
    **dict.fromkeys(("resume", "refresh", "overwrite"), _FOLDER),
    **dict.fromkeys(("engine", "address", "jobs", "workers", "threads", "device", "dtype", "cuda_graphs"), _COMPUTING),
}  # fmt: skip
"""Headings, by the name of the parameter; for commands with more than ``FEW`` of them."""
FEW = 6
HELP = ["-h", "--help"]


def explain(command: Any) -> Any:
    """Give every parameter of a command, and of those below it, its metavar and heading where it has none; return it.

    What a command says of its own parameters stays.
    """
    for each in _walk(command):
        each.get_help_option(typer.Context(each, help_option_names=HELP)).metavar = ""  # it is made once and kept
        options = [one for one in each.params if one.param_type_name == "option"]
        for one in each.params:
            if one.metavar is None:
                one.metavar = METAVARS.get(one.name) if not _is_flag(one) else ""
            if one.metavar is None:
                one.metavar = one.name.upper() if one.param_type_name == "argument" else _BY_KIND[_kind(one)]
            if one.param_type_name == "argument":
                one.display_type_rich = lambda ctx: None  # its metavar says what it is
            if len(options) > FEW and getattr(one, "rich_help_panel", None) is None:
                one.rich_help_panel = PANELS.get(one.name)
    return command


def _walk(command: Any) -> Iterator[Any]:
    yield command
    for below in getattr(command, "commands", {}).values():
        yield from _walk(below)


def _is_flag(parameter: Any) -> bool:
    return bool(getattr(parameter, "is_flag", False))


def _kind(parameter: Any) -> type:
    """Return the type of a parameter's values: of each of them where there are several."""
    annotation = parameter.type_descriptor.annotation
    if get_origin(annotation) is list:
        annotation = get_args(annotation)[0]
    return annotation if annotation in _BY_KIND else str
