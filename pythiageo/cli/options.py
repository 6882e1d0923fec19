"""Options of a command that come from the fields of its config."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from pythiageo.config.fields import Table
from pythiageo.config.options import options_of

GIVEN = "given"
"""The parameter of a command's function in whose place the options stand, and which receives their values by name."""
PANELS = {
    "": "Which checkpoints",
    "fetch": "Fetching",
    "probes": "Probe sets",
    "measures": "What is measured",
    "compute": "Computing",
}
"""Headings in a command's help, by the table of the config."""


def with_options_of(config: type[Table], *left_out: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command an option for every field of ``config`` that is annotated with one, but for those ``left_out``."""
    options = [option for option in options_of(config) if option.name not in left_out]

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def command(**values: Any) -> Any:
            given = {option.name: values.pop(option.name) for option in options}
            return function(**values, **{GIVEN: given})

        parameters = []
        for parameter in inspect.signature(function, eval_str=True).parameters.values():
            if parameter.name != GIVEN:
                parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
                continue
            for option in options:
                info = typer.Option(
                    "--" + option.name.replace("_", "-"),
                    help=option.option.help,
                    metavar=option.option.metavar,
                    rich_help_panel=PANELS.get(option.table),
                    show_default=False,
                )
                flag = option.kind is bool
                kind: Any = bool if flag else (str if option.kind is list else option.kind) | None
                parameters.append(
                    inspect.Parameter(
                        option.name,
                        inspect.Parameter.KEYWORD_ONLY,
                        default=False if flag else None,
                        annotation=Annotated[kind, info],
                    )
                )
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate
