"""An audit by value of a served series: what is asked of the Hub, what is kept, and what is said where it fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from onhub import Done, command
from safetensors.torch import load_file, save_file
from sharded import shard

from pythiageo.series.hub.loopback import Fault, LoopbackHub, Request

REPO = "test/walk"
STEPS = (0, 1, 2, 4, 8, 16, 32, 64)


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A series that walks away from an initialisation; step 8 is cut into shards, step 16 a ``.bin``."""
    root = tmp_path_factory.mktemp("walked")
    draw = torch.Generator().manual_seed(0)
    shapes = {"model.embed_tokens.weight": (3000, 64), **{f"model.layers.{i}.up.weight": (900, 64) for i in range(3)}}
    weights = {name: 0.02 * torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    before = 0
    for step in STEPS:
        moved = 0.001 * (step - before) ** 0.5
        weights = {name: old + moved * torch.randn(old.shape, generator=draw) for name, old in weights.items()}
        before = step
        folder = root / f"step{step}"
        folder.mkdir()
        stored = {name: one.half() for name, one in weights.items()}
        if step == 16:
            torch.save(stored, folder / "pytorch_model.bin")
        else:
            save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    shard(root / "step8")
    return root


def audit(hub: LoopbackHub, folder: Path, *asked: list[str]) -> list[Done]:
    return [command(hub, folder / "cache", "audit", REPO, *words) for words in asked]


def revisions(folder: Path, **others: Path) -> dict[str, dict[str, Path]]:
    own = {f"step{step}": folder / f"step{step}" for step in STEPS}
    return {REPO: {**own, **others, "main": folder / "step64"}}


def weights_asked(hub: LoopbackHub) -> list[Request]:
    return [one for one in hub.requests if one.path.endswith((".safetensors", ".bin"))]


def test_few_bytes_are_read_and_no_commit_is_asked_twice(walked: Path, tmp_path: Path) -> None:
    out = tmp_path / "audit.json"
    with LoopbackHub(revisions(walked)) as hub:
        [(code, first, _)] = audit(hub, tmp_path, ["--values", "--json", "-q", "--out", str(out)])
        asked = weights_asked(hub)
        assert code == 0
        assert all(one.range for one in asked)
        hub.requests.clear()
        [(code, second, _)] = audit(hub, tmp_path, ["--values", "--json", "-q"])
        assert not weights_asked(hub)
        assert not [one for one in hub.requests if "/tree/" in one.path]
    found, again = json.loads(first), json.loads(second)
    values = found["values"]
    assert json.loads(out.read_text()) == found
    assert {"repo", "date", "pythiageo", "content"} <= found.keys()
    [unread] = values["findings"]
    assert (unread["step"], unread["kind"]) == (16, "not-read")
    assert "it has .bin weights alone" in unread["reason"]
    assert values["steps_read"] == 7
    assert 0 < values["read_bytes"] < 7 * (2 * 256 * 64 * 2 + 2 * 2**15)
    assert values["start"]["embedding"]["looks_initial"]
    assert again["values"]["read_bytes"] == 0
    assert again["values"]["weights"] == values["weights"]
    assert again["content"] == found["content"]


def test_a_step_of_another_seed_is_found_over_the_line_and_damage_is_told(walked: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    weights = load_file(walked / "step4" / "model.safetensors")
    save_file({name: one.flip(1).contiguous() for name, one in weights.items()}, other / "model.safetensors")

    def fault(request: Request) -> Fault | None:
        if request.range is None or "resolve" not in request.path:
            return None
        if hub.repositories[REPO]["step2"].commit in request.path:
            return Fault(404)
        if hub.repositories[REPO]["step32"].commit in request.path:
            return Fault(cut_after=10)
        return None

    with LoopbackHub(revisions(walked, step4=other), fault) as hub:
        [(code, text, _)] = audit(hub, tmp_path, ["--values", "--json", "-q"])
        kept = sorted((tmp_path / "pythiageo-cache" / "audits").iterdir())
        for file in kept:
            file.write_bytes(file.read_bytes()[:-1])
        hub.fault = lambda _: None
        [(_, again, _)] = audit(hub, tmp_path, ["--values", "--json", "-q"])
    found, healed = json.loads(text), json.loads(again)
    assert code == 1
    assert {one["step"]: one["verdict"] for one in found["steps"] if one["verdict"] != "ok"} == {4: "suspect"}
    kinds = {one["step"]: one["kind"] for one in found["values"]["findings"]}
    assert kinds == {2: "not-read", 4: "another-initialisation", 16: "not-read", 32: "not-read"}
    assert {one["step"]: one["kind"] for one in healed["values"]["findings"]} == {
        4: "another-initialisation", 16: "not-read"
    }  # fmt: skip
    assert sum("is damaged: it is not used" in note for note in healed["notes"]) == len(kept)
