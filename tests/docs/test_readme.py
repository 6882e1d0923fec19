"""Every command of README.md and docs/commands.md is run; the command line answers at once; mistakes are sentences."""

from __future__ import annotations

import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from onhub import command as on_hub
from typer.main import get_command

from pythiageo.cli.app import app
from pythiageo.cli.app import run as cli
from pythiageo.series.hub.loopback import LoopbackHub, serve_folder

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
TABLE = (ROOT / "docs" / "every_command.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE + README, flags=re.DOTALL)
LINES = [line.split("  #")[0].strip() for block in BLOCKS for line in block.splitlines()]
COMMANDS = list(dict.fromkeys(line for line in LINES if line.startswith("pythiageo ")))
ELSEWHERE = {"make demo", "pip install torch", "pip install ."}
"""What .ci/run and .ci/wheel run."""
SMALL = [
    "--set", "model.layers=2", "--set", "model.d_model=32", "--set", "model.heads=4", "--set", "model.d_ff=64",
    "--set", "training.batch_size=4",
]  # fmt: skip
TENTH = ["--set", "training.stop=120", "--set", 'training.checkpoints="0,10,30,60,90,120"']
"""A tenth of the demo's steps, enough for a curve; the commands that name its steps 100 and 1200 get 10 and 120."""
SHORT = ["--set", "training.stop=20", "--set", 'training.checkpoints="0,10,20"']
"""For runs that no other command reads."""
FEW = ["--set", "probes.score_examples=6", "--set", "probes.geometry_examples=9", "--quiet"]


def test_the_pages_have_no_command_that_nobody_runs() -> None:
    others = {line for line in LINES if line and not line.startswith(("#", "pythiageo "))}
    assert others == ELSEWHERE
    assert len(COMMANDS) >= 38


def test_the_readme_is_short_and_what_it_links_to_is_there() -> None:
    assert len(README.splitlines()) <= 120
    links = re.findall(r"\]\(([^):#]+)[^)]*\)", README)
    assert len(links) > 30
    assert [link for link in links if not (ROOT / link).exists()] == []


def smaller(command: str) -> list[str]:
    """The command's own arguments, with a model and probe sets that take seconds."""
    arguments = [re.sub(r"\b(10|120)0\b", r"\1", word) for word in shlex.split(command)[1:]]
    if arguments[0] == "train" and "--dry-run" not in arguments:
        arguments += [*SMALL, *FEW, *(SHORT if {"name=mine", "name=mix"} & {*arguments} else TENTH)]
    if arguments[0] in {"analyze", "plan"}:
        arguments += FEW
    if "li-2025" in arguments:  # its texts are on the Hub, and the stand-in reads no text
        arguments += ["--tasks", "ADD"]
    if arguments[0] == "llc":
        arguments += ["--examples", "10", "--draws", "20"]
    return arguments


@pytest.mark.slow
def test_every_command_works_in_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "reference").symlink_to(ROOT / "outputs" / "reference")
    (tmp_path / "mine.txt").write_text("\n\n".join(f"Paragraph number {i}, in plain words." for i in range(3000)))
    (tmp_path / "harness-results").mkdir()
    results = {"results": {"sciq": {"acc,none": 0.5}}, "config": {"model_args": "pretrained=a/b,revision=step1000"}}
    (tmp_path / "harness-results" / "results.json").write_text(json.dumps(results))
    series = tmp_path / "series"
    steps = ["--set", 'training.checkpoints="0,2,3,4,5"', "--set", "training.stop=5"]
    assert cli(["train", "demo/pythia.toml", *SMALL, *FEW, *steps, "--out", str(series)]) == 0
    # five checkpoints stand for Pythia's 154 under Pythia's names
    for last, step in ((5, 143_000), (4, 72_000), (3, 1000), (2, 512)):
        (series / "checkpoints" / f"step{last}").rename(series / "checkpoints" / f"step{step}")
    with LoopbackHub(serve_folder(series, "EleutherAI/pythia-160m")) as hub:
        monkeypatch.chdir(tmp_path)
        done: list[str] = []
        # what is made first: the two trainings; then everything in the page's order
        ordered = sorted(COMMANDS, key=lambda command: "--jobs" not in command)
        for command in ordered:
            if "EleutherAI" in command:
                code, _, errors = on_hub(hub, tmp_path / "cache", *smaller(command))
            elif "--engine ray" in command:  # its settings stay with a process
                finished = subprocess.run(
                    [sys.executable, "-m", "pythiageo", *smaller(command)],
                    capture_output=True, text=True, timeout=240, check=False,
                )  # fmt: skip
                code, errors = finished.returncode, finished.stderr
            else:
                code, errors = cli(smaller(command)), capfd.readouterr().err
            # most of Pythia's grid is missing from the stand-in, and an audit's exit code says so; of a model of this
            # size no setting of the LLC need be sane
            expected = {"audit": {1}, "llc": {0, 1}}.get(smaller(command)[0], {0})
            assert code in expected, f"{command}\n{errors}"
            done.append(command)
    assert sorted(done) == sorted(COMMANDS)
    assert (tmp_path / "outputs" / "twins.html").stat().st_size > 1e6
    assert (tmp_path / "outputs" / "demo-tasks" / "tables" / "per_layer.tex").exists()
    assert (tmp_path / "outputs" / "EleutherAI--pythia-160m" / "observations.parquet").exists()


def test_help_answers_at_once() -> None:
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "pythiageo", "--help"], capture_output=True, text=True, timeout=60, check=True
        )
        seconds.append(time.perf_counter() - begun)
    assert "analyze" in done.stdout
    print(f"pythiageo --help: median {statistics.median(seconds):.2f} s")


def test_threads_sleep_while_they_wait() -> None:
    code = (
        "import os, sys; sys.argv = ['pythiageo', '--version']\nfrom pythiageo.__main__ import main\n"
        "try: main()\nexcept SystemExit: print(os.environ['OMP_WAIT_POLICY'])"
    )
    for given, found in (({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")):
        rest = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env={**rest, **given}
        )
        assert done.stdout.split()[-1] == found


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from pythiageo.cli.app import run; run(['--help']); run(['train', '--help']);"
        "print([m for m in ('torch', 'transformers', 'transformer_lens', 'polars', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip().endswith("[]")


def commands_of(app: Any) -> dict[str, list[str]]:
    """Every command by name, with the names of those below it."""
    return {name: sorted(getattr(command, "commands", {})) for name, command in get_command(app).commands.items()}


@pytest.mark.parametrize(("command", "below"), commands_of(app).items())
def test_every_command_is_in_the_table_and_explains_itself(command: str, below: list[str], capsys) -> None:
    rows = [row for row in TABLE.splitlines() if re.match(rf"\| `pythiageo {command}\b", row)]
    assert rows
    assert [name for name in below if not re.search(rf"\b{name}\b", " ".join(rows))] == []
    assert cli([command, "--help"]) == 0
    assert "Usage" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "No such command 'trian'"),
        (["train"], "nothing to train: name a config, or --protocol billa-v4"),
        (["export", "outputs/none"], "there is no run folder"),
        (["report", "outputs/none"], "outputs/none"),
        (["compare", "outputs/none"], "outputs/none"),
        (["runs", "show", "outputs/none"], "not a run folder"),
        (["runs", "list", "none"], "none: no such folder of runs"),
        (["tasks", "show", "MODD"], "did you mean 'MOD'?"),
        (["tasks", "check", "none.toml"], "none.toml: no such task file"),
        (["serve", "none"], "none: no such folder of checkpoints"),
        (["train", "demo/tasks.toml", "demo/tasks.toml"], "two configs are called 'demo-tasks'"),
        (["train", "demo/tasks.toml", "demo/english.toml", "--out", "x"], "--out takes one run"),
        (["train", "demo/tasks.toml", "--resume", "--overwrite"], "exclude each other"),
        (["train", "demo/pythia-hub.toml"], "kind is 'analyze', expected 'train'"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_python_m_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pythiageo", "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("pythiageo 0.")
