"""Ways to the Hub: below a path, through a proxy, with a token that it does not know, and listings without hashes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hubfetch import fetch, write_files

from pythiageo.series.audit.audit import judge
from pythiageo.series.files.weight_files import Revision, WeightFile
from pythiageo.series.hub.loopback import Fault, LoopbackHub, Request, serve_folder


class Below(LoopbackHub):
    """A Hub that lies below a path, as mirrors do."""

    prefix = "/mirror/hf"


def test_a_hub_below_a_path(tmp_path: Path) -> None:
    with Below(serve_folder(write_files(tmp_path / "series", 1), "test/a"), xet=True) as hub:
        assert hub.endpoint.endswith("/mirror/hf")
        told, _ = fetch(hub, tmp_path)
        by_xet = [request.path for request in hub.requests if request.path.startswith("/xorb/")]
    assert told["0"][0] == "ok"
    assert by_xet


@pytest.mark.parametrize("xet", [True, False])
def test_a_proxy_of_the_environment_is_used(xet: bool, tmp_path: Path) -> None:
    """The Hub answers requests for any host, so it is a proxy too; the name is nobody's."""
    with LoopbackHub(serve_folder(write_files(tmp_path / "series", 1), "test/a"), xet=xet) as hub:
        variables = {"HF_ENDPOINT": "http://hub.invalid", "NO_PROXY": "", "no_proxy": ""}
        told, _ = fetch(hub, tmp_path, **variables, HTTP_PROXY=hub.endpoint, http_proxy=hub.endpoint)
        files = [request for request in hub.requests if request.path.startswith("/xorb/") == xet]
    assert told["0"][0] == "ok"
    assert files


def test_a_token_that_is_wrong_is_said_to_be(tmp_path: Path) -> None:
    def fault(request: Request) -> Fault | None:
        return Fault(401) if request.token == "hf_wrong" and "/resolve/" in request.path else None

    with LoopbackHub(serve_folder(write_files(tmp_path / "series", 1), "test/a"), fault) as hub:
        told, _ = fetch(hub, tmp_path, HF_TOKEN="hf_wrong")
        asked = len([request for request in hub.requests if "/resolve/" in request.path])
    assert told["0"][0].startswith(
        "CheckpointError: test/a step0: the Hub does not know the token it is given (HF_TOKEN"
    )
    assert "hf_wrong" not in told["0"][0]
    assert asked <= 4


def test_files_without_a_hash_are_said_to_be_checked_by_size(tmp_path: Path) -> None:
    files = {step: WeightFile("model.safetensors", None if step else "0" * 64, 8, str(step)) for step in (0, 1, 2)}
    audit = judge("a/b", [Revision(step, f"step{step}", None, (file,)) for step, file in files.items()])
    assert [note for note in audit.notes() if "sha256" in note] == [
        "the listing has no sha256 of weights of steps 1, 2: what is fetched of them is checked by its size alone"
    ]
