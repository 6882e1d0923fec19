"""A small Hub on this machine: the routes the real clients ask for, over a folder of checkpoints.

For offline use and for tests: nothing is downloaded, and nothing but the files of the given folders is served, only
to this machine. A repository's revisions are folders; a revision's commit is derived from its files.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Self

from pythiageo.errors import UserError
from pythiageo.series.hub.loopback_routes import Fault, HubHandler, Request
from pythiageo.series.sources.folder import FolderSeries

_REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


@dataclass
class Revision:
    """A folder served as one revision."""

    folder: Path
    _shas: dict[str, str] = field(default_factory=dict)

    @cached_property
    def files(self) -> dict[str, Path]:
        """Name and path of the folder's own files; links that lead elsewhere are left out."""
        root = self.folder.resolve()
        inside = (path for path in sorted(root.rglob("*")) if path.is_file() and root in path.resolve().parents)
        return {path.relative_to(root).as_posix(): path for path in inside}

    def sha(self, name: str) -> str:
        """Return a file's sha256."""
        if name not in self._shas:
            with self.files[name].open("rb") as file:
                self._shas[name] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._shas[name]

    @cached_property
    def commit(self) -> str:
        """40 hex digits from names and contents: equal folders have equal commits."""
        digest = hashlib.sha1(usedforsecurity=False)
        for name in self.files:
            digest.update(f"{name}\0{self.sha(name)}\0".encode())
        return digest.hexdigest()


class LoopbackServer:
    """Answers by ``handler``, which finds this server as its ``hub``, on 127.0.0.1 while the context is open."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (handler,), {"hub": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def endpoint(self) -> str:
        """What ``HF_ENDPOINT`` must be."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class LoopbackHub(LoopbackServer):
    """Serves ``{repository: {revision: folder}}`` at ``endpoint`` on 127.0.0.1 while the context is open.

    ``requests`` lists what was asked for. ``fault`` may answer a request with a ``Fault``. ``rate``: bytes per second
    that all connections together get at most, ``None`` for no bound. ``commits``: the history of a repository's
    ``main``, oldest first: titles, and the revision each stands for, which is then no branch.
    """

    def __init__(
        self,
        repositories: dict[str, dict[str, Path]],
        fault: Callable[[Request], Fault | None] | None = None,
        rate: float | None = None,
        commits: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    ) -> None:
        for name in repositories:
            if not _REPOSITORY.fullmatch(name):
                raise UserError(f"{name!r} is not a repository's name: expected owner/name")
        self.repositories = {
            name: {revision: Revision(folder) for revision, folder in revisions.items()}
            for name, revisions in repositories.items()
        }
        self.requests: list[Request] = []
        self.fault = fault or (lambda _: None)
        self.closing = threading.Event()
        self.commits = commits
        self._rate = rate
        self._line = threading.Lock()
        self._free_at = 0.0
        super().__init__(HubHandler)

    def environment(self, cache: Path) -> dict[str, str]:
        """Return the variables that send a client here, with its cache in ``cache``; set them before it starts."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(cache),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def find(self, repository: str, name: str) -> Revision | None:
        """Return the revision called ``name``, or with that commit."""
        revisions = self.repositories.get(repository, {})
        if name in revisions:
            return revisions[name]
        return next((revision for revision in revisions.values() if revision.commit == name), None)

    def wait_for_line(self, count: int) -> None:
        """Wait until the line, which has the bounded rate, has taken ``count`` more bytes."""
        if self._rate is None:
            return
        with self._line:
            self._free_at = max(self._free_at, time.monotonic()) + count / self._rate
            until = self._free_at
        self.closing.wait(until - time.monotonic())

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
