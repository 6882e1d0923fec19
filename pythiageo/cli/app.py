"""The ``pythiageo`` command: its sub-commands, and what becomes of errors."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.main import get_command

from pythiageo._version import __version__
from pythiageo.cli import (
    analyze,
    audit,
    claims,
    configs,
    derive,
    display,
    error_rates,
    export,
    importing,
    llc,
    measures,
    phases,
    plot,
    price,
    published,
    push,
    readout,
    results,
    runs,
    series,
    serve,
    show,
    similarity,
    tasks,
    train,
    variance,
)
from pythiageo.cli.help import HELP, explain
from pythiageo.config.renamed import RENAMED_OPTIONS
from pythiageo.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_USER, PythiageoError

app = typer.Typer(
    name="pythiageo",
    help="Layerwise geometry of Pythia checkpoints and of small synthetic transformers, by one code path.\n\n"
    "Example: pythiageo analyze EleutherAI/pythia-160m --steps log:12",
    no_args_is_help=True,
    context_settings={"help_option_names": HELP},
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 fine; 1 finished, but a checkpoint, or a measure of one, could not be taken or is in doubt; "
    "2 a mistake in what was asked; "
    "3 the machine gave up (disk, network), resumable; 70 an error of pythiageo's own, with its traceback; "
    "130 interrupted, resumable.",
)


def _version(wanted: bool) -> None:
    if wanted:
        display.say(f"pythiageo {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


BEFORE, THERE = "Before you measure", "What there is"
GROUPS: dict[str, list[tuple[str | None, Callable[..., Any]]]] = {
    "Measure": [(None, train.train), (None, analyze.analyze), ("import", importing.import_results)],
    "Look": [
        (None, show.show),
        (None, results.report),
        (None, plot.plot),
        (None, results.figures),
        (None, export.export),
    ],
    "Ask": [
        (None, results.compare),
        (None, claims.claims),
        (None, published.published),
        (None, phases.phases),
        (None, readout.readout),
        (None, variance.variance),
        (None, error_rates.error_rates),
        (None, derive.derive),
        (None, similarity.similarity),
    ],
    BEFORE: [(None, analyze.plan), (None, audit.audit), (None, price.price)],
    "Share": [(None, push.push), (None, serve.serve)],
}
"""Commands by the headings of ``pythiageo --help``, in its order; a name where it is not the function's."""

for heading, commands in GROUPS.items():
    for own_name, function in commands:
        app.command(own_name, rich_help_panel=heading)(function)
app.command(rich_help_panel=THERE)(measures.measures)
for word, group in (("runs", runs.app), ("tasks", tasks.app), ("series", series.app), ("configs", configs.app)):
    app.add_typer(group, name=word, rich_help_panel=THERE)
app.add_typer(llc.app, name="llc", rich_help_panel=BEFORE)


def run(arguments: list[str]) -> int:
    """Run the command line; return the exit code. Errors meant for people are one sentence on stderr."""
    try:
        result = explain(get_command(app))(arguments, prog_name="pythiageo", standalone_mode=False)
        code = result if isinstance(result, int) else EXIT_OK
    except PythiageoError as error:
        display.say(f"pythiageo: {error}", err=True)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = EXIT_INTERRUPTED
    except typer.TyperException as error:  # a wrong option or argument
        if renamed := RENAMED_OPTIONS.get(next(iter(arguments), ""), {}).get(getattr(error, "option_name", "")):
            display.say(f"pythiageo: {error.option_name} is called {renamed} now", err=True)  # type: ignore[attr-defined]
            return EXIT_USER
        error.show(file=sys.stderr)  # type: ignore[attr-defined]
        return EXIT_USER
    except BrokenPipeError:
        # the reader of our output (head, less) has gone; python would complain again at exit
        sys.stderr.close()
        return EXIT_OK
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            raise
        display.say(f"pythiageo: {str(error.filename)[:80]!r} cannot be a file's name: {error.strerror}", err=True)
        return EXIT_USER
    if code == EXIT_INTERRUPTED:  # typer turns Ctrl-C into this code too
        display.say("pythiageo: interrupted; what was measured is kept: --resume goes on with the run", err=True)
    return code
