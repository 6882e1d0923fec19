"""The routes of Xet on the small Hub on this machine: tokens, how a file is rebuilt, and the blocks it is rebuilt from.

A file is cut into chunks of 64 KiB, 800 of which make a block (xorb). They are sent as the real store sends them: each
behind a header of 8 bytes, here uncompressed.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from io import RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 2**16
"""Bytes of a chunk."""
PER_BLOCK = 800
"""Chunks of a block."""
_HEADER = 8
_LIFE = 3600
"""Seconds that a token is good for."""


class Block:
    """A block of a file: chunks ``first`` to ``end`` (excluded)."""

    def __init__(self, path: Path, first: int, end: int) -> None:
        self.path, self.first, self.end = path, first, end


class FramedChunks(RawIOBase):
    """The bytes of a block as they are sent, from byte ``start`` on; ``start`` is where a chunk begins."""

    def __init__(self, block: Block, start: int) -> None:
        self._file = block.path.open("rb")
        self._file.seek((block.first + start // (CHUNK + _HEADER)) * CHUNK)
        self._ready = b""

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes."""
        while len(self._ready) < size and (chunk := self._file.read(CHUNK)):
            length = len(chunk).to_bytes(3, "little")
            self._ready += b"\0" + length + b"\0" + length + chunk
        piece, self._ready = self._ready[:size], self._ready[size:]
        return piece

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


class XetStore:
    """What Xet knows of the files that are served: by the hash that stands for a file, and by that of a block."""

    def __init__(self) -> None:
        self._files: dict[str, Path] = {}
        self._blocks: dict[str, Block] = {}

    def name(self, path: Path, sha256: str) -> str:
        """Return the hash that stands for a file."""
        name = hashlib.sha256(f"xet {sha256}".encode()).hexdigest()
        self._files[name] = path
        return name

    def find_block(self, name: str) -> Block | None:
        """Return a block that ``rebuild`` named."""
        return self._blocks.get(name)

    def rebuild(self, name: str, endpoint: str, asked: str | None) -> dict[str, Any] | None:
        """Return how a file, or the range of it that is ``asked`` for, is rebuilt; ``None`` where that is nothing.

        Raises:
            KeyError: nothing is known of such a file.
        """
        path = self._files[name]
        size = path.stat().st_size
        low, high = 0, size - 1
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", asked or ""):
            low, high = int(found[1]), min(int(found[2] or high), high)
        if low > high:
            return None
        chunks, terms, info = -(-size // CHUNK), [], {}
        for number in range(low // CHUNK // PER_BLOCK, high // CHUNK // PER_BLOCK + 1):
            block = Block(path, number * PER_BLOCK, min(chunks, (number + 1) * PER_BLOCK))
            first, end = max(block.first, low // CHUNK), min(block.end, high // CHUNK + 1)
            own = hashlib.sha256(f"{name} {number}".encode()).hexdigest()
            self._blocks[own] = block
            length = min(size, end * CHUNK) - first * CHUNK
            within = {"start": first - block.first, "end": end - block.first}
            begin = within["start"] * (CHUNK + _HEADER)
            span = {"start": begin, "end": begin + length + _HEADER * (end - first) - 1}
            terms.append({"hash": own, "unpacked_length": length, "range": within})
            info[own] = [{"range": within, "url": f"{endpoint}/xorb/{own}", "url_range": span}]
        return {"offset_into_first_range": low % CHUNK, "terms": terms, "fetch_info": info}


class XetRoutes:
    """Answers what a client of Xet asks for; mixed into the handler of the Hub."""

    if TYPE_CHECKING:
        hub: Any
        headers: Any
        _json: Callable[..., None]
        _send: Callable[[int, bytes, dict[str, str]], None]
        _missing: Callable[..., None]
        _stream: Callable[[int, BinaryIO, int, dict[str, str]], None]

    def _xet_token(self) -> None:
        until = int(time.time()) + _LIFE
        told: Mapping[str, Any] = {"casUrl": self.hub.endpoint, "accessToken": "xet", "exp": until}
        self._json(
            told,
            {
                "X-Xet-Cas-Url": self.hub.endpoint,
                "X-Xet-Access-Token": "xet",
                "X-Xet-Token-Expiration": str(until),
            },
        )

    def _xet_headers(self, repository: str, commit: str, path: Path, sha256: str) -> dict[str, str]:
        """Return what tells a client, where it asks for a file, that it may come by Xet."""
        name, hub = self.hub.xet.name(path, sha256), self.hub.endpoint
        return {
            "X-Xet-Hash": name,
            "Link": f'<{hub}/api/models/{repository}/xet-read-token/{commit}>; rel="xet-auth", '
            f'<{hub}/v1/reconstructions/{name}>; rel="xet-reconstruction-info"',
        }

    def _xet(self, route: list[str]) -> None:
        if route[0] == "v1":
            try:
                found = self.hub.xet.rebuild(route[2], self.hub.endpoint, self.headers.get("Range"))
            except KeyError:
                self._missing("EntryNotFound")
                return
            if found is None:
                self._send(416, b"{}", {})
            else:
                self._json(found)
            return
        block = self.hub.xet.find_block(route[1]) if route[0] == "xorb" else None
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        if block is None or asked is None or int(asked[1]) % (CHUNK + _HEADER):
            self._missing("EntryNotFound")
            return
        low, high = int(asked[1]), int(asked[2])
        with FramedChunks(block, low) as source:
            self._stream(206, source, high + 1 - low, {"Content-Range": f"bytes {low}-{high}/*"})  # type: ignore[arg-type]
