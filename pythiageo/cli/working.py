"""What people see while a command is silent: what it does, and for how long."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 1.5
"""Seconds of silence after which it is said what is being done: nobody looks at an empty screen for longer than two."""

LOADING = "loading torch and transformers"


@contextmanager
def working(what: str, quiet: bool = False) -> Iterator[None]:
    """Show in the terminal what is being done, and for how many seconds, where it takes longer than ``PATIENCE``.

    It is taken away when that is done. A file or a pipe, which nobody watches, gets nothing.
    """
    if quiet or not sys.stderr.isatty():
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
    from rich.markup import escape
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        shown.add_task(escape(what))
        over.wait()
