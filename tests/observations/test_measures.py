"""What rooms that read the table know of a measure is what its file declares, and they load no torch for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import planted
import pytest
from planted import Plant

from pythiageo.cli.app import run as cli
from pythiageo.events import events, transitions
from pythiageo.geometry.measure import load_measures
from pythiageo.landscape.measures import LANDSCAPE_MEASURES
from pythiageo.observations.measures import declared_measures, find_declared, read_declarations
from pythiageo.probes.scoring import MEASURES as SCORES_OF_RULES


def test_declarations_are_those_of_the_code() -> None:
    declared = declared_measures()
    for name, measure in {**load_measures(), **LANDSCAPE_MEASURES}.items():
        assert (declared[name].definition, declared[name].transition) == (measure.definition, measure.transition)
        assert measure.definition
    for name, measure in load_measures().items():
        assert declared[name].kind == measure.kind
    assert {name for names in SCORES_OF_RULES.values() for name in names} <= declared.keys()


def test_no_library_is_loaded_for_them() -> None:
    code = (
        "import sys; from pythiageo.observations.measures import declared_measures; declared_measures();"
        "sys.exit(any(name in sys.modules for name in ('torch', 'pythiageo.geometry.measure')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_a_file_is_read_and_not_run(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "raise SystemExit\nMEASURE = Measure(name='mine', definition='half ' 'a sentence', kind='rank', cost=1)\n"
        "OTHER = Measure(name='nameless')\n"
    )
    (found,) = read_declarations(file, "geometry")
    assert (found.name, found.definition, found.is_rank) == ("mine", "half a sentence", True)
    assert found.transition == "half-way"


@pytest.mark.parametrize("measure", ["stable_rank", "participation_ratio"])
def test_every_rank_has_a_floor_and_a_minimum(measure: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        row._replace(measure=measure) if row.measure == "covariance_effective_rank" else row
        for row in planted.rows({"MOD": Plant()})
        if row.measure != measure
    ]
    folder = planted.write_run(tmp_path / "run", rows)
    table = planted.table(rows)
    floor = events(table, "billa-v4", measure=measure).filter(event="floor")
    assert floor["status"].to_list() == ["found"]
    moved = transitions(table, "billa-v4").filter(event="transition", measure=measure)
    assert set(moved["step"]) >= set(floor["step"])
    assert cli(["published", str(folder), "--measure", measure]) == 0
    assert measure in capsys.readouterr().out


def test_a_name_that_says_the_ranks_of_its_fit_is_declared_by_the_measure_before_them() -> None:
    known = find_declared("alpha_req_12_100")
    assert known is not None
    assert (known.name, known.title, known.kind) == ("alpha_req_12_100", "alpha-ReQ, ranks 12 to 100", "geometry")
    assert "j = 12 to 100" in known.definition
    assert "11 to 50" not in known.definition
    assert find_declared("alpha_req") == declared_measures()["alpha_req"]
    assert find_declared("nothing_12_100") is None
