"""Public series as they are named: every name is read in its order, left out by name, or listed as unread."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythiageo.errors import UserError
from pythiageo.series.layout import arrange
from pythiageo.series.names import StepNames
from pythiageo.series.registry import find_entry, load_entries, read_entry

SERIES = tomllib.loads(Path(__file__).with_name("public_names.toml").read_text())["series"]


@pytest.mark.parametrize("series", SERIES, ids=lambda series: series["repository"] + "".join(series.get("stages", [])))
def test_public_series(series: dict[str, Any]) -> None:
    others = [*series.get("left_out", []), *series.get("unread", [])]
    repository = series["repository"]
    found = arrange(
        [*reversed(series["ordered"]), "main", *others],
        repository,
        find_entry(repository),
        stages=series.get("stages"),
        seed=series.get("seed"),
    )
    places = list(found.places.values())
    assert [place.name for place in places] == series["ordered"]
    assert list(found.unread) == series.get("unread", [])
    assert found.unit == series.get("unit", "steps")
    if "steps" in series:
        assert [place.step for place in places] == series["steps"]
    if "tokens" in series:
        assert [place.tokens for place in places] == series["tokens"]
    for name in series.get("left_out", []):
        assert any(name in sentence for sentence in found.left_out), name


def test_at_least_thirty_series() -> None:
    assert len({series["repository"] for series in SERIES}) >= 30


def test_what_counts_anew_is_not_joined_by_guess() -> None:
    names = ["stage1-step10", "stage1-step20", "stage2-step10", "main"]
    found = arrange(names, "x/y")
    assert list(found.places) == [10, 20]
    assert found.left_out == ("1 of stage2 is left out (stage2-step10): --stage stage2 reads them",)
    assert list(arrange(names, "x/y", stages=["stage2"]).places) == [10]
    with pytest.raises(UserError, match=r"stage1, stage2 each count steps of their own.*--stage.*--series-folder"):
        arrange(names, "x/y", stages=["stage1", "stage2"])
    with pytest.raises(UserError, match=r"no stage 'stag1' \(did you mean 'stage1'\?\)"):
        arrange(names, "x/y", stages=["stag1"])
    with pytest.raises(UserError, match=r"a, b are parts that each count steps of their own.*choose one with --stage"):
        arrange(["a-step1", "b-step1"], "x/y")


def test_several_models_in_one_repository_are_never_mixed() -> None:
    names = ["step1-seed-a", "step1-seed-b", "step2-seed-a"]
    with pytest.raises(UserError, match=r"holds 2 models \(a, b\): choose one with --seed"):
        arrange(names, "x/y")
    assert list(arrange(names, "x/y", seed="a").places) == [1, 2]
    with pytest.raises(UserError, match=r"no 'c'; there are a, b"):
        arrange(names, "x/y", seed="c")
    with pytest.raises(UserError, match="no name says a seed"):
        arrange(["step1"], "x/y", seed="a")


def test_a_pattern_is_read_in_place_of_what_is_known() -> None:
    found = arrange(["step1000", "r7"], "EleutherAI/pythia-70m", find_entry("EleutherAI/pythia-70m"), r"r(?P<step>\d+)")
    assert [(place.step, place.tokens) for place in found.places.values()] == [(7, 7 * 2097152)]
    assert found.unread == ("step1000",)
    halved = find_entry("EleutherAI/pythia-160m-v0")
    [only] = arrange(["r8"], "EleutherAI/pythia-160m-v0", halved, r"r(?P<step>\d+)").places.values()
    assert (only.step, only.tokens) == (8, 8 * 2097152)  # names as they are


ENTRY = """
name = "mine"
title = "Mine"
source = "here"
repositories = ['me/mine-\\d+']
tokens_per_step = 10
[[stage]]
name = "pre"
pattern = 'pre(?P<step>\\d+)'
steps = 100
[[stage]]
name = "post"
pattern = 'post(?P<step>\\d+)'
follows = "pre"
tokens_per_step = 2
"""


def test_a_series_of_ones_own_is_one_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(ENTRY)
    entry = find_entry("Me/Mine-7", tmp_path)
    assert entry is not None
    found = arrange(["pre50", "post10", "odd"], "me/mine-7", entry)
    assert [(place.step, place.tokens) for place in found.places.values()] == [(50, 500), (110, 1020)]
    assert found.unread == ("odd",)
    assert found.remarks == ()


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("follows", "folows", "unknown key 'stage.1.folows'"),
        ('follows = "pre"', 'follows = "pro"', "stage 'post' follows 'pro', which is none of those before it"),
        (r"post(?P<step>\d+)", "post(", "not a regular expression"),
        (r"post(?P<step>\d+)", "post", r"expected a group \(\?P<step>"),
        ('name = "post"', 'name = "pre"', "two stages of one name"),
        ("steps = 100", "steps = 0", r"stage\.0\.steps"),
    ],
)
def test_a_wrong_file_is_one_sentence(old: str, new: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(ENTRY.replace(old, new, 1))
    with pytest.raises(UserError, match=sentence) as caught:
        read_entry(file)
    assert str(file) in str(caught.value)


def test_every_known_series_has_a_source_and_opens_its_own_names() -> None:
    for entry in load_entries().values():
        assert entry.source
        assert entry.title


@given(st.lists(st.text("step-_0123456789KMBTtokensag", max_size=24), max_size=8))
def test_no_name_is_lost(names: list[str]) -> None:
    """Whatever the names are, each is read, left out in a sentence, or unread; or the whole is refused."""
    try:
        found = arrange(names, "x/y")
    except UserError:
        return
    read = {place.name for place in found.places.values()}
    counted = len(read) + len(found.unread) + sum(int(sentence.split()[0]) for sentence in found.left_out)
    assert counted == len(set(names))
    assert list(found.places) == sorted(found.places)


@given(st.integers(0, 10**12), st.integers(0, 9999))
def test_steps_are_read_back(step: int, tokens: int) -> None:
    for name in (f"step{step}", f"checkpoint-{step}", f"global_step{step}", f"iter_{step:07}", f"stage1-step-{step}"):
        named = StepNames().parse(name)
        assert named is not None
        assert named.step == step
    named = StepNames().parse(f"step{step}-tokens{tokens}B")
    assert named is not None
    assert (named.step, named.tokens) == (step, tokens * 10**9)


def test_a_seed_is_chosen_over_all_stages(tmp_path: Path) -> None:
    seeded = ENTRY.replace("pre(?P<step>\\d+)", "pre(?P<step>\\d+)(?:-seed-(?P<seed>.+))?")
    (tmp_path / "mine.toml").write_text(seeded)
    entry = find_entry("me/mine-7", tmp_path)
    found = arrange(["pre50-seed-a", "pre50-seed-b", "post10"], "me/mine-7", entry, seed="b")
    assert [place.name for place in found.places.values()] == ["pre50-seed-b", "post10"]
    assert found.left_out == ("1 of other seeds or sizes is left out (pre50-seed-a): --seed chooses",)
