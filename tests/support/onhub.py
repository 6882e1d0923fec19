"""Commands against a Hub on this machine, in this process: its client looks up where the Hub is whenever it asks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from huggingface_hub import constants, hf_api

from pythiageo.cli.app import run
from pythiageo.series.hub import retry
from pythiageo.series.hub.loopback import LoopbackHub

WAITS = (0.05, 0.1)


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@contextmanager
def using(hub: LoopbackHub, cache: Path, offline: bool = False) -> Iterator[None]:
    """Send this process's client to ``hub``, with its cache in ``cache`` and nobody's token, as variables would."""
    variables = {k: v for k, v in os.environ.items() if k != "HF_TOKEN"} | hub.environment(cache)
    variables["PYTHIAGEO_HUB_WAITS"] = ",".join(map(str, WAITS))  # of the processes that fetch
    settings = {
        "ENDPOINT": hub.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HOME": str(cache),
        "HF_HUB_CACHE": str(cache / "hub"),
        "HF_TOKEN_PATH": str(cache / "token"),
        "HF_HUB_OFFLINE": offline,
        "HF_HUB_DISABLE_XET": hub.xet is None,
    }
    with (
        patch.dict(os.environ, variables, clear=True),
        patch.multiple(constants, **settings),
        patch.object(hf_api.api, "endpoint", hub.endpoint),
        patch.object(retry, "WAITS", WAITS),
    ):
        yield


def command(hub: LoopbackHub, cache: Path, *arguments: str, offline: bool = False) -> Done:
    """Do a command of pythiageo against ``hub``."""
    out, err = StringIO(), StringIO()
    with using(hub, cache, offline), redirect_stdout(out), redirect_stderr(err):
        code = run(list(arguments))
    return Done(code, out.getvalue(), err.getvalue())
