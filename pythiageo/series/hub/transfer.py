"""The process that a fetch from the Hub runs in: the client and nothing else, so that it can be ended at any moment.

A transfer by Xet hears neither Python's signals nor the client's time-outs. ``fetch.py`` starts this module, writes one
``Order`` as a line of JSON to its input, and reads from its output, a line each: what has arrived, the seconds that the
Hub asks to wait, files begun, and at last a folder or an error. When the input ends, so does the process: nobody waits
for it any more.
"""

from __future__ import annotations

import functools
import json
import os
import re
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pythiageo.errors import PythiageoError, machine_trouble, quote_error

_TICK = 0.25
"""Seconds between two lines about what has arrived."""
_PIECE = 2**18
"""Bytes that plain HTTP writes at a time: the client's own 10 MB hide for minutes that a slow line moves."""
_TOKEN_ROUTE = "/xet-read-token/"


@dataclass(frozen=True)
class Order:
    """A revision's files to fetch ``into`` a folder or the client's cache, and what is already there of some.

    ``parts``: by sha256, files that hold the beginning of one. ``scratch``: where the beginning of a file is kept that
    Xet gave up.
    """

    repo: str
    label: str
    commit: str
    patterns: list[str]
    into: str | None
    scratch: str
    parts: dict[str, str] = field(default_factory=dict)


class XetError(PythiageoError):
    """A transfer by Xet failed; plain HTTP may not."""


class _Count:
    """What has arrived, of all files together."""

    bytes = 0  # that are written
    moved = 0  # those that came over the line and wait in a buffer too


class _Meter:
    """What the client takes for a progress bar."""

    def __init__(self, *_: object, initial: int = 0, **__: object) -> None:
        _Count.bytes += initial

    def update(self, count: float | None = 1) -> None:
        """Count bytes that are written."""
        _Count.bytes += int(count or 0)

    def update_transfer(self, count: float | None = 1) -> None:
        """Count bytes that came over the line."""
        _Count.moved += int(count or 0)

    def set_postfix_str(self, *_: object, **__: object) -> None:
        """Show nothing."""

    set_transfer_postfix_str = refresh = close = set_postfix_str

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


_LOCK = threading.Lock()


def _tell(**what: object) -> None:
    with _LOCK:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()


def _tell_arrivals() -> None:
    told = (0, 0)
    while True:
        now = (_Count.bytes, _Count.moved)
        if now != told:
            _tell(bytes=now[0])
            told = now
        time.sleep(_TICK)


def _end_with_reader() -> None:
    """End this process when whoever started it is gone."""
    sys.stdin.buffer.read()
    os._exit(1)


def _hook_transfers(order: Order) -> None:
    """Count what the client's two ways of fetching bring, and let plain HTTP go on from what is there."""
    from huggingface_hub import constants, file_download  # noqa: PLC0415

    constants.DOWNLOAD_CHUNK_SIZE = _PIECE
    by_xet, by_http = file_download.xet_get, file_download.http_get

    @functools.wraps(by_xet)
    def xet_get(*arguments: Any, incomplete_path: Path, **options: Any) -> None:
        part = Path(order.scratch) / incomplete_path.name
        _tell(part=str(incomplete_path), sha256=_find_sha256(incomplete_path))
        try:
            by_xet(*arguments, incomplete_path=incomplete_path, **{**options, "tqdm_class": _Meter})
        except Exception as error:
            if machine_trouble(error):
                raise
            with suppress(OSError):  # the client would remove it
                os.replace(incomplete_path, part)
                _tell(part=str(part), sha256=_find_sha256(part))
            raise XetError(quote_error(error)) from None

    @functools.wraps(by_http)
    def http_get(url: str, temp_file: Any, **options: Any) -> None:
        if "resume_size" in options:  # it calls itself after a connection was lost
            by_http(url, temp_file, **options)
            return
        options["tqdm_class"] = _Meter
        path = Path(temp_file.name)
        part = Path(order.parts.pop(_find_sha256(path) or "", ""))
        if part.is_file() and part.stat().st_size < (options.get("expected_size") or 0):
            os.replace(part, path)
        _tell(part=str(path), sha256=None)
        with path.open("r+b") as file:
            there = file.seek(0, os.SEEK_END)
            by_http(url, file, **options, resume_size=there)

    file_download.xet_get, file_download.http_get = xet_get, http_get


def _find_sha256(path: Path) -> str | None:
    """Return the sha256 that the client's name for a file under way holds, ``None`` of one that is kept in git."""
    found = re.search(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])", path.name)
    return found[0] if found else None


def _refuse_retries(response: Any) -> None:
    """Give Xet up where its tokens are not given: the client would ask again for half a minute, file by file."""
    if _TOKEN_ROUTE in str(response.request.url) and response.status_code >= 400:
        raise XetError(f"the Hub answers {response.status_code} where a token for Xet is asked for")


def _fetch(order: Order) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    from pythiageo.series.hub.client import without_bars  # noqa: PLC0415
    from pythiageo.series.hub.failures import told  # noqa: PLC0415
    from pythiageo.series.hub.retry import again_if_busy, be_patient  # noqa: PLC0415

    be_patient(lambda seconds: _tell(wait=seconds), _refuse_retries)
    _hook_transfers(order)
    with told(order.repo, order.label), without_bars():
        return Path(
            again_if_busy(
                lambda: snapshot_download(
                    order.repo, revision=order.commit, allow_patterns=order.patterns, local_dir=order.into
                )
            )
        )


def main() -> None:
    """Do the order on the input; the exit code says nothing, the last line of the output all."""
    order = Order(**json.loads(sys.stdin.buffer.readline()))
    for work in (_end_with_reader, _tell_arrivals):
        threading.Thread(target=work, daemon=True).start()
    try:
        _tell(folder=str(_fetch(order)))
    except XetError as error:
        _tell(error="Xet", said=str(error))
    except PythiageoError as error:
        _tell(error=type(error).__name__, said=str(error), status=getattr(error, "status", None))
    os._exit(0)  # threads of a transfer that was given up would be waited for


if __name__ == "__main__":
    main()
