"""A small Hub on this machine: the routes the real clients ask for, over a folder of checkpoints.

For offline use and for tests: nothing is downloaded, and nothing but the files of the given folders is served, only
to this machine. A repository's revisions are folders; a revision's commit is derived from its files.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from pythiageo.errors import UserError
from pythiageo.series.hub.loopback_routes import Fault, HubHandler, Request, ServedHub
from pythiageo.series.sources.folder import FolderSeries

_REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went away."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class LoopbackServer:
    """Answers by ``handler``, which finds this server as its ``hub``, on 127.0.0.1 while the context is open."""

    prefix = ""
    """A path that all of it lies below."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self._server = _Server(("127.0.0.1", 0), type("Handler", (handler,), {"hub": self}))
        # 0.02 s: how soon it sees that it is to end
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def endpoint(self) -> str:
        """What ``HF_ENDPOINT`` must be."""
        return f"http://127.0.0.1:{self._server.server_address[1]}{self.prefix}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class LoopbackHub(LoopbackServer, ServedHub):
    """Serves ``{repository: {revision: folder}}`` at ``endpoint`` on 127.0.0.1 while the context is open.

    ``requests`` lists what was asked for. ``fault`` may answer a request with a ``Fault``. ``rate``: bytes per second
    that all connections together get at most, ``None`` for no bound. ``commits``: the history of a repository's
    ``main``, oldest first: titles, and the revision each stands for, which is then no branch. ``xet``: weights may be
    had by Xet too, as from the real Hub.
    """

    def __init__(
        self,
        repositories: dict[str, dict[str, Path]],
        fault: Callable[[Request], Fault | None] | None = None,
        rate: float | None = None,
        commits: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
        xet: bool = False,
    ) -> None:
        for name in repositories:
            if not _REPOSITORY.fullmatch(name):
                raise UserError(f"{name!r} is not a repository's name: expected owner/name")
        ServedHub.__init__(self, repositories, fault, rate, commits, xet)
        LoopbackServer.__init__(self, HubHandler)

    def environment(self, cache: Path) -> dict[str, str]:
        """Return the variables that send a client here, with its cache in ``cache``; set them before it starts."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(cache),
            "HF_HUB_DISABLE_XET": str(int(self.xet is None)),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        super().__exit__()


def serve_folder(path: Path, repository: str) -> dict[str, dict[str, Path]]:
    """Return what ``LoopbackHub`` serves for a folder of checkpoints: ``stepN`` for each, ``main`` for the last.

    Raises:
        UserError: there is no checkpoint in it.
    """
    series = FolderSeries(path)
    steps = series.steps()
    revisions = {f"step{step}": series.folder(step) for step in steps}
    return {repository: {**revisions, "main": series.folder(steps[-1])}}
