"""Bringing files of a revision here, in a process that can be ended, and holding them to what the Hub promises.

What arrives is watched. A fetch that stands still for ``PYTHIAGEO_HUB_STALL`` seconds is ended; where that was by Xet,
plain HTTP goes on from what is there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from huggingface_hub import constants

from pythiageo.errors import CheckpointError, MachineError, PythiageoError, UserError, shorten
from pythiageo.series.files.weight_files import WeightFile, is_weight_file
from pythiageo.series.hub import retry
from pythiageo.series.hub.address import Address
from pythiageo.series.hub.transfer import Order

_TRIES = 2
"""How often a file whose content is not what the Hub promises is fetched."""
_SLICE = 0.2
"""Seconds between two looks at whether a fetch is still wanted."""
XET_FAILURES = 2
"""Failures of Xet in a row after which this process asks for plain HTTP alone."""
_BUFFER = "128mb"
_QUERY = re.compile(r"(?<=\w)\?[^\s)]+")
_LOG = logging.getLogger("pythiageo")
_KINDS: dict[str, type[PythiageoError]] = {"UserError": UserError, "MachineError": MachineError}


class Fetch:
    """A fetch that may be under way: how much has come, and a way to end it from another thread."""

    def __init__(self) -> None:
        self.bytes = 0
        self.stopped = False  # no event: a checkpoint is handed to other processes

    def stop(self) -> None:
        """End it; whoever waits for it gets a ``CheckpointError``."""
        self.stopped = True


class _Stalled(Exception):
    """Nothing arrived for ``STALL`` seconds, the process ended by itself, or Xet failed: HTTP may do better."""


class _Told:
    failures = 0  # of Xet, in a row
    unhashed: ClassVar[set[str]] = set()  # repositories of which that is said


def download(
    address: Address, names: list[str], promised: list[WeightFile], into: Path | None, fetch: Fetch | None = None
) -> Path:
    """Fetch files at an address into the client's cache, or ``into`` a folder; return where the repository's top is.

    Each that is promised is held against what the Hub promises.

    Raises:
        CheckpointError: they cannot be had, or ``fetch`` was stopped. Status ``corrupt``: a file is not what the Hub
            promises, even when fetched again; it is removed, so that a later try does not meet it.
        MachineError: disk, memory, or no Hub at all.
    """
    fetch = fetch or Fetch()
    wrong: list[WeightFile] = []
    repo, label = address.repo, address.name
    patterns = [escape(address.path(name)) for name in names]
    home = Path(constants.HF_HUB_CACHE) if into is None else into.parent
    home.mkdir(parents=True, exist_ok=True)
    unhashed = [file.name for file in promised if file.sha256 is None and is_weight_file(file.name, {})]
    if unhashed and repo not in _Told.unhashed:
        _Told.unhashed.add(repo)
        _LOG.warning("%s: the Hub lists no sha256 of %s: it is checked by its size alone", repo, unhashed[0])
    for _ in range(_TRIES):
        with TemporaryDirectory(prefix=".fetch-", dir=home, ignore_cleanup_errors=True) as scratch:
            order = Order(repo, label, address.at, patterns, None if into is None else str(into), scratch)
            root = _fetch(order, promised, fetch, by_http=bool(wrong))
        folder = address.inside(root)
        if lost := [file.name for file in promised if not (folder / file.name).is_file()]:
            raise CheckpointError(f"{repo} {label}: could not be fetched: {lost[0]} did not come")
        wrong = [file for file in promised if not holds(folder / file.name, file)]
        if not wrong:
            return root
        for file in wrong:
            remove(folder / file.name)
    raise CheckpointError(
        f"{repo} {label}: {wrong[0].name} is not the file that the Hub promises (sha256 "
        f"{str(wrong[0].sha256)[:12]}...), though it was fetched {_TRIES} times; it was removed",
        "corrupt",
    )


def _fetch(order: Order, promised: list[WeightFile], fetch: Fetch, by_http: bool) -> Path:
    """Fetch by Xet where the Hub offers it, then what is missing by plain HTTP."""
    parts: dict[str, str] = {}
    begun: list[str] = []
    try:
        if by_http or constants.HF_HUB_DISABLE_XET or _Told.failures >= XET_FAILURES:
            return _attempt(order, fetch, parts, begun, xet=False)
        try:
            folder = _attempt(order, fetch, parts, begun, xet=True)
            _Told.failures = 0
            return folder
        except _Stalled as error:
            said = str(error)
            _LOG.warning("%s %s: %s; once more by plain HTTP", order.repo, order.label, said)
            if _Told.failures == XET_FAILURES:
                _LOG.warning("%s: Xet failed %d times in a row: plain HTTP from here on", order.repo, XET_FAILURES)
        # a file whose sha256 nobody promises is fetched anew: its beginning could not be told from another's
        told = {file.sha256 for file in promised if file.sha256}
        order = replace(order, parts={sha: part for sha, part in parts.items() if sha in told})
        try:
            return _attempt(order, fetch, parts, begun, xet=False)
        except _Stalled as error:
            raise _Stalled(f"{said}; then, by plain HTTP, {error}") from None
    except _Stalled as error:
        raise CheckpointError(f"{order.repo} {order.label}: could not be fetched: {error}") from None
    finally:
        for part in begun:  # of a process that could not tidy up
            Path(part).unlink(missing_ok=True)


def _attempt(order: Order, fetch: Fetch, parts: dict[str, str], begun: list[str], xet: bool) -> Path:
    """Run one process; note in ``parts`` and ``begun`` where the files under way lie."""
    fetch.bytes = 0
    used_xet = False
    with Path(order.scratch, "errors.txt").open("w+b") as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pythiageo.series.hub.transfer"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=_environment(order.scratch, xet),
            start_new_session=True,  # Ctrl-C in a terminal is this process's to answer
        )  # fmt: skip
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
            process.stdin.flush()
            for line in _listen(process, order, fetch):
                fetch.bytes = line.get("bytes", fetch.bytes)
                if "part" in line:
                    begun.append(line["part"])
                    if line["sha256"]:
                        parts[line["sha256"]] = line["part"]
                        used_xet = True
                if "folder" in line:
                    return Path(line["folder"])
                if line.get("error") == "Xet":
                    # an address that is signed lets whoever reads it in
                    raise _Stalled(f"Xet failed: {shorten(_QUERY.sub('', line['said']), 250)}")
                if "error" in line:
                    raise _KINDS.get(line["error"], CheckpointError)(
                        line["said"], *([line["status"]] if line.get("status") else [])
                    )
        except _Stalled:
            _Told.failures += used_xet
            raise
        except BrokenPipeError:
            pass
        finally:
            process.kill()
            process.wait()
            process.stdin.close()
        errors.seek(0)
        last = shorten(errors.read()[-2000:].decode("utf-8", "replace"), 300) or f"exit code {process.returncode}"
    raise _Stalled(f"the process that fetched it ended: {last}")


def _listen(process: subprocess.Popen[bytes], order: Order, fetch: Fetch) -> Iterator[dict[str, Any]]:
    """Yield what the process says until its output ends. Raises if it says nothing for ``STALL`` seconds."""
    assert process.stdout is not None
    heard, asked, text = time.monotonic(), 0.0, b""
    with selectors.DefaultSelector() as selector, process.stdout as output:
        selector.register(output, selectors.EVENT_READ)
        while True:
            if fetch.stopped:
                raise CheckpointError(f"{order.repo} {order.label}: fetching it was given up")
            if selector.select(_SLICE):
                data = os.read(output.fileno(), 2**16)
                if not data:
                    return
                *lines, text = (text + data).split(b"\n")
                heard, asked = time.monotonic(), 0.0
                for line in map(json.loads, lines):
                    asked = line.get("wait", asked)
                    yield line
            elif time.monotonic() - heard > retry.STALL + asked:
                raise _Stalled(f"nothing came for {retry.STALL:.0f} s")


def _environment(scratch: str, xet: bool) -> dict[str, str]:
    """Return the variables of the process: this client's own settings, and bounds for Xet's memory, waits and files."""
    quarter = f"{max(1, int(retry.STALL / 4))}s"
    own = {name: text for name, text in os.environ.items() if not name.startswith("HF_XET_HIGH_PERFORMANCE")}
    own.pop("HF_XET_HP", None)
    buffers = ("SIZE", "PERFILE_SIZE", "LIMIT")
    package = str(Path(__file__).parents[3])
    return own | {
        "PYTHONPATH": os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "HF_ENDPOINT": constants.ENDPOINT,
        "HF_HUB_CACHE": constants.HF_HUB_CACHE,
        "HF_HUB_OFFLINE": str(int(constants.HF_HUB_OFFLINE)),
        "HF_HUB_DISABLE_XET": str(int(not xet)),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        # its cache of shards and its logs go with the folder
        "HF_XET_CACHE": scratch,
        "HF_XET_LOG_DEST": os.path.join(scratch, "xet.log"),
        "HF_XET_DISABLE_MEMORY_DERIVED_DOWNLOAD_BUFFERS": "1",
        **{f"HF_XET_RECONSTRUCTION_DOWNLOAD_BUFFER_{name}": _BUFFER for name in buffers},
        # it gives up by itself, most of the time, before it is ended
        "HF_XET_CLIENT_CONNECT_TIMEOUT": quarter,
        "HF_XET_CLIENT_READ_TIMEOUT": quarter,
        "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "2",
        "HF_XET_CLIENT_RETRY_BASE_DELAY": "1s" if retry.STALL > 10 else "100ms",
        "HF_XET_CLIENT_RETRY_MAX_DURATION": f"{max(1, int(retry.STALL))}s",
    }


def holds(path: Path, promised: WeightFile) -> bool:
    """Return whether a file has the size and, where one is promised, the sha256 of the listing."""
    if path.stat().st_size != promised.size:
        return False
    if promised.sha256 is None:
        return True
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == promised.sha256


def remove(path: Path) -> None:
    """Remove a file, and every link and content of the client's cache that its name leads to.

    Content that came by Xet lies in a store of the whole cache, ``blobs/xx/HASH``, which a repository's own blob links
    to. What is no blob, such as a file that somebody linked to, is left.
    """
    while path.is_symlink():
        target = path.parent / path.readlink()
        path.unlink()
        if "blobs" not in target.parent.parts[-2:]:
            return
        path = target
    with suppress(FileNotFoundError):
        path.unlink()
