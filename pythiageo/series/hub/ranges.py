"""Some bytes of a file on the Hub, asked for alone."""

from __future__ import annotations

from huggingface_hub import hf_hub_url
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from pythiageo.errors import CheckpointError
from pythiageo.series.files.slices import read_part
from pythiageo.series.hub.address import Address
from pythiageo.series.hub.cached import is_offline, kept_folder
from pythiageo.series.hub.failures import told
from pythiageo.series.hub.retry import HTTPError, again_if_busy

_TRIES = 3
"""How often bytes are asked for whose answer breaks off."""


def read_range(address: Address, name: str, start: int, count: int) -> bytes:
    """Return ``count`` bytes of a file at an address from position ``start`` on; offline, of the client's cache.

    Raises:
        CheckpointError: they cannot be had, or the Hub answers no ranges.
        MachineError: the Hub cannot be reached.
    """
    if is_offline():
        return _read_kept(address, name, start, count)
    url = hf_hub_url(address.repo, address.path(name), revision=address.at)
    with told(address.repo, address.name):
        for last in (*(False,) * (_TRIES - 1), True):
            try:
                return again_if_busy(lambda: _ask(url, name, start, count))
            except HTTPError:
                if last:
                    raise
    raise AssertionError


def _ask(url: str, name: str, start: int, count: int) -> bytes:
    wanted = {"Range": f"bytes={start}-{start + count - 1}", "Accept-Encoding": "identity"}
    with get_session().stream("GET", url, headers={**build_hf_headers(), **wanted}) as response:
        if response.status_code >= 400:
            response.read()
            hf_raise_for_status(response)
        if response.status_code != 206 or not _is_of(response.headers.get("Content-Range", ""), start, count):
            raise CheckpointError(f"{name}: the Hub answers no ranges of bytes, so it is not read")
        content = bytearray()
        for piece in response.iter_bytes():
            content += piece
            if len(content) > count:
                break
    if len(content) != count:
        raise CheckpointError(f"{name}: the Hub answers {len(content):,} bytes where {count:,} were asked for")
    return bytes(content)


def _is_of(content_range: str, start: int, count: int) -> bool:
    return content_range.startswith(f"bytes {start}-{start + count - 1}/")


def _read_kept(address: Address, name: str, start: int, count: int) -> bytes:
    folder = kept_folder(address)
    if folder is None:
        raise CheckpointError(f"{address.repo} {address.at}: it is not in the client's cache, and the Hub is not asked")
    return read_part(folder / name, start, count)
