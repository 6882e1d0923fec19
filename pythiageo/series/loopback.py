"""A small Hub on this machine: the routes the real clients ask for, over a folder of checkpoints.

For offline use and for tests: nothing is downloaded, and nothing but the files of the given folders is served, only
to this machine. A repository's revisions are folders; a revision's commit is derived from its files.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from pythiageo.errors import UserError
from pythiageo.series.folder import FolderSeries

_LFS = (".safetensors", ".bin")
"""Weight files: the Hub names these by the sha256 of their content."""
_REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


class Fault(NamedTuple):
    """What goes wrong instead of a proper answer.

    A status, extra headers, after how many bytes the body ends, or whether one bit of it is wrong.
    """

    status: int | None = None
    headers: Mapping[str, str] = MappingProxyType({})
    cut_after: int | None = None
    flip_bit: bool = False


class Request(NamedTuple):
    """A request as it came in."""

    method: str
    path: str


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


class LoopbackHub:
    """Serves ``{repository: {revision: folder}}`` at ``endpoint`` on 127.0.0.1 while the context is open.

    ``requests`` lists what was asked for. ``fault`` may answer a request with a ``Fault``.
    """

    def __init__(
        self, repositories: dict[str, dict[str, Path]], fault: Callable[[Request], Fault | None] | None = None
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
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def endpoint(self) -> str:
        """What ``HF_ENDPOINT`` must be."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

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

    def __enter__(self) -> LoopbackHub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve_folder(path: Path, repository: str) -> dict[str, dict[str, Path]]:
    """Return what ``LoopbackHub`` serves for a folder of checkpoints: ``stepN`` for each, ``main`` for the last.

    Raises:
        UserError: there is no checkpoint in it.
    """
    series = FolderSeries(path)
    steps = series.steps()
    revisions = {f"step{step}": series.folder(step) for step in steps}
    return {repository: {**revisions, "main": series.folder(steps[-1])}}


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Say nothing: ``requests`` keeps what was asked."""

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if 0 < length <= 2**20 else b""
        url = urlsplit(self.path)
        request = Request(self.command, unquote(url.path))
        self.hub.requests.append(request)
        self._fault = self.hub.fault(request) or Fault()
        if self._fault.status is not None:
            self._send(self._fault.status, b"{}", {})
            return
        parts = request.path.strip("/").split("/")
        if parts[:2] == ["api", "models"] and len(parts) >= 4:
            self._api(f"{parts[2]}/{parts[3]}", parts[4:], body)
        elif len(parts) >= 5 and parts[2] == "resolve":
            self._file(f"{parts[0]}/{parts[1]}", parts[3], "/".join(parts[4:]))
        else:
            self._missing("EntryNotFound")

    def _api(self, repository: str, route: list[str], body: bytes) -> None:
        if repository not in self.hub.repositories:
            self._missing("RepoNotFound")
        elif route == ["refs"]:
            revisions = self.hub.repositories[repository]
            branches = [
                {"name": name, "ref": f"refs/heads/{name}", "targetCommit": revision.commit}
                for name, revision in revisions.items()
            ]
            self._json({"branches": branches, "tags": [], "converts": []})
        elif not route or route[0] == "revision":
            revision = self.hub.find(repository, route[1] if route else "main")
            if revision is None:
                self._missing("RevisionNotFound")
                return
            self._json(
                {
                    "id": repository,
                    "modelId": repository,
                    "sha": revision.commit,
                    "private": False,
                    "gated": False,
                    "tags": [],
                    "siblings": [{"rfilename": name} for name in revision.files],
                }
            )
        elif route[0] in ("tree", "paths-info") and len(route) >= 2:
            revision = self.hub.find(repository, route[1])
            if revision is None:
                self._missing("RevisionNotFound")
                return
            wanted = _wanted_paths(body) if route[0] == "paths-info" else set(revision.files)
            self._json([self._entry(revision, name) for name in revision.files if name in wanted])
        else:
            self._missing("EntryNotFound")

    def _entry(self, revision: Revision, name: str) -> dict[str, Any]:
        size = revision.files[name].stat().st_size
        entry: dict[str, Any] = {"type": "file", "path": name, "size": size, "oid": _git_oid(revision.sha(name))}
        if name.endswith(_LFS):
            entry["lfs"] = {"oid": revision.sha(name), "size": size, "pointerSize": 134}
        return entry

    def _file(self, repository: str, revision_name: str, name: str) -> None:
        if repository not in self.hub.repositories:
            self._missing("RepoNotFound")
            return
        revision = self.hub.find(repository, revision_name)
        if revision is None:
            self._missing("RevisionNotFound")
            return
        if name not in revision.files:
            self._missing("EntryNotFound", {"X-Repo-Commit": revision.commit})
            return
        content = revision.files[name].read_bytes()
        sha = revision.sha(name)
        headers = {
            "X-Repo-Commit": revision.commit,
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        if name.endswith(_LFS):
            headers |= {"ETag": f'"{sha}"', "X-Linked-Etag": f'"{sha}"', "X-Linked-Size": str(len(content))}
        else:
            headers["ETag"] = f'"{_git_oid(sha)}"'
        status = 200
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            start, end = int(match[1]), int(match[2] or len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{min(end, len(content) - 1)}/{len(content)}"
            content, status = content[start : end + 1], 206
        self._send(status, content, headers)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _missing(self, code: str, headers: dict[str, str] | None = None) -> None:
        self._send(404, b"{}", {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content)), **self._fault.headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            cut = self._fault.cut_after
            if self._fault.flip_bit and content:
                content = content[:-1] + bytes([content[-1] ^ 1])
            self.wfile.write(content if cut is None else content[:cut])
            if cut is not None and cut < len(content):
                self.close_connection = True


def _wanted_paths(body: bytes) -> set[str]:
    """Return the paths a paths-info request asks for: a JSON list, or a form's repeated field."""
    text = body.decode("utf-8", "replace")
    try:
        paths = json.loads(text).get("paths", [])
    except (ValueError, AttributeError):
        paths = parse_qs(text).get("paths", [])
    return {str(path) for path in ([paths] if isinstance(paths, str) else paths)}


def _git_oid(sha256: str) -> str:
    """Return 40 hex digits that name a small file; clients only compare them."""
    return hashlib.sha1(sha256.encode(), usedforsecurity=False).hexdigest()
