"""The GPU kit without a GPU: every part runs on the CPU with tiny models, and a cut leaves what was found."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pythiageo.estimate.card import CARDS
from tests.gpu.kit.__main__ import Part, main, parts, run
from tests.gpu.kit.results import Results
from tests.gpu.kit.summary import HEADINGS, summarize

ROOT = Path(__file__).parents[2]
SHIPPED = [json.loads(line) for line in (CARDS / "h200.jsonl").read_text().splitlines()]


def found(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_every_part_runs_on_the_cpu(tmp_path: Path) -> None:
    """The correctness part is left out: its tests take a minute, and run by themselves (``make gpu-rehearsal``)."""
    command = [sys.executable, "-m", "tests.gpu.kit", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    only = ["--only", "price,shapes,small-42"]
    done = subprocess.run([*command, "--device", "cpu", "--rehearse", *only], cwd=ROOT, check=False, timeout=500)
    assert done.returncode == 0, (tmp_path / "out/log.txt").read_text()[-3000:]
    lines = found(tmp_path / "out")
    assert [line["part"] for line in lines if line.get("ended") == 0] == ["price", "shapes", "small-42"]
    (shape,) = [line for line in lines if "shape" in line]
    assert (shape["exit_code"], shape["parameters"] > 0, shape["rows"] > 0) == (0, True, True)
    assert shape["plan"]["memory_peak_bytes"] > 0
    assert {line["dtype"] for line in lines if "study_hours" in line} == {"float32", "bfloat16"}
    assert {line["dtype"] for line in lines if "step" in line and "cheap" not in line} == {"float32", "bfloat16"}
    table = (tmp_path / "out/summary.txt").read_text()
    assert all(f"part {name}" in table for name in ("price", "shapes", "small-42"))
    assert "nano, bfloat16, not recorded" in table
    with tarfile.open(tmp_path / "out/small-42.tar.xz") as tar:
        assert {"small-42/manifest.json", "small-42/observations.parquet"} <= set(tar.getnames())


def test_a_part_that_takes_too_long_is_cut_and_what_it_found_stays(tmp_path: Path) -> None:
    results = Results(tmp_path)
    own = f'import sys; open({str(tmp_path / "results.jsonl")!r}, \'a\').write(\'{{"part": "p", "x": 1}}\\n\')'
    run(Part("p", ["-c", f"{own}; import time; time.sleep(60)"], 60), "cpu", 2.0, results)
    first, last = found(tmp_path)
    assert (first["x"], last["ended"]) == (1, "cut")
    run(Part("q", ["-c", "raise SystemExit(3)"], 60), "cpu", 60, results)
    assert results.show() == 1


def test_a_part_that_there_is_not_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["kit", "--out", str(tmp_path / "out"), "--only", "price, shape"])
    with pytest.raises(SystemExit):
        main()
    assert "no part shape; there are correctness, rates, price, shapes, small-42" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_summary_says_where_each_figure_belongs(tmp_path: Path) -> None:
    page = (ROOT / "docs/gpu.md").read_text()
    for heading in HEADINGS.values():
        assert f"\n## {heading}\n" in page or f"**{heading}" in page, heading
    shape: dict[str, Any] = {"shape": "70m", "seconds": 9.0, "plan": {"checkpoint_seconds": 7.0}, "gpu_peak": 4 * 10**8}
    lines: list[dict[str, Any]] = [
        {"part": "machine", "card": "X", "torch": "2", "cores": 3},
        {"part": "price", "size": "nano", "dtype": "float32", "cuda_graphs": True, "step": 0.002},
        {"part": "price", "size": "nano", "dtype": "float32", "cuda_graphs": True, "step": 0.001},
        {"part": "price", "size": "xlarge", "dtype": "float32", "cuda_graphs": True, "error": "memory ran out"},
        {"part": "shapes", **shape, "not_ok": 0},
        {"part": "shapes", "shape": "2.8b", "error": "OutOfMemoryError"},
        {"part": "shapes", "ended": 1, "seconds": 30.2},
    ]
    rows = {what: (heading, figure) for heading, what, figure in summarize(lines)}
    assert rows["nano, float32, recorded"] == ("A training step", "1.00 ms")  # what was found last
    assert rows["70m"] == ("An analysis", "9.0 s (plan 7.0), 0.40 GB of the card, 0 rows without a value")
    assert rows["2.8b"] == ("An analysis", "failed: OutOfMemoryError")
    assert rows["part shapes"][1] == "failed, 1 in 30 s"
    assert rows["xlarge, float32"] == ("A training step", "failed: memory ran out")
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in SHIPPED))
    text = Results(tmp_path).summarize()
    assert "2300 x 2560, massive" in text
    assert "copies to the card, pinned" in text


def test_the_worth_of_a_part_is_its_place(tmp_path: Path) -> None:
    names = [part.name for part in parts("cuda", tmp_path, tmp_path, False)]
    assert names[:5] == ["correctness", "rates", "price", "shapes", "small-42"]


def test_the_wheels_are_of_versions_that_pythiageo_takes() -> None:
    from importlib.metadata import requires

    from packaging.requirements import Requirement

    wanted = {one.name: one.specifier for text in requires("pythiageo") or [] if (one := Requirement(text))}
    lines = (ROOT / "tests/gpu/wheels.txt").read_text().splitlines()
    for line in lines:
        if line.startswith("#"):
            continue
        name, version = line.split("==")
        assert name not in wanted or version in wanted[name], line
