"""The checkpoints of a series for code of one's own: all of them told, within the budget, nothing left behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from fakeharness import stand_in
from safetensors.torch import load_file, save_file
from tinyseries import write_series

import pythiageo
from pythiageo.errors import CheckpointError, UserError
from pythiageo.no_value import NoValueError
from pythiageo.observations import COLUMNS
from pythiageo.observations.schema import HARNESS
from pythiageo.series.files.load import open_folder
from pythiageo.series.hub.loopback import Fault, LoopbackHub, Request, serve_folder

ROOT = Path(__file__).parents[2]
STEPS = (0, 10, 20, 30)
WATCH = """
import json, os, sys, threading, time, pythiageo
held, stop = [0], threading.Event()
def watch():
    while not stop.is_set():
        sizes = 0
        for folder, _, names in os.walk(sys.argv[1]):
            for name in names:
                try:
                    sizes += os.lstat(os.path.join(folder, name)).st_size
                except OSError:
                    pass
        held[0] = max(held[0], sizes)
        time.sleep(0.003)
watcher = threading.Thread(target=watch)
watcher.start()
out = {}
try:
    {body}
finally:
    stop.set(); watcher.join()
    print(json.dumps({"held": held[0], **out, "left": os.listdir(sys.argv[1])}))
"""


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_series(tmp_path_factory.mktemp("series"), STEPS)


@pytest.fixture
def damaged(series: Path, tmp_path: Path) -> Path:
    """Step 10 holds the weights of step 0, step 20 cannot be read, step 30 holds NaN."""
    copy = Path(shutil.copytree(series, tmp_path / "copy"))
    (copy / "step20" / "config.json").write_text("{")
    file = copy / "step30" / "model.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values())).fill_(float("nan"))
    save_file(tensors, file, metadata={"format": "pt"})
    return copy


def run(hub: LoopbackHub, tmp_path: Path, body: str) -> dict[str, Any]:
    """Run a script against the Hub; weights come into ``tmp_path/weights``."""
    place = tmp_path / "weights"
    place.mkdir()
    code = WATCH.replace("{body}", textwrap.indent(body, "    ").strip())
    environment = {**os.environ, **hub.environment(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", code, str(place)], env=environment, capture_output=True, text=True,
                          timeout=180, check=False)  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines, done.stderr
    return {**json.loads(lines[-1]), "said": lines[:-1], "errors": done.stderr}


def test_each_is_what_its_folder_holds(series: Path) -> None:
    seen = []
    for checkpoint in pythiageo.checkpoints(series, steps="0,20"):
        opened = open_folder(series / f"step{checkpoint.step}", "t")
        assert checkpoint.failure is None
        assert checkpoint.fingerprint == opened.weight_sha
        assert checkpoint.tokenizer("ADD 1 2 = ").input_ids
        assert (checkpoint.tokens, checkpoint.commit, checkpoint.note) == (checkpoint.step, None, None)
        theirs = dict(opened.model.named_parameters())
        assert all(torch.equal(theirs[name], one) for name, one in checkpoint.model.named_parameters())
        assert checkpoint.model is checkpoint.model
        seen.append(checkpoint)
    assert [one.step for one in seen] == [0, 20]
    assert [one.label for one in seen] == ["step0", "step20"]
    fresh = pythiageo.checkpoints(series, steps="0")
    kept = next(iter(fresh))
    fresh.close()
    with pytest.raises(UserError, match="step0: is closed"):
        kept.model  # noqa: B018


def test_none_is_passed_over_in_silence(damaged: Path) -> None:
    with pythiageo.checkpoints(damaged) as found:
        assert len(found) == 4
        told = {one.step: one.failure and one.failure.status for one in found}
    assert told == {0: None, 10: None, 20: "unreadable", 30: "nonfinite"}
    reached = []

    def loop() -> None:
        for one in pythiageo.checkpoints(damaged):
            reached.append(float(next(one.model.parameters()).sum()))

    with pytest.raises(CheckpointError, match=r"step20: config\.json cannot be read"):
        loop()
    assert len(reached) == 2


def test_what_the_audit_leaves_out_is_told_and_not_opened(series: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(series, tmp_path / "copy"))
    shutil.copy(copy / "step0" / "model.safetensors", copy / "step10" / "model.safetensors")
    (copy / "step20" / "model.safetensors").unlink()
    audited = pythiageo.checkpoints(copy).map(lambda one: one.step)
    statuses = [result.failure and result.failure.status for result in audited]
    assert statuses[2] == "incomplete"
    assert [result.value for result in audited if result.failure is None] == [
        result.step for result in audited if result.failure is None
    ]
    assert all((result.value is None) == (result.failure is not None) for result in audited)
    plain = pythiageo.checkpoints(copy, audit=False).map(lambda one: one.step)
    assert [result.value for result in plain] == [0, 10, None, 30]


def test_map_gives_values_failures_and_errors(damaged: Path) -> None:
    def norm(checkpoint: pythiageo.SeriesCheckpoint) -> float:
        if checkpoint.step == 10:
            raise NoValueError("not here", "undefined")
        return float(checkpoint.model.get_input_embeddings().weight.norm())  # type: ignore[operator]

    results = pythiageo.checkpoints(damaged).map(norm)
    assert [result.failure and result.failure.status for result in results] == [
        None, "undefined", "unreadable", "nonfinite"
    ]  # fmt: skip
    assert results[0].value == pytest.approx(
        float(load_file(damaged / "step0" / "model.safetensors")["gpt_neox.embed_in.weight"].norm())
    )
    assert len(results[0].fingerprint or "") == 64
    with pytest.raises(ZeroDivisionError):
        pythiageo.checkpoints(damaged).map(lambda _: 1 / 0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"target": "/nowhere"}, "no such folder of checkpoints"),
        ({"steps": "7"}, "step 7 is not there"),
        ({"disk_budget": "much"}, "checkpoints: fetch.disk_budget"),
        ({"keep": True, "disk_budget": "1GB"}, "keep leaves every checkpoint on the disk"),
    ],
)
def test_a_mistake_is_said_at_once(series: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        pythiageo.checkpoints(**{"target": series, **given})


def test_an_encoder_is_refused_before_the_loop(tmp_path: Path) -> None:
    (tmp_path / "step1").mkdir()
    (tmp_path / "step1" / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "step1" / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="this BertLMHeadModel sees later tokens"):
        pythiageo.checkpoints(tmp_path)


def test_the_harness_scores_become_observations(series: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    stand_in(monkeypatch, asked)
    with pythiageo.checkpoints(series, steps="10") as found:
        checkpoint = next(iter(found))
        table, model, sha = (
            checkpoint.harness(["sciq"], limit=8, batch_size=4),
            checkpoint.model,
            checkpoint.fingerprint,
        )
    assert table.schema == COLUMNS
    assert asked[0]["model"]["pretrained"] is model
    assert (asked[0]["model"]["batch_size"], asked[0]["limit"], asked[0]["tasks"]) == (4, 8, ["sciq"])
    shown = table.sort("measure").select("step", "task", "level", "measure", "value", "stderr", "n", "status").rows()
    assert shown == [
        (10, "sciq", "0-shot", "accuracy", 0.5, 0.1, 8, "ok"),
        (10, "sciq", "0-shot", "accuracy_normalised", None, None, 8, "undefined"),
    ]
    assert set(table["weight_sha"]) == {sha}
    assert all(name.startswith(HARNESS) for name in table["probe_set"])


def test_a_harness_that_is_not_there_is_one_sentence(series: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pythiageo.checkpoints(series, steps="10") as found:
        checkpoint = next(iter(found))
        with pytest.raises(UserError, match="pip install lm_eval"):
            checkpoint.harness(["sciq"])
        with pytest.raises(UserError, match="got none"):
            checkpoint.harness([])


ENDINGS = """
def left():
    return os.listdir(sys.argv[1])
def opened():
    return pythiageo.checkpoints("test/a", steps="0,10,20", folder=sys.argv[1])
with pythiageo.checkpoints("test/a", disk_budget=BUDGET, folder=sys.argv[1]) as found:
    out["given"] = [[one.step, one.commit, one.fingerprint, one.failure is None] for one in found]
out["whole"], out["held"] = left(), held[0]
for one in opened():
    one.model
    out["during"] = len(left())
    break
out["break"] = left()
class Mine(Exception):
    pass
def interrupt():
    os.kill(os.getpid(), 2)
    time.sleep(5)
def fail():
    raise Mine
for name, how, kind in [("raise", fail, Mine), ("Ctrl-C", interrupt, KeyboardInterrupt)]:
    try:
        with opened() as found:
            for one in found:
                how()
    except kind:
        out[name] = left()
with pythiageo.checkpoints("test/broken", folder=sys.argv[1]) as found:
    out["broken"] = [[one.step, one.failure and one.failure.status] for one in found]
out["after broken"] = left()
try:
    pythiageo.checkpoints("test/adapter", folder=sys.argv[1])
except pythiageo.UserError as error:
    out["adapter"] = str(error)
held[0] = 0
exec(HOW_TO)
"""


def test_a_loop_over_the_hub_stays_within_its_budget_and_leaves_nothing(series: Path, tmp_path: Path) -> None:
    largest = max(sum(file.stat().st_size for file in (series / f"step{step}").iterdir()) for step in STEPS)
    text = (ROOT / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    (how_to,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    served = {repo: serve_folder(series, repo)[repo] for repo in ("test/a", "test/broken", "EleutherAI/pythia-160m")}

    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    served["test/adapter"] = {"step1": adapter, "main": adapter}

    def refuse(request: Request) -> Fault | None:
        broken = request.path.startswith(f"/test/broken/resolve/{commit}/model")
        return Fault(status=404) if broken else None

    with LoopbackHub(served, refuse, rate=20e6) as hub:
        revision = hub.find("test/broken", "step10")
        assert revision is not None
        commit = revision.commit
        body = ENDINGS.replace("BUDGET", repr(f"{2 * largest + 1}B")).replace("HOW_TO", repr(how_to))
        found = run(hub, tmp_path, body)
    assert [one[0] for one in found["given"]] == list(STEPS)
    assert [one[2] for one in found["given"]] == [open_folder(series / f"step{s}", "t").weight_sha for s in STEPS]
    assert all(len(one[1]) == 40 and one[3] for one in found["given"])
    # the budget is of the files; the client's own notes beside each are a few hundred bytes
    assert largest < found["held"] <= 2 * largest + 20_000
    assert found["during"] == 1
    for ending in ("whole", "break", "raise", "Ctrl-C", "after broken", "left"):
        assert found[ending] == [], ending
    assert found["broken"] == [[0, None], [10, "unreadable"], [20, None], [30, None]]
    assert "this is an adapter (PEFT) of a model that lies elsewhere: merge it" in found["adapter"]
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    assert [line.split()[0] for line in found["said"]] == [str(step) for step in STEPS]


def test_without_a_context_an_error_leaves_nothing_once_the_process_ends(series: Path, tmp_path: Path) -> None:
    body = f"""
for one in pythiageo.checkpoints({str(series)!r}, folder=sys.argv[1], tokenizer={str(series / "step0")!r}):
    out["during"] = len(os.listdir(sys.argv[1]))
    raise ValueError("mine")
"""
    with LoopbackHub({}) as hub:
        found = run(hub, tmp_path, body)
    assert "ValueError: mine" in found["errors"]
    assert found["during"] == 1
    assert list((tmp_path / "weights").iterdir()) == []
