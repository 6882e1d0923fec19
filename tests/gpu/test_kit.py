"""The GPU kit without a GPU: every part runs on the CPU with tiny models, and a cut leaves what was found."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.kit.__main__ import Part, parts, run
from tests.gpu.kit.results import Results

ROOT = Path(__file__).parents[2]


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
