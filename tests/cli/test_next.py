"""Which command is worth typing next, when many runs were named."""

from __future__ import annotations

from pythiageo.cli.results import named


def test_many_runs_are_not_typed_again() -> None:
    assert named(["a run", "b"]) == "'a run' b"
    assert named([f"run-{number}" for number in range(14)]) == "RUN..."
