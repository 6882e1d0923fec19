"""``pythiageo serve``."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from pythiageo.cli import display
from pythiageo.errors import UserError

_LEAVING = 3.0
"""Seconds that a command has to end by itself."""


def serve(
    folder: Annotated[Path, typer.Argument(help="A run folder, or a folder of checkpoints (stepN).")],
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[-- COMMAND...]", help="Run this against it, then stop.")
    ] = None,
    repo: Annotated[str, typer.Option(help="Repository name to serve it under, owner/name.")] = "local/series",
) -> int:
    """Serve a checkpoint series as a Hub repository on this machine: a branch a step, `main` the last.

    Example: pythiageo serve outputs/demo-pythia -- pythiageo analyze local/series
    """
    from pythiageo.series.hub.loopback import LoopbackHub, serve_folder

    with (
        tempfile.TemporaryDirectory(prefix="pythiageo-hub-") as cache,
        LoopbackHub(serve_folder(folder, repo), xet=True) as hub,
    ):
        variables = hub.environment(Path(cache))
        if command:
            try:
                process = subprocess.Popen(command, env={**os.environ, **variables})
            except OSError as error:
                raise UserError(f"{command[0]}: cannot be run: {error.strerror}") from None
            return _wait(process)
        display.say(f"{repo} is served at {hub.endpoint}; in another terminal, first:")
        for key, value in variables.items():
            display.say(f"  export {key}={value}")
        display.say("Ctrl-C ends it.")
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            return 0


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Return its exit code. Ctrl-C in a terminal reaches it too: it is given time to leave its run as it should be."""
    try:
        return process.wait()
    except KeyboardInterrupt:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(_LEAVING)
        process.terminate()
        return process.wait()
