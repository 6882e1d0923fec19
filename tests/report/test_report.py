"""The report: one file, no network, nothing a stranger wrote is run, and the planted numbers are the ones shown."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import planted
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import Plant

from pythiageo.errors import UserError
from pythiageo.events.run import open_runs
from pythiageo.figures.axes import CATEGORIES
from pythiageo.geometry.measure import load_measures
from pythiageo.landscape.measures import LANDSCAPE_MEASURES
from pythiageo.measurement.linear_probe import ANSWER, ANSWER_MODEL, CONTROL, MAJORITY, MODEL, PROBE, SELECTIVITY
from pythiageo.observations.store import SCHEMA_KEY
from pythiageo.report import build_report
from pythiageo.report.columns import columns, pack_columns
from pythiageo.report.packing import pack, unpack
from pythiageo.report.report import measure_definitions

TEXT: dict[str, Any] = {"run": "text-42", "series": "text-42", "regime": "naturalistic"}
ATTACK = (
    "</script></style><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">{{ 7*7 }}"
)


class Page(HTMLParser):
    """What a browser would make of a report: its tags, texts, tables and scripts."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.inside, self.cell, self.tip = "", False, False
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "script":
            self.scripts.append("")
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
            self.cell = True
        self.tip = tag == "span" and dict(attrs).get("class") == "tip"

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts[-1] += data
        elif self.inside != "style":
            self.text += data
            if self.cell and not self.tip:
                self.rows[-1][-1] += data

    def handle_endtag(self, tag: str) -> None:
        self.inside, self.tip = "", False
        self.cell = self.cell and tag not in {"td", "th"}

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.scripts[0])

    def lines(self, measure: str, readout: str | None = "answer/centred") -> dict[tuple[Any, ...], list[float]]:
        """The values of a column by (run, task, level, layer, site)."""
        columns = self.data["columns"]
        index = next(i for i, each in enumerate(columns) if (each["measure"], each["readout"]) == (measure, readout))
        places = columns[index]["lines"]
        places = columns[places]["lines"] if isinstance(places, int) else places
        values, found = unpack(self.block(f"column-{index}")).tolist(), {}
        for place in places:
            count = len(self.data["runs"][place[0]]["steps"])
            found[tuple(place)], values = values[:count], values[count:]
        assert len(values) == (sum(map(len, found.values())) if columns[index]["errors"] else 0)
        return found

    def block(self, name: str) -> str:
        return next(
            text
            for (_, attributes), text in zip(self.script_tags, self.scripts, strict=True)
            if attributes.get("id") == name
        )

    @property
    def script_tags(self) -> list[tuple[str, dict[str, str | None]]]:
        return [each for each in self.tags if each[0] == "script"]


def two_runs(folder: Path) -> list[Path]:
    steps = [0, 100, 200, 300, 400, 500, 700, 900, 1000, 1200]
    ours = planted.rows({"MOD": Plant(), "SORT": Plant(700, 200, low=3.0)}, steps=steps)
    text = planted.rows({"MOD": Plant(None, low=4.0), "SORT": Plant(None)}, steps=steps, **TEXT)
    return [planted.write_run(folder / "ours", ours), planted.write_run(folder / "text", text)]


def test_the_planted_numbers_are_shown(tmp_path: Path) -> None:
    page = Page(build_report(two_runs(tmp_path), tmp_path / "out" / "report.html"))
    assert "6 of 6 tasks and levels are acquired under billa-v4, the first SORT L1 at step 700" in page.text
    assert "falls furthest for MOD: to 2 at step 300, 10% of its value at the first checkpoint" in page.text
    assert "None of 6 tasks and levels reaches acquisition under billa-v4" in page.text
    # task, level, v1, published, v4, published, pythiageo, log-prob, note
    assert ["MOD", "L2", "not-reached", "16,000", "900", "6,500", "900", "900"] in [row[:8] for row in page.rows]
    # task, floor in 0-200, floor in 10K, share, recovery, published, rankme, share
    assert ["MOD", "8.00 at 200 (at-edge)", "2.00 at 300", "10%", "500", "2.07", "5.00 at 300", "10%"] in [
        row[:8] for row in page.rows
    ]
    # published figures are of task-aligned models: beside nano-42, and not beside text-42 of the same size
    heads = [row for row in page.rows if row[:2] == ["Task", "Level"] and "log-prob midpoint" in row]
    assert [head.count("published") for head in heads] == [2, 0]
    assert not [cell for row in page.rows for cell in row if "σ: " in cell]
    assert [(run["label"], run["depth"]) for run in page.data["runs"]] == [("nano-42", 2), ("text-42", 2)]
    assert page.data["runs"][0]["steps"][:5] == [0, 100, 200, 300, 400]
    ranks = page.lines("covariance_effective_rank")
    last = (0, "MOD", "mixed", 1, "blocks.1.hook_resid_post")
    assert ranks[last][:5] == [20.0, 14.0, 8.0, 2.0, 8.0]
    assert {line[3:] for line in ranks if line[:2] == (0, "MOD")} == {
        (0, "blocks.0.hook_resid_post"), (1, "blocks.1.hook_resid_post"), (1, "ln_final.hook_out"),
    }  # fmt: skip
    assert page.lines("rankme")[last][3] == 5.0
    assert page.data["floors"]["rankme|answer/centred|0|MOD"] == 300
    score = (0, "MOD", "L2", None, None)
    assert page.lines("accuracy", None)[score] == [0.1] * 7 + [0.96] * 3
    assert page.lines("chance_accuracy", None)[score] == [0.1] * 10


@given(
    st.lists(
        st.none()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.integers(1, 10**6).map(lambda n: (2 * n + 1) / 2e5)
        | st.integers(10**4, 10**6).map(lambda n: n + 0.5)
    )
)
def test_a_packed_number_is_the_tables_to_five_digits(values: list[float | None]) -> None:
    given_values = np.array([np.nan if value is None else value for value in values])
    assert [f"{value:.5g}" for value in unpack(pack(given_values))] == [f"{value:.5g}" for value in given_values]


def test_an_infinite_number_is_not_packed() -> None:
    with pytest.raises(ValueError, match="infinite"):
        pack(np.array([1.0, np.inf]))


def test_one_file_no_network_and_only_its_own_scripts(tmp_path: Path) -> None:
    out = build_report(two_runs(tmp_path), tmp_path / "report.html")
    assert out.stat().st_size < 4_000_000
    page = Page(out)
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "connect-src 'none'" in policy
    allowed = set(re.findall(r"'sha256-([^']+)'", policy))
    # the page's own script, and the drawing library that it unpacks
    library = zlib.decompress(base64.b64decode(page.block("plotly"))).decode()
    run = [
        source
        for (_, attributes), source in zip(page.script_tags, page.scripts, strict=True)
        if "type" not in attributes
    ]
    assert len(run) == 1
    assert {
        base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() for source in [*run, library]
    } == allowed
    for tag, attributes in page.tags:
        assert "src" not in attributes
        assert tag not in {"img", "iframe", "object", "embed", "form", "base"}
        if tag == "link":
            assert attributes["href"] == "data:,"
    again = build_report([tmp_path / "ours", tmp_path / "text"], tmp_path / "again.html")
    assert again.read_bytes() == out.read_bytes()


def hostile(folder: Path) -> Path:
    rows = planted.rows({ATTACK: Plant()}, run=ATTACK, series=ATTACK, size=ATTACK, levels=(ATTACK,), regime=ATTACK)
    rows = [
        row._replace(value=None, status="nonfinite", reason=ATTACK) if row.step == 700 and row.site else row
        for row in rows
    ]
    folder = planted.write_run(folder, rows)
    manifest = json.loads((folder / "manifest.json").read_text())
    for key in ("name", "kind", "status", "series"):
        manifest[key] = ATTACK
    manifest["provenance"] = {key: ATTACK for key in manifest["provenance"]}
    manifest["model"] = {key: ATTACK for key in manifest["model"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_strangers_text_stays_text(tmp_path: Path) -> None:
    other = planted.write_run(
        tmp_path / "b", planted.rows(run=f"b{ATTACK}", **{k: TEXT[k] for k in ("series", "regime")})
    )
    page = Page(build_report([hostile(tmp_path / "a"), other], tmp_path / "report.html"))
    assert len([tag for tag in page.script_tags if "type" not in tag[1]]) == 1
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    # shown as it was written, template marks included
    assert page.text.count("{{ 7*7 }}") > 10


@pytest.mark.parametrize("value", [None, [], "text", 7, {"git_commit": {"a": 1}, "git_dirty": "yes"}])
def test_a_manifest_may_hold_anything(tmp_path: Path, value: object) -> None:
    rows = planted.rows(steps=[0])
    folder = planted.write_run(tmp_path / "run", rows, provenance=value, model=value, checkpoints=value, training=value)
    assert "nano-42" in Page(build_report([folder], tmp_path / "r.html")).text


def test_one_checkpoint(tmp_path: Path) -> None:
    folder = planted.write_run(tmp_path / "run", planted.rows(steps=[0]), consolidate=False)
    page = Page(build_report([folder], tmp_path / "report.html"))
    assert (
        "Acquisition cannot be read from this run: too few checkpoints with a value: 1, and the rule needs 3 in a row."
        in page.text
    )
    assert (
        "A floor cannot be read from this run (Covariance effective rank (σ²) after the last block): "
        "too few checkpoints with a value in steps 0-10000: 1" in page.text
    )
    assert page.data["floors"] == {}


def test_no_geometry_and_no_scores(tmp_path: Path) -> None:
    scores = planted.write_run(tmp_path / "scores", planted.rows(geometry=False))
    page = Page(build_report([scores], tmp_path / "scores.html"))
    assert "No rank measure was taken" in page.text
    assert "There are no curves by layer: no measure was taken at a layer." in page.text
    assert not [column for column in page.data["columns"] if column["layered"]]
    states = planted.write_run(tmp_path / "states", [row for row in planted.rows() if row.site])
    page = Page(build_report([states], tmp_path / "states.html"))
    assert "No accuracy was measured" in page.text
    assert "There are no scores: none was taken." in page.text
    assert [column["measure"] for column in page.data["columns"]] == [
        "covariance_effective_rank", "rankme", "participation_ratio",
    ]  # fmt: skip


def test_nothing_but_nonfinite_rows(tmp_path: Path) -> None:
    rows = [
        row._replace(value=None, status="nonfinite", reason="weights hold NaN")
        for row in planted.rows(steps=[0, 100, 200, 300])
    ]
    page = Page(build_report([planted.write_run(tmp_path / "run", rows)], tmp_path / "report.html"))
    assert f"{len(rows)} of {len(rows)} observations have no value (steps affected: 4)" in page.text
    assert ["nano-42", "100", "nonfinite", "weights hold NaN", str(len(rows) // 4), "MOD"] in [r[:6] for r in page.rows]
    assert all(np.isnan(values).all() for values in page.lines("rankme").values())
    # 4 checkpoints, 3 sites
    assert page.data["columns"][0]["why"] == [[0, "MOD", "12 observations are nonfinite (weights hold NaN)"]]
    assert ["nano-42", "nonfinite", "4", "0, 100, 200, 300", "weights hold NaN"] in page.rows
    assert "NaN%" not in page.text


def test_runs_of_other_depth_size_and_name(tmp_path: Path) -> None:
    ours = planted.write_run(tmp_path / "a" / "nano", planted.rows())
    deep = planted.rows(layers=24, size="pythia-410m", seed=None, regime="naturalistic", tokens_per_step=None)
    page = Page(build_report([ours, planted.write_run(tmp_path / "b" / "deep", deep)], tmp_path / "report.html"))
    # both runs are called nano-42: their folders tell them apart
    assert [(run["label"], run["depth"]) for run in page.data["runs"]] == [
        ("nano-42 (nano)", 2),
        ("nano-42 (deep)", 24),
    ]
    assert len([line for line in page.lines("rankme") if line[0] == 1]) == 25
    assert "has 2 blocks and nano-42 (deep) 24: only the last block and the final LayerNorm are aligned." in page.text
    heads = [row for row in page.rows if row[:2] == ["Task", "Level"] and "log-prob midpoint" in row]
    assert ["published" in head for head in heads] == [True, False]


def test_a_floor_of_either_spectrum_comes_with_its_own_reason(tmp_path: Path) -> None:
    rows = planted.rows({"MOD": Plant(), "ADD": Plant()}, steps=[0, 100, 200, 300, 400, 500])
    rows = [
        row._replace(value=1.0) if (row.measure, row.task, row.step) == ("rankme", "MOD", 500) else row for row in rows
    ]
    page = Page(build_report([planted.write_run(tmp_path / "run", rows)], tmp_path / "report.html"))
    floor = next(row for row in page.rows if row[0] == "MOD" and "2.00 at 300" in row)
    assert floor[6] == "1.00 at 500 (at-edge)"
    assert floor[-1].endswith("σ: it is the last checkpoint of the window, so the minimum may lie outside")


def test_scores_of_no_task_or_level_are_shown(tmp_path: Path) -> None:
    rows = [
        row._replace(task=None, level=None, probe_set=None)
        for row in planted.rows(levels=("L1",), geometry=False, size="own")
    ]
    page = Page(build_report([planted.write_run(tmp_path / "run", rows)], tmp_path / "report.html"))
    assert ["", "", "900", "900", "900", "900"] in page.rows


def test_the_held_out_loss_is_drawn(tmp_path: Path) -> None:
    loss = [
        planted.observation(
            step=step, task=None, level=None, probe_set=None, measure="held_out_loss", value=3 - step / 1e3
        )
        for step in (0, 100, 200)
    ]
    folder = planted.write_run(tmp_path / "run", [*planted.rows(steps=[0, 100, 200]), *loss])
    page = Page(build_report([folder], tmp_path / "report.html"))
    assert page.lines("held_out_loss", None) == {(0, None, None, None, None): [3.0, 2.9, 2.8]}


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    run = planted.write_run(tmp_path / "run", planted.rows(steps=[0]))
    with pytest.raises(UserError, match="a report needs at least one run folder"):
        build_report([], tmp_path / "report.html")
    with pytest.raises(UserError, match=r"run is given twice"):
        build_report([run, tmp_path / "x" / ".." / "run"], tmp_path / "report.html")
    with pytest.raises(UserError, match=r"is not a run folder: it has no manifest\.json"):
        build_report([tmp_path / "nothing"], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_curves_are_chosen_and_what_does_not_fit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = planted.rows(steps=[0, 100, 200], readouts=("answer/centred", "last/centred"))
    run = planted.write_run(tmp_path / "run", rows)
    page = Page(build_report([run], tmp_path / "r.html", measures=["rankme"], readouts=["last/centred"]))
    assert [(column["measure"], column["readout"]) for column in page.data["columns"]] == [("rankme", "last/centred")]
    with pytest.raises(UserError, match=r"no run has measure 'rankmee'.*did you mean 'rankme'"):
        build_report([run], tmp_path / "r.html", measures=["rankmee"])
    found = columns(open_runs([run]))
    whole = pack_columns(found)
    assert whole[2] == []
    entries, blocks, left_out = pack_columns(found, budget=len(whole[1][0]) + 1)
    assert (len(entries), len(blocks)) == (1, 1)
    assert left_out[0] == "covariance_effective_rank last/centred"
    assert len(left_out) == len(found) - 1


def test_an_infinite_standard_error_of_a_strangers_table_is_a_gap(tmp_path: Path) -> None:
    run = planted.write_run(tmp_path / "run", planted.rows(steps=[0, 100, 200]))
    path = run / "observations.parquet"
    table = pl.read_parquet(path).with_columns(pl.lit(float("inf")).alias("stderr"))
    pq.write_table(table.to_arrow().replace_schema_metadata({SCHEMA_KEY: b"1"}), path)
    page = Page(build_report([run], tmp_path / "r.html"))
    assert not any(column["errors"] for column in page.data["columns"])


def test_every_measure_has_its_sentence() -> None:
    names = {*load_measures(), *LANDSCAPE_MEASURES}
    names |= {PROBE, CONTROL, SELECTIVITY, MODEL, MAJORITY, ANSWER, ANSWER_MODEL}
    names |= {
        "accuracy",
        "accuracy_normalised",
        "log_prob",
        "perplexity",
        "chance_accuracy",
        "majority_rate",
        "held_out_loss",
    }
    assert names <= set(measure_definitions())


def test_a_run_that_never_fell_says_so_and_a_shared_note_is_said_once(tmp_path: Path) -> None:
    rows = planted.rows({"MOD": Plant(low=2.0), "ADD": Plant(low=2.0)}, steps=[0, 100, 200, 300])
    backwards = {0: 300, 100: 200, 200: 100, 300: 0}
    rows = [row._replace(step=backwards[row.step], weight_sha=f"s{backwards[row.step]}") for row in rows]
    page = Page(build_report([planted.write_run(tmp_path / "run", rows)], tmp_path / "report.html"))
    assert "falls for no task: every one is lowest at the first checkpoint" in page.text
    assert page.text.count("billa-v1: too few checkpoints with a value: 4, and the rule needs 5 in a row") == 1
    assert page.text.count("no fall was seen and the minimum may lie outside") == 1


# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB
VISION = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    "all cones": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
}


def cielab(colour: str, vision: str) -> np.ndarray:
    """CIE L*a*b* (D65) of an sRGB colour as a kind of vision has it."""
    srgb = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(VISION[vision]) @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ seen / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize(("theme", "ground"), [("light", "#ffffff"), ("dark", "#14181c")])
def test_any_two_colours_are_told_apart(theme: str, ground: str, vision: str) -> None:
    page = Path(__file__).parents[2] / "pythiageo" / "report" / "page"
    assert f"--bg: {ground}" in (page / "report.css").read_text(encoding="utf-8")
    source = (page / "theme.js").read_text(encoding="utf-8")
    palette = re.search(theme + r": \{ categories: \[([^\]]+)\]", source)
    assert palette is not None
    colours = [*re.findall("#[0-9a-fA-F]{6}", palette[1]), ground]
    assert len(colours) == 8
    if theme == "light":
        assert colours[:7] == list(CATEGORIES)  # files and page agree
    for first, second in combinations(colours, 2):
        # 2.3 is a just noticeable difference
        assert np.linalg.norm(cielab(first, vision) - cielab(second, vision)) > 10, (first, second)


def test_what_was_left_out_by_name_is_on_the_page(tmp_path: Path) -> None:
    remark = (
        "2 of 9 revisions are left out, not named by a step that is read: <soup>, it-SFT (--step-pattern)" + " x" * 90
    )
    planted.write_run(tmp_path / "run", planted.rows(steps=(0, 100)), remarks=[remark])
    text = build_report([tmp_path / "run"], tmp_path / "report.html").read_text(encoding="utf-8")
    assert remark.replace("<soup>", "&lt;soup&gt;") in text
