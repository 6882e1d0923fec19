"""What people see while a command is silent: what it does, and for how long."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pythiageo.cli import display

PATIENCE = 1.5
"""Seconds of silence after which it is said what is being done: nobody looks at an empty screen for longer than two."""

LOADING = "loading torch and transformers"


@contextmanager
def working(what: str, quiet: bool = False) -> Iterator[None]:
    """Say on stderr what is being done where it takes longer than ``PATIENCE``.

    A terminal shows it with the seconds until it is done, and takes it away; elsewhere it is one line.
    """
    if quiet:
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_say_when_long, args=(what, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _say_when_long(what: str, over: threading.Event) -> None:
    if over.wait(PATIENCE):
        return
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        display.say(f"pythiageo: {what} ...", err=True)
        return
    from rich.markup import escape
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as shown:
        shown.add_task(escape(what))
        over.wait()
