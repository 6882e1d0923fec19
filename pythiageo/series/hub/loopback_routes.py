"""The routes of the small Hub on this machine: what the real clients ask for, answered from folders."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from pythiageo.series.hub.loopback_lists import git_oid, list_folder, list_models, list_tree, wanted_paths
from pythiageo.series.hub.loopback_xet import XetRoutes, XetStore

_LFS = (".safetensors", ".bin")
"""Weight files: the Hub names these by the sha256 of their content."""
_PIECE = 2**18
"""Bytes sent at a time."""
_DATE = "2026-01-01T00:00:00.000Z"


class Fault(NamedTuple):
    """What goes wrong instead of a proper answer.

    A status, extra headers, after how many bytes the body ends, or whether one bit of it is wrong. ``stall``: seconds
    of silence where the body ends. ``drop``: the connection is closed without an answer, as where the network is lost.
    """

    status: int | None = None
    headers: Mapping[str, str] = MappingProxyType({})
    cut_after: int | None = None
    flip_bit: bool = False
    stall: float = 0
    drop: bool = False


class Request(NamedTuple):
    """A request as it came in, with its access token and the range of bytes it asks for."""

    method: str
    path: str
    token: str | None = None
    range: str | None = None


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


class ServedHub:
    """What is served, and how: repositories by name, each with a folder a revision. See ``LoopbackHub``."""

    prefix: str

    def __init__(
        self,
        repositories: Mapping[str, Mapping[str, Path]],
        fault: Callable[[Request], Fault | None] | None,
        rate: float | None,
        commits: Mapping[str, Mapping[str, str]],
        xet: bool,
    ) -> None:
        self.xet = XetStore() if xet else None
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


class HubHandler(XetRoutes, BaseHTTPRequestHandler):
    """Answers a client of the Hub; ``hub`` is what it answers from."""

    hub: ServedHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer."""
        self._answer()

    def do_HEAD(self) -> None:
        """Answer."""
        self._answer()

    def do_POST(self) -> None:
        """Answer."""
        self._answer()

    def log_message(self, *_: object) -> None:
        """Say nothing: ``requests`` keeps what was asked."""

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if 0 < length <= 2**20 else b""
        url = urlsplit(self.path)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        request = Request(
            self.command, unquote(url.path).removeprefix(self.hub.prefix), token, self.headers.get("Range")
        )
        self.hub.requests.append(request)
        self._fault = self.hub.fault(request) or Fault()
        if self._fault.drop:
            self.close_connection = True
            return
        if self._fault.status is not None:
            self._send(self._fault.status, b"{}", {})
            return
        parts = request.path.strip("/").split("/")
        asked = {key: values[-1] for key, values in parse_qs(url.query).items()}
        if parts == ["api", "models"]:
            mains = ((name, self.hub.find(name, "main")) for name in self.hub.repositories)
            self._json(list_models({name: main.commit for name, main in mains if main}, asked))
        elif parts[:2] == ["api", "models"] and len(parts) >= 4:
            self._api(f"{parts[2]}/{parts[3]}", parts[4:], asked, body)
        elif len(parts) >= 5 and parts[2] == "resolve":
            self._file(f"{parts[0]}/{parts[1]}", parts[3], "/".join(parts[4:]))
        elif self.hub.xet is not None and (parts[:2] == ["v1", "reconstructions"] or parts[0] == "xorb"):
            self._xet(parts)
        else:
            self._missing("EntryNotFound")

    def _api(self, repository: str, route: list[str], asked: Mapping[str, str], body: bytes) -> None:
        if repository not in self.hub.repositories:
            self._missing("RepoNotFound")
        elif route == ["refs"]:
            revisions = self.hub.repositories[repository]
            branches = [
                {"name": name, "ref": f"refs/heads/{name}", "targetCommit": revision.commit}
                for name, revision in revisions.items()
                if name not in self.hub.commits.get(repository, {}).values()
            ]
            self._json({"branches": branches, "tags": [], "converts": []})
        elif route[:1] == ["commits"]:
            revisions, titles = self.hub.repositories[repository], list(self.hub.commits.get(repository, {}).items())
            told = {"message": "", "authors": [], "date": _DATE}
            self._json([{"id": revisions[name].commit, "title": title, **told} for title, name in titles[::-1]])
        elif not route or route[0] == "revision":
            revision = self.hub.find(repository, route[1] if route else "main")
            if revision is None:
                self._missing("RevisionNotFound")
                return
            siblings = [{"rfilename": name} for name in revision.files]
            names = {"id": repository, "modelId": repository, "sha": revision.commit}
            self._json({**names, "private": False, "gated": False, "tags": [], "siblings": siblings})
        elif route[0] == "xet-read-token" and self.hub.xet is not None:
            self._xet_token()
        elif route[0] in ("tree", "paths-info") and len(route) >= 2:
            revision = self.hub.find(repository, route[1])
            if revision is None:
                self._missing("RevisionNotFound")
                return
            self._list(revision, route, asked, body)
        else:
            self._missing("EntryNotFound")

    def _list(self, revision: Revision, route: list[str], asked: Mapping[str, str], body: bytes) -> None:
        """Answer with the files of a folder of a revision, or with those that are named."""
        files, folder = revision.files, "/".join(route[2:])
        if route[0] == "tree":
            found = list_tree(files, folder, asked.get("recursive", "").lower() == "true")
        else:
            wanted = wanted_paths(body)
            found = [name for name in files if name in wanted]
        if folder and not found:
            self._missing("EntryNotFound")
        else:
            self._json([self._entry(revision, name) if name in files else list_folder(name) for name in found])

    def _entry(self, revision: Revision, name: str) -> dict[str, Any]:
        size = revision.files[name].stat().st_size
        entry: dict[str, Any] = {"type": "file", "path": name, "size": size, "oid": git_oid(revision.sha(name))}
        if name.endswith(_LFS):
            entry["lfs"] = {"oid": revision.sha(name), "size": size, "pointerSize": 134}
            if self.hub.xet is not None:
                entry["xetHash"] = self.hub.xet.name(revision.files[name], revision.sha(name))
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
        path, sha = revision.files[name], revision.sha(name)
        size = path.stat().st_size
        headers = {
            "X-Repo-Commit": revision.commit,
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        if name.endswith(_LFS):
            headers |= {"ETag": f'"{sha}"', "X-Linked-Etag": f'"{sha}"', "X-Linked-Size": str(size)}
            if self.hub.xet is not None:
                headers |= self._xet_headers(repository, revision.commit, path, sha)
        else:
            headers["ETag"] = f'"{git_oid(sha)}"'
        status, start, end = 200, 0, size - 1
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            start, end = int(match[1]), min(int(match[2] or size - 1), size - 1)
            if start > end:
                self._send(416, b"", {"Content-Range": f"bytes */{size}"})
                return
            headers["Content-Range"] = f"bytes {start}-{end}/{size}"
            status = 206
        with path.open("rb") as file:
            file.seek(start)
            self._stream(status, file, end + 1 - start, headers)

    def _json(self, value: Any, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})

    def _missing(self, code: str, headers: dict[str, str] | None = None) -> None:
        self._send(404, b"{}", {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self._stream(status, BytesIO(content), len(content), headers)

    def _stream(self, status: int, source: BinaryIO, length: int, headers: dict[str, str]) -> None:
        """Send ``length`` bytes of ``source`` piece by piece: weights may be larger than memory."""
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(length), **self._fault.headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self._fault.cut_after
        left = length if cut is None else min(cut, length)
        self.close_connection |= left < length
        while left and (piece := source.read(min(left, _PIECE))):
            left -= len(piece)
            if self._fault.flip_bit and not left:
                piece = piece[:-1] + bytes([piece[-1] ^ 1])
            self.hub.wait_for_line(len(piece))
            self.wfile.write(piece)
        if self._fault.stall:
            self.hub.closing.wait(self._fault.stall)
