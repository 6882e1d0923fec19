"""The ``pythiageo`` command: its sub-commands, and what becomes of errors."""

from __future__ import annotations

import errno
import sys
from typing import Annotated

import typer

from pythiageo._version import __version__
from pythiageo.cli import (
    analyze,
    audit,
    claims,
    derive,
    display,
    error_rates,
    export,
    importing,
    llc,
    measures,
    plot,
    price,
    published,
    push,
    readout,
    results,
    runs,
    series,
    serve,
    similarity,
    tasks,
    train,
)
from pythiageo.config.renamed import RENAMED_OPTIONS
from pythiageo.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_USER, PythiageoError

app = typer.Typer(
    name="pythiageo",
    help="Layerwise geometry of Pythia checkpoints and of small synthetic transformers, by one code path.",
    no_args_is_help=True,
    add_completion=False,
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


app.command()(train.train)
app.command()(analyze.analyze)
app.command()(analyze.plan)
app.command()(audit.audit)
app.command()(results.compare)
app.command()(claims.claims)
app.command()(error_rates.error_rates)
app.command()(export.export)
app.command()(derive.derive)
app.command()(similarity.similarity)
app.command()(results.report)
app.command()(plot.plot)
app.command()(results.figures)
app.command()(push.push)
app.command()(readout.readout)
app.command()(published.published)
app.command("import")(importing.import_results)
app.command()(serve.serve)
app.command()(measures.measures)
app.command()(price.price)
app.add_typer(llc.app, name="llc")
app.add_typer(tasks.app, name="tasks")
app.add_typer(runs.app, name="runs")
app.add_typer(series.app, name="series")


def run(arguments: list[str]) -> int:
    """Run the command line; return the exit code. Errors meant for people are one sentence on stderr."""
    try:
        result = app(arguments, standalone_mode=False)
        code = result if isinstance(result, int) else EXIT_OK
    except PythiageoError as error:
        display.say(f"pythiageo: {error}", err=True)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = EXIT_INTERRUPTED
    except typer.TyperException as error:  # a wrong option or argument
        if renamed := RENAMED_OPTIONS.get(arguments[0], {}).get(getattr(error, "option_name", "")):
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
