"""Which command is worth typing next: of many runs, and of runs whose rank is not RankMe."""

from __future__ import annotations

from pathlib import Path

import pytest

from pythiageo.cli.app import run as cli
from pythiageo.cli.results import named

REFERENCE = Path(__file__).parents[2] / "outputs" / "reference" / "nano-s42"


def test_many_runs_are_not_typed_again() -> None:
    assert named(["a run", "b"]) == "'a run' b"
    assert named([f"run-{number}" for number in range(14)]) == "RUN..."


@pytest.mark.parametrize(
    ("measures", "rank"),
    [
        ("accuracy,rankme,covariance_effective_rank", "covariance_effective_rank"),
        ("accuracy,rankme", "rankme"),
        ("accuracy", None),
    ],
)
def test_a_report_goes_on_with_the_rank_that_the_run_has(
    measures: str, rank: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, page = tmp_path / "run", tmp_path / "page.html"
    assert cli(["runs", "excerpt", str(REFERENCE), "--out", str(run), "--measures", measures]) == 0
    page.write_text("a page, which other tests read")
    monkeypatch.setattr("pythiageo.report.build_report", lambda *_: page)
    capsys.readouterr()
    assert cli(["report", str(run)]) == 0
    said = capsys.readouterr().err
    assert f"claims {run}" in said
    assert (f"plot {run} --measure {rank} --by layer" if rank else "next:") in said
    assert ("plot" in said) == (rank is not None)
