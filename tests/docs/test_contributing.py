"""The recipes of CONTRIBUTING.md, word by word: its files are an installed package outside the tree that adds them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tinyseries import write_series

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"```(?:toml|python)\n# (\S+)\n(.*?)```", TEXT, flags=re.DOTALL))
RUN = """
import contextlib, io, json, sys
from pythiageo.cli.app import run
for arguments in json.loads(sys.stdin.read()):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = run(arguments)
        except Exception as error:
            import traceback
            code = traceback.format_exc()
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""


def install(site: Path, files: dict[str, str]) -> None:
    """Put the files where an installer would, with the entry points of their pyproject.toml."""
    for name, content in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(content, encoding="utf-8")
    project = tomllib.loads(files["pyproject.toml"])["project"]
    facts = site / f"{project['name']}-{project['version']}.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        for group, points in project["entry-points"].items()
    ]
    (facts / "entry_points.txt").write_text("\n".join(groups))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("outside")
    install(root / "site", FILES)
    (root / "site" / "extra" / "__init__.py").touch()
    write_series(root / "folders", [0, 1, 2])
    (root / "nano").mkdir()
    for folder in (root / "folders").iterdir():
        shutil.make_archive(str(root / "nano" / folder.name), "zip", folder)
    rows = [{"step": step, "task": "sciq", "measure": "accuracy", "value": step / 10} for step in (0, 1, 2)]
    (root / "results.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def commands(place: Path, *lines: str, site: str = "site") -> list[tuple[Any, str, str]]:
    """Run command lines in one process in which the package is installed; return codes and what each printed."""
    path = os.pathsep.join(filter(None, [str(place / site), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps([line.split() for line in lines]),
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=600, cwd=place, check=True,
    )  # fmt: skip
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def fine(place: Path, *lines: str) -> list[tuple[str, str]]:
    found = commands(place, *lines)
    assert [(line, code, err) for line, (code, _, err) in zip(lines, found, strict=True) if code != 0] == []
    return [(out, err) for _, out, err in found]


TAKE = "--tasks DOUBLE,MOD --measures nuclear_rank,rankme --readouts answer/centred --examples 2 --name run"
ANALYZE = f"analyze packed:nano {TAKE} --quiet"
FEW = "analyze --tasks DOUBLE --readouts answer/centred --measures rankme --quiet --name few"
EVENTS = """
import json
from pythiageo import open_run
run = open_run("run")
found = run.events("billa-v4", measure="nuclear_rank").filter(event="floor")
print(json.dumps([found.to_dicts(), run.observations.filter(measure="nuclear_rank").height]))
"""


def test_every_recipe_is_whole() -> None:
    assert set(FILES) == {
        "pyproject.toml", "extra/tasks/double.toml", "extra/nuclear_rank.py", "extra/packed.py", "extra/json_lines.py"
    }  # fmt: skip


def test_a_measure_a_task_and_a_source_go_through_every_command(place: Path) -> None:
    listed, tasks, checked, shown, dry, planned, few, *_ = fine(
        place,
        "measures --json", "tasks list --json", "tasks check site/extra/tasks/double.toml", "tasks show DOUBLE",
        f"{ANALYZE} --dry-run", f"{ANALYZE.replace('analyze', 'plan')} --set fetch.disk_budget=50MB --json",
        f"{FEW} packed:nano --out few-packed", f"{FEW} folders --out few-folders",
        f"{ANALYZE} --set fetch.disk_budget=50MB --out run",
        "published run --measure nuclear_rank --json", "claims run --measure nuclear_rank --json",
        "report run --out run.html", "export run --format csv", "runs show run",
    )  # fmt: skip
    assert "nuclear_rank" in [one["name"] for one in json.loads(listed[0])["geometry"]]
    assert json.loads(tasks[0])[-1]["levels"]["L1"]["items"] == 2
    assert "DOUBLE L1 is sound" in checked[0]
    assert "twice a number" in shown[0]
    assert dry[1] == ""
    plan = json.loads(planned[0])
    assert plan["to_measure"] == 3
    assert plan["download_bytes"] > plan["largest_bytes"] > 10_000
    assert "Nuclear rank: (Σσ)² / Σσ²." in (place / "run.html").read_text(encoding="utf-8")
    manifest = json.loads((place / "run" / "manifest.json").read_text())
    assert [one["status"] for one in manifest["checkpoints"]] == ["ok"] * 3
    assert manifest["provenance"]["packages"]["extra"] == "1.0"
    assert not (place / "run" / "downloads").exists()
    done = subprocess.run(
        [sys.executable, "-c", EVENTS], env={**os.environ, "PYTHONPATH": str(place / "site")}, capture_output=True,
        text=True, timeout=120, cwd=place, check=True,
    )  # fmt: skip
    floors, count = json.loads(done.stdout)
    assert {row["task"] for row in floors} == {"DOUBLE", "MOD"}
    assert all(row["reason"] is None or "no measure" not in row["reason"] for row in floors)
    assert count == 2 * 3 * 3
    assert "task DOUBLE, level L1: 2 examples, as many as there are, not 200" in few[1]
    manifest = json.loads((place / "few-packed" / "manifest.json").read_text())
    assert {(one["examples"], one["asked"]) for one in manifest["probe_sets"]} == {(2, 200)}
    one, other = (
        pl.read_parquet(place / out / "observations.parquet").drop("series", "size", "tokens")
        for out in ("few-packed", "few-folders")
    )
    assert one.equals(other)  # what a source fetches measures as the same folders do


def test_other_peoples_results_become_a_run(place: Path) -> None:
    fine(place, "import results.jsonl --out imported", "report imported --out imported.html", "runs show imported")
    (place / "bad.jsonl").write_text('{"step": 1, "measure": "accuracy", "vaule": 0.5}')
    ((code, _, err),) = commands(place, "import bad.jsonl --out never")
    assert (code, (place / "never").exists()) == (2, False)
    assert "observations have no 'vaule' (did you mean 'value'?)" in err


@pytest.mark.slow
def test_the_workers_of_a_ray_cluster_have_all_of_it(place: Path) -> None:
    pytest.importorskip("ray")
    fine(place, f"{ANALYZE} --out local", f"{ANALYZE} --out ray --engine ray --address local")
    assert (place / "local" / "observations.parquet").read_bytes() == (
        place / "ray" / "observations.parquet"
    ).read_bytes()


@pytest.mark.parametrize(
    ("name", "before", "after", "line", "said"),
    [
        ("extra/packed.py", "    def describe(", "    def describes(", "plan packed:nano", "has no describe"),
        ("extra/packed.py", "    def steps(", "    def stepps(", "analyze packed:nano", "has no steps"),
        ("extra/packed.py", "import hashlib", "import hashlibb", "analyze packed:nano", "No module named 'hashlibb'"),
        ("pyproject.toml", "extra.tasks", "extra.taskss", "tasks list", "there is no package extra.taskss"),
        ("extra/nuclear_rank.py", "MEASURE =", "MEASUER =", "measures", "gives no MEASURE"),
        (
            "extra/nuclear_rank.py",
            'name="nuclear_rank"',
            'name="rankme"',
            "measures",
            "two measures are called 'rankme'",
        ),
    ],
)
def test_a_mistake_in_a_package_is_one_sentence(
    place: Path, tmp_path: Path, name: str, before: str, after: str, line: str, said: str
) -> None:
    install(tmp_path / "site", {**FILES, name: FILES[name].replace(before, after, 1)})
    (tmp_path / "site" / "extra" / "__init__.py").touch()
    ((code, _, err),) = commands(place, f"{line} --quiet" if "packed" in line else line, site=str(tmp_path / "site"))
    assert code == 2, err
    assert said in err
    assert err.startswith("pythiageo: ")
    assert err.count("\n") == 1
    assert not list((place / "outputs").glob("*"))
