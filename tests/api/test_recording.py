"""A loop that is somebody else's: measured whenever it says so, undisturbed, into a run that every command reads."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from inmemory import FEW, characters, neox
from transformers import PreTrainedTokenizerFast

import pythiageo
from pythiageo.cli.app import run as cli
from pythiageo.errors import MachineError, UserError
from pythiageo.observations import read_observations
from pythiageo.runs import follow as following


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    return characters(tmp_path_factory.mktemp("tokenizer"))


def recorder(tokenizer: Any, out: Path, **changed: Any) -> pythiageo.Recorder:
    asked: dict[str, Any] = {"name": "mine", "measures": "rankme", "readouts": "answer/centred", "settings": FEW,
                             "out": out}  # fmt: skip
    return pythiageo.recorder(tokenizer, "ADD", **{**asked, **changed})


def steps_of(model: Any, optimiser: torch.optim.Optimizer, count: int) -> list[float]:
    """Train for some steps, data and dropout drawn from torch's own state; return the losses."""
    losses = []
    for _ in range(count):
        ids = torch.randint(3, 41, (4, 8))
        loss = model(input_ids=ids, labels=ids).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


def begin() -> tuple[Any, torch.optim.Optimizer]:
    model = neox(dropout=0.1)
    return model, torch.optim.SGD(model.parameters(), 0.1)


def test_a_loop_is_recorded_and_undisturbed(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, capsys: pytest.CaptureFixture[str]
) -> None:
    model, optimiser = begin()
    alone = steps_of(model, optimiser, 4)
    model, optimiser = begin()
    losses, logged = [], {}
    with recorder(tokenizer, tmp_path / "run", seed=7) as r:
        for step in (0, 2, 4):
            losses += steps_of(model, optimiser, 2) if step else []
            logged[step] = r.measure(model, step, tokens=32 * step)
    assert losses == alone
    assert model.training
    run = pythiageo.open_run(tmp_path / "run")
    assert (run.manifest.status, run.manifest.kind, run.manifest.training) == ("complete", "follow", {"step": 4})
    assert run.config["seed"] == 7
    assert set(run.observations["status"]) == {"ok"}
    assert run.observations["tokens"].unique().sort().to_list() == [0, 64, 128]
    # the numbers of the model as it stands, by the path of everything else
    table = run.observations.filter(step=4)
    same = pythiageo.measure(
        model, tokenizer, "ADD", measures="rankme", readouts="answer/centred", settings=FEW, step=4
    )
    identity = ["run", "series", "size", "seed", "tokens"]
    assert table.drop(identity).equals(same.drop(identity))
    # and what a log gets of them: the last block, the mean over levels
    last = table.filter(measure="rankme", site="blocks.1.hook_resid_post")["value"].item()
    assert logged[4]["pythiageo/rankme/ADD"] == last
    of_levels = table.filter(measure="log_prob")["value"].to_list()
    assert logged[4]["pythiageo/log_prob/ADD"] == pytest.approx(sum(of_levels) / len(of_levels))
    assert not [name for name in logged[4] if "chance" in name]
    assert cli(["report", str(tmp_path / "run"), "--out", str(tmp_path / "r.html")]) == 0
    assert cli(["show", str(tmp_path / "run")]) == 0
    assert "rankme, by block, ADD" in capsys.readouterr().out


def test_a_loop_that_goes_on_goes_on_with_its_run(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    model, optimiser = begin()
    kept: dict[str, torch.Tensor] = {}

    def broken_off() -> None:
        with recorder(tokenizer, tmp_path / "run") as r:
            r.measure(model, 0)
            steps_of(model, optimiser, 1)
            kept.update({name: tensor.clone() for name, tensor in model.state_dict().items()})
            r.measure(model, 1)
            steps_of(model, optimiser, 1)
            r.measure(model, 2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert pythiageo.open_run(tmp_path / "run").manifest.status != "complete"
    first = read_observations(tmp_path / "run")
    with pytest.raises(UserError, match="holds a run already"), recorder(tokenizer, tmp_path / "run") as r:
        r.measure(model, 0)
    with pytest.raises(UserError, match="other weights were measured at step 1"):
        recorder(tokenizer, tmp_path / "run").measure(neox(seed=3), 1)
    model.load_state_dict(kept)
    with caplog.at_level(logging.WARNING, "pythiageo"), recorder(tokenizer, tmp_path / "run") as r:
        assert r.measure(model, 1) == {}  # it was measured
        steps_of(model, optimiser, 2)
        r.measure(model, 3)
    assert "from step 1: 2 measured before are measured again" in caplog.text
    table = read_observations(tmp_path / "run")
    assert sorted(set(table["step"])) == [0, 1, 3]
    assert table.filter(pl.col("step") < 2).equals(first.filter(pl.col("step") < 2))


def test_mistakes_are_said_and_later_failures_stop_nothing(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    with pytest.raises(UserError, match="did you mean 'rankme'"):
        recorder(tokenizer, tmp_path / "run", measures="rankmee")
    with pytest.raises(UserError, match="which steps are measured is not known before"):
        recorder(tokenizer, tmp_path / "run", measures=["gradient_rank"])
    with pytest.raises(UserError, match="expected a causal language model"):
        recorder(tokenizer, tmp_path / "run").measure(torch.nn.Linear(2, 2), 0)
    write = following.write_snapshot

    def failing(model: Any, tokenizer: Any, folder: Path) -> None:
        if folder.name == "step2":
            raise MachineError("the disk is full")
        write(model, tokenizer, folder)

    monkeypatch.setattr(following, "write_snapshot", failing)
    model = neox()
    settings = {**FEW, "measures.landscape.steps": "all", "measures.landscape.examples": 4}
    asked = {"measures": ["rankme", "gradient_rank"], "settings": settings}
    with caplog.at_level(logging.WARNING, "pythiageo"), recorder(tokenizer, tmp_path / "run", **asked) as r:
        assert "pythiageo/gradient_rank/ADD" in r.measure(model, 1)
        assert r.measure(model, 2) == {}
        assert r.measure(model, 3)
        with pytest.raises(UserError, match="step 3 comes after step 3, which is measured: steps rise"):
            r.measure(model, 3)
        with pytest.raises(UserError, match="expected a whole number from 0"):
            r.measure(model, 4.5)  # type: ignore[arg-type]
    assert "step 2 is not measured, training goes on: the disk is full" in caplog.text
    assert sorted(set(read_observations(tmp_path / "run")["step"])) == [1, 3]
    with caplog.at_level(logging.WARNING, "pythiageo"), recorder(tokenizer, tmp_path / "nothing"):
        pass
    assert "nothing was measured, so there is no run" in caplog.text
