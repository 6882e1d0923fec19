"""Options of a command that come from the fields of its config."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container
from functools import wraps
from typing import Annotated, Any

import typer

from pythiageo.config.fields import Table
from pythiageo.config.options import option_keys, options_of

GIVEN = "given"
"""The parameter of a command's function in whose place the options stand: the config's keys that they set."""
PANELS = {
    "": "Which checkpoints",
    "series": "Which checkpoints",
    "training": "Training",
    "fetch": "Fetching",
    "probes": "Probe sets",
    "measures": "What is measured",
    "compute": "Computing",
}
"""Headings in a command's help, by the table of the config."""


def with_options_of(
    config: type[Table], tables: Container[str] | None = None, keys: Container[str] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command an option for every field of ``config`` that is annotated with one.

    ``tables``: only for fields of these tables, and for the fields ``keys``.
    """
    options = list(options_of(config))
    if tables is not None:
        options = [option for option in options if option.table in tables or option.key in keys]

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def command(**values: Any) -> Any:
            given = {option.name: values.pop(option.name) for option in options}
            return function(**values, **{GIVEN: option_keys(options, given)})

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
