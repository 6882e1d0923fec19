"""Audits: planted tables in the shapes reported of Pythia's repositories, and a served series through the client."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onhub import command
from safetensors.torch import load_file
from sharded import shard

from pythiageo.cli.app import run as cli
from pythiageo.errors import UserError
from pythiageo.observations import read_manifest, read_observations
from pythiageo.series.audit.audit import Audit, audit_series, judge
from pythiageo.series.audit.contents import compare_tensors
from pythiageo.series.audit.rules import SOUND, VERDICTS
from pythiageo.series.files.weight_files import Revision, WeightFile
from pythiageo.series.hub.loopback import Fault, LoopbackHub, Request
from pythiageo.series.sources.folder import FolderSeries
from pythiageo.series.sources.hub import HubSeries, _Known
from pythiageo.series.steps import PYTHIA_STEPS, parse_grid
from pythiageo.synthetic.model import Shape
from pythiageo.synthetic.trainable import ARCHITECTURES, write_checkpoint

SUFFIX = {"safetensors": "model", "bin": "pytorch_model"}


def sha(content: object) -> str:
    return hashlib.sha256(str(content).encode()).hexdigest()


def whole(step: int | None, content: object, kind: str = "bin", size: int = 1000) -> Revision:
    """A revision with one weight file."""
    file = WeightFile(f"{SUFFIX[kind]}.{kind}", sha((kind, content)), size)
    return Revision(step, "main" if step is None else f"step{step}", sha(step)[:40], (file,))


def sharded(step: int | None, contents: Iterable[object], kind: str = "bin") -> Revision:
    """A revision with shards and their index."""
    shards = list(contents)
    names = [f"{SUFFIX[kind]}-{i:05d}-of-{len(shards):05d}.{kind}" for i in range(1, len(shards) + 1)]
    files = tuple(WeightFile(name, sha((kind, content)), 1000) for name, content in zip(names, shards, strict=True))
    return Revision(step, "main" if step is None else f"step{step}", None, files, {kind: tuple(names)})


def merged(first: Revision, second: Revision) -> Revision:
    """A revision with the files of both."""
    indexes = {**first.indexes, **second.indexes}
    return Revision(first.step, first.revision, first.commit, first.files + second.files, indexes)


def verdicts(audit: Audit) -> dict[int, str]:
    return {step.step: step.verdict for step in audit.steps}


def by_verdict(audit: Audit) -> dict[str, set[int]]:
    return {v: {s for s, found in verdicts(audit).items() if found == v} for v in set(verdicts(audit).values())}


# pythia-2.8b, as reported: 76 steps and main serve one blob, ten serve another, 68 are unique

LIKE_MAIN = {
    *PYTHIA_STEPS[:11],
    *range(1000, 53_001, 1000),
    *(1000 * k for k in (55, 60, 65, 70, 80, 90, 100, 103, 110, 120, 130, 140)),
}
SECOND_BLOB = {54_000, *range(56_000, 60_000, 1000), *range(61_000, 65_000, 1000), 143_000}


def pythia_2_8b() -> list[Revision]:
    def content(step: int) -> object:
        return "first" if step in LIKE_MAIN else "second" if step in SECOND_BLOB else step

    return [sharded(step, [(content(step), i) for i in range(2)]) for step in PYTHIA_STEPS]


def test_pythia_2_8b_comes_out_as_reported() -> None:
    assert (len(LIKE_MAIN), len(SECOND_BLOB)) == (76, 10)
    main = sharded(None, [("first", i) for i in range(2)])
    audit = judge("EleutherAI/pythia-2.8b", pythia_2_8b(), main, PYTHIA_STEPS)
    assert by_verdict(audit) == {
        "suspect": LIKE_MAIN | SECOND_BLOB - {143_000},
        "ambiguous": {143_000},
        "ok": set(PYTHIA_STEPS) - LIKE_MAIN - SECOND_BLOB,
    }
    assert audit.counts == {"ok": 68, "ambiguous": 1, "suspect": 85}
    found = {step.step: step for step in audit.steps}
    assert set(found[0].shares_with) == LIKE_MAIN - {0}
    assert found[0].reason == "serves the weights of main, and so do 75 other steps"
    assert set(found[54_000].shares_with) == SECOND_BLOB - {54_000}
    assert found[54_000].reason == "serves the weights of the last step, 143000, and so do 8 other steps"
    assert set(found[143_000].shares_with) == SECOND_BLOB - {143_000}
    assert found[143_000].reason == (
        "main serves other weights, and both stand for the end of training; 9 earlier steps serve its weights too"
    )
    assert set(audit.main_equals) == LIKE_MAIN
    assert audit.formats == {"bin": {"steps": 154, "distinct": 70}}
    assert not audit.sound


def test_pythia_12b_has_the_finals_first_shard_at_two_steps() -> None:
    last = 143_000

    def shards(step: int) -> list[object]:
        return [(last if i == 0 and step in {50_000, 58_000} else step, i) for i in range(3)]

    revisions = [sharded(step, shards(step)) for step in PYTHIA_STEPS]
    audit = judge("EleutherAI/pythia-12b", revisions, sharded(None, shards(last)), PYTHIA_STEPS)
    assert by_verdict(audit)["mixed"] == {50_000, 58_000}
    assert audit.counts == {"ok": 152, "mixed": 2}
    found = {step.step: step for step in audit.steps}
    assert found[50_000].shares_with == (58_000, 143_000)
    assert found[50_000].reason == (
        "pytorch_model-00001-of-00003.bin is also served at steps 58000, 143000 and main; 2 of 3 files are its own"
    )
    assert found[last].reason == "the last step, the same as main"
    # without main nothing tells which of them the shard belongs to
    assert by_verdict(judge("a/b", revisions))["mixed"] == {50_000, 58_000, last}


def test_the_first_steps_may_be_the_same_and_only_they() -> None:
    def series(initial: set[int], *, like_main: bool = False) -> dict[int, str]:
        revisions = [whole(s, "end" if s == 64 else "a" if s in initial else s) for s in (0, 1, 2, 4, 8, 64)]
        return verdicts(judge("a/b", revisions, whole(None, "a" if like_main else "end")))

    assert series({0, 1}) == {0: "same-as-neighbour", 1: "same-as-neighbour", 2: "ok", 4: "ok", 8: "ok", 64: "ok"}
    assert [v for v in series({0, 1, 2}).values()] == ["same-as-neighbour"] * 3 + ["ok"] * 3
    # a break, a later neighbour, a step beyond, main: none of these is a warm-up
    assert {s for s, v in series({0, 2}).items() if v == "suspect"} == {0, 2}
    assert {s for s, v in series({1, 2}).items() if v == "suspect"} == {1, 2}
    assert {s for s, v in series({4, 8}).items() if v == "suspect"} == {4, 8}
    assert {s for s, v in series({0, 1, 2, 4}).items() if v == "suspect"} == {0, 1, 2, 4}
    assert series({0, 1}, like_main=True) == {0: "suspect", 1: "suspect", 2: "ok", 4: "ok", 8: "ok", 64: "ambiguous"}
    # a series that ends there has main among them
    assert judge("a/b", [whole(0, "a"), whole(1, "a")], whole(None, "a")).counts == {"same-as-neighbour": 2}
    found = judge("a/b", [whole(s, "a" if s < 3 else s) for s in (0, 1, 2, 64)]).steps[1]
    assert found.shares_with == (0, 2)
    assert found.reason == (
        "steps 0, 1, 2 hold the same weights, as they should where the first update has learning rate 0: "
        "one observation"
    )


def test_main_is_the_last_step_or_is_disputed() -> None:
    steps = [whole(step, step) for step in (0, 500, 1000)]
    agreed = judge("a/b", steps, whole(None, 1000))
    assert (agreed.sound, agreed.main_equals) == (True, (1000,))
    assert verdicts(judge("a/b", steps, whole(None, 500))) == {0: "ok", 500: "suspect", 1000: "ambiguous"}
    # main may be another model altogether where nothing says that it is the last step
    other = judge("a/b", steps, whole(None, "fine-tuned"))
    assert other.sound
    assert other.notes() == ["main serves weights that no step serves whole"]
    assert verdicts(judge("a/b", steps, whole(None, "fine-tuned"), [0, 500, 1000]))[1000] == "ambiguous"
    # other files, or another number of them, cannot be compared
    assert judge("a/b", steps, sharded(None, ["x", "y"]), [0, 500, 1000]).sound
    # the last of the steps that should be there is the last
    lacking = judge("a/b", steps, whole(None, 1000), [0, 500, 1000, 1500])
    assert verdicts(lacking) == {0: "ok", 500: "ok", 1000: "suspect", 1500: "missing"}


def test_missing_and_empty_revisions() -> None:
    index = {"bin": ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")}
    one = (WeightFile("pytorch_model-00001-of-00002.bin", sha(1), 10),)
    three = (WeightFile("model-00001-of-00003.safetensors", sha(2), 10),)
    revisions = [
        Revision(0, "step0", "c0"),
        Revision(1000, "step1000", "c1", absent="the revision is listed, but the Hub has no files for it"),
        Revision(2000, "step2000", "c2", one, index),
        Revision(3000, "step3000", "c3", three),
        whole(4000, "", size=0),
        whole(5000, "", size=0),
        Revision(6000, "step6000", "c6", (), {"bin": ()}),
        merged(whole(7000, 7), Revision(7000, "step7000", "c7", three)),
        merged(whole(8000, 8, "safetensors"), Revision(8000, "step8000", "c8", one, index)),
        Revision(9000, "step9000", "c9", tuple(f._replace(sha256=sha(f.name)) for f in sharded(0, "ab").files)),
        whole(10_000, 10),
    ]
    audit = judge("a/b", revisions, None, [0, 500, 1000])
    told = {step.step: (step.verdict, step.reason) for step in audit.steps}
    assert told == {
        0: ("incomplete", "no weight files"),
        500: ("missing", "there is no revision of this step"),
        1000: ("missing", "the revision is listed, but the Hub has no files for it"),
        2000: ("incomplete", "pytorch_model-00002-of-00002.bin is missing"),
        3000: ("incomplete", "model-00002-of-00003.safetensors and 1 other are missing"),
        4000: ("incomplete", "pytorch_model.bin is empty (0 bytes)"),
        5000: ("incomplete", "pytorch_model.bin is empty (0 bytes)"),
        6000: ("incomplete", "pytorch_model.bin.index.json names no shard"),
        7000: ("incomplete", "model-00002-of-00003.safetensors and 1 other are missing"),
        8000: ("ok", "its own weights; pytorch_model-00002-of-00002.bin is missing"),
        9000: ("incomplete", "pytorch_model.bin.index.json is missing, without which shards cannot be put together"),
        10_000: ("ok", "its own weights"),
    }
    # what an incomplete revision serves is compared too: its shard is another step's
    borrowed = sharded(11_000, ["x", "y"])
    borrowed = Revision(11_000, "step11000", None, (one[0], borrowed.files[1]), borrowed.indexes)
    assert judge("a/b", [*revisions, borrowed, whole(12_000, 12)]).steps[-2].verdict == "mixed"


def test_both_formats_are_judged_by_how_they_recur() -> None:
    steps = (0, 1, 1000, 2000, 3000)

    def series(safetensors: Mapping[int, object]) -> Audit:
        def both(step: int | None, content: object, other: object) -> Revision:
            return merged(whole(step, content, "bin"), whole(step, other, "safetensors"))

        def first(step: int) -> object:
            return 0 if step < 2 else step

        rows = [both(step, first(step), safetensors.get(step, first(step))) for step in steps]
        return judge("a/b", rows, both(None, 3000, safetensors.get(3000, 3000)))

    alike = series({})
    assert alike.sound
    assert alike.formats_differ == ()
    assert alike.formats == {"safetensors": {"steps": 5, "distinct": 4}, "bin": {"steps": 5, "distinct": 4}}
    # every .safetensors was made from the final .bin
    audit = series(dict.fromkeys(steps, "final"))
    assert by_verdict(audit) == {"suspect": {0, 1, 1000, 2000}, "ok": {3000}}
    assert audit.formats_differ == steps
    assert audit.steps[2].reason == (
        "serves the weights of main and the last step, and so do 3 other steps; .safetensors and .bin recur "
        "differently here (.safetensors: suspect, .bin: ok)"
    )
    assert any("recur differently at steps 0, 1, 1000, 2000 and 1 more" in note for note in audit.notes())
    # only one revision is wrong
    audit = series({2000: 3000})
    assert by_verdict(audit)["suspect"] == {2000}
    assert audit.formats_differ == (2000, 3000)
    # main has the .safetensors of another step than its .bin
    rows = [merged(whole(step, step, "bin"), whole(step, step, "safetensors")) for step in (0, 1000, 2000)]
    audit = judge("a/b", rows, merged(whole(None, 2000, "bin"), whole(None, 1000, "safetensors")))
    assert verdicts(audit) == {0: "ok", 1000: "suspect", 2000: "ambiguous"}
    assert audit.formats_differ == (1000, 2000)


CONTENT = st.sampled_from(["a", "b", "c", "d"])
FILES = st.lists(CONTENT, min_size=0, max_size=3)
TABLE = st.dictionaries(st.sampled_from([0, 1, 2, 4, 8, 1000, 2000]), st.tuples(FILES, FILES), min_size=1)


def _table_revision(step: int | None, contents: tuple[list[str], list[str]]) -> Revision:
    parts = [
        whole(step, files[0], kind) if len(files) == 1 else sharded(step, files, kind)
        for kind, files in zip(("bin", "safetensors"), contents, strict=True)
        if files
    ]
    if not parts:
        return Revision(step, f"step{step}", None)
    return parts[0] if len(parts) == 1 else merged(*parts)


@given(TABLE, st.none() | st.tuples(FILES, FILES), st.integers(0, 999), st.sets(st.sampled_from([0, 512, 3000])))
def test_every_step_has_one_verdict_whatever_the_order(
    table: dict[int, tuple[list[str], list[str]]],
    of_main: tuple[list[str], list[str]] | None,
    seed: int,
    expected: set[int],
) -> None:
    rows = [_table_revision(step, contents) for step, contents in table.items()]
    main = None if of_main is None else _table_revision(None, of_main)
    audit = judge("a/b", rows, main, sorted(expected))
    assert [step.step for step in audit.steps] == sorted({*table, *expected})
    assert {step.verdict for step in audit.steps} <= set(VERDICTS)
    assert all(step.reason and step.step not in step.shares_with for step in audit.steps)
    shuffled = Random(seed).sample(rows, len(rows))
    assert judge("a/b", shuffled, main, sorted(expected)).as_json() == audit.as_json()
    # no two sound steps share a file, but neighbours at the start; the last is sound where the others are in doubt
    found = {step.step: step for step in audit.steps}
    for step in audit.steps:
        if step.verdict == "same-as-neighbour":
            assert {found[other].verdict for other in step.shares_with} == {"same-as-neighbour"}
            assert {step.step, *step.shares_with} <= {0, 1, 2}
        if step.verdict == "ok" and step.shares_with:
            assert step.step == audit.steps[-1].step
            assert not {found[other].verdict for other in step.shares_with} & set(SOUND)


@given(st.sets(st.integers(0, 10**6), min_size=1, max_size=40), st.integers(1, 3))
def test_weights_that_never_recur_are_all_ok(steps: set[int], shards: int) -> None:
    rows = [sharded(step, [(step, i) for i in range(shards)]) for step in steps]
    main = sharded(None, [(max(steps), i) for i in range(shards)])
    for audit in (judge("a/b", rows), judge("a/b", rows, main), judge("a/b", rows, main, sorted(steps))):
        assert set(verdicts(audit).values()) == {"ok"}
        assert all(not step.shares_with for step in audit.steps)


def test_a_table_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="an audit needs steps"):
        judge("a/b", [])
    with pytest.raises(ValueError, match="step 5 is there twice"):
        judge("a/b", [whole(5, 1), whole(5, 2)])


@pytest.mark.parametrize(
    ("text", "steps"),
    [("none", ()), ("pythia", PYTHIA_STEPS), ("0,1,2", (0, 1, 2)), ("5,0-4000:2000", (0, 5, 2000, 4000))],
)
def test_grids(text: str, steps: tuple[int, ...]) -> None:
    assert parse_grid(text) == steps


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pythias", "cannot read 'pythias'; expected pythia, none, or a list"),
        ("0-1000", "cannot read '0-1000'"),
        ("9-3:1", "the range '9-3:1' has 0 steps"),
        ("0-9999999:1", "has 10,000,000 steps"),
        ("0-9:0", "expected a number of at least 1"),
    ],
)
def test_wrong_grids_are_named(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_grid(text)


# folders, and a served series in the shape of pythia-2.8b

STEPS = (0, 1, 2, 4, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000)
FIRST, SECOND, MIXED = (0, 1, 2, 4, 1000, 3000), (2000, 4000, 8000), 6000
"""Which steps serve the weights of main, which those of another blob that claims the end, which one shard of main's."""


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A dozen tiny sharded checkpoints as revisions, served as pythia-2.8b is, and one with a shard of the final."""
    root = tmp_path_factory.mktemp("damaged")
    seeds = {step: 100 if step in FIRST else 200 if step in SECOND else step for step in STEPS}
    for step, seed in [*seeds.items(), (None, 100)]:
        name = "main" if step is None else f"step{step}"
        trainable = ARCHITECTURES["gpt_neox"](Shape(2, 32, 4, 64, 48, 41, True), seed=seed)
        # what is served under a wrong name has all its files from elsewhere, its step too
        write_checkpoint(root / name, trainable, step or 0, tokens=0)
        shard(root / name)
    shared = "model-00001-of-00002.safetensors"
    shutil.copy(root / "main" / shared, root / f"step{MIXED}" / shared)
    return {folder.name: folder for folder in root.iterdir()}


EXPECTED = {
    **dict.fromkeys(FIRST, "suspect"),
    **dict.fromkeys((2000, 4000), "suspect"),
    8000: "ambiguous",
    6000: "mixed",
    5000: "ok",
    7000: "ok",
}


def test_a_served_series_is_audited_without_fetching_weights(damaged: dict[str, Path], tmp_path: Path) -> None:
    gone = {**damaged, "step9000": tmp_path / "nothing"}
    (tmp_path / "nothing").mkdir()
    with LoopbackHub({"test/damaged": gone}) as hub:
        done = command(hub, tmp_path / "cache", "audit", "test/damaged", "--json", "--quiet")
        assert done.returncode == 1, done.stderr
        asked = [request.path for request in hub.requests]
        commits = {served.commit for served in hub.repositories["test/damaged"].values()}
    result = json.loads(done.stdout)
    assert result["repo"] == "test/damaged"
    last = {"step": 9000, "verdict": "incomplete", "shares_with": [], "files": [], "reason": "no weight files"}
    assert {k: v for k, v in result["steps"].pop().items() if k in last} == last
    found = {step["step"]: step for step in result["steps"]}
    for step in result["steps"]:
        assert list(step) == ["step", "revision", "commit", "verdict", "shares_with", "files", "reason"]
        assert step["revision"] == f"step{step['step']}"
        assert len(step["commit"]) == 40
        folder = damaged[step["revision"]]
        assert step["files"] == [
            {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size": path.stat().st_size}
            for path in sorted(folder.glob("*.safetensors"))
        ]
    # as the last step has no weights, 8000 is one of three that share, and none of them the end
    assert {k: v["verdict"] for k, v in found.items()} == {**EXPECTED, 8000: "suspect"}
    assert found[0]["shares_with"] == [1, 2, 4, 1000, 3000, 6000]
    assert result["main"]["shares_with"] == sorted(FIRST)
    # neither weights nor anything but listings and one index was fetched
    assert not [path for path in asked if path.endswith((".safetensors", ".bin"))]
    assert sum(path.endswith("index.json") for path in asked) <= 2
    # revisions of one commit are listed once
    assert sum("/tree/" in path for path in asked) == len(commits)


def test_the_table_folds_what_is_alike(damaged: dict[str, Path], tmp_path: Path) -> None:
    with LoopbackHub({"test/damaged": damaged}) as hub:
        done = command(hub, tmp_path / "cache", "audit", "test/damaged")
        assert done.returncode == 1, done.stderr
        folded = done.stdout
        lacking = command(hub, tmp_path / "cache", "audit", "test/damaged", "--expect", "0-9000:1000", "--quiet")
    rows = [line.split()[:5] for line in folded.splitlines()]
    assert ["0", "..", "1000", "5", "suspect"] in rows
    assert "2 ok, 1 ambiguous, 1 mixed, 8 suspect" in folded
    assert "main serves the weights of steps 0, 1, 2, 4 and 2 more" in folded
    assert "there is no revision of this step" in lacking.stdout
    assert "listing files" in done.stderr
    assert lacking.stderr == ""


def test_a_folder_is_audited_alike(damaged: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    root = damaged["main"].parent
    audit = audit_series(FolderSeries(root), (), lambda done, of: None)
    assert verdicts(audit) == EXPECTED
    assert cli(["audit", str(root), "--json", "--quiet"]) == 1
    assert {s["step"]: s["verdict"] for s in json.loads(capsys.readouterr().out)["steps"]} == EXPECTED
    assert cli(["audit", str(root / "step7000"), "--quiet"]) == 0
    assert cli(["audit", str(root / "nowhere"), "--quiet"]) == 2
    assert "no such folder of checkpoints" in capsys.readouterr().err


PROBES = ["--set", "probes.score_examples=6", "--set", "probes.geometry_examples=9", "--tasks", "MOD", "--quiet"]


def test_analyze_leaves_out_what_is_in_doubt(damaged: dict[str, Path], tmp_path: Path) -> None:
    steps = ["--steps", "0,1,5000,6000,7000,8000"]
    with LoopbackHub({"test/damaged": damaged}) as hub:
        lacked = hub.repositories["test/damaged"]["step7000"].commit

        def fault(request: Request) -> Fault | None:
            gone = f"tree/{lacked}" in request.path
            return Fault(404, {"X-Error-Code": "RevisionNotFound"}) if gone else None

        hub.fault = fault
        for out, arguments in (("audited", []), ("trusted", ["--trust-revisions"])):
            done = command(
                hub, tmp_path / "cache", "analyze", "test/damaged", *steps, *PROBES, *arguments,
                "--out", str(tmp_path / out),
            )  # fmt: skip
            assert done.returncode == 1, done.stderr
            if out == "audited":
                fetched = {r.path for r in hub.requests if r.path.endswith(".safetensors")}
                assert len(fetched) == 2  # the shards of step 5000
    table = read_observations(tmp_path / "audited")
    for step, status in ((0, "suspect"), (1, "suspect"), (6000, "mixed"), (7000, "missing"), (8000, "ambiguous")):
        [row] = table.filter(table["step"] == step).rows(named=True)
        assert (row["measure"], row["status"], row["value"]) == ("checkpoint", status, None)
        assert row["reason"].startswith("left out by the audit: ")
    assert set(table.filter(table["step"] == 5000)["status"]) == {"ok"}
    manifest = read_manifest(tmp_path / "audited")
    assert [c["status"] for c in manifest["checkpoints"]] == [
        "suspect",
        "suspect",
        "ok",
        "mixed",
        "missing",
        "ambiguous",
    ]
    audit = json.loads((tmp_path / "audited" / "audit.json").read_text())
    assert {s["step"]: s["verdict"] for s in audit["steps"]} == {**EXPECTED, 7000: "missing"}
    [row] = table.filter(table["step"] == 7000).rows(named=True)
    assert row["reason"] == "left out by the audit: the revision is listed, but the Hub has no files for it"
    trusted = read_observations(tmp_path / "trusted")
    assert set(trusted.filter(trusted["step"] != 7000)["status"]) == {"ok"}
    assert trusted.filter(trusted["step"] == 7000)["status"].to_list() == ["missing"]
    assert trusted["step"].unique().sort().to_list() == [0, 1, 5000, 6000, 7000, 8000]
    assert (tmp_path / "trusted" / "audit.json").is_file()


def test_a_hub_that_refuses_is_one_sentence(damaged: dict[str, Path], tmp_path: Path) -> None:
    def refuse(request: Request) -> Fault | None:
        return Fault(403) if "/tree/" in request.path else None

    with LoopbackHub({"test/damaged": damaged}, refuse) as hub:
        done = command(hub, tmp_path / "cache", "audit", "test/damaged", "--quiet")
    assert done.returncode == 2
    assert done.stderr.startswith("pythiageo: test/damaged: the Hub refuses access: set HF_TOKEN")


def test_all_of_pythia_is_its_own_grid(damaged: dict[str, Path], tmp_path: Path) -> None:
    kept = {"step0": damaged["step0"], "step7000": damaged["step7000"]}
    out = tmp_path / "a"
    with LoopbackHub({"EleutherAI/pythia-14m": kept}) as hub:
        done = command(hub, tmp_path / "cache", "analyze", "EleutherAI/pythia-14m", *PROBES, "--out", str(out))
    assert done.returncode == 1, done.stderr
    assert json.loads((out / "audit.json").read_text())["summary"] == {"ok": 2, "missing": 152}
    statuses = {row["step"]: row["status"] for row in read_manifest(out)["checkpoints"]}
    assert statuses == {step: "ok" if step in {0, 7000} else "missing" for step in PYTHIA_STEPS}
    table = read_observations(out)
    assert table.filter(table["status"] == "missing")["step"].to_list() == [
        s for s in PYTHIA_STEPS if s not in {0, 7000}
    ]


@pytest.mark.parametrize(
    ("repo", "known"),
    [("EleutherAI/pythia-2.8b-deduped", True), ("EleutherAI/pythia-160m-seed3", True),
     ("EleutherAI/pythia-160m-v0", False), ("EleutherAI/pythia-intervention-70m-deduped", False),
     ("me/pythia-2.8b", False)],
)  # fmt: skip
def test_which_grids_are_known(repo: str, known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for last, expected in ((512, PYTHIA_STEPS if known else ()), (500, ())):
        series = HubSeries(repo)
        names = {"main": None, "step0": None, f"step{last}": None}
        monkeypatch.setitem(vars(series), "_known", _Known(repo, names))
        assert series.expected == expected


def test_a_file_is_what_the_hub_promises_or_is_not_used(damaged: dict[str, Path], tmp_path: Path) -> None:
    name = "model-00002-of-00002.safetensors"
    fetched: list[str] = []

    def fault(request: Request) -> Fault | None:
        if request.method != "GET" or not request.path.endswith(name):
            return None
        fetched.append(request.path)
        return Fault(flip_bit=True)

    out, cache = tmp_path / "a", tmp_path / "cache"
    arguments = ["analyze", "test/damaged", *PROBES, "--out", str(out)]
    with LoopbackHub({"test/damaged": {"step7000": damaged["step7000"]}}, fault) as hub:
        done = command(hub, cache, *arguments)
        assert done.returncode == 1, done.stderr
        [row] = read_observations(out).rows(named=True)
        assert (row["measure"], row["status"]) == ("checkpoint", "corrupt")
        assert f"{name} is not the file that the Hub promises (sha256 " in row["reason"]
        assert "though it was fetched 2 times; it was removed" in row["reason"]
        assert len(fetched) == 2
        # neither under its name nor under the one it claims
        promised = hashlib.sha256((damaged["step7000"] / name).read_bytes()).hexdigest()
        assert not [*cache.rglob(name), *cache.rglob(promised)]
        # once the Hub serves what it promises, a new run has it
        hub.fault = lambda request: None
        again = command(hub, cache, *arguments, "--overwrite")
        assert again.returncode == 0, again.stderr
    assert set(read_observations(out)["status"]) == {"ok"}


# --deep


def test_contents_are_compared_bit_by_bit() -> None:
    tensors = {"a": torch.tensor([1.0, float("nan")]), "b": torch.zeros(2, 3), "c": torch.tensor(0.5)}
    same = compare_tensors(7, tensors, {**tensors, "buffer": torch.ones(1)})
    assert same[:2] == (7, "agree")
    assert same[3:] == (3, 0, 0, 1)
    changed = compare_tensors(7, tensors, {**tensors, "c": torch.tensor(0.75)})
    assert changed.reason == "1 of 3 tensors differ, c by 0.25 at most"
    halved = compare_tensors(7, tensors, {**tensors, "b": torch.zeros(2, 3).half()})
    assert halved.reason == "1 of 3 tensors differ, b in dtype (torch.float32, torch.float16)"
    turned = compare_tensors(7, tensors, {**tensors, "b": torch.zeros(3, 2)})
    assert turned.reason == "1 of 3 tensors differ, b in shape ((2, 3), (3, 2))"
    assert compare_tensors(7, tensors, {"z": torch.ones(1)}).reason == "they have no tensor name in common"


def test_deep_compares_what_two_files_hold(damaged: dict[str, Path], tmp_path: Path) -> None:
    kept = {}
    for step in (4000, 5000, 7000):
        kept[f"step{step}"] = folder = Path(
            shutil.copytree(damaged[f"step{step}"], tmp_path / "series" / f"step{step}")
        )
        tensors = {name: t for path in folder.glob("*.safetensors") for name, t in load_file(path).items()}
        if step == 5000:
            tensors["embed_out.weight"] = tensors["embed_out.weight"] + 0.5
        if step != 4000:
            torch.save(tensors, folder / "pytorch_model.bin")
    with LoopbackHub({"test/both": kept}) as hub:
        cache = tmp_path / "cache"
        done = command(hub, cache, "audit", "test/both", "--deep", "--steps", "all", "--json", "--quiet")
    assert done.returncode == 1, done.stderr
    contents = {one["step"]: one for one in json.loads(done.stdout)["contents"]}
    assert {step: one["status"] for step, one in contents.items()} == {
        4000: "one-format",
        5000: "differ",
        7000: "agree",
    }
    assert (contents[5000]["different"], contents[7000]["different"]) == (1, 0)
    assert "embed_out.weight by 0.5 at most" in contents[5000]["reason"]
    # nothing of the size of weights is left
    assert not [path for path in cache.rglob("*") if path.is_file() and path.stat().st_size > 10_000]
    assert cli(["audit", str(tmp_path / "series"), "--deep", "--steps", "7000", "--quiet"]) == 0
    assert cli(["audit", str(tmp_path / "series"), "--deep", "--quiet"]) == 2


def test_an_audit_of_some_steps_compares_all_and_tells_of_those(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step, seed in ((10, 0), (500, 0), (900, 1)):
        trainable = ARCHITECTURES["gpt_neox"](Shape(1, 16, 2, 32, 48, 41, True), seed=seed)
        write_checkpoint(tmp_path / f"step{step}", trainable, step, tokens=step)
    assert cli(["audit", str(tmp_path), "--steps", "900", "--quiet", "--json"]) == 0
    (only,) = json.loads(capsys.readouterr().out)["steps"]
    assert (only["step"], only["verdict"]) == (900, "ok")
    assert cli(["audit", str(tmp_path), "--steps", "10", "--quiet", "--json"]) == 1
    (only,) = json.loads(capsys.readouterr().out)["steps"]
    assert (only["step"], only["shares_with"]) == (10, [500])
