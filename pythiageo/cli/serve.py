"""``pythiageo serve``."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from pythiageo.errors import UserError


def serve(
    folder: Annotated[Path, typer.Argument(help="A run folder, or a folder of checkpoints (stepN).")],
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[-- COMMAND...]", help="Run this against it, then stop.")
    ] = None,
    repo: Annotated[str, typer.Option(help="Repository name to serve it under, owner/name.")] = "local/series",
) -> int:
    """Serve a checkpoint series as a Hub repository on this machine: a branch a step, `main` the last."""
    from pythiageo.series.hub.loopback import LoopbackHub, serve_folder

    with (
        tempfile.TemporaryDirectory(prefix="pythiageo-hub-") as cache,
        LoopbackHub(serve_folder(folder, repo)) as hub,
    ):
        variables = hub.environment(Path(cache))
        if command:
            try:
                return subprocess.run(command, env={**os.environ, **variables}, check=False).returncode
            except OSError as error:
                raise UserError(f"{command[0]}: cannot be run: {error.strerror}") from None
        typer.echo(f"{repo} is served at {hub.endpoint}; in another terminal, first:")
        for key, value in variables.items():
            typer.echo(f"  export {key}={value}")
        typer.echo("Ctrl-C ends it.")
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            return 0
