"""``pythiageo push``: a run as a data set on the Hub."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.filesize import decimal

from pythiageo.cli import display
from pythiageo.cli.results import JsonOption, RunArgument, by_commas


def push(
    run: RunArgument,
    repo: Annotated[str, typer.Option(metavar="OWNER/NAME", help="The data set on the Hub.")],
    public: Annotated[
        bool, typer.Option("--public/--private", help="Who may see a new data set; one that is there stays as it is.")
    ] = False,
    measures: Annotated[str | None, typer.Option(help="Measures, separated by commas. Default: all.")] = None,
    readouts: Annotated[str | None, typer.Option(help="Readouts, separated by commas. Default: all.")] = None,
    message: Annotated[str | None, typer.Option(help="Message of the commit.", show_default=False)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what another run put there.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be published; ask the Hub nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Publish a run on the Hub: its observations, tables, page and manifest; no weights, nothing of this machine.

    Example: pythiageo push demo-tasks --repo you/demo-tasks --dry-run
    """
    from pythiageo.publish import push as publish
    from pythiageo.publish import write_bundle

    with TemporaryDirectory(prefix="pythiageo-push-") as folder:
        bundle = write_bundle(
            run, Path(folder) / "run", repo, by_commas(measures or None) or (), by_commas(readouts or None) or ()
        )
        sizes = {name: bundle.size(name) for name in bundle.files}
        if not as_json:
            rows = [(name, decimal(size)) for name, size in sizes.items()]
            display.print_table("to publish", ("file", "size"), rows)
            display.say(f"{run} as {repo}: {bundle.rows:,} observations")
        if dry_run:
            if as_json:
                display.print_json({"repo": repo, "files": sizes, "rows": bundle.rows, "published": False})
            else:
                display.say(f"nothing was published; a new data set would be {'public' if public else 'private'}")
            return
        done = publish(bundle, repo, not public, message or f"{bundle.name}: {bundle.rows:,} observations", overwrite)
    if as_json:
        display.print_json({"repo": repo, "files": sizes, "rows": bundle.rows, "published": True, **vars(done)})
    elif done.changed:
        display.say(f"{done.url} ({'private' if done.private else 'public'}), commit {done.commit[:12]}")
    else:
        display.say(f"{done.url} has all of it already: nothing to do")
