"""What the small Hub on this machine answers where something is listed: repositories, files of a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs


def list_models(commits: Mapping[str, str], asked: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return an owner's repositories that have a word in their names; ``commits``: of the ``main`` of each."""
    owner, word = asked.get("author", "").lower(), asked.get("search", "").lower()
    return [
        {"_id": name, "id": name, "modelId": name, **({"sha": commit} if asked.get("expand") == "sha" else {})}
        for name, commit in commits.items()
        if name.partition("/")[0].lower() == owner and word in name.lower()
    ]


def list_tree(files: Iterable[str], folder: str, recursive: bool) -> list[str]:
    """Return the files and folders in a folder, and with ``recursive`` in those below it."""
    below = f"{folder}/" if folder else ""
    names = [name for name in files if name.startswith(below)]
    folders = {parent.as_posix() for name in names for parent in PurePosixPath(name).parents if parent.name}
    found = [*names, *sorted(path for path in folders if path.startswith(below))]
    return [path for path in found if recursive or "/" not in path.removeprefix(below)]


def list_folder(path: str) -> dict[str, Any]:
    """Return what a listing says of a folder."""
    return {"type": "directory", "path": path, "size": 0, "oid": git_oid(path)}


def wanted_paths(body: bytes) -> set[str]:
    """Return the paths a paths-info request asks for: a JSON list, or a form's repeated field."""
    text = body.decode("utf-8", "replace")
    try:
        paths = json.loads(text).get("paths", [])
    except (ValueError, AttributeError):
        paths = parse_qs(text).get("paths", [])
    return {str(path) for path in ([paths] if isinstance(paths, str) else paths)}


def git_oid(sha256: str) -> str:
    """Return 40 hex digits that name a small file; clients only compare them."""
    return hashlib.sha1(sha256.encode(), usedforsecurity=False).hexdigest()
