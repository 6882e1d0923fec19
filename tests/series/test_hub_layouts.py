"""Series whose checkpoints are folders of one revision, or repositories of their own: read as branches are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from onhub import command, using
from tinyseries import write_series

import pythiageo
from pythiageo.errors import UserError
from pythiageo.observations import read_manifest, read_observations
from pythiageo.series import Naming, open_series
from pythiageo.series.audit.audit import audit_series
from pythiageo.series.hub import client
from pythiageo.series.hub.loopback import LoopbackHub
from pythiageo.series.hub.loopback_routes import Revision
from pythiageo.series.registry import load_entries
from pythiageo.series.sources.hub import HubSeries

WALK = """
name = "walk"
title = "Walks"
source = "here"
repositories = ['me/walk(-step_\\d+k)?']
layout = "repositories"
tokens_per_step = 10
[[stage]]
name = "training"
pattern = 'walk-step_(?P<step>\\d+k)'
"""
BRANCHED = """
name = "branched"
title = "Folders of a branch"
source = "here"
repositories = ['me/branched']
layout = "folders"
revision = "snapshots"
[[stage]]
name = "warm"
pattern = 'ckpts/warm-(?P<step>\\d+)'
[[stage]]
name = "cool"
pattern = 'ckpts/cool-(?P<step>\\d+)'
follows = "warm"
"""


def lay_out(root: Path, folders: dict[str, str]) -> Path:
    """Write files, each with a word in it, by the folder they lie in; a folder's word tells its weights apart."""
    for folder, word in folders.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / "config.json").write_text("{}")
        (root / folder / "model.safetensors").write_text(word)
    return root


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., HubSeries]]:
    """Open a series of one repository whose ``main`` has these folders; ``branches`` beside it have the first's."""
    with LoopbackHub({}) as hub, using(hub, tmp_path / "cache"):

        def serve(name: str, folders: list[str], branches: tuple[str, ...] = ("main",), **named: object) -> HubSeries:
            served = Revision(lay_out(tmp_path / name, {folder: folder for folder in folders}))
            hub.repositories[name] = dict.fromkeys(branches, served)
            series = open_series(name, Naming(**named))  # type: ignore[arg-type]
            assert isinstance(series, HubSeries)
            return series

        yield serve


def names(series: HubSeries) -> list[str]:
    series.steps()
    return [place.name for place in series.layout.places.values()]


# every row of the list of public names that has such a layout, and the ways in which people lay out folders


@pytest.mark.parametrize(
    ("repository", "ordered", "steps", "left_out"),
    [
        ("m-a-p/neo_7b_intermediate", ["pretrain_iter_0018627", "pretrain_iter_0373000"], [18627, 373000],
         ["anneal_iter_0001000"]),
        ("infly/OpenCoder-8B-Base", ["iter_0002384", "iter_0596000"], [2384, 596000], []),
        ("bigscience/bloom-560m-intermediate", ["global_step1000", "global_step10000"], [1000, 10000], []),
        ("somebody/trajectory", ["step-0020", "step-0040", "step-1000"], [20, 40, 1000], []),
        ("somebody/trained", ["checkpoint-500", "checkpoint-1000", "checkpoint-10000"], [500, 1000, 10000], []),
        ("somebody/below", ["checkpoints/step_500", "checkpoints/step_1000"], [500, 1000], []),
        ("somebody/converted", ["iter_0000500/hf", "iter_0001000/hf"], [500, 1000], []),
        ("somebody/staged", ["stage1/step10", "stage1/step20"], [10, 20], ["stage2/step10"]),
    ],
)  # fmt: skip
def test_folders_of_one_revision(
    repository: str, ordered: list[str], steps: list[int], left_out: list[str], serve: Callable[..., HubSeries]
) -> None:
    series = serve(repository, [*reversed(ordered), *left_out, "final", "images/config"])
    assert names(series) == ordered
    assert series.steps() == steps
    said = " ".join(series.remarks)
    assert all(name in said for name in [*left_out, "final"])
    assert "2 of " in said  # final and images/config, which hold files of a model
    assert [one.label for one in series.checkpoints(steps[:1])] == [f"{ordered[0]}@{commit(series)[:7]}"]
    listed = series.inventory(lambda *_: None)
    assert [(one.step, one.revision, [file.name for file in one.files]) for one in listed] == [
        (step, name, ["model.safetensors"]) for step, name in zip(steps, ordered, strict=True)
    ]


def commit(series: HubSeries) -> str:
    return str(series.inventory(lambda *_: None)[0].commit)


def test_all_folders_are_listed_with_one_request_that_is_kept(
    serve: Callable[..., HubSeries], monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [f"checkpoints/step_{step}" for step in range(1, 41)]
    series = serve("me/many", [*many, "main"])
    asked: list[str] = []
    before = client.HfApi.list_repo_tree
    monkeypatch.setattr(
        client.HfApi, "list_repo_tree", lambda self, *a, **k: asked.append("tree") or before(self, *a, **k)
    )
    listed = series.inventory(lambda *_: None)
    assert len(asked) == 1
    assert [one.step for one in listed] == [*range(1, 41), None]  # the folder main is what it is elsewhere
    assert open_series("me/many").inventory(lambda *_: None) == listed  # type: ignore[attr-defined]
    assert len(asked) == 1


def test_what_lies_at_the_top_is_main_and_other_revisions_are_named(serve: Callable[..., HubSeries]) -> None:
    series = serve("me/top", ["step10", "step20", "."], ("main", "v1.0"))
    assert series.steps() == [10, 20]
    assert [one.step for one in series.inventory(lambda *_: None)] == [10, 20, None]
    assert series.remarks == (
        "of its revisions, 1 of 2 revisions is left out, not named by a step that is read: v1.0 (--step-pattern)",
    )


def test_one_folder_is_no_series_unless_somebody_says_so(serve: Callable[..., HubSeries], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="me/one: none of its 1 revisions is named by step"):
        serve("me/one", ["step10"]).steps()
    assert serve("me/two", ["run/at10", "run/at20"], pattern=r"at(?P<step>\d+)").steps() == [10, 20]
    (tmp_path / "branched.toml").write_text(BRANCHED)
    series = serve("me/branched", ["ckpts/warm-5", "ckpts/cool-5", "odd"], ("main", "snapshots"), folder=tmp_path)
    assert names(series) == ["ckpts/warm-5", "ckpts/cool-5"]
    assert series.steps() == [5, 10]
    assert any("odd" in one for one in series.remarks)


def test_branches_named_by_step_come_before_folders(serve: Callable[..., HubSeries]) -> None:
    assert names(serve("me/both", ["step1", "step2", "."], ("main", "step100", "step200"))) == ["step100", "step200"]


def test_a_folder_without_weights_is_incomplete_and_not_forgotten(
    serve: Callable[..., HubSeries], tmp_path: Path
) -> None:
    lost = tmp_path / "me" / "lost" / "step2"
    lost.mkdir(parents=True)
    (lost / "README.md").write_text("soon")
    found = audit_series(serve("me/lost", ["step1", "step3"]), (), lambda *_: None)
    assert [(one.step, one.verdict, one.reason) for one in found.steps] == [
        (1, "ok", "its own weights"),
        (2, "incomplete", "no weight files"),
        (3, "ok", "its own weights"),
    ]


@pytest.fixture
def walks(tmp_path: Path) -> Iterator[LoopbackHub]:
    there = {
        name: {"main": lay_out(tmp_path / name, {".": name})}
        for name in (
            "me/walk",
            "me/walk-step_0k",
            "me/walk-step_20k",
            "me/walk-step_100k",
            "me/other",
            "you/walk-step_5k",
        )
    }
    with LoopbackHub(there) as hub, using(hub, tmp_path / "cache"):
        yield hub


def test_one_repository_a_step(walks: LoopbackHub, tmp_path: Path) -> None:
    ordered, steps = ["walk-step_0k", "walk-step_20k", "walk-step_100k"], [0, 20_000, 100_000]
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "walk.toml").write_text(WALK)
    for target, named, name, unread in (
        ("me/walk-step_*", {}, "me/walk-step_*", None),
        ("me/*", {"pattern": r"walk-step_(?P<step>\d+k)"}, "me/*", "2 of 5 repositories are left out"),
        ("me/walk-step_0k,me/walk-step_20k, me/walk-step_100k", {}, "me/walk-step_*", None),
        ("ME/Walk", {"folder": tmp_path / "series"}, "ME/Walk", None),
    ):
        series = open_series(target, Naming(**named))  # type: ignore[arg-type]
        assert isinstance(series, HubSeries)
        assert names(series) == ordered
        assert (series.steps(), series.name) == (steps, name)
        assert [one.tokens for one in series.checkpoints(steps)] == [step * 10 if named.get("folder") else None
                                                                     for step in steps]  # fmt: skip
        assert "each checkpoint is the main of a repository of its own" in series.remarks[0]
        assert unread is None or any(unread in one and "other" in one for one in series.remarks)
        listed = series.inventory(lambda *_: None)
        main = [None] if named.get("folder") else []
        assert [one.step for one in listed] == [*steps, *main]
        assert [one.revision for one in listed][:3] == ordered
        assert len({one.commit for one in listed}) == len(listed)


def test_several_owners_are_told_apart(walks: LoopbackHub) -> None:
    series = open_series("me/walk-step_0k,you/walk-step_5k", Naming(stages=("me/walk",)))
    assert series.steps() == [0]
    assert any("you/walk-step_5k" in one for one in series.remarks)


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("me/run-*", r"me/run-\*: me has no repository of such a name on the Hub, or private ones"),
        ("me/o*", r"me/o\*: none of its 1 repositories is named by step.*\(other\): --step-pattern says"),
        ("me/walk-step_0k,me/none", "me/none: no such repository on the Hub"),
        ("google/multiberts-seed_0-step_20k", "MultiBERTs see later tokens: they are no causal language models"),
        ("me/a/b*", "no such folder here, and not a Hub repository's name"),
    ],
)
def test_what_is_not_there_is_one_sentence(target: str, sentence: str, walks: LoopbackHub) -> None:
    with pytest.raises(UserError, match=sentence):
        open_series(target).steps()


def test_repositories_that_the_cache_holds_are_read_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for number, step in enumerate(("0k", "20k")):
        folder, commit = tmp_path / f"models--me--walk-step_{step}", str(number) * 40
        lay_out(folder / "snapshots" / commit, {".": step})
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(commit)
    for target in ("me/walk-step_*", "me/walk-step_0k,me/walk-step_20k"):
        series = open_series(target)
        assert isinstance(series, HubSeries)
        assert series.steps() == [0, 20_000]
        assert series.remarks[0].endswith("of me/walk-step_* only the 2 repositories that its cache names are known")
        assert [(one.step, one.commit) for one in series.inventory(lambda *_: None)] == [
            (0, "0" * 40), (20_000, "1" * 40)
        ]  # fmt: skip
    with pytest.raises(UserError, match="its cache has no repository of such a name"):
        open_series("me/run-*").steps()


def test_every_layout_of_a_known_series_is_read() -> None:
    assert {entry.layout for entry in load_entries().values()} >= {"branches", "commits", "folders", "repositories"}


# the whole way: audited, planned, fetched, measured, resumed, kept and read offline, iterated

FEW = ["--tasks", "COPY", "--set", "probes.score_examples=2", "--set", "probes.geometry_examples=3", "-q"]


def test_folders_and_repositories_go_the_way_of_branches(tmp_path: Path) -> None:
    steps = (0, 10, 20)
    local = write_series(tmp_path / "local", steps)
    shared = tmp_path / "one" / "checkpoints"
    shared.mkdir(parents=True)
    for step in steps:
        (local / f"step{step}").rename(shared / f"step_{step}")
    heavy = tmp_path / "one" / "optimizer.bin"
    heavy.write_bytes(b"0" * 10_000_000)
    largest = max(sum(file.stat().st_size for file in folder.iterdir()) for folder in shared.iterdir())
    served = {
        "me/folders": {"main": tmp_path / "one"},
        "me/branches": {f"step{step}": shared / f"step_{step}" for step in steps},
        **{f"me/walk-step{step}": {"main": shared / f"step_{step}"} for step in steps},
    }
    budget = ["--disk-budget", f"{largest + 1000}B"]
    outs = {name: ["--out", str(tmp_path / name)] for name in ("folders", "branches", "repositories", "kept")}
    with LoopbackHub(served) as hub:
        cache = tmp_path / "cache"
        found = [
            command(hub, cache, *words)
            for words in (
                ["analyze", "me/branches", *FEW, *outs["branches"]],
                ["analyze", "me/folders", *FEW, *budget, *outs["folders"]],
                ["analyze", "me/walk-*", *FEW, *budget, *outs["repositories"]],
                ["analyze", "me/folders", *FEW, *budget, "--resume", *outs["folders"]],
                ["audit", "me/folders", "--values", "--json", "-q"],
                ["audit", "me/walk-*", "--deep", "--steps", "10", "--json", "-q"],
                ["plan", "me/folders", "--json", *FEW],
                ["analyze", "me/folders", *FEW, "--keep", *outs["kept"]],
            )
        ]
        with using(hub, cache), pythiageo.checkpoints("me/folders", folder=tmp_path) as iterated:
            given = [(one.step, one.failure, one.fingerprint) for one in iterated]
        asked = [request.path for request in hub.requests]
    assert [code for code, _, _ in found] == [0, 0, 0, 0, 1, 0, 0, 0], found
    tables = {name: read_observations(tmp_path / name).drop("run", "series", "size") for name in outs}
    for name in ("folders", "repositories", "kept"):
        assert tables[name].equals(tables["branches"]), name
    assert not any("optimizer" in path for path in asked)
    assert set(read_observations(tmp_path / "repositories")["series"]) == {"me/walk-*"}
    assert [one.label for one in read_manifest(tmp_path / "folders").checkpoints][1].startswith("checkpoints/step_10@")
    values = json.loads(found[4][1])
    assert values["values"]["steps_read"] == 3  # of three trainings, as the audit says: exit code 1
    assert [one["status"] for one in json.loads(found[5][1])["contents"]] == ["one-format"]
    plan = json.loads(found[6][1])
    assert (plan["to_measure"], plan["largest_bytes"] <= largest) == (3, True)
    assert [(step, failure) for step, failure, _ in given] == [(step, None) for step in steps]
    assert [fingerprint for _, _, fingerprint in given] == tables["branches"]["weight_sha"].unique(
        maintain_order=True
    ).to_list()

    offline = command(hub, cache, "analyze", "me/folders", *FEW, "--out", str(tmp_path / "offline"), offline=True)
    assert offline.returncode == 0, offline
    assert read_observations(tmp_path / "offline").drop("run", "series", "size").equals(tables["branches"])
    assert "of me/folders only the 1 revisions that its cache names are known" in offline.stderr
