"""How long the Hub is waited for: silence ends, what is worth asking again is asked again, and no wait is without end.

The client retries much by itself, but waits for ever where a listing gets no answer, and as long as a busy Hub asks.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any, TypeVar

from huggingface_hub import constants, set_client_factory
from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError
from huggingface_hub.utils import parse_ratelimit_headers
from huggingface_hub.utils._http import default_client_factory

from pythiageo.errors import UserError, quote_error

UNREACHED = (HfHubHTTPError, LocalEntryNotFoundError, HTTPError, OSError)
"""What the client raises where the Hub does not answer, or not with what was asked for."""


def seconds(variable: str, default: str) -> tuple[float, ...]:
    """Return the seconds, separated by commas, of an environment variable.

    Raises:
        UserError: it holds something else.
    """
    text = os.environ.get(variable, default)
    try:
        found = tuple(float(word) for word in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(0 <= wait < math.inf for wait in found):
        raise UserError(f"{variable}={text!r}: expected seconds such as {default}")
    return found


WAITS = seconds("PYTHIAGEO_HUB_WAITS", "1,3")
"""Seconds before asking once more, where the Hub does not say how long."""
(LONGEST, *_) = seconds("PYTHIAGEO_HUB_LONGEST_WAIT", "600")
"""Seconds that are waited at a time at most; a Hub that asks for more is told of, and not waited for."""
(STALL, *_) = seconds("PYTHIAGEO_HUB_STALL", "60")
"""Seconds after which a fetch of which nothing arrives is ended."""
_BUSY = (408, 429, 500, 502, 503, 504)

T = TypeVar("T")


def again_if_busy(ask: Callable[[], T]) -> T:
    """Return what ``ask`` returns, asking again after each of ``WAITS`` where the Hub answers that it cannot now.

    ``Retry-After`` is heeded. The client does so by itself for listings, not for references, for what a revision is,
    and, but for 429, for files; a connection that breaks or is silent is its own business.
    """
    for wait in WAITS:
        try:
            return ask()
        except UNREACHED as error:
            response = response_of(error)
            asked = None if response is None else _asked_wait(response)
            if response is None or response.status_code not in _BUSY or (asked or 0) > LONGEST:
                raise
        time.sleep(wait if asked is None else asked)
    return ask()


def response_of(error: BaseException | None) -> Any:
    """Return the Hub's answer that an error of the client is about, ``None`` if there was none."""
    if error is None:
        return None
    response = getattr(error, "response", None)
    return response if response is not None else response_of(error.__cause__)


def _ignore(_: Any) -> None:
    """Do nothing."""


@cache
def be_patient(tell_wait: Callable[[float], None] = _ignore, watch: Callable[[Any], None] = _ignore) -> None:
    """Make the client of this process end what gets no answer, and refuse to wait longer than ``LONGEST``.

    ``tell_wait`` is told the seconds that the Hub asks to wait where they are waited; ``watch`` sees every answer.
    """
    set_client_factory(partial(_client, tell_wait, watch))


def _client(tell_wait: Callable[[float], None] = _ignore, watch: Callable[[Any], None] = _ignore) -> Any:
    try:
        client = default_client_factory()
    except (ImportError, ValueError) as error:  # a proxy of a kind that it cannot use, or only with another package
        raise OSError(f"the proxy that the environment names cannot be used: {quote_error(error)}") from None
    client.event_hooks = {
        "request": [*client.event_hooks["request"], _end_silence],
        "response": [*client.event_hooks["response"], partial(_refuse_long_waits, tell_wait), watch],
    }
    return client


def _end_silence(request: Any) -> None:
    """Give a request that has no time-out the one of downloads (``HF_HUB_DOWNLOAD_TIMEOUT``, 10 s)."""
    limits = request.extensions.get("timeout") or {}
    kinds = ("connect", "read", "write", "pool")
    given = {kind: limits.get(kind) or float(constants.HF_HUB_DOWNLOAD_TIMEOUT) for kind in kinds}
    request.extensions = {**request.extensions, "timeout": given}


def _refuse_long_waits(tell_wait: Callable[[float], None], response: Any) -> None:
    asked = _asked_wait(response) if response.status_code in _BUSY else None
    if asked is not None and asked > LONGEST:
        raise HfHubHTTPError(
            f"the Hub answers {response.status_code} and asks to wait {asked:.0f} s, more than the {LONGEST:.0f} s "
            f"that are waited: try later with --resume",
            response=response,
        )
    if asked is not None:
        tell_wait(asked)


def _asked_wait(response: Any) -> float | None:
    """Return the seconds that an answer asks to wait, ``None`` where it asks for none."""
    limit = parse_ratelimit_headers(response.headers)
    if limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    after = str(response.headers.get("Retry-After") or "")
    return float(after) if after.isdecimal() else None
