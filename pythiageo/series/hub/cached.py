"""What the Hub client's own cache holds of a repository: all that can be known of it without the Hub."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from huggingface_hub import constants

from pythiageo.series.files.weight_files import Revision, WeightFile, index_format, weight_map_of
from pythiageo.series.hub.address import Address
from pythiageo.series.layout import MAIN

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PREFIX = "models--"


def is_offline() -> bool:
    """Return whether the client is told to ask nobody (``HF_HUB_OFFLINE``)."""
    return bool(constants.HF_HUB_OFFLINE)


def kept_revisions(repo: str) -> tuple[str, dict[str, str | None]]:
    """Return a repository's name as the cache spells it, and the commits of its revisions that are there, by name."""
    cache = Path(constants.HF_HUB_CACHE)
    wanted = (_PREFIX + repo.replace("/", "--")).lower()
    entries = sorted(cache.iterdir()) if cache.is_dir() else []
    for folder in (entry for entry in entries if entry.name.lower() == wanted and (entry / "refs").is_dir()):
        found: dict[str, str | None] = {}
        for ref in sorted(path for path in (folder / "refs").rglob("*") if path.is_file()):
            commit = ref.read_text(encoding="utf-8", errors="replace").strip()
            if _COMMIT.fullmatch(commit) and (folder / "snapshots" / commit).is_dir():
                found[ref.relative_to(folder / "refs").as_posix()] = commit
        return folder.name.removeprefix(_PREFIX).replace("--", "/"), found
    return repo, {}


def kept_repositories(owner: str) -> dict[str, str | None]:
    """Return the commit of ``main`` of each of an owner's repositories that the cache holds."""
    cache, prefix = Path(constants.HF_HUB_CACHE), f"{_PREFIX}{owner}--".lower()
    entries = sorted(cache.iterdir()) if cache.is_dir() else []
    names = [one.name[len(_PREFIX) :].replace("--", "/", 1) for one in entries if one.name.lower().startswith(prefix)]
    found = [kept_revisions(name) for name in names]
    return {repo: commits[MAIN] for repo, commits in found if MAIN in commits}


def kept_folder(address: Address) -> Path | None:
    """Return the folder of an address in the cache, if there is one."""
    top = Path(constants.HF_HUB_CACHE) / (_PREFIX + address.repo.replace("/", "--")) / "snapshots" / address.at
    folder = address.inside(top)
    return folder if folder.is_dir() else None


def kept_folders(address: Address) -> dict[str, list[WeightFile]]:
    """Return the files of every folder of a revision in the cache."""
    top = kept_folder(address)
    below = [] if top is None else [top, *(path for path in sorted(top.rglob("*")) if path.is_dir())]
    return {path.relative_to(top).as_posix() if path != top else "": kept_files(path) for path in below}  # type: ignore[arg-type]


def kept_files(folder: Path) -> list[WeightFile]:
    """Return the files of a commit's folder; the large ones lie under the name of the sha256 that the Hub promised."""
    files = []
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        content = path.resolve()
        files.append(WeightFile(path.name, content.name if _SHA256.fullmatch(content.name) else None,
                                content.stat().st_size, content.name))  # fmt: skip
    return files


def kept_weights(step: int | None, address: Address) -> Revision:
    """Return the weight files of a checkpoint that the cache holds; one that it does not hold says so."""
    folder, name, commit = kept_folder(address), address.name, address.commit
    if folder is None:
        return Revision(
            step, name, commit, absent="the revision is not in the client's cache, and the Hub is not asked"
        )
    files = kept_files(folder)
    maps = {
        kind: weight_map_of((folder / file.name).read_bytes()) for file in files if (kind := index_format(file.name))
    }
    return Revision.listed(step, name, commit, files, maps)


def name_kept(folder: Path, revision: str, commit: str | None) -> None:
    """Note in the cache, as the client does of revisions that it is asked for by name, which one this commit's
    ``folder`` is: without it nobody could tell offline. A cache that may not be written is left as it is."""
    if commit is None or folder.name != commit or folder.parent.name != "snapshots":
        return
    refs = folder.parent.parent / "refs"
    ref = refs / revision
    if refs not in ref.parents or ".." in ref.parts:
        return
    temporary = ref.with_name(f".{uuid4().hex}.tmp")
    with suppress(OSError):
        if ref.is_file() and ref.read_text(encoding="utf-8", errors="replace") == commit:
            return
        ref.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(commit, encoding="utf-8")
        os.replace(temporary, ref)
    temporary.unlink(missing_ok=True)
