"""A Hub on this machine that takes data sets: the routes by which the real client creates, commits and reads them."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from pythiageo.series.hub.loopback import LoopbackServer

TOKEN = "hf_writer"
_LFS = (".parquet", ".html")
_LIMIT = 64 * 2**20


@dataclass
class DataSet:
    """Files of the only branch, and how often it was committed to."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)

    @property
    def commit(self) -> str:
        """40 hex digits, another for every commit."""
        return hashlib.sha1(f"{len(self.commits)}".encode(), usedforsecurity=False).hexdigest()


class DataSetHub(LoopbackServer):
    """Keeps data sets at ``endpoint`` while the context is open; who brings ``TOKEN`` may write to ``me/``."""

    def __init__(self) -> None:
        self.sets: dict[str, DataSet] = {}
        self.objects: dict[str, bytes] = {}
        self.status: int | None = None
        """Answered to everything, where it is set."""
        super().__init__(_Handler)


class _Handler(BaseHTTPRequestHandler):
    hub: DataSetHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        assert length <= _LIMIT
        body = self.rfile.read(length)
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        writer = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if self.hub.status is not None:
            self._send(self.hub.status)
        elif parts == ["api", "validate-yaml"]:
            self._json({"errors": [], "warnings": []})
        elif parts == ["api", "repos", "create"]:
            self._create(json.loads(body), writer)
        elif parts[0] == "objects":
            self.hub.objects[parts[1]] = body
            self._send(200)
        elif parts[:2] == ["api", "datasets"]:
            self._data_set(f"{parts[2]}/{parts[3]}", parts[4:], body, writer)
        elif parts[-4:] == ["info", "lfs", "objects", "batch"]:
            self._batch(json.loads(body))
        elif parts[0] == "datasets" and parts[3] == "resolve":
            self._file(f"{parts[1]}/{parts[2]}", "/".join(parts[5:]))
        else:
            raise AssertionError(f"the client asks for {self.command} {self.path}, which this Hub does not know")

    def _create(self, asked: dict[str, Any], writer: bool) -> None:
        if not writer:
            self._send(401)
            return
        owner = asked.get("organization") or "me"
        if owner != "me":
            self._send(403)
            return
        name = f"{owner}/{asked['name']}"
        assert asked["type"] == "dataset"
        assert name not in self.hub.sets
        self.hub.sets[name] = DataSet(asked["visibility"] == "private", {".gitattributes": b"*.parquet filter=lfs\n"})
        self._json({"url": f"{self.hub.endpoint}/datasets/{name}", "name": name})

    def _data_set(self, name: str, route: list[str], body: bytes, writer: bool) -> None:
        found = self.hub.sets.get(name)
        if found is None or (found.private and not writer):
            self._send(404 if writer else 401, headers={"X-Error-Code": "RepoNotFound"})
        elif not route or route[0] == "revision":
            siblings = [{"rfilename": path} for path in found.files]
            self._json({"id": name, "sha": found.commit, "private": found.private, "siblings": siblings})
        elif route[0] == "tree":
            self._json([{"type": "file", "path": path, "size": len(content), "oid": _git(content)}
                        for path, content in found.files.items()])  # fmt: skip
        elif not name.startswith("me/"):
            self._send(403)
        elif route[0] == "preupload":
            self._json({"files": [self._mode(found, each["path"]) for each in json.loads(body)["files"]]})
        elif route[0] == "commit":
            self._commit(name, found, [json.loads(line) for line in body.splitlines()])
        else:
            raise AssertionError(f"the client asks for {route} of a data set")

    def _mode(self, found: DataSet, path: str) -> dict[str, Any]:
        large = path.endswith(_LFS)
        old = found.files.get(path)
        oid = None if old is None else hashlib.sha256(old).hexdigest() if large else _git(old)
        return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = []
        for each in asked["objects"]:
            known = each["oid"] in self.hub.objects
            upload = {} if known else {"actions": {"upload": {"href": f"{self.hub.endpoint}/objects/{each['oid']}"}}}
            objects.append({**each, **upload})
        self._json({"transfer": "basic", "objects": objects})

    def _commit(self, name: str, found: DataSet, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                found.commits.append(value["summary"])
            elif line["key"] == "file":
                found.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                content = self.hub.objects[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                found.files[value["path"]] = content
            else:
                assert line["key"] == "deletedFile"
                del found.files[value["path"]]
        url = f"{self.hub.endpoint}/datasets/{name}/commit/{found.commit}"
        self._json({"success": True, "commitOid": found.commit, "commitUrl": url})

    def _file(self, name: str, path: str) -> None:
        found = self.hub.sets[name]
        if path not in found.files:
            self._send(404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": found.commit})
            return
        content = found.files[path]
        self._send(200, content, {"X-Repo-Commit": found.commit, "ETag": f'"{_git(content)}"'})

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes = b"{}", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _git(content: bytes) -> str:
    """The name that git gives a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
