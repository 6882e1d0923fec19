"""One plot by one grammar: planted numbers are in it, choices are named, and files are as a journal wants them."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import planted
import pytest
from planted import Plant

import pythiageo
from pythiageo import UserError
from pythiageo.cli.app import run as cli
from pythiageo.events.run import open_runs
from pythiageo.figures.axes import colour_of
from pythiageo.figures.spec import Plot
from pythiageo.observations.measures import declared_measures

STEPS = (0, 100, 200, 300, 400, 1000)
PLANTS = {"ADD": Plant(None, 400, low=4.0), "MOD": Plant(900, 300)}


def write(folder: Path, name: str = "nano-42", **shared: Any) -> Path:
    """A planted run; ``rise`` is added to every rank."""
    changed = {key: shared.pop(key) for key in ("config",) if key in shared}
    rise, steps, layers = shared.pop("rise", 0.0), shared.pop("steps", STEPS), shared.pop("layers", 2)
    readouts = shared.pop("readouts", ("answer/centred",))
    rows = planted.rows(PLANTS, steps, layers=layers, readouts=readouts, run=name, series=name, **shared)
    rows = [row._replace(value=row.value + rise) if row.site and row.value else row for row in rows]
    return planted.write_run(folder / name, rows, **changed)


def lines(plot: Plot, panel: int = 0) -> dict[str, tuple[list[float], list[float | None]]]:
    return {line.name: (list(line.x), list(line.y)) for line in plot.panels[panel].lines}


def test_by_step_a_line_is_a_layer_and_a_panel_a_task(tmp_path: Path) -> None:
    plot = pythiageo.plot(write(tmp_path), "rankme")
    assert [panel.title for panel in plot.panels] == ["ADD", "MOD"]
    found = lines(plot, 1)
    assert list(found) == ["block 0", "block 1", "final LayerNorm"]
    ranks = [2.5 * PLANTS["MOD"].rank(step) for step in STEPS]
    assert found["block 1"] == (list(STEPS), ranks)
    assert found["block 0"][1] == [rank + 7.5 for rank in ranks]
    assert plot.panels[0].y.title == "RankMe (dimensions)"
    # panels share their axes and their colours
    assert plot.panels[0].y == plot.panels[1].y
    assert [line.colour for line in plot.panels[0].lines] == ["depth-0.000", "depth-1.000", "final"]
    assert "Run nano-42, tasks ADD, MOD, readout answer/centred" in plot.caption
    assert "a tick under it for each of 6 checkpoints" in plot.caption
    assert plot.said == ()


def test_by_layer_a_line_is_a_checkpoint_and_the_choice_is_named(tmp_path: Path) -> None:
    run = write(tmp_path, steps=range(0, 2001, 100), layers=3)
    plot = pythiageo.plot(run, "covariance_effective_rank", "layer", task="MOD")
    assert plot.said == ("steps: 0, 100, 200, 500, 1,000, 2,000, 6 of 21 (--steps)",)
    few = pythiageo.plot(run, "covariance_effective_rank", "layer", task="MOD", steps="300")
    assert [(list(line.x), list(line.y), line.mode) for line in few.panels[0].lines] == [
        ([0, 1, 2], [8.0, 5.0, 2.0], None), ([3], [2.5], "markers"),
    ]  # fmt: skip
    assert few.panels[0].x.ticks == ((0, "0"), (1, "1"), (2, "2"), (3, "LN"))


def test_runs_of_other_depths_meet_at_relative_depth(tmp_path: Path) -> None:
    runs = [write(tmp_path), write(tmp_path, "micro-42", layers=3, size="micro")]
    plot = pythiageo.plot(runs, "rankme", "layer", task="MOD", steps=[300], layers="all")
    assert list(plot.panels[0].lines[0].x) == [0, 1]
    assert list(plot.panels[0].lines[2].x) == [0, 0.5, 1]
    last = pythiageo.plot(runs, "rankme", task="MOD", layers="last")
    assert list(lines(last)) == ["nano-42", "micro-42"]
    assert "after the last block" in last.caption


@pytest.mark.parametrize(("by", "names"), [("task", ("ADD", "MOD")), ("run", ("nano-42", "nano-7"))])
def test_by_task_and_by_run_take_the_last_step_and_block(tmp_path: Path, by: str, names: tuple[str, ...]) -> None:
    runs = [write(tmp_path), write(tmp_path, "nano-7", seed=7, rise=1.0)]
    plot = pythiageo.plot(runs, "rankme", by)
    assert plot.panels[0].x.names == names
    values = {(line.name, round(x)): y for line in plot.panels[0].lines for x, y in zip(line.x, line.y, strict=True)}
    first = 2.5 * PLANTS["ADD"].rank(1000)
    assert values[("nano-42", 0) if by == "task" else ("ADD", 0)] == first
    assert values[("nano-7", 0) if by == "task" else ("ADD", 1)] == first + 1.0
    assert any(text.startswith("layer: each run's last block") for text in plot.said)
    assert any(text.startswith("step: the last with a value, 1,000") for text in plot.said)


def test_seeds_are_their_mean_and_range_where_all_have_a_value(tmp_path: Path) -> None:
    config = {"training": {"steps": 100, "checkpoints": "0-10"}}
    runs = [
        write(tmp_path, f"nano-{seed}", seed=seed, rise=rise, steps=steps, config=config)
        for seed, rise, steps in ((1, 0.0, STEPS), (2, 1.0, STEPS), (3, 5.0, STEPS[:-1]))
    ]
    plot = pythiageo.plot(runs, "covariance_effective_rank", task="MOD", seeds="band")
    line = plot.panels[0].lines[1]
    assert (line.name, line.band) == ("block 1", True)
    assert list(line.x) == list(STEPS[:-1])  # one seed has no step 1,000: a mean of two would jump there
    base = [PLANTS["MOD"].rank(step) for step in STEPS[:-1]]
    assert list(line.y) == pytest.approx([value + 2.0 for value in base], rel=1e-14)
    assert (list(line.low or ()), list(line.high or ())) == (base, [value + 5.0 for value in base])
    assert "not drawn: 3 of 18 observations have no value (3 not every seed)" in plot.said
    assert "band: from the lowest to the highest" in plot.caption
    assert "nano (3 seeds)" in plot.caption


def test_only_runs_that_differ_in_seed_alone_are_one_band(tmp_path: Path) -> None:
    ours = write(tmp_path, config={"training": {"weight_decay": 0.1}})
    for name, changed, said in (
        ("same", {}, "same has seed 42 as nano-42 has"),
        (
            "other",
            {"seed": 1, "config": {"training": {"weight_decay": 0.3}}},
            "training.weight_decay is 0.1 in nano-42",
        ),
        ("large", {"size": "large"}, "expected runs of one size and regime that differ in seed"),
        ("none", {"seed": None}, "none has no seed"),
    ):
        with pytest.raises(UserError, match=re.escape(said)):
            pythiageo.plot([ours, write(tmp_path, name, **changed)], "rankme", seeds="band")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"measure": "rankmee"}, "no measure 'rankmee' here (did you mean 'rankme'?)"),
        ({"task": "ADDD"}, "no task 'ADDD'"),
        ({"by": "tokens"}, "--by: no 'tokens'; there are step, layer, task, run"),
        ({"readout": "last/centred", "hue": "step"}, "it lies along x"),
        ({"readout": "answer"}, "there are equals/centred, last/centred"),
        ({}, "rankme was taken under equals/centred, last/centred: say which"),
        ({"readout": "last/centred", "layers": "7"}, "the blocks are 0 to 1"),
        ({"readout": "last/centred", "layers": "first"}, "'first' is no layer; expected all"),
        ({"readout": "last/centred", "site": "hook_mlp_out"}, "there are residual, last-block, final-ln"),
        ({"readout": "last/centred", "steps": [50]}, "there are 0 to 1000"),
        ({"readout": "last/centred", "out": "x.pgn"}, "there are .png, .svg, .pdf, .html"),
    ],
)
def test_what_is_not_there_or_ambiguous_is_a_sentence_with_the_choices(
    tmp_path: Path, asked: dict[str, Any], said: str
) -> None:
    run = write(tmp_path, readouts=("equals/centred", "last/centred"))
    with pytest.raises(UserError, match=re.escape(said)):
        pythiageo.plot(run, **{"measure": "rankme", **asked})


def test_more_panels_than_a_page_holds_are_refused(tmp_path: Path) -> None:
    rows = planted.rows({f"T{number}": Plant() for number in range(25)}, steps=[0, 100])
    run = planted.write_run(tmp_path / "many", rows)
    with pytest.raises(UserError, match=r"that would be 25 panels \(25 tasks\), and 24 are the most"):
        pythiageo.plot(run, "rankme")


def test_rows_without_a_value_are_counted_and_levels_are_lines(tmp_path: Path) -> None:
    rows = planted.rows(PLANTS, STEPS)
    bad = [
        row._replace(value=None, status="nonfinite", reason="NaN")
        if row.step == 200 and row.measure == "accuracy"
        else row
        for row in rows
    ]
    plot = pythiageo.plot(planted.write_run(tmp_path / "run", bad), "accuracy", task="MOD")
    assert list(lines(plot)) == ["L1", "L2", "L3"]
    assert 200 not in lines(plot)["L2"][0]
    assert "not drawn: 3 of 18 observations have no value (3 nonfinite)" in plot.said
    assert len({line.colour for line in plot.panels[0].lines}) == 3
    with pytest.raises(UserError, match="nothing to draw: 3 of 3 observations have no value"):
        pythiageo.plot(tmp_path / "run", "accuracy", task="MOD", steps=[200])


def test_files_have_their_inches_and_fonts_and_no_title(tmp_path: Path) -> None:
    run, out = write(tmp_path), tmp_path / "out"
    files = [out / f"fig.{ending}" for ending in ("pdf", "png", "svg")]
    plot = pythiageo.plot(run, "rankme", task="MOD", out=files, width="column")
    pdf, png, svg = (path.read_bytes() for path in files)
    # 3.25 in of 72 points, and of 300 dots
    assert re.search(rb"/MediaBox \[ ?0 0 234 ", pdf)
    assert struct.unpack(">I", png[16:20]) == (975,)
    assert b'width="234pt"' in svg
    assert b"/FontFile2" in pdf  # TrueType, embedded
    assert b"/Type3" not in pdf
    assert b"nano-42" not in svg
    assert (out / "fig.txt").read_text(encoding="utf-8") == plot.text + "\n"
    pythiageo.plot(run, "rankme", task="MOD", out=tmp_path / "again.pdf", width=3.25)
    assert (tmp_path / "again.pdf").read_bytes() == pdf
    with pytest.raises(UserError, match=r"column \(3.25 in\), text \(5.5 in\)"):
        pythiageo.plot(run, "rankme", out=tmp_path / "bad.pdf", width="wide")
    assert plot._repr_png_().startswith(b"\x89PNG")


def test_step_0_has_a_place_and_checkpoints_have_ticks(tmp_path: Path) -> None:
    pythiageo.plot(write(tmp_path, steps=(0, 1000, 2000, 4000)), "rankme", task="MOD", out=tmp_path / "fig.svg")
    svg = (tmp_path / "fig.svg").read_text(encoding="utf-8")
    texts = re.findall(r">([^<>]+)</text>", svg)
    assert {"0", "1K", "training step"} <= set(texts)
    marks = re.search(r'<g id="line2d_\d+">\s*<defs>.*?</g>\s*</g>', svg, re.DOTALL)
    assert marks


def test_every_measure_has_a_title() -> None:
    assert all(measure.title and len(measure.title) < 60 for measure in declared_measures().values())
    assert colour_of("ink") == "#1d2126"


@pytest.mark.slow
def test_the_command_writes_says_and_loads_no_torch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write(tmp_path, readouts=("answer/centred", "last/centred"))
    out = tmp_path / "fig.svg"
    code = (
        "import sys; from pythiageo.cli.app import run; code = run(sys.argv[1:]); "
        "assert not {'torch', 'transformers', 'sklearn'} & sys.modules.keys(); sys.exit(code)"
    )
    arguments = ["plot", str(run), "--measure", "rankme", "--by", "layer", "--task", "ADD", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert str(out) in done.stdout
    assert "readout: answer/centred, one of 2 (--readout)" in done.stdout
    assert cli(["plot", str(run), "--measure", "rankme", "--seeds", "mean"]) == 2
    assert "expected separate or band" in capsys.readouterr().err
    assert open_runs([run])[0].label == "nano-42"
