"""``pythiageo configs``, and what commands of lists and pages offer besides."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path

import planted
import pytest

from pythiageo.cli.app import run as cli
from pythiageo.config.runs import load_config
from pythiageo.config.shipped import read_shipped, shipped_configs
from pythiageo.geometry.readout import READOUTS
from pythiageo.importers.mapping import load_mapping


def test_every_shipped_file_is_listed_for_the_command_that_takes_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["configs", "list", "--json"]) == 0
    found = {one["config"]: one["command"].split()[0] for one in json.loads(capsys.readouterr().out)}
    assert found["nano.toml"] == "train"
    assert found["pythia-160m.toml"] == "analyze"
    assert found["cluster/slurm.sh"] == "sbatch"
    for name, command in found.items():
        if command == "import":
            load_mapping(Path(name))
        elif command != "sbatch":
            load_config(Path(name), [], command)
    assert all(one.what and ":" not in one.what[-1] for one in shipped_configs())


def test_a_copy_is_the_file_and_takes_no_other_files_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli(["configs", "show", "demo/tasks"]) == 0
    assert capsys.readouterr().out.rstrip() == read_shipped("demo/tasks.toml")[1].rstrip()
    assert cli(["configs", "init", "demo/tasks.toml", "--out", "mine/run.toml"]) == 0
    assert "next: pythiageo train mine/run.toml" in capsys.readouterr().err
    assert (tmp_path / "mine" / "run.toml").read_text() == read_shipped("demo/tasks.toml")[1]
    assert load_config(Path("mine/run.toml"), [], "train").name == "demo-tasks"
    assert cli(["configs", "init", "demo/tasks.toml", "--out", "mine/run.toml"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert cli(["configs", "init", "nanoo"]) == 2
    assert "no config 'nanoo' (did you mean" in capsys.readouterr().err
    assert not (tmp_path / "nanoo").exists()


def test_readouts_are_listed_with_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["measures", "--readouts", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["readouts"]
    assert [one["name"] for one in found] == list(READOUTS)
    assert {one["unasked"] for one in found if "but-sinks" in one["name"]} == {"no"}
    assert cli(["measures", "--readouts"]) == 0
    assert "answer/centred" in capsys.readouterr().out


@pytest.mark.parametrize("there", [True, False])
def test_a_page_is_opened_where_there_is_a_browser(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or there)
    run = planted.write_run(tmp_path / "nano-7", planted.rows(run="nano-7"), name="nano-7")
    page = tmp_path / "a page.html"
    arguments = ["plot", str(run), "--measure", "rankme", "--layers", "last", "--out", str(tmp_path / "p.svg")]
    assert cli([*arguments, "--out", str(page), "--open"]) == 0
    assert opened == [page.as_uri()]  # of the files, the page
    assert ("no browser was found" in capsys.readouterr().err) == (not there)
