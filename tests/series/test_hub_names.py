"""A series is who the Hub says it is, what is kept of it is analysed offline, and what is not read is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from onhub import Done, command

from pythiageo.cli.app import run as cli
from pythiageo.errors import UserError
from pythiageo.observations import read_manifest, read_observations
from pythiageo.series.hub.cached import name_kept
from pythiageo.series.hub.loopback import Fault, LoopbackHub, Request
from pythiageo.series.tokenizers import read_tokenizer
from pythiageo.synthetic.model import Shape
from pythiageo.synthetic.trainable import ARCHITECTURES, write_checkpoint

FEW = ["--tasks", "COPY", "--set", "probes.score_examples=2", "--set", "probes.geometry_examples=3", "-q"]
V0, OLD, STAGED = "EleutherAI/pythia-1.4b-v0", "EleutherAI/pythia-1.3b", "test/staged"
NAMES = ("stage1-step1000-tokens3B", "stage1-step2000-tokens5B", "stage2-ingredient1-step10-tokens1B", "main")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("named")
    for step in (1000, 2000, 3000):
        trainable = ARCHITECTURES["gpt_neox"](Shape(2, 32, 2, 64, 48, 41, True), step)
        write_checkpoint(root / f"step{step}", trainable, step, tokens=0)
        (root / f"step{step}" / "training.json").unlink()
    return root


def renamed(request: Request) -> Fault | None:
    """Lead from former names, and from other letter cases, to the repository, as the Hub does."""
    for name in (OLD, V0.lower(), STAGED.upper()):
        if f"/{name}/" in request.path:
            proper = STAGED if name == STAGED.upper() else V0
            return Fault(307, {"Location": request.path.replace(name, proper)})
    return None


def commands(hub: LoopbackHub, cache: Path, *asked: list[str], offline: bool = False) -> list[Done]:
    given = [words if words[0] == "audit" else [*words, *FEW] for words in asked]
    return [command(hub, cache, *words, offline=offline) for words in given]


def table(out: Path) -> Any:
    return read_observations(out).drop("run").rows()


def test_names_lead_to_one_series_and_what_is_kept_is_analysed_offline(checkpoints: Path, tmp_path: Path) -> None:
    last = checkpoints / "step3000"
    repositories = {
        V0: {f"step{step}": checkpoints / f"step{step}" for step in (1000, 2000)},
        STAGED: dict(zip(NAMES, [checkpoints / "step1000", checkpoints / "step2000", last, last], strict=True)),
    }
    one = ["--steps", "500"]
    with LoopbackHub(repositories, renamed) as hub:
        found = commands(
            hub,
            tmp_path / "cache",
            *(["analyze", name, *one, "--no-audit", "--out", str(tmp_path / run)]
              for name, run in ((V0, "proper"), (V0.lower(), "lower"), (OLD, "old"))),
            ["audit", V0.lower(), "--json", "-q"],
            ["audit", STAGED, "--json", "-q"],
            ["plan", STAGED, "--json"],
            ["analyze", STAGED.upper(), "--keep", "--out", str(tmp_path / "kept")],
        )  # fmt: skip
    assert [code for code, _, _ in found] == [0] * 7
    assert table(tmp_path / "proper") == table(tmp_path / "lower") == table(tmp_path / "old")
    assert read_observations(tmp_path / "old").select("series", "step", "tokens").unique().rows() == [
        (V0, 500, 500 * 2 * 2048 * 1024)
    ]
    assert f"{OLD} is called {V0} now" in found[2][2]
    assert not found[1][2]
    assert [step["step"] for step in json.loads(found[3][1])["steps"]] == [500, 1000]
    stage = "stage2-ingredient1"
    sentence = f"of its revisions, 1 of {stage} is left out ({NAMES[2]}): --stage {stage} reads them"
    assert sentence in json.loads(found[4][1])["notes"]
    assert json.loads(found[5][1])["remarks"] == [sentence]
    assert sentence in found[6][2]
    assert read_manifest(tmp_path / "kept")["remarks"] == [sentence]

    offline = commands(
        hub,
        tmp_path / "cache",
        ["analyze", STAGED.upper(), "--keep", "--out", str(tmp_path / "offline")],
        ["analyze", STAGED, "--out", str(tmp_path / "lent")],
        ["plan", STAGED, "--json"],
        ["analyze", "test/other", "--out", str(tmp_path / "other")],
        offline=True,
    )
    assert [code for code, _, _ in offline] == [0, 0, 0, 3]
    assert table(tmp_path / "kept") == table(tmp_path / "offline") == table(tmp_path / "lent")
    assert f"of {STAGED} only the 2 revisions that its cache names are known" in offline[0][2]
    plan = json.loads(offline[2][1])
    assert (plan["to_measure"], plan["download_bytes"], plan["series"]) == (2, 0, STAGED)
    assert "its cache names no revision of it: analyze it once with --keep" in offline[3][2]
    checked = json.loads((tmp_path / "offline" / "audit.json").read_text())
    assert checked["summary"] == {"ok": 2}
    assert [file["sha256"] for step in checked["steps"] for file in step["files"]] == [
        file["sha256"]
        for step in json.loads((tmp_path / "kept" / "audit.json").read_text())["steps"]
        for file in step["files"]
    ]


def test_a_name_leads_out_of_no_cache(tmp_path: Path) -> None:
    commit = "a" * 40
    folder = tmp_path / "models--a--b" / "snapshots" / commit
    folder.mkdir(parents=True)
    for name in ("../../../out", "step1/../../x"):
        name_kept(folder, name, commit)
    name_kept(folder, "branch/step1", commit)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()] == [
        "models--a--b/refs/branch/step1"
    ]


def test_folders_that_are_not_read_are_named(checkpoints: Path, tmp_path: Path) -> None:
    series = tmp_path / "series"
    shutil.copytree(checkpoints, series)
    shutil.copytree(checkpoints / "step3000", series / "soup")
    (series / "logs").mkdir()
    assert cli(["analyze", str(series), "--steps", "1000", "--out", str(tmp_path / "run"), *FEW]) == 0
    sentence = "1 of 4 folders is left out, not named by a step that is read: soup (--step-pattern)"
    assert read_manifest(tmp_path / "run")["remarks"] == [sentence]


def test_a_named_tokenizer_reads_for_all(checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare, tokenizer = tmp_path / "bare", tmp_path / "tok"
    shutil.copytree(checkpoints, bare, ignore=shutil.ignore_patterns("token*"))
    shutil.copytree(checkpoints / "step1000", tokenizer, ignore=shutil.ignore_patterns("model*"))
    words = [str(bare), "--steps", "1000,2000", *FEW]
    assert cli(["analyze", *words, "--out", str(tmp_path / "none")]) == 2
    assert "--tokenizer" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    assert cli(["plan", *words, "--tokenizer", str(tokenizer)]) == 0
    given = [*words, "--out", str(tmp_path / "given"), "--tokenizer", str(tokenizer)]
    assert cli(["analyze", *given]) == 0
    whole = ["analyze", str(checkpoints), "--steps", "1000,2000", *FEW, "--out", str(tmp_path / "own")]
    assert cli(whole) == 0
    assert (
        read_observations(tmp_path / "given")
        .drop("run", "series", "size")
        .equals(read_observations(tmp_path / "own").drop("run", "series", "size"))
    )
    manifest = read_manifest(tmp_path / "given")
    assert manifest["tokenizer"] == {"name": "tok", "commit": None, "sha256": read_tokenizer(str(tokenizer)).sha}
    capsys.readouterr()
    (tokenizer / "tokenizer_config.json").write_text("{}")
    assert cli(["analyze", *given, "--resume"]) == 2
    assert "the tokenizer tok is another one than when this run began" in capsys.readouterr().err


def test_a_tokenizer_of_the_hub_is_fetched_by_its_name(checkpoints: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(checkpoints / "step1000", bare / "step1000", ignore=shutil.ignore_patterns("token*"))
    with LoopbackHub({"test/tok": {"main": checkpoints / "step1000"}}) as hub:
        found = commands(
            hub,
            tmp_path / "cache",
            ["analyze", str(bare), "--tokenizer", "test/tok", "--out", str(tmp_path / "run")],
            ["analyze", str(bare), "--tokenizer", "test/tok@v9", "--out", str(tmp_path / "nine")],
            ["analyze", str(bare), "--tokenizer", "test/none", "--out", str(tmp_path / "none")],
        )
        commit = hub.repositories["test/tok"]["main"].commit
        assert not [asked for asked in hub.requests if asked.path.endswith(".safetensors")]
    assert [code for code, _, _ in found] == [0, 2, 2]
    assert read_manifest(tmp_path / "run")["tokenizer"]["commit"] == commit
    assert "--tokenizer test/tok@v9: test/tok has no revision v9" in found[1][2]
    assert "no such repository on the Hub" in found[2][2]


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("./nowhere", "no such file or folder"),
        ("words", "not a Hub repository's name"),
        ("FOLDER", "expected a tokenizer"),
    ],
)
def test_what_is_no_tokenizer_is_one_sentence(target: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        read_tokenizer(str(tmp_path) if target == "FOLDER" else target)
